"""Exports of real runs: every form gives the trained network's logits, and whole numbers lose what is said."""

import copy
import importlib.util
import json
import math
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import rfsearch
from rfsearch.backbones.small import wei_small
from rfsearch.choices import Candidate, Choice, Dilated, Inflated, Moved, Sampled, Searched, SitePath
from rfsearch.data import Batches
from rfsearch.data.batches import normalised_images
from rfsearch.errors import DataError, ModelError, RequestError
from rfsearch.export import Graph, Scored, checking, export, onnx_file, take_weights
from rfsearch.export.bench import Bench
from rfsearch.export.tracing import trace
from rfsearch.layers import Inflation, Interpolation, interpolate
from rfsearch.ledger import Assignment, Journal, Request, read_run
from rfsearch.networks import trained
from rfsearch.planning.directory import start_run
from rfsearch.plugins import make_backbone
from rfsearch.surgery import Settings, build
from rfsearch.surgery.inserts import InflatedSite, SplitSite
from rfsearch.tasks.segmentation import Segmentation
from rfsearch.training import Order, Training
from rfsearch.training.batches import augment_of
from rfsearch.trust import opened
from tests.calls import wrong
from tests.planned import planned
from tests.toys import toy_faces, toy_file
from tests.training.test_training import EYES

CPU = torch.device("cpu")


