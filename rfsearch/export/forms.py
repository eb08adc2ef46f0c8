"""Write a network as a program and as ONNX, and hold each form against it on real images."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from rfsearch.export import onnx_file
from rfsearch.export.bench import Bench
from rfsearch.export.checking import Check, Sample, Samples, comparisons, together
from rfsearch.export.deployed import Deployed, Graph
from rfsearch.export.folding import fold
from rfsearch.export.onnx_file import Run
from rfsearch.export.tracing import Traced, brief, quiet, trace
from rfsearch.patch import Patch
from rfsearch.tensor_files import read_tensors
from rfsearch.training import checkpoint

FORMATS = ("onnx", "program")


@dataclass(frozen=True)
class Form:
    """Hold one form of the exported network.

    Attributes:
        name: Its name.
        file: Its file, None where it could not be written.
        batch: Images at a time, None for any number.
        size: (H, W) of an image, px, None for any.
        checks: How far its outputs are from the network's, on real images.
        said: What there is to know of it, or "".
        failed: Whether it is not what was asked for.
    """

    name: str
    file: str | None
    batch: int | None = None
    size: tuple[int, int] | None = None
    checks: tuple[Check, ...] = ()
    said: str = ""
    failed: bool = False

    @property
    def difference(self) -> float | None:
        """Largest difference of outputs, None where it was not measured."""
        return max((check.difference for check in self.checks), default=None)

    @staticmethod
    def checked(
        name: str, file: str, checks: Sequence[Check], batch: int | None = None, size: tuple[int, int] | None = None
    ) -> Form:
        """Return a form that was written and compared."""
        worst = next((check for check in checks if check.failed), None)
        said = ""
        if worst is not None:
            height, width = worst.size
            said = (
                f"{file} differs from the network by {worst.difference:.3g} in its output ({worst.runtime}, "
                f"{worst.images} x {height} x {width} px); at most {worst.allowed:g} is allowed."
            )
        return Form(name, file, batch, size, tuple(checks), said, failed=bool(said))


class Writer:
    """Write the forms of one network.

    Args:
        directory: Where to, with patch and state dict in it already.
        bench: Gives images and fresh networks.
        graph: What goes into the graphs.
        outputs: Names of what the network returns, in their order.
        metadata: Goes into the files.
        say: Called with a sentence before what takes time.
    """

    def __init__(
        self,
        directory: Path,
        bench: Bench,
        graph: Graph,
        outputs: Sequence[str],
        metadata: Mapping[str, str],
        say: Callable[[str], None],
    ) -> None:
        self._directory, self._bench, self._graph, self._say = directory, bench, graph, say
        self._outputs, self._metadata = tuple(outputs), dict(metadata)

    def write(self, model: nn.Module, formats: Sequence[str]) -> list[Form]:
        """Write the forms asked for, and hold each, and the state dict, against the model on real images."""
        pixels = _multiple_of(self._graph.batch or 1, self._bench.pixels())
        channels, ignored = pixels.shape[1], self._bench.ignored
        bare = Samples(Deployed(model, channels, Graph()), pixels)
        again = Patch.read(self._directory / "patch.json", trust=True).install(self._bench.backbone())
        again.load_state_dict(read_tensors(self._directory / "model.pt", torch.device("cpu")))
        whole = bare.at(self._bench.size)
        state = Deployed(again, channels, Graph())
        check = whole.compare("torch", state, Graph(), len(pixels))
        forms = [Form.checked("state dict", "model.pt", [check])]
        if not formats:
            return forms
        self._say("Tracing the network with torch.export ...")
        graph = self._graph
        samples = Samples(Deployed(model, channels, graph.plain, ignored if graph.argmax else None), pixels)
        try:
            here = samples.at(graph.size or self._bench.size)
        except Exception as error:
            said = f"the network does not take images of {' x '.join(map(str, graph.size or ()))} px: {brief(error)}"
            return [*forms, *(Form(name, None, said=said, failed=True) for name in formats)]
        there = None if graph.size else samples.elsewhere()
        try:
            fold(again, whole.images[:1])
            traced = self._traced(Deployed(again, channels, graph, ignored), here, there)
        except Exception as error:
            said = f"torch.export does not take this network: {brief(error)}"
            return [*forms, *(Form(name, None, said=said, failed=True) for name in formats)]
        compared = [here] if there is None or traced.size else [here, there]
        if "program" in formats:
            forms.append(self._program(traced, compared))
        if "onnx" in formats:
            forms.append(self._onnx(traced, compared))
        return forms

    def _traced(self, network: nn.Module, here: Sample, there: Sample | None) -> Traced:
        """Trace a network on blank images, so that it takes the sizes of both samples if it can."""
        like = here if there is None else there
        count = self._graph.batch or 2
        example = like.images.new_zeros(count, *like.images.shape[1:])
        any_batch = self._graph.batch is None
        traced = trace(network, example, here.size, any_batch, there is not None)
        if there is None or traced.size or (_goes(traced, here) and _goes(traced, there)):
            return traced
        return trace(network, example, here.size, any_batch, any_size=False)

    def _program(self, traced: Traced, samples: Sequence[Sample]) -> Form:
        file = self._directory / "model.pt2"
        extra = {"metadata.json": json.dumps(self._metadata)}
        with quiet():
            checkpoint.write(file, lambda target: torch.export.save(traced.program, target, extra_files=dict(extra)))
        run = torch.export.load(file).module()
        return self._checked("program", file, {"torch": run}, traced, samples)

    def _checked(
        self, name: str, file: Path, runtimes: Mapping[str, Run], traced: Traced, samples: Sequence[Sample]
    ) -> Form:
        """Compare a file in every runtime that is given."""
        checks: list[Check] = []
        for runtime, run in runtimes.items():
            try:
                checks += comparisons(samples, runtime, run, self._graph, traced.batch)
            except Exception as error:
                said = f"{file.name} does not run in {runtime}: {brief(error)}"
                return Form(name, file.name, traced.batch, traced.size, tuple(checks), said, failed=True)
        return Form.checked(name, file.name, checks, traced.batch, traced.size)

    def _onnx(self, traced: Traced, samples: Sequence[Sample]) -> Form:
        file = self._directory / "model.onnx"
        if said := onnx_file.missing():
            return Form("onnx", None, said=said)
        self._say("Translating it to ONNX ...")
        try:
            onnx_file.write_onnx(file, traced, self._outputs, self._graph.opset, self._metadata)
        except OSError:
            raise
        except Exception as error:
            return Form("onnx", None, said=f"torch.onnx does not take this network: {brief(error)}", failed=True)
        try:
            runtimes = onnx_file.runtimes(file, self._outputs)
        except Exception as error:
            said = f"{file.name} cannot be opened again: {brief(error)}"
            return Form("onnx", file.name, traced.batch, traced.size, said=said, failed=True)
        if not runtimes:
            said = "Not compared: onnxruntime is not installed. Get it with: pip install onnxruntime"
            return Form("onnx", file.name, traced.batch, traced.size, said=said)
        return self._checked("onnx", file, runtimes, traced, samples)


def _multiple_of(batch: int, pixels: Tensor) -> Tensor:
    """Return some of the images, a multiple of so many, again from the first one where there are too few."""
    count = max(1, len(pixels) // batch) * batch
    return pixels[torch.arange(count) % len(pixels)]


def _goes(traced: Traced, sample: Sample) -> bool:
    """Return whether a program takes a sample's size; a size that a network decides on may be fixed unseen."""
    try:
        with torch.no_grad(), quiet():
            outputs = together(traced.program.module()(sample.images[: traced.batch]))
    except Exception:
        return False
    return all(len(output) == len(sample.images[: traced.batch]) for output in outputs)
