"""Write a program as an ONNX file, and run one in the runtimes that are installed."""

from __future__ import annotations

import importlib
import importlib.util
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rfsearch.export.deployed import Outputs
from rfsearch.export.tracing import Traced, quiet

INPUT = "image"
OPSETS = range(18, 24)
"""Versions of operators that can be asked for: those that torch's exporter knows."""
_EXTERNAL_BYTES = 2**30  # larger weights are written beside an ONNX file, which holds 2 GiB at most

Run = Callable[[Tensor], Outputs]


def missing() -> str:
    """Return what to install for ONNX, or "" if it can be written."""
    lacking = [package for package in ("onnx", "onnxscript") if importlib.util.find_spec(package) is None]
    if not lacking:
        return ""
    return f"No ONNX: {' and '.join(lacking)} not installed. Get it with: pip install {' '.join(lacking)}"


def write_onnx(
    file: Path, traced: Traced, outputs: Sequence[str], opset: int | None, metadata: Mapping[str, str]
) -> None:
    """Write a program, its open dimensions named batch, height and width.

    Args:
        file: Where to.
        traced: The program.
        outputs: Names of what it returns, in their order.
        opset: Version of ONNX's operators. None: that of torch's exporter.
        metadata: Goes into the file.

    Raises:
        OSError: The file cannot be written.
        Exception: Whatever torch.onnx raises.
    """
    size = sum(tensor.numel() * tensor.element_size() for tensor in traced.program.state_dict.values())
    options: dict[str, Any] = {} if opset is None else {"opset_version": opset}
    with quiet():
        made = torch.onnx.export(
            traced.program, dynamo=True, verbose=False, input_names=[INPUT], output_names=list(outputs), **options
        )
        assert made is not None
        model = made.model
        for value in (*model.graph.inputs, *model.graph.outputs):
            value.metadata_props.clear()
        for node in model.graph.all_nodes():
            node.metadata_props.clear()  # names files of this machine
            for value in node.outputs:
                value.metadata_props.clear()
        _name_axes(model, traced.symbols)
        model.metadata_props.update(metadata)
        made.save(file, external_data=size > _EXTERNAL_BYTES)


def _name_axes(model: Any, symbols: Mapping[str, str]) -> None:
    """Name the open dimensions of every value by what they are, those of the output too."""
    import onnx_ir as ir

    graph = model.graph
    for value in (*graph.inputs, *(output for node in graph.all_nodes() for output in node.outputs)):
        if value.shape is not None:
            value.shape = ir.Shape([_renamed(dim, symbols) for dim in value.shape])
    for value in graph.outputs:
        if value.shape is not None and len(value.shape) >= 3:
            dims, sides = list(value.shape), ("height", "width")
            for axis, side in zip((-2, -1), sides, strict=True):
                if not isinstance(dims[axis], int) and str(dims[axis]) != side:
                    dims[axis] = f"output_{side}"
            value.shape = ir.Shape(dims)


def _renamed(dim: object, symbols: Mapping[str, str]) -> int | str | None:
    known = getattr(dim, "value", dim)
    if isinstance(known, int) or known is None:  # one that has no name is nobody's equal
        return known
    return re.sub(r"\w+", lambda found: symbols.get(found[0], found[0]), str(known))


def runtimes(file: Path, outputs: Sequence[str]) -> dict[str, Run]:
    """Open an ONNX file in every runtime that is installed, in single precision on a CPU, by the runtime's name.

    Args:
        file: The file.
        outputs: Names of what it returns, in their order.
    """
    found: dict[str, Run] = {}
    if importlib.util.find_spec("onnxruntime") is not None:
        onnxruntime = importlib.import_module("onnxruntime")
        session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        found["onnxruntime"] = lambda image: tuple(
            map(torch.from_numpy, session.run(list(outputs), {INPUT: image.numpy()}))
        )
    if importlib.util.find_spec("openvino") is not None:
        openvino = importlib.import_module("openvino")
        compiled = openvino.Core().compile_model(file, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        found["openvino"] = lambda image: _outputs_of_openvino(compiled(image.numpy()), len(outputs))
    return found


def _outputs_of_openvino(found: Any, count: int) -> tuple[Tensor, ...]:
    return tuple(torch.from_numpy(found[number].copy()) for number in range(count))
