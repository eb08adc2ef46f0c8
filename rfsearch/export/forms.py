"""Write a network as a program and as ONNX, and hold each form against it on real images."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from rfsearch.export.bench import Bench
from rfsearch.layers import LSDFN, Inflation, Interpolation
from rfsearch.outputs import exported_outputs
from rfsearch.patch import Patch
from rfsearch.training import checkpoint

FORMATS = ("onnx", "program")
TOLERANCE = 1e-4  # largest difference between the outputs of the network and of what was exported
_EXTERNAL_BYTES = 2**30  # larger weights are written beside an ONNX file, which holds 2 GiB at most


@dataclass(frozen=True)
class Form:
    """Hold one form of the exported network.

    Attributes:
        name: Its name.
        file: Its file, None where it could not be written.
        batch: Images at a time, None for any number.
        difference: Largest difference of outputs on real images, None where it was not measured.
        said: What there is to know of it, or "".
        failed: Whether it is not what was asked for.
    """

    name: str
    file: str | None
    batch: int | None = None
    difference: float | None = None
    said: str = ""
    failed: bool = False


Outputs = Tensor | tuple[Tensor, ...]


class _MainOutput(nn.Module):
    """Return a network's output itself, and nothing around it: one tensor, or several where it has no single one.

    In the network, which it takes over, f and gamma become plain numbers: what is traced then has maps of known sizes.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        model.eval()
        self.network = model.requires_grad_(False)
        for module in self.network.modules():
            if isinstance(module, Inflation | Interpolation):
                module.factor = _Constant(f=float(module.factor.f))  # type: ignore[assignment]
            elif isinstance(module, LSDFN):
                module.stride = _Constant(gamma=float(module.stride.gamma))  # type: ignore[assignment]

    def forward(self, image: Tensor) -> Outputs:
        outputs = tuple(exported_outputs(self.network(image)).values())
        return outputs if len(outputs) > 1 else outputs[0]


class _Constant(nn.Module):
    """Hold numbers in the place of a module with parameters of these names."""

    def __init__(self, **numbers: float) -> None:
        super().__init__()
        for name, number in numbers.items():
            setattr(self, name, number)


def write_forms(
    directory: Path, model: nn.Module, bench: Bench, formats: Sequence[str], say: Callable[[str], None]
) -> list[Form]:
    """Write the model in every form asked for, and hold each against it on real images."""
    images = bench.images()
    network = _MainOutput(model)
    with torch.no_grad():
        named = exported_outputs(network.network(images))
        expected = tuple(named.values())
    again = Patch.read(directory / "patch.json").install(bench.backbone())
    again.load_state_dict(torch.load(directory / "model.pt", weights_only=True))
    forms = [_compared("state dict", "model.pt", None, _MainOutput(again), images, expected)]
    if not formats:
        return forms
    say("Tracing the network with torch.export ...")
    try:
        program, batch = _traced(network, images[:1])
    except Exception as error:
        said = f"torch.export does not take this network: {_brief(error)}"
        return [*forms, *(Form(name, None, said=said, failed=True) for name in formats)]
    if "program" in formats:
        checkpoint.write(directory / "model.pt2", partial(torch.export.save, program))
        loaded = torch.export.load(directory / "model.pt2").module()
        forms.append(_compared("program", "model.pt2", batch, loaded, images, expected))
    if "onnx" in formats:
        forms.append(_onnx(directory / "model.onnx", program, batch, images, named, say))
    return forms


def _traced(network: nn.Module, image: Tensor) -> tuple[torch.export.ExportedProgram, int | None]:
    """Return a network as a program, and how many images it takes at a time: any number, None, if possible."""
    with _quiet():
        if any(isinstance(module, LSDFN) for module in network.modules()):  # its work is cut up by the batch's size
            return torch.export.export(network, (image,), strict=False), 1
        try:
            dynamic = ({0: torch.export.Dim("batch")},)
            return torch.export.export(network, (torch.cat([image] * 2),), dynamic_shapes=dynamic, strict=False), None
        except Exception:
            return torch.export.export(network, (image,), strict=False), 1


def _onnx(
    file: Path,
    program: torch.export.ExportedProgram,
    batch: int | None,
    images: Tensor,
    expected: Mapping[str, Tensor],
    say: Callable[[str], None],
) -> Form:
    if said := onnx_missing():
        return Form("onnx", None, said=said)
    say("Translating it to ONNX ...")
    size = sum(tensor.numel() * tensor.element_size() for tensor in program.state_dict.values())
    try:
        with _quiet():
            made = torch.onnx.export(
                program, dynamo=True, verbose=False, input_names=["image"], output_names=list(expected)
            )
            assert made is not None
            made.save(file, external_data=size > _EXTERNAL_BYTES)
    except OSError:
        raise
    except Exception as error:
        return Form("onnx", None, said=f"torch.onnx does not take this network: {_brief(error)}", failed=True)
    if importlib.util.find_spec("onnxruntime") is None:
        said = "Not compared: onnxruntime is not installed. Get it with: pip install onnxruntime"
        return Form("onnx", file.name, batch, said=said)
    onnxruntime = importlib.import_module("onnxruntime")
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])

    def run(image: Tensor) -> Outputs:
        return tuple(map(torch.from_numpy, session.run(list(expected), {"image": image.numpy()})))

    return _compared("onnx", file.name, batch, run, images, tuple(expected.values()))


def _compared(
    name: str,
    file: str,
    batch: int | None,
    run: Callable[[Tensor], Outputs],
    images: Tensor,
    expected: tuple[Tensor, ...],
) -> Form:
    """Return a form that was written, with the largest difference from the network's own outputs on some images."""
    with torch.no_grad():
        parts = [run(some) for some in images.split(batch or len(images))]
    tuples = [(part,) if isinstance(part, Tensor) else part for part in parts]
    got = [torch.cat(pieces) for pieces in zip(*tuples, strict=True)]
    differences = torch.stack([(one - other).abs().max() for one, other in zip(got, expected, strict=True)])
    difference = float(differences.max())  # NaN where any is
    said = ""
    if not difference <= TOLERANCE:  # nor if it is no number
        said = f"{file} differs from the network by {difference:.3g} in its output; at most {TOLERANCE:g} is allowed."
    return Form(name, file, batch, difference, said, failed=bool(said))


def onnx_missing() -> str:
    """Return what to install for ONNX, or "" if it can be written."""
    missing = [package for package in ("onnx", "onnxscript") if importlib.util.find_spec(package) is None]
    if not missing:
        return ""
    return f"No ONNX: {' and '.join(missing)} not installed. Get it with: pip install {' '.join(missing)}"


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporters, whose failures are reported in our words."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logging.disable(before)


def _brief(error: Exception) -> str:
    return f"{type(error).__name__}: {next(iter(str(error).strip().splitlines()), '')}"[:300]
