"""SPECs of backbones: what stands behind them, and one message for whatever is wrong with a user's callable."""

from collections import namedtuple
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import nn

from rfsearch import plugins
from rfsearch.errors import ModelError, RequestError, SpaceError
from rfsearch.outputs import require_maps

NETS = """
from torch import nn
from rfsearch.errors import ModelError

def good(num_classes, in_channels=3):
    return nn.Conv2d(in_channels, num_classes, 1)

class Net(nn.Conv2d):
    def __init__(self, num_classes, in_channels=3):
        super().__init__(in_channels, num_classes, 1)

def by_keyword(*, num_classes, in_channels=3):
    return good(num_classes, in_channels)

def classes_only(num_classes):
    return good(num_classes)

def raises(num_classes, in_channels=3):
    raise KeyError("depth")

def type_error(num_classes, in_channels=3):
    return len(num_classes)

def refuses(num_classes, in_channels=3):
    raise ModelError("not with an even number of classes")

def a_list(num_classes, in_channels=3):
    return [good(num_classes)]

def the_class(num_classes, in_channels=3):
    return Net

number = 3
"""


@pytest.fixture
def nets(tmp_path: Path) -> str:
    file = tmp_path / "nets.py"
    file.write_text(NETS)
    return str(file)


@pytest.mark.parametrize("attribute", ["good", "Net"])
def test_a_callable_of_a_file_builds(nets, attribute):
    net = plugins.make_backbone(f"{nets}:{attribute}", 5, 2)
    assert net(torch.zeros(1, 2, 4, 4)).shape == (1, 5, 4, 4)


def test_in_channels_are_three_if_left_out():
    assert plugins.make_backbone("wei-small", 5)(torch.zeros(2, 3, 32, 32)).shape == (2, 5, 32, 32)


def test_a_callable_of_a_module_builds():
    assert isinstance(plugins.make_backbone("rfsearch.backbones.small:wei_small", 5), nn.Module)


@pytest.mark.parametrize(
    ("attribute", "message"),
    [
        ("by_keyword", r"does not take \(5, 3\): too many positional arguments"),
        ("classes_only", r"callable \(num_classes, in_channels=3\) -> nn.Module. .*too many positional arguments"),
        ("raises", "fails when it is built for 5 classes and 3 channels: KeyError: 'depth'"),
        ("type_error", "fails when it is built for 5 classes and 3 channels: TypeError: object of type 'int'"),
        ("refuses", "^not with an even number of classes$"),
        ("a_list", r"gives a torch.nn.Module. Got a list of 1 \(Conv2d\)"),
        ("the_class", "gives a torch.nn.Module. Got type"),
        ("number", "has no callable 'number'"),
        ("goood", "has no callable 'goood'. Did you mean 'good'"),
    ],
)
def test_a_faulty_callable_is_one_message(nets, attribute, message):
    with pytest.raises(ModelError, match=message):
        plugins.make_backbone(f"{nets}:{attribute}", 5)


def test_files_and_modules_that_are_not_there_are_reported(tmp_path):
    with pytest.raises(ModelError, match="no file .*absent.py"):
        plugins.make_backbone(f"{tmp_path}/absent.py:net", 5)
    with pytest.raises(ModelError, match="no_such_package does not import: ModuleNotFoundError"):
        plugins.make_backbone("no_such_package:net", 5)
    (tmp_path / "torn.py").write_text("def net(:")
    with pytest.raises(ModelError, match="torn.py does not import: SyntaxError"):
        plugins.make_backbone(f"{tmp_path}/torn.py:net", 5)
    with pytest.raises(SpaceError, match="unknown backbone 'wei-smal'. Did you mean 'wei-small'"):
        plugins.make_backbone("wei-smal", 5)


def test_every_fault_is_a_wrong_request():
    assert issubclass(ModelError, RequestError)


LOGITS = torch.zeros(2, 5, 3, 4)


@dataclass
class Labelled:
    logits: torch.Tensor
    loss: torch.Tensor | None = None


@dataclass
class Named:
    out: torch.Tensor
    aux: torch.Tensor


@pytest.mark.parametrize(
    "output",
    [
        LOGITS,
        {"out": LOGITS},
        {"aux": 1, "out": LOGITS},
        {"logits": LOGITS},
        {"loss": LOGITS.sum(), "logits": LOGITS},
        {"logits": LOGITS[:, :1], "out": LOGITS},
        Labelled(LOGITS),
        Named(LOGITS, LOGITS[:, :1]),
        (LOGITS, LOGITS[:, :1]),
        [LOGITS, LOGITS[..., :2], LOGITS[..., :1]],
        ({"out": LOGITS}, 1),
        namedtuple("Pair", "loss logits")(LOGITS.sum(), LOGITS),
    ],
    ids=lambda output: type(output).__name__,
)
def test_logits_are_found(output):
    assert require_maps(output, 2, 5, "net") is LOGITS


def test_logits_of_half_precision_are_logits():
    assert require_maps(half := LOGITS.half(), 2, 5, "net") is half


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ((1, LOGITS), r"Got a tuple of 2 \(int, Tensor of shape 2 x 5 x 3 x 4\)"),
        ([LOGITS[:, :3], LOGITS], r"Got Tensor of shape 2 x 3 x 3 x 4\.$"),
        ((), r"Got a tuple of 0 \(\)"),
        ([1, 2, 3, 4, 5], r"Got a list of 5 \(int, int, int, \.\.\.\)"),
        ({"scores": LOGITS}, "entry 'out' or 'logits' of a dict or object. .*Known: scores"),
        ({"out": [LOGITS]}, "Got a list of 1"),
        (LOGITS[0], r"2 x 5 x h x w. Got Tensor of shape 5 x 3 x 4\.$"),
        (LOGITS[..., 0], r"Got Tensor of shape 2 x 5 x 3\.$"),
        (LOGITS[:, :4], "Got Tensor of shape 2 x 4 x 3 x 4"),
        (LOGITS[:1], "Got Tensor of shape 1 x 5 x 3 x 4"),
        (LOGITS[..., :0], "Got Tensor of shape 2 x 5 x 3 x 0"),
        (LOGITS.sum(), "Got Tensor of shape scalar"),
        (LOGITS.long(), "in floating point. Got .* of torch.int64"),
        (None, "Got NoneType"),
    ],
)
def test_what_is_no_logits_is_one_message(output, message):
    with pytest.raises(ModelError, match=message) as caught:
        require_maps(output, 2, 5, "net")
    assert str(caught.value).startswith("backbone 'net' maps 2 images to logits of 2 x 5 x h x w")
