"""Image sets: Helen, PASCAL VOC, a plain folder, rendered faces; and batches of them."""

from rfsearch.data.batches import IGNORE, Augment, Batches, eval_batches
from rfsearch.data.folder import Naming, read_folder
from rfsearch.data.helen import read_helen
from rfsearch.data.image_set import ImageSet, Split
from rfsearch.data.labels import LabelRule
from rfsearch.data.pictures import PictureRule
from rfsearch.data.rendered_faces import rendered_faces
from rfsearch.data.voc import read_voc

__all__ = [
    "IGNORE",
    "Augment",
    "Batches",
    "ImageSet",
    "LabelRule",
    "Naming",
    "PictureRule",
    "Split",
    "eval_batches",
    "read_folder",
    "read_helen",
    "read_voc",
    "rendered_faces",
]
