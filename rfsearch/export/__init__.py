"""A run's winner as something to use elsewhere: a state dict with its patch, an exported program, ONNX.

    model.pt      state dict of the exported network
    patch.json    what its sites hold; see `rfsearch.patch`
    model.pt2     `torch.export`: runs without rfsearch and without the network's own code
    model.onnx    the same for other runtimes
    export.json   what was written, its receptive field and scores, and how far each form is from the network

Images are B x C x H x W as in training, of any number and size if the network takes them. The output is the network's
own, such as logits or depths; of a detector, the maps that its detections follow from, up to its suppression, by name
in ONNX and in their order in a program. See `Graph` for what else the last two forms can hold. In these f, gamma and
real dilations are constants, and batch normalisations are part of the convolutions in front of them.
"""

from rfsearch.export.bench import Scored, take_weights
from rfsearch.export.checking import TOLERANCE, Check
from rfsearch.export.deployed import Graph
from rfsearch.export.exporting import Exported, export, patch_of
from rfsearch.export.forms import FORMATS, Form
from rfsearch.export.own import ExportedWeights, export_weights

__all__ = [
    "FORMATS",
    "TOLERANCE",
    "Check",
    "Exported",
    "ExportedWeights",
    "Form",
    "Graph",
    "Scored",
    "export",
    "export_weights",
    "patch_of",
    "take_weights",
]
