"""A run's winner as something to use elsewhere: a state dict with its patch, an exported program, ONNX.

    model.pt      state dict of the exported network
    patch.json    what its sites hold; see `rfsearch.patch`
    model.pt2     `torch.export`: runs without rfsearch and without the network's own code
    model.onnx    the same for other runtimes
    export.json   what was written, its receptive field and scores, and how far each form is from the network

Images are B x C x H x W as in training, H x W that of the run. The output is the network's own, such as logits or
depths; of a detector, the maps that its detections follow from, up to its suppression, by name in ONNX and in their
order in a program. In the last two forms f and gamma are constants, and so are the sizes of all maps.
"""

from rfsearch.export.bench import Scored, take_weights
from rfsearch.export.exporting import Exported, export, patch_of
from rfsearch.export.forms import FORMATS, TOLERANCE, Form
from rfsearch.export.own import ExportedWeights, export_weights

__all__ = [
    "FORMATS",
    "TOLERANCE",
    "Exported",
    "ExportedWeights",
    "Form",
    "Scored",
    "export",
    "export_weights",
    "patch_of",
    "take_weights",
]
