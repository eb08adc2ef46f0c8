"""Try every command on networks that rfsearch was not written for, and measure how long it takes.

`rf`, `sites`, `plan` and a `run` of two short trainings, each as a user gives it, on a few images of a folder in the
layout of `--space folder`; a temporal network by the functions of `rf` and `sites`, and by surgery.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
import torch
from provenance import RESULTS, provenance, write_sidecar
from torch import Tensor, nn

from rfsearch import inspection
from rfsearch.choices import Candidate, Dilated, Inflated
from rfsearch.surgery import build, neutral

NAME = "tried_with"
SPACE = Path(__file__).with_name("tried_with.toml")
USERS = Path(__file__).with_name("users_network.py").resolve()
IMAGES = {"train": 24, "val": 8, "test": 8}
NETWORKS = {
    "torchvision:lraspp_mobilenet_v3_large": "backbone.1[0-2].block.1.0",
    "torchvision:deeplabv3_resnet50": "backbone.layer4.*.conv2",
    "torchvision:fcn_resnet50": "backbone.layer4.*.conv2",
    "timm:resnet18": "net.features.layer3.*.conv2",
    "timm:convnext_atto": "net.features.stages_0.blocks.*.conv_dw",
    "timm:mobilenetv4_conv_small": "net.features.blocks.2.*.dw_mid.conv",
    "timm:swin_tiny_patch4_window7_224": "",
    "smp:unet/resnet18": "net.encoder.layer3.*.conv2",
    "smp:deeplabv3plus/mobilenet_v2": "net.encoder.features.1[4-6].conv.1.0",
    "user's file": "context*",
}


class Temporal(nn.Module):
    """Run six residual layers over a signal, dilations 1 to 32."""

    def __init__(self, num_classes: int, in_channels: int = 2) -> None:
        super().__init__()
        self.stem = nn.Conv1d(in_channels, 16, 1)
        self.layers = nn.ModuleList(nn.Conv1d(16, 16, 3, padding=2**i, dilation=2**i) for i in range(6))
        self.head = nn.Conv1d(16, num_classes, 1)

    def forward(self, signal: Tensor) -> Tensor:
        """Map B x C x L to B x classes x L."""
        x = self.stem(signal)
        for layer in self.layers:
            x = x + layer(x).relu()
        return self.head(x)


def few(folder: Path, to: Path) -> None:
    """Copy the first images of each split."""
    for split, count in IMAGES.items():
        for part in ("images", "labels"):
            (to / split / part).mkdir(parents=True)
            for file in sorted((folder / split / part).iterdir())[:count]:
                shutil.copy(file, to / split / part / file.name)
    for file in folder.glob("classes.txt"):
        shutil.copy(file, to / file.name)


def timed(work: Path, *args: str) -> tuple[float, subprocess.CompletedProcess[str]]:
    """Run a command, and return its seconds and its result."""
    started = time.perf_counter()
    main = [sys.executable, "-c", "from rfsearch.cli import main; main()"]
    done = subprocess.run([*main, *args], cwd=work, capture_output=True, text=True, check=False)
    return time.perf_counter() - started, done


def try_network(spec: str, site: str, data: Path, work: Path) -> dict[str, object]:
    """Return one row: the seconds of each command, or in words why it does not work."""
    backbone = f"{USERS}:Users" if spec == "user's file" else spec
    at = ["--space", str(SPACE), "--data", str(data)]
    row: dict[str, object] = {"network": spec, "sites": site}
    commands = {
        "rf": ["rf", backbone, *at, "--out", str(work / "rf"), "--json"],
        "sites": ["sites", backbone, *at, "--json"],
    }
    if site:
        search = [*at, "--backbone", backbone, "--site", site, "--strategies", "exhaustive", "--json"]
        commands |= {"plan": ["plan", *search], "run": ["run", *search, "--out", str(work / "run")]}
    for name, args in commands.items():
        seconds, done = timed(work, *args)
        if done.returncode != 0:
            row[f"{name}_s"] = f"refused: {done.stderr.strip().splitlines()[-1] if done.stderr.strip() else '?'}"
            continue
        row[f"{name}_s"] = round(seconds, 1)
        body = json.loads(done.stdout)
        if name == "rf":
            axis = body["axes"][-1]
            row |= {"local_rf_px": axis["local_px"], "sees_whole": axis["whole"]}
            row["effective_px"] = round(body["effective"]["size_px"], 1) if "effective" in body else None
        elif name == "sites":
            row["changeable"] = sum(not found["why_not"] for found in body)
        elif name == "plan":
            row["candidates"] = len(body["candidates"])
        else:
            row["trials"] = sum(arm["trials"] for arm in body["arms"])
    shutil.rmtree(work / "run", ignore_errors=True)
    return row


def try_temporal() -> dict[str, object]:
    """Return the row of the temporal network."""
    torch.manual_seed(0)
    model = Temporal(3).eval()
    started = time.perf_counter()
    found = inspection.inspect(model, (1, 2, 512))
    middle = time.perf_counter()
    sites = inspection.list_site_fields(model, (1, 2, 512))
    ended = time.perf_counter()
    paths = [f"layers.{i}" for i in range(6)]
    signal = torch.randn(2, 2, 512)
    with torch.no_grad():
        same = torch.equal(build(model, neutral(model, paths))(signal), model(signal))
        wide = build(model, Candidate({"layers.5": Dilated(48), "layers.4": Inflated(16, 1.5)}))(signal)
    assert same
    assert wide.shape == model(signal).shape
    return {
        "network": "temporal, 1-D",
        "sites": "layers.*",
        "rf_s": round(middle - started, 1),
        "sites_s": round(ended - middle, 1),
        "local_rf_px": found.field.local_px,
        "sees_whole": found.field.whole,
        "effective_px": round(found.effective.size_px, 1) if found.effective else None,
        "changeable": sum(not site.row.why_not for site in sites),
        "plan_s": "surgery: neutral bit for bit, output size kept",
    }


def main() -> None:
    """Try all networks, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of labelled images, as for --space folder")
    parser.add_argument("--only", default="", help="networks whose name holds this")
    chosen = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        work, data = Path(folder), Path(folder) / "data"
        few(chosen.data, data)
        for spec, site in NETWORKS.items():
            if chosen.only in spec:
                rows.append(try_network(spec, site, data, work))
                print(rows[-1], flush=True)
    rows.append(try_temporal())
    print(rows[-1], flush=True)
    if not chosen.only:
        pd.DataFrame(rows).rename(columns={"candidates": "told_apart"}).to_csv(RESULTS / f"{NAME}.csv", index=False)
        write_sidecar(NAME, provenance() | {"images": IMAGES, "size": "96 x 128 px"})


if __name__ == "__main__":
    main()