class Plain(nn.Module):
    """A network of a user's own: no inflation layers, logits in a dict, at half the image's size."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU())
        self.wide = nn.Conv2d(8, 10, 3, padding=1)
        self.head = nn.Conv2d(10, num_classes, 1)

    def forward(self, image):
        x = F.relu(self.wide(self.stem(image)))
        return {"out": self.head(x), "aux": x}


def plain_net(num_classes: int, in_channels: int = 3) -> nn.Module:
    return Plain(num_classes)


def a_run(
    folder: Path,
    *choices: Choice | list[Choice],
    backbone: str = "wei-small",
    settings: str = "",
    site: str | None = None,
) -> Path:
    """A run directory with candidates really trained, as a run leaves it."""
    folder.mkdir(parents=True)
    file = toy_file(folder, backbone=backbone, steps=24)
    site = site or ("wide" if backbone != "wei-small" else "conv6")
    text = file.read_text().replace('"conv6"', f'"{site}"').replace("f_delay = 0.25", "f_delay = 0.0")
    text = text.replace("helen-f", "mean-iou")
    file.write_text(text + settings)
    candidates = [Candidate({site: choice}) for choice in choices]
    request = Request(space=str(file), candidates=tuple(candidate.to_json() for candidate in candidates))
    plan = planned(request, folder / "cache")
    run_dir = folder / "run"
    run_dir.mkdir()
    start_run(plan, run_dir, "a test", 1, "cpu")
    journal = Journal(run_dir)
    for i, candidate in enumerate(candidates):
        trial = f"listed-0-{i:03d}"
        assignment = Assignment(trial, "listed", 0, candidate.to_json(), 7 + i, 1e18)
        journal.start(assignment)
        work = Training(plan.space, plan.data, Order(assignment, "flop", CPU, run_dir / "checkpoints" / trial))
        while (record := work.advance()).status == "pruned":
            pass
        assert record.status == "completed", record.cause
        journal.finish(record)
    return run_dir


def learned(folder: Path) -> Path:
    return a_run(folder, Inflated(2, learned=True))


def two_paths(folder: Path) -> Path:
    return a_run(folder, [SitePath(Inflated(2, learned=True), EYES), Inflated(3, learned=True)])


def sampled(folder: Path) -> Path:
    return a_run(folder, Sampled(2, 2.0, 3, learned=True), settings="gamma_lr_multiplier = 3000.0\n")


def plain(folder: Path) -> Path:
    return a_run(folder, Inflated(3, learned=True), backbone="tests.test_export:plain_net")


def plain_paths(folder: Path) -> Path:
    return a_run(folder, [Inflated(1, 0.8), Dilated(2)], backbone="tests.test_export:plain_net")


def dilated(folder: Path) -> Path:
    return a_run(folder, Dilated(4), Dilated(2))


def found(folder: Path) -> Path:
    return a_run(folder, Searched(3))


def moved(folder: Path) -> Path:
    return a_run(folder, Moved(3))


KINDS = {f.__name__: f for f in (learned, two_paths, sampled, plain, plain_paths, dilated, found, moved)}
_made: dict[str, Path] = {}


@pytest.fixture
def run_of(tmp_path_factory):
    """A run of one kind, trained once; not to be written to."""

    def made(kind: str) -> Path:
        if kind not in _made:
            _made[kind] = KINDS[kind](tmp_path_factory.mktemp(kind) / "in")
        return _made[kind]

    return made


def real_images() -> torch.Tensor:
    return normalised_images(toy_faces().splits["test"])


def logits_of(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        output = model.eval()(images)
    return output["out"] if isinstance(output, dict) else output


def applied(directory: Path) -> nn.Module:
    body = json.loads((directory / "patch.json").read_text())
    model = rfsearch.apply(make_backbone(body["backbone"], len(body["classes"])), directory / "patch.json")
    model.load_state_dict(torch.load(directory / "model.pt", weights_only=True))
    return model


@pytest.mark.parametrize(
    "kind",
    [pytest.param(kind, marks=() if kind == "learned" else pytest.mark.slow) for kind in KINDS],
)
def test_every_form_is_the_trained_network(kind, run_of, tmp_path):
    found = export(run_of(kind), tmp_path)
    images = real_images()
    expected = logits_of(trained(run_of(kind)), images)
    assert torch.equal(logits_of(applied(tmp_path), images), expected)
    forms = {form.name: form for form in found.forms}
    assert set(forms) == {"state dict", "program", "onnx"}
    assert forms["state dict"].difference == 0
    assert not found.faults
    program = torch.export.load(tmp_path / "model.pt2").module()
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    assert expected.abs().max() > 0.05
    larger = F.interpolate(images[:2], size=(61, 75), mode="bilinear")
    for given in (images, images[:1], larger):  # any number, any size
        wanted = logits_of(trained(run_of(kind)), given)
        for logits in (program(given), torch.from_numpy(session.run(None, {"image": given.numpy()})[0])):
            torch.testing.assert_close(logits, wanted, rtol=0, atol=1e-4)
    for name in ("program", "onnx"):
        assert (forms[name].batch, forms[name].size) == (None, None)
        assert len({(check.images, check.size) for check in forms[name].checks}) == 3
        assert forms[name].difference < 1e-4
    assert {check.runtime for check in forms["onnx"].checks} >= {"onnxruntime"}


@pytest.mark.parametrize("kind", ["learned", "two_paths", "sampled", "plain"])
def test_what_was_learned_is_in_the_patch(kind, run_of, tmp_path):
    found = export(run_of(kind), tmp_path, formats=())
    (record,) = read_run(run_of(kind)).records
    values = {**record.f, **record.gamma}
    starts = {"f": 1.0, "gamma": 2.0}
    choices = dict(found.patch.candidate)
    assert set(choices) == set(values)
    for name, path in choices.items():
        numbers = path.choice.numbers
        value, start = (numbers["gamma"], starts["gamma"]) if "gamma" in numbers else (numbers["f"], starts["f"])
        assert value == values[name]
        assert abs(value - start) > 1e-4
    assert not found.patch.candidate.learned
    sites = json.loads((tmp_path / "patch.json").read_text())["sites"]
    assert Candidate.from_json(json.dumps(sites)) == found.patch.candidate


@pytest.mark.parametrize("border", ["continuous", "paper"])
def test_a_patch_has_the_border_of_its_run(border, run_of, tmp_path):
    """A run's own, and the paper's for one from before there was a choice."""
    run = tmp_path / "run"
    shutil.copytree(run_of("learned"), run)
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["resolved_space"]["recipe"].pop("border") == "continuous"
    if border == "paper":
        (run / "manifest.json").write_text(json.dumps(manifest))
    found = export(run, tmp_path / "out", formats=())
    assert found.patch.settings.border == border
    assert not found.faults
    for network in (trained(run), applied(tmp_path / "out")):
        layers = [layer for layer in network.modules() if isinstance(layer, Inflation | Interpolation)]
        assert [layer.border for layer in layers] == [border, border]


def test_the_files_of_an_export(run_of, tmp_path):
    found = export(run_of("learned"), tmp_path, formats=("program",))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["export.json", "model.pt", "model.pt2", "patch.json"]
    body = json.loads((tmp_path / "export.json").read_text())
    (record,) = read_run(run_of("learned")).records
    assert body == json.loads(json.dumps(found.to_json()))
    assert body["rf_px"] == record.rf_px
    assert (body["scores"][0]["val"], body["scores"][0]["test"]) == (record.val, record.test)
    assert body["input"]["shape"] == ["B", 3, 48, 48]
    export(run_of("learned"), tmp_path, formats=())
    assert not (tmp_path / "model.pt2").exists()  # of an earlier export


def test_the_program_runs_without_rfsearch(run_of, tmp_path):
    export(run_of("plain_paths"), tmp_path, formats=("program",))
    code = (
        "import sys, torch; sys.modules['rfsearch'] = None; "
        f"print(tuple(torch.export.load({str(tmp_path / 'model.pt2')!r}).module()(torch.zeros(1, 3, 48, 48)).shape))"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert told.stdout.strip() == "(1, 11, 24, 24)"


def test_the_winner_is_exported_or_the_trial_named(run_of, tmp_path):
    records = {record.trial: record for record in read_run(run_of("dilated")).records}
    best = max(records.values(), key=lambda record: record.val)
    assert export(run_of("dilated"), tmp_path / "best", formats=()).trial == best.trial
    (other,) = set(records) - {best.trial}
    found = export(run_of("dilated"), tmp_path / "other", trial=other, formats=())
    assert found.trial == other
    assert found.patch.candidate.to_json() == records[other].candidate


def test_an_unfinished_run_exports_who_leads_so_far(run_of, tmp_path):
    run_dir = tmp_path / "run"
    shutil.copytree(run_of("learned"), run_dir)
    candidate = Candidate({"conv6": Dilated(1)}).to_json()
    Journal(run_dir).start(Assignment("listed-0-001", "listed", 0, candidate, 1, 1e18))
    assert export(run_dir, formats=()).trial == "listed-0-000"
    assert (run_dir / "export" / "patch.json").exists()


def test_a_difference_is_said_and_the_files_stay(run_of, tmp_path, monkeypatch):
    monkeypatch.setattr(checking, "TOLERANCE", -1.0)
    monkeypatch.setattr(checking, "LARGE_TOLERANCE", -1.0)
    found = export(run_of("learned"), tmp_path, formats=("program",))
    assert [form.failed for form in found.forms] == [True, True]
    assert "model.pt2 differs from the network by" in found.faults[1]
    assert (tmp_path / "model.pt2").exists()


def test_without_onnx_the_rest_is_written(run_of, tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *_: None if name == "onnxscript" else find(name))
    found = export(run_of("dilated"), tmp_path)
    form = found.forms[-1]
    assert (form.name, form.file, form.failed) == ("onnx", None, False)
    assert "onnxscript not installed" in form.said
    assert form.said.endswith("pip install onnxscript")
    with pytest.raises(RequestError, match="pip install"):
        export(run_of("dilated"), tmp_path, formats=("onnx",))


def test_without_onnxruntime_the_file_is_written_and_says_how_it_can_be_compared(run_of, tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *_: None if name in ("onnxruntime", "openvino") else find(name)
    )
    form = export(run_of("dilated"), tmp_path, formats=("onnx",)).forms[-1]
    assert (form.name, form.file, form.failed) == ("onnx", "model.onnx", False)
    assert form.said.endswith("pip install onnxruntime")


# What goes into the graph.


def onnx_of(directory: Path) -> onnx.ModelProto:
    return onnx.load(directory / "model.onnx")


def axes_of(value: onnx.ValueInfoProto) -> list[str | int]:
    return [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]


def test_bytes_go_in_and_class_ids_come_out_on_request(run_of, tmp_path):
    """Of any size, and the file says of itself what it is."""
    run_dir = run_of("plain_paths")
    graph = Graph(normalise=True, upsample=True, argmax=True, opset=19)
    found = export(run_dir, tmp_path, formats=("onnx",), graph=graph)
    assert not found.faults
    written = onnx_of(tmp_path)
    assert [entry.version for entry in written.opset_import if not entry.domain] == [19]
    assert axes_of(written.graph.input[0]) == ["batch", 3, "height", "width"]
    assert axes_of(written.graph.output[0]) == ["batch", "height", "width"]
    said = {entry.key: json.loads(entry.value) for entry in written.metadata_props}
    assert said["classes"] == list(toy_faces().classes)
    assert said["mean"] == [0.485, 0.456, 0.406]
    assert said["trained_size"] == [48, 48]
    assert said["receptive_field_px"] == found.rf_px
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    pixels = toy_faces().splits["test"].images
    for some in (pixels, pixels[:1, :, 5:, :41]):
        mean, std = (np.array(said[name], np.float32)[:, None, None] for name in ("mean", "std"))
        normalised = torch.from_numpy((some / np.float32(255) - mean) / std)
        logits = F.interpolate(
            logits_of(trained(run_dir), normalised), size=some.shape[2:], mode="bilinear", align_corners=False
        ).numpy()
        ids = session.run(None, {"image": np.ascontiguousarray(some)})[0]
        assert ids.shape == (len(some), *some.shape[2:])
        called = np.take_along_axis(logits, ids[:, None].astype(np.int64), 1)[:, 0]
        assert (logits.max(1) - called).max() < 1e-4


def test_a_wrong_class_is_as_wrong_as_its_output_falls_short(run_of):
    expected = torch.tensor([[[[2.0, 1.0]], [[1.5, 4.0]]]])
    sample = checking.Sample(torch.zeros(1, 3, 1, 2), (expected,))
    right = sample.compare("torch", lambda _: torch.tensor([[[0, 1]]]), Graph(argmax=True), 1)
    wrong = sample.compare("torch", lambda _: torch.tensor([[[1, 1]]]), Graph(argmax=True), 1)
    assert (right.difference, right.failed) == (0, False)
    assert (wrong.difference, wrong.failed) == (0.5, True)


def test_large_outputs_may_differ_by_their_own_rounding_and_small_ones_by_a_fixed_amount():
    def apart(size, by):
        sample = checking.Sample(torch.zeros(1, 3, 4, 4), (torch.full((1, 2, 4, 4), size),))
        return sample.compare("torch", lambda _: torch.full((1, 2, 4, 4), size + by), Graph(), 1).failed

    assert [apart(1.0, by) for by in (0.9e-4, 1.2e-4)] == [False, True]
    assert [apart(1000.0, by) for by in (0.009, 0.012)] == [False, True]


class Sized(nn.Module):
    """A network that knows the size of its image."""

    def forward(self, image):
        return image + torch.arange(480.0).reshape(20, 24)


def test_a_network_that_knows_its_size_is_traced_for_that_size():
    traced = trace(Sized(), torch.zeros(2, 3, 20, 24), (20, 24))
    assert (traced.batch, traced.size, set(traced.symbols.values())) == (None, (20, 24), {"batch"})
    images = torch.randn(5, 3, 20, 24)
    assert torch.equal(traced.program.module()(images), Sized()(images))


class Pyramid(nn.Module):
    """A head on maps of two sizes, with a normalisation whose parts have no known size in a file."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(8, 8, 3, padding=1), nn.GroupNorm(4, 8)
        self.stem = nn.Conv2d(3, 8, 3, padding=1)

    def forward(self, image):
        first = self.stem(image)
        maps = first, F.max_pool2d(first, 2)
        return tuple(self.norm(self.conv(self.norm(self.conv(x)).relu())).relu() for x in maps)


