"""Image sets: Helen, a plain folder, rendered faces; and batches of them."""

from rfsearch.data.batches import IGNORE, Augment, Batches, eval_batches
from rfsearch.data.folder import read_folder
from rfsearch.data.helen import read_helen
from rfsearch.data.image_set import ImageSet, Split
from rfsearch.data.rendered_faces import rendered_faces

__all__ = [
    "IGNORE",
    "Augment",
    "Batches",
    "ImageSet",
    "Split",
    "eval_batches",
    "read_folder",
    "read_helen",
    "rendered_faces",
]
