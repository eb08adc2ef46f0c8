"""The documents: every command in them is one that the command line takes, and, in small, all that they show runs."""

import re
import shlex
from pathlib import Path

import pytest
import torch
import typer
from torch import nn

import rfsearch
from rfsearch.backbones.small import wei_small
from rfsearch.cli.app import app
from rfsearch.data import rendered_faces
from tests.data.test_boxes import coco, voc
from tests.flow_folders import write_chairs, write_kitti, write_sintel
from tests.small_run import train_in_process
from tests.toys import toy_file, write_faces

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
OTHERS = ("python3 -m venv", "pip install")  # what is no command of rfsearch
SMALL = [
    "--budget", "60x", "--strategies", "exhaustive", "--gpus-per-trial", "0", "--set", "recipe.steps=2",
    "--set", "recipe.warmup=0",
]  # fmt: skip
SMALL_SETS = {
    "helen": ["data.rendered=[12,12,4]"],
    "motions": ["data.rendered=[6,4,2]", "image_size=[96,96]"],
    "objects": ["data.rendered=[6,4,2]", "task.proposal_steps=2", "recipe.eval_batch_size=2"],
}
LONG = ("reproduce",)  # a table takes minutes at its smallest: tests/test_reproduce.py trains toys of them

MYNET = """
from torch import nn


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x):
        return x + self.conv2(x).relu()


def make(num_classes=11, in_channels=3):
    head = nn.Conv2d(8, num_classes, 1)
    parts = {"stem": nn.Conv2d(in_channels, 8, 3, 4, 1), "layer4": nn.Sequential(Block()), "head": head}
    net = nn.Sequential()
    for name, part in parts.items():
        net.add_module(name, part)
    return net
"""
SEARCH = """
import torch
from mynet import make
from torch.nn.functional import mse_loss


def loss_on(batches, model):
    with torch.no_grad():
        return sum(mse_loss(model(x), y).item() for x, y in batches)


def train(trial):
    model = trial.prepare(make())
    optimizer = torch.optim.AdamW(trial.parameter_groups(model, lr=1e-3))
    loader = [(torch.randn(1, 3, 64, 64), torch.randn(1, 11, 16, 16))]
    trial.attach(model, optimizer)
    for epoch in trial.epochs(2):
        for images, targets in loader:
            optimizer.zero_grad()
            mse_loss(model(images), targets).backward()
            optimizer.step()
        with trial.evaluating():
            trial.report(val=-loss_on(loader, model))
    with trial.evaluating():
        trial.finish(val=-loss_on(loader, model), test=-loss_on(loader, model))
"""
# What a snippet with a training takes as given: workers import it from a module.
PRELUDE = """
import torch, rfsearch
from torch.nn import functional as F
from mynet import make as make_model
loader = [(torch.randn(1, 3, 64, 64), torch.randn(1, 11, 16, 16))]
loss_of, held_out = F.mse_loss, loader
loss_on = lambda batches: 0.5
validate = test = lambda model: -sum(loss_of(model(x), y).item() for x, y in loader)
"""
MODULE = """
from lightning.pytorch import LightningModule
val_loader = loader

class Module(LightningModule):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def training_step(self, batch, number):
        return loss_of(self.net(batch[0]), batch[1])

    def validation_step(self, batch, number):
        self.log("val_loss", loss_of(self.net(batch[0]), batch[1]))

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=1e-3)
"""
STEP = "optimizer.zero_grad(); loss_of(model(images), targets).backward(); optimizer.step()"
EPOCH = f"for images, targets in loader: {STEP}"