def test_sizes_that_a_file_does_not_know_are_not_taken_for_equal(tmp_path):
    torch.manual_seed(0)
    model = Pyramid().eval()
    onnx_file.write_onnx(
        tmp_path / "m.onnx", trace(model, torch.zeros(2, 3, 8, 8), (8, 8)), ["large", "small"], None, {}
    )
    names = {dim.dim_param for value in onnx.load(tmp_path / "m.onnx").graph.value_info
             for dim in value.type.tensor_type.shape.dim}  # fmt: skip
    assert "batch" in names
    assert "None" not in names
    images = torch.randn(3, 3, 8, 8)
    for run in onnx_file.runtimes(tmp_path / "m.onnx", ["large", "small"]).values():
        for found, expected in zip(run(images), model(images), strict=True):
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.slow
def test_half_precision_halves_the_file_and_differs_by_its_rounding(run_of, tmp_path):
    export(run_of("dilated"), tmp_path / "single", formats=("onnx",))
    found = export(run_of("dilated"), tmp_path / "half", formats=("onnx",), graph=Graph(half=True))
    assert not found.faults
    assert 1e-5 < found.forms[1].difference < 0.02
    sizes = [(tmp_path / name / "model.onnx").stat().st_size for name in ("half", "single")]
    assert sizes[0] < 0.6 * sizes[1]
    assert {value.type.tensor_type.elem_type for value in onnx_of(tmp_path / "half").graph.input} == {1}


