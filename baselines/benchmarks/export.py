"""Time exported layers in ONNX Runtime and OpenVINO, and measure their files: of this code or of an earlier commit's.

    python baselines/benchmarks/export.py --rows now > now.jsonl
    PYTHONPATH=CHECKOUT python baselines/benchmarks/export.py --rows COMMIT > before.jsonl
    python baselines/benchmarks/export.py --table before.jsonl now.jsonl

A file written by earlier code takes one image of one size, which is why each size has a file of its own there.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from provenance import RESULTS, provenance, write_sidecar
from torch import nn

from rfsearch.layers import LSDFN, FractionalConv2d, Inflation, InflationFactor, Interpolation

NAME, ROUNDS = "export", 9


class Behind(nn.Module):
    """A convolution, the layer, a batch normalisation and a ReLU."""

    def __init__(self, channels: int, layer: nn.Module, outputs: int) -> None:
        super().__init__()
        self.stem, self.layer, self.norm = nn.Conv2d(3, channels, 3, 2, 1), layer, nn.BatchNorm2d(outputs)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Run it."""
        return self.norm(self.layer(self.stem(image).relu())).relu()


class Inflated(nn.Module):
    """A convolution between an inflation and its interpolation."""

    def __init__(self, channels: int, f: float) -> None:
        super().__init__()
        factor = InflationFactor(f)
        self.inflation, self.interpolation = Inflation(factor), Interpolation(factor, 1)
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Run it."""
        return self.interpolation(self.conv(self.inflation(x)), x.shape[-2:], x.shape[-2:])


def real(channels: int, outputs: int, dilation: float) -> nn.Module:
    """Return a network with a real dilation."""
    conv = nn.Conv2d(channels, outputs, 3, padding="same", bias=False)
    return Behind(channels, FractionalConv2d(conv, dilation, learned=False), outputs)


def networks() -> Iterator[tuple[str, nn.Module, tuple[int, int]]]:
    """Yield what is exported, with its name and the size of its image."""
    torch.manual_seed(0)
    plain = nn.Conv2d(16, 16, 3, padding="same", dilation=2, bias=False)
    yield "16 to 16 channels, dilation 2", Behind(16, plain, 16), (192, 192)
    for channels, outputs, dilation, side in (
        (16, 16, 1.5, 192),
        (16, 16, 2.5, 192),
        (64, 11, 2.5, 192),
        (64, 512, 2.5, 96),
    ):
        yield f"{channels} to {outputs} channels, dilation {dilation}", real(channels, outputs, dilation), (side, side)
    yield "16 channels, f 1.3", Behind(16, Inflated(16, 1.3), 16), (192, 192)
    for size in ((48, 48), (96, 96), (256, 384)):
        yield "LS-DFN, 8 features, s 3", Behind(16, LSDFN(16, 4, features=8, s=3, gamma=2.0), 4), size


def write(network: nn.Module, size: tuple[int, int], file: Path) -> None:
    """Write a network as `rfsearch export` does; in code of before there was a folder of it, as that did."""
    image = torch.zeros(1, 3, *size)
    if importlib.util.find_spec("rfsearch.export.folding") is None:
        from rfsearch.export.forms import _MainOutput

        program = torch.export.export(_MainOutput(network), (image,), strict=False)
        made = torch.onnx.export(program, dynamo=True, verbose=False, input_names=["image"], output_names=["output"])
        assert made is not None
        made.save(file)
        return
    from rfsearch.export.deployed import Deployed, Graph
    from rfsearch.export.folding import fold
    from rfsearch.export.onnx_file import write_onnx
    from rfsearch.export.tracing import trace

    fold(network, image)
    traced = trace(Deployed(network, 3, Graph()), torch.zeros(2, 3, size[0], size[1] + 2), size)
    write_onnx(file, traced, ("output",), None, {})


def runs(file: Path) -> Iterator[tuple[str, Callable[[np.ndarray], np.ndarray]]]:
    """Open a file in both runtimes, each with one thread."""
    import onnxruntime
    import openvino

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    yield "onnxruntime", lambda image: session.run(["output"], {"image": image})[0]
    settings = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(file, "CPU", settings)
    yield "openvino", lambda image: compiled(image)[0]


def rows() -> Iterator[dict[str, Any]]:
    """Yield the rows of this code."""
    for name, network, size in networks():
        network.eval()
        image = torch.randn(1, 3, *size)
        with torch.no_grad(), tempfile.TemporaryDirectory() as folder:
            expected = network(image).numpy()
            file = Path(folder) / "model.onnx"
            write(copy.deepcopy(network), size, file)
            for runtime, run in runs(file):
                difference = float(np.abs(run(image.numpy()) - expected).max())
                times = []
                for _ in range(ROUNDS):
                    start = time.process_time()
                    run(image.numpy())
                    times.append(1e3 * (time.process_time() - start))
                low, median, high = statistics.quantiles(times, n=4)
                yield {
                    "network": name,
                    "height": size[0],
                    "width": size[1],
                    "runtime": runtime,
                    "file_kb": round(sum(part.stat().st_size for part in Path(folder).iterdir()) / 1000, 1),
                    "cpu_ms": round(median, 2),
                    "low_ms": round(low, 2),
                    "high_ms": round(high, 2),
                    "difference": float(f"{difference:.2g}"),
                }


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument(
        "--rows", metavar="CODE", help="print the rows of the code that is imported, called so, as JSON"
    )
    parser.add_argument("--table", nargs="+", help="files of such rows, of which the table is made")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.rows:
        for row in rows():
            print(json.dumps({"code": options.rows, **row}), flush=True)
        return
    found = [json.loads(line) for file in options.table for line in Path(file).read_text().splitlines()]
    pd.DataFrame(found).to_csv(RESULTS / f"{NAME}.csv", index=False)
    what = "CPU time of one image, one thread: median and quartiles of calls; other processes ran on the machine"
    write_sidecar(NAME, {**provenance(), "what": what, "calls": ROUNDS})


if __name__ == "__main__":
    main()