def blocks(page: Path, language: str) -> list[str]:
    """Return the code in a page."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def commands() -> list[tuple[str, str]]:
    """Return every line of every shell block, with the name of its page."""
    return [
        (page.name, line)
        for page in PAGES
        for block in blocks(page, "sh")
        for line in block.replace("\\\n", " ").splitlines()
        if line.strip()
    ]


@pytest.mark.parametrize(("page", "line"), commands())
def test_the_command_line_takes_every_command_of_the_documents(page, line):
    if line.startswith(OTHERS):
        return
    program, name, *words = shlex.split(line, comments=True)
    assert program == "rfsearch"
    group = typer.main.get_command(app)
    command = group.commands[name]
    command.make_context(name, list(words), parent=typer.Context(group))  # raises for what it does not know


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=lambda page: page.name)
def test_python_in_the_documents_is_python(page):
    for block in blocks(page, "python"):
        compile(block, page.name, "exec")


def test_links_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            if not target.startswith("reference/commands"):  # is written when the documents are built
                assert (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.fixture(scope="module")
def workshop(tmp_path_factory) -> Path:
    """Return a folder in which what the documents name is there: images, networks, a training, a run."""
    root = tmp_path_factory.mktemp("workshop")
    write_faces(root / "DIR", rendered_faces(12, 12, 4, (48, 48)), ".jpg")
    boxes = [[("cat", 0, 5, 6, 20, 30), ("dog", 0, 22, 8, 50, 30)]] * 6
    voc(root / "VOC", boxes)
    coco(root / "COCO", [[(name, hard, [x, y, 15, 20]) for name, hard, x, y, _, _ in one] for one in boxes])
    for folder, write in (("FLYINGCHAIRS", write_chairs), ("SINTEL", write_sintel), ("KITTI", write_kitti)):
        write(root / folder)
    (root / "mynet.py").write_text(MYNET)
    (root / "net.py").write_text("from mynet import make\n")
    (root / "search.py").write_text(SEARCH)
    return root


@pytest.fixture
def here(workshop, call, monkeypatch):
    """Work in that folder, with a run in it that this process has trained."""
    monkeypatch.chdir(workshop)
    monkeypatch.syspath_prepend(str(workshop))
    train_in_process(monkeypatch)
    for name in ("RUN", "runs/mine"):
        if not (workshop / name).exists():
            options = ["--strategies", "exhaustive", "--budget", "1.3x", "--out", name]
            assert call("run", "--space", toy_file(workshop), *options)[0] == 0
    return call


@pytest.mark.slow
@pytest.mark.parametrize(("page", "line"), [(p, line) for p, line in commands() if line.startswith("rfsearch")])
def test_every_command_of_the_documents_runs(here, page, line, tmp_path):
    _, name, *words = shlex.split(line, comments=True)
    if name in LONG:
        return
    words = [word.replace("3x512x512", "3x64x64").replace("3x513x513", "3x65x65") for word in words]
    if name in ("run", "plan") and "--replay" not in words:
        words = [word for word in words if word not in ("7x", "--budget")]
        words += ["--budget", "9x"] if "--train" in words else SMALL
        if "--data" not in words:
            for changes in (SMALL_SETS[space] for space in SMALL_SETS.keys() & set(words)):
                words += [word for change in changes for word in ("--set", change)]
        elif "objects" in words:
            words += ["--set", "task.proposal_steps=2"]
    if name == "run":
        words = [word for word in words if word not in ("--out", "runs/mine")] + ["--out", tmp_path / "run"]
    code, out, err = here(name, *words)
    assert code == 0, out + err


def names(root: Path) -> dict[str, object]:
    """Return what the snippets of the documents take as given."""
    import mynet

    loader = [(torch.randn(1, 3, 64, 64), torch.randn(1, 11, 16, 16))]
    loss_of = nn.functional.mse_loss

    def loss_on(images):
        return 0.5

    model = mynet.make()
    other = mynet.make()
    learner = rfsearch.learn(other, "layer4.*.conv2", [1, 2, 3, 4, 6, 8], steps=10_000)
    optimizer = torch.optim.AdamW(other.parameters())
    learner.attach(optimizer)
    for images, targets in loader:
        loss_of(other(images), targets).backward()
        optimizer.step()
    saved = {"model": other.state_dict(), "learner": learner.state_dict(), "optimizer": optimizer.state_dict()}
    return {
        "torch": torch, "rfsearch": rfsearch, "make_model": mynet.make, "make": mynet.make, "num_classes": 11,
        "model": model, "loader": loader, "loss_of": loss_of, "loss_on": loss_on, "held_out": loader, "saved": saved,
        "validate": lambda model: -1.0, "test": lambda model: -1.0, "images": torch.randn(2, 3, 64, 64),
        "make_optimizer": lambda model: torch.optim.AdamW(model.parameters()),
    }  # fmt: skip


def snippets() -> list[tuple[str, str]]:
    return [(page.name, block) for page in PAGES for block in blocks(page, "python")]


@pytest.mark.slow
@pytest.mark.parametrize(("page", "code"), snippets(), ids=lambda text: text.splitlines()[0][:40])
def test_every_snippet_of_the_documents_runs(here, workshop, page, code, tmp_path, monkeypatch):
    given = names(workshop)
    if "RUN/export" in code or "model.onnx" in code:
        assert here("export", "RUN")[0] == 0
        given["make"] = wei_small  # the network of that run
        code = code.replace('"model.onnx"', '"RUN/export/model.onnx"')
    if "model.conv6" in code:
        given["model"] = wei_small(11)
    if code.startswith("fresh = "):
        given["learner"] = rfsearch.learn(given["model"], "layer4.*.conv2", [1, 2, 3, 4, 6, 8], steps=2)
        given["learner"].attach(torch.optim.AdamW(given["model"].parameters()))
        given["learner"].settle()
    code = code.replace("512, 512", "64, 64").replace("513, 513", "65, 65")
    code = code.replace("...  # your step, unchanged", STEP).replace("...  # your epoch, unchanged", EPOCH)
    code = code.replace('out="runs/mine"', f'out="{tmp_path / "mine"}"').replace(".show()", "")
    if "def train(" in code:  # workers import what they train
        module = tmp_path / "snippet.py"
        body = code[: code.index("result = ")]
        prelude = PRELUDE
        if "SearchTrial" in code:
            pytest.importorskip("lightning")
            body, prelude = body.replace("max_epochs=20", "max_epochs=2"), PRELUDE + MODULE
        module.write_text(f"{prelude}\n{body}")
        monkeypatch.syspath_prepend(str(tmp_path))
        namespace: dict[str, object] = {}
        exec("from snippet import *", namespace)
        given |= {name: value for name, value in namespace.items() if not name.startswith("__")}
        code = code[code.index("result = ") :]
    exec(compile(code, page, "exec"), given)