@pytest.mark.slow
def test_a_fixed_size_and_number_of_images(run_of, tmp_path):
    found = export(run_of("dilated"), tmp_path, graph=Graph(size=(64, 40), batch=4))
    assert not found.faults
    assert {(form.batch, form.size) for form in found.forms[1:]} == {(4, (64, 40))}
    assert axes_of(onnx_of(tmp_path).graph.input[0]) == [4, 3, 64, 40]


def test_no_file_names_a_folder_of_the_machine_that_wrote_it(run_of, tmp_path):
    run = tmp_path / "secret-folder" / "run"
    shutil.copytree(run_of("plain_paths"), run)
    network = run.parent / "net.py"
    network.write_text("from tests.test_export import plain_net as make\n")
    manifest = (run / "manifest.json").read_text().replace("tests.test_export:plain_net", f"{network}:make")
    (run / "manifest.json").write_text(manifest)
    with opened(run, trust=True):
        export(run)
    written = sorted(path.name for path in (run / "export").iterdir())
    assert written == ["export.json", "model.onnx", "model.pt", "model.pt2", "patch.json"]
    for path in (run / "export").iterdir():
        assert b"secret-folder" not in path.read_bytes(), path.name
        assert str(Path(__file__).parent).encode() not in path.read_bytes(), path.name
    assert json.loads((run / "export" / "patch.json").read_text())["backbone"] == "net.py:make"


