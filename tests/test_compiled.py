"""Networks that are compiled, scripted, rewritten by torch.fx, or whose normalisation needs more than there is."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import rfsearch
from rfsearch import plugins
from rfsearch.choices import Candidate, Choice, Dilated, Searched
from rfsearch.errors import ModelError
from rfsearch.ledger import Assignment, Record, Request
from rfsearch.planning.plan import Plan
from rfsearch.receptive import effective_receptive_field, receptive_field
from rfsearch.surgery import build
from rfsearch.training import Order, Training
from tests.calls import wrong
from tests.planned import planned
from tests.toys import toy_file

CPU = torch.device("cpu")
PATCH = """{"format": "rfsearch-patch", "version": 1, "backbone": "x", "classes": ["a"], "settings": {},
"sites": {"0": [{"dilation": 2}]}}"""


class Net(nn.Module):
    """Half resolution, normalised, with DeepLab's pooled image beside the wide convolution."""

    def __init__(self, num_classes: int, norm: type[nn.Module] = nn.BatchNorm2d) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), norm(8), nn.ReLU())
        self.wide = nn.Conv2d(8, 8, 3, padding=1)
        self.pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 8, 1), norm(8), nn.ReLU())
        self.head = nn.Conv2d(8, num_classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        x = self.stem(image)
        return self.head(torch.relu(self.wide(x)) + self.pooled(x))


def plain_net(num_classes: int, in_channels: int = 3) -> nn.Module:
    return Net(num_classes)


def synchronised_net(num_classes: int, in_channels: int = 3) -> nn.Module:
    return Net(num_classes, nn.SyncBatchNorm)


def compiled_net(num_classes: int, in_channels: int = 3) -> nn.Module:
    return torch.compile(Net(num_classes))


def partly_compiled_net(num_classes: int, in_channels: int = 3) -> nn.Module:
    net = Net(num_classes)
    net.stem = torch.compile(net.stem)
    net.wide.compile()
    return net


def rewritten_net(num_classes: int, in_channels: int = 3) -> nn.Module:
    return torch.fx.symbolic_trace(Net(num_classes))


def scripted_net(num_classes: int, in_channels: int = 3) -> nn.Module:
    return torch.jit.script(Net(num_classes))


def partly_scripted_net(num_classes: int, in_channels: int = 3) -> nn.Module:
    net = Net(num_classes)
    net.stem = torch.jit.trace(net.stem.eval(), torch.zeros(1, 3, 8, 8))
    return net


def plan_of(folder: Path, make: str, candidate: Candidate, **recipe: object) -> Plan:
    file = toy_file(folder, backbone=f"{__name__}:{make}")
    text = file.read_text().replace('"conv6"', '"wide"').replace("helen-f", "mean-iou")
    for key, value in recipe.items():
        lines = text.splitlines()
        at = [i for i, line in enumerate(lines) if line.startswith(f"{key} =")]
        text = "\n".join([*lines[: at[0]], f"{key} = {value}", *lines[at[0] + 1 :]]) + "\n"
    file.write_text(text)
    request = Request(space=str(file), candidates=(candidate.to_json(),))
    return planned(request, folder / "cache")


def trained(folder: Path, make: str, choice: Choice, **recipe: object) -> Record:
    candidate = Candidate({"wide": choice})
    plan = plan_of(folder, make, candidate, **recipe)
    assignment = Assignment("listed-0-000", "listed", 0, candidate.to_json(), 7, 1e18)
    work = Training(plan.space, plan.data, Order(assignment, "flop", CPU, folder / "checkpoints" / "listed-0-000"))
    while (record := work.advance()).status == "pruned":
        pass
    assert record.status == "completed", record.cause
    return record


def one_size_net(num_classes: int, in_channels: int = 3) -> nn.Module:
    net = Net(num_classes)
    net.pooled = nn.Sequential(nn.Flatten(1), nn.Linear(8 * 32 * 32, 8), nn.Unflatten(1, (8, 1, 1)))
    return net


@pytest.mark.parametrize("command", ["plan", "sites", "rf"])
@pytest.mark.parametrize(
    ("spec", "parts"),
    [
        (f"{__name__}:one_size_net", ("48 x 48",)),
        ("timm:visformer_tiny", ("timm:visformer_tiny takes images of one size, 224 x 224", "image_size = [224, 224]")),
    ],
)
def test_a_network_of_another_image_size_is_one_message(command, spec, parts, tmp_path, call):
    if spec.startswith("timm"):
        pytest.importorskip("timm")
    if command == "plan":
        wrong(call("plan", "--space", toy_file(tmp_path), "--backbone", spec, "--site", "*"), *parts)
    else:
        wrong(call(command, spec, "--input", "3x48x48"), "48")


FORMS = ["plain_net", "synchronised_net", "compiled_net", "partly_compiled_net", "rewritten_net"]


@pytest.fixture(scope="module")
def plain_score(tmp_path_factory):
    """What the plain network scores with a choice."""
    return functools.cache(lambda choice: trained(tmp_path_factory.mktemp("plain"), "plain_net", choice).val)


@pytest.mark.parametrize("make", [make for make in FORMS if make != "plain_net"])
@pytest.mark.parametrize("choice", [Dilated(2), Searched(2)], ids=["dilated", "searched"])
def test_it_is_trained_like_the_plain_network(make, choice, plain_score, tmp_path):
    assert trained(tmp_path, make, choice).val == plain_score(choice)


@pytest.mark.parametrize("make", FORMS)
def test_its_modules_keep_their_names_and_its_state_dict(make):
    net, plain = plugins.make_backbone(f"{__name__}:{make}", 5), Net(5)
    assert net.state_dict().keys() == plain.state_dict().keys()
    net.load_state_dict(plain.state_dict())
    image = torch.randn(2, 3, 16, 16)
    assert torch.equal(net.train()(image), plain.train()(image))
    assert all(torch.equal(value, plain.state_dict()[name]) for name, value in net.state_dict().items())
    assert receptive_field(net, (1, 3, 32, 32)).local_px == 7


def inference_net(num_classes: int, in_channels: int = 3) -> nn.Module:
    with torch.inference_mode():
        return Net(num_classes)


def test_a_network_built_in_inference_mode_is_one_message_before_training(tmp_path, call):
    file = toy_file(tmp_path, backbone=f"{__name__}:inference_net")
    wrong(call("plan", "--space", file), "built in torch.inference_mode", "Build it outside of that.")


@pytest.mark.parametrize("make", ["scripted_net", "partly_scripted_net"])
def test_a_scripted_network_is_one_message_before_training(make, tmp_path, call):
    spec = f"{__name__}:{make}"
    file = toy_file(tmp_path, backbone=spec)
    wrong(call("plan", "--space", file), f"backbone '{spec}'", "TorchScript", "before torch.jit.script or torch.jit.tr")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (torch.jit.script(nn.Sequential(nn.Conv2d(3, 3, 3, padding=1))), "before torch.jit.script"),
        (torch.compile(nn.Sequential(nn.Conv2d(3, 3, 3, padding=1))), "before it is compiled"),
    ],
)
def test_a_users_own_module_that_hides_its_layers_is_refused(model, message):
    for look in (
        lambda: receptive_field(model, (1, 3, 16, 16)),
        lambda: effective_receptive_field(model, 1, input_shape=(1, 3, 16, 16)),
        lambda: rfsearch.apply(model, PATCH),
        lambda: build(model, Candidate({"0": Dilated(2)})),
    ):
        with pytest.raises(ModelError, match=message):
            look()


def test_a_users_own_module_is_not_changed_by_looking_at_it():
    model = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.SyncBatchNorm(3))
    assert receptive_field(model, (1, 3, 16, 16)).px == 3
    assert isinstance(rfsearch.apply(model, PATCH)[1], nn.SyncBatchNorm)
    assert isinstance(model[1], nn.SyncBatchNorm)


def test_one_image_a_batch_is_refused_before_training_where_its_pooled_map_is_normalised(tmp_path):
    with pytest.raises(ModelError, match="cannot be trained with batch_size = 1. Smallest: batch_size = 2"):
        plan_of(tmp_path, "plain_net", Candidate({"wide": Dilated(2)}), batch_size=1)


def test_the_shared_search_looks_at_one_validation_image_behind_pooled_normalisation(tmp_path):
    assert trained(tmp_path, "plain_net", Searched(2), rung_images=1).val is not None
