"""Image sets: one layout a file (Helen, PASCAL VOC, a plain folder, rendered faces); and batches of them."""

from rfsearch.data.base import DataSource, Embedded, Layout
from rfsearch.data.batches import Augment, Batches, eval_batches
from rfsearch.data.folder import Folder, read_folder
from rfsearch.data.helen import Helen, read_helen
from rfsearch.data.image_set import ImageSet, Split
from rfsearch.data.labels import LabelRule
from rfsearch.data.pairs import Naming
from rfsearch.data.picture_layout import PictureLayout
from rfsearch.data.pictures import PictureRule
from rfsearch.data.rendered_faces import RenderedFaces, rendered_faces
from rfsearch.data.voc import Voc, read_voc

__all__ = [
    "Augment",
    "Batches",
    "DataSource",
    "Embedded",
    "Folder",
    "Helen",
    "ImageSet",
    "LabelRule",
    "Layout",
    "Naming",
    "PictureLayout",
    "PictureRule",
    "RenderedFaces",
    "Split",
    "Voc",
    "eval_batches",
    "read_folder",
    "read_helen",
    "read_voc",
    "rendered_faces",
]