# Whole numbers.


def conv6_by_hand(model: nn.Module, dilation: int) -> torch.Tensor:
    """What conv6 of the small network gives for the test images at f = 1 and a dilation of its 3 x 3 taps."""
    with torch.no_grad():
        features = model.bn(model.features(real_images()))
        return F.conv2d(features, model.conv6.weight, model.conv6.bias, padding=dilation, dilation=dilation)


def logits_by_hand(model: nn.Module, hidden: torch.Tensor) -> torch.Tensor:
    """From the outputs of conv6 to logits at the image's size, 4 px a unit."""
    with torch.no_grad():
        return interpolate(model.output(F.relu(model.conv7(F.relu(hidden)))), 1.0, 4, (48, 48))


class Shown(nn.Module):
    """A network whose logits are known already."""

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, images):
        return self.logits


def test_whole_numbers_are_the_trained_weights_at_other_dilations(run_of, tmp_path):
    run_dir = run_of("learned")
    found = export(run_dir, tmp_path, integer=True, formats=("onnx",))
    assert not found.faults
    (f,) = read_run(run_dir).records[0].f.values()
    delta, model = 2 / f, trained(run_dir)
    count = round((delta - math.floor(delta)) * 64)
    assert 0 < count < 64
    near, far = conv6_by_hand(model, math.floor(delta)), conv6_by_hand(model, math.ceil(delta))
    by_hand = {
        "rounded": logits_by_hand(model, far if delta % 1 >= 0.5 else near),
        "split": logits_by_hand(model, torch.cat([near[:, : 64 - count], far[:, 64 - count :]], 1)),
    }
    assert [row.name for row in found.scores] == ["trained", *by_hand]
    task, images = Segmentation(Segmentation.Keys(), toy_faces()), toy_faces().splits["test"]
    for row in found.scores[1:]:
        assert row.test == pytest.approx(task.evaluate(Shown(by_hand[row.name]), images, 6, CPU).primary, abs=1e-3)
    chosen = next(row for row in found.scores if row.chosen)
    assert chosen.val == max(row.val for row in found.scores[1:])
    torch.testing.assert_close(logits_of(applied(tmp_path), real_images()), by_hand[chosen.name], rtol=0, atol=1e-5)


