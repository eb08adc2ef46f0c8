"""Image sets: one layout a file (Helen, PASCAL VOC, a plain folder, FlyingChairs ... or drawn); and their batches."""

from rfsearch.data.base import DataSource, Embedded, Layout
from rfsearch.data.batches import Augment, Batches, eval_batches
from rfsearch.data.chairs import Chairs
from rfsearch.data.flo import read_flo, write_flo
from rfsearch.data.folder import Folder, read_folder
from rfsearch.data.helen import Helen, read_helen
from rfsearch.data.image_set import ImageSet, Split
from rfsearch.data.kitti import Kitti
from rfsearch.data.labels import LabelRule
from rfsearch.data.pairs import Naming
from rfsearch.data.picture_layout import PictureLayout
from rfsearch.data.pictures import PictureRule
from rfsearch.data.rendered_faces import RenderedFaces, rendered_faces
from rfsearch.data.rendered_motions import RenderedMotions, rendered_motions
from rfsearch.data.sintel import Sintel
from rfsearch.data.voc import Voc, read_voc

__all__ = [
    "Augment",
    "Batches",
    "Chairs",
    "DataSource",
    "Embedded",
    "Folder",
    "Helen",
    "ImageSet",
    "Kitti",
    "LabelRule",
    "Layout",
    "Naming",
    "PictureLayout",
    "PictureRule",
    "RenderedFaces",
    "RenderedMotions",
    "Sintel",
    "Split",
    "Voc",
    "eval_batches",
    "read_flo",
    "read_folder",
    "read_helen",
    "read_voc",
    "rendered_faces",
    "rendered_motions",
    "write_flo",
]