def test_whole_numbers_leave_no_inflation_on_a_network_without(run_of, tmp_path):
    found = export(run_of("plain"), tmp_path, integer=True, formats=())
    modules = list(applied(tmp_path).modules())
    assert not any(isinstance(module, Inflation | InflatedSite) for module in modules)
    assert any(isinstance(module, SplitSite) for module in modules) == bool(found.patch.splits)
    keys = torch.load(tmp_path / "model.pt", weights_only=True)
    assert not [key for key in keys if "factor" in key]


@pytest.mark.parametrize("kind", ["two_paths", "plain_paths", "found", pytest.param("sampled", marks=pytest.mark.slow)])
def test_paths_and_blocks_are_made_whole_too(kind, run_of, tmp_path):
    found = export(run_of(kind), tmp_path, integer=True, formats=())
    for _, path in found.patch.candidate:
        assert "f" not in path.choice.numbers
        assert all(value % 1 == 0 for value in path.choice.numbers.values())
    assert [row.name for row in found.scores][:2] == ["trained", "rounded"]
    record = read_run(run_of(kind)).records[0]
    assert found.scores[0].val == pytest.approx(record.val, abs=1e-6)
    assert found.scores[0].test == pytest.approx(record.test, abs=1e-6)
    assert found.forms[0].difference == 0


def test_whole_already_is_exported_as_it_is_and_reported(run_of, tmp_path):
    found = export(run_of("dilated"), tmp_path, integer=True, finetune_steps=2, formats=())
    assert "Nothing to project" in found.notices[-1]
    assert [row.name for row in found.scores] == ["trained"]
    images = real_images()
    assert torch.equal(logits_of(applied(tmp_path), images), logits_of(trained(run_of("dilated")), images))


def test_the_best_on_validation_is_exported_whatever_the_test_images_say(run_of, tmp_path, monkeypatch):
    known = {("trained", 0): 0.9, ("rounded", 0): 0.5, ("rounded", 2): 0.6, ("split", 0): 0.7, ("split", 2): 0.4}
    monkeypatch.setattr(
        Bench,
        "score",
        lambda self, model, name, steps=0: Scored(name, steps, known[name, steps], 1 - known[name, steps]),
    )
    found = export(run_of("learned"), tmp_path, integer=True, finetune_steps=2, formats=())
    assert [(row.name, row.steps) for row in found.scores if row.chosen] == [("split", 0)]
    assert found.patch.splits
    assert isinstance(applied(tmp_path).conv6, SplitSite)


def test_fine_tuning_trains_at_a_tenth_of_the_rate_and_is_reported(run_of, tmp_path):
    found = export(run_of("learned"), tmp_path, integer=True, finetune_steps=3, formats=())
    assert [(row.name, row.steps) for row in found.scores] == [
        ("trained", 0), ("rounded", 0), ("rounded", 3), ("split", 0), ("split", 3)
    ]  # fmt: skip
    assert sum(row.chosen for row in found.scores) == 1
    again = export(run_of("learned"), tmp_path / "again", integer=True, finetune_steps=3, formats=())
    assert again.scores == found.scores


def test_fine_tuning_moves_weights_as_far_as_the_rate_says(run_of, tmp_path):
    """One step without momentum behind it: the weights move by rate times gradient, the recipe's 0.05 over ten."""
    run_dir = run_of("learned")
    space = read_run(run_dir).manifest.resolved_space
    bench = Bench(space, toy_faces(), CPU, lambda _: None)
    start = build(wei_small(11), Candidate({"conv6": Dilated(2)}), Settings())
    take_weights(trained(run_dir), start)
    tuned = bench.finetune(copy.deepcopy(start), "", 1)
    start.train()
    data = toy_faces()
    task = Segmentation(Segmentation.Keys(class_weights="sqrt"), data)
    batches = Batches(data.splits["train"], 2, 0, task, augment_of(space.recipe))
    images, labels = batches.at(0)
    loss = task.loss(start(images), labels)
    loss.backward()
    weight = start.conv6.weight
    moved = weight - 0.005 * (weight.grad + space.recipe.weight_decay * weight)
    torch.testing.assert_close(tuned.conv6.weight, moved, rtol=0, atol=1e-7)


def test_weights_are_taken_between_forms_of_one_network_only():
    small, candidate = wei_small(5), Candidate({"conv6": Inflated(2, 1.5)})
    target = wei_small(5)
    take_weights(build(small, candidate), target)
    for (name, old), new in zip(small.state_dict().items(), target.state_dict().values(), strict=True):
        assert name.endswith(("factor.f", "bounds")) or torch.equal(old, new)
    with pytest.raises(ModelError, match="not two forms of one network"):
        take_weights(wei_small(4), target)


# Wrong requests.


def test_wrong_requests_are_reported(call, run_of, tmp_path):
    run_dir = run_of("learned")
    wrong(call("export", tmp_path / "nowhere"), "nowhere: does not exist.")
    wrong(call("export", run_dir, "--trial", "listed-0-0"), "no trial 'listed-0-0' has finished", "'listed-0-000'")
    wrong(call("export", run_dir, "--size", "512"), "height x width", "'512'")
    wrong(call("export", run_dir, "--size", "0x512"), "1 to 8192", "0 x 512")
    wrong(call("export", run_dir, "--batch", "0"), "1 to 8192")
    wrong(call("export", run_dir, "--opset", "9"), "18 to 23", "Nearest legal: 18")
    wrong(call("export", run_dir, "--formats", "onx"), "unknown format 'onx'", "Did you mean 'onnx'?")
    wrong(call("export", run_dir, "--finetune", "5"), "--integer")
    wrong(call("export", run_dir, "--integer", "--finetune", "-5"), "0 or more", "-5")
    wrong(call("export", run_dir, "--data", tmp_path / "gone"), "gone")
    (tmp_path / "file").write_text("")
    wrong(call("export", run_dir, "--out", tmp_path / "file"), "cannot be written", "--out")


def test_a_run_without_a_winner_is_reported(call, run_of, tmp_path):
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    shutil.copy(run_of("learned") / "manifest.json", run_dir)
    Journal(run_dir)
    wrong(call("export", run_dir), "no trial was scored", "no winner")


def test_a_checkpoint_that_is_gone_is_reported(call, run_of, tmp_path):
    shutil.copytree(run_of("dilated"), tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "listed-0-001")
    wrong(call("export", tmp_path / "run", "--trial", "listed-0-001"), "no checkpoint", "'listed-0-000'")


def test_other_images_are_reported_or_refused(run_of, tmp_path):
    run_dir = tmp_path / "run"
    shutil.copytree(run_of("learned"), run_dir)
    manifest = json.loads((run_dir / "manifest.json").read_text())
    (run_dir / "manifest.json").write_text(json.dumps({**manifest, "data": {**manifest["data"], "fingerprint": "x"}}))
    assert "not the images of the run" in export(run_dir, formats=()).notices[0]
    other = {**manifest, "space": {**manifest["space"], "image_size": [48, 40]}}
    (run_dir / "manifest.json").write_text(json.dumps(other))
    with pytest.raises(DataError, match="48 x 40 px .* Got 48 x 48 px"):
        export(run_dir, formats=())


def test_the_command_prints_how_to_use_it(call, run_of, tmp_path):
    run_dir = run_of("dilated")
    code, out, _ = call("export", run_dir, "--out", tmp_path / "out", "--formats", "program")
    assert code == 0
    snippet = out.partition("To use it:")[2].replace("output = ", "found = ")
    assert "onnxruntime" not in snippet
    known = {"images": real_images()}
    exec(compile(snippet, "told", "exec"), known)
    torch.testing.assert_close(known["found"], logits_of(trained(run_dir), real_images()), rtol=0, atol=1e-4)
    code, out, err = call("export", run_dir, "--out", tmp_path / "out", "--formats", "none", "--json")
    assert json.loads(out)["forms"][0]["difference"] == 0
    assert "Reading the images" in err


def test_a_form_that_differs_is_exit_code_1(call, run_of, tmp_path, monkeypatch):
    monkeypatch.setattr(checking, "TOLERANCE", -1.0)
    monkeypatch.setattr(checking, "LARGE_TOLERANCE", -1.0)
    code, _, err = call("export", run_of("dilated"), "--out", tmp_path, "--formats", "none")
    assert code == 1
    assert "differs from the network" in err
