"""Measure what finds a receptive field where the answer is known, from every start.

A teacher network with planted dilations makes the targets. A student of the same architecture starts at others, with
the teacher's weights ("known") or with weights that it learns too. Maps have the spectrum of photographs, 1/k
("rough"), or a steeper one, 1/k^2 ("smooth"). Every step sees new maps, and targets with as much noise as signal.
Losses are mean squared errors over the targets' variance, on maps that training has not seen, without noise. Where f of
one site is learned and the weights are known, `best` is the dilation at which the loss of such a student is least: it
tells what resampling loses from what learning misses.

    python baselines/benchmarks/planted.py --work FILE

Each row is kept in FILE as it comes; given again, it goes on.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from provenance import RESULTS, provenance, write_sidecar
from torch import Tensor, nn
from torch.nn import functional as F

from rfsearch.choices import Candidate, Choice, Dilated, Fractional, Guest, Inflated, Searched, SitePath
from rfsearch.data import ImageSet, Split
from rfsearch.layers import LSDFN, FractionalConv2d
from rfsearch.space import Recipe
from rfsearch.surgery import Learnable, Settings, Undecayed, assemble, found_dilation
from rfsearch.training.dilation_search import DilationSearch, prelude_steps
from rfsearch.training.optimisation import Optimisation, Scalar
from rfsearch.training.tally import Tally

NAME = "planted"
SIDE, CHANNELS, HIDDEN = 48, 3, 6
HELD_OUT, NOISE = 16, 1.0
STARTS = (0.5, 1.0, 2.0, 3.0)
SPECTRA = {"rough": 1.0, "smooth": 2.0}
DILATIONS = (1, 2, 3, 4, 6, 8, 12)
BOUNDS = (0.5, 24.0)  # three times the largest answer is a start
F_BOUNDS = (1 / 16, 16.0)
RECIPES = {
    "known": Recipe(steps=500, batch_size=2, lr=0.1, power=1.0, f_step=0.05),
    "learned": Recipe(steps=300, batch_size=4, lr=0.05, power=1.0, f_step=0.05),
}
WITHIN = {"known": 0.05, "learned": 0.15}
_NAMES = ("planted", "weights", "maps", "arm", "start", "seed")


@dataclass(frozen=True)
class Planted:
    """Say what is hidden.

    Attributes:
        name: What the table calls it.
        answer: Dilation of each path, in units of `unit`; gamma where the sites are LS-DFN blocks.
        sites: Number of sites in a row; where there is one, it may have several paths.
        unit: Dilation of each convolution where the answer is 1, px, vertically and horizontally.
        sampled: Whether the sites are LS-DFN blocks.
    """

    name: str
    answer: tuple[float, ...]
    sites: int = 1
    unit: tuple[int, int] = (1, 1)
    sampled: bool = False

    def candidate(self, choices: Sequence[Choice]) -> Candidate:
        """Give each path one of the choices."""
        if self.sites == 1:
            return Candidate({"sites.0": [SitePath(choice) for choice in choices]})
        return Candidate({f"sites.{number}": choice for number, choice in enumerate(choices)})

    def answered(self) -> nn.Module:
        """Build the network with the answer in it."""
        network = Network(self)
        if self.sampled:
            set_gamma(network, self.answer[0])
            return network
        choices = [Dilated(int(d)) if float(d).is_integer() else Fractional(d) for d in self.answer]
        return assemble(network, self.candidate(choices), Settings())[0]


ONE_SITE = Planted("one site", (4,))
GAMMA = Planted("gamma", (3,), sampled=True)
PLANTED = (
    ONE_SITE,
    Planted("two sites", (2, 5), sites=2),
    Planted("two paths", (2, 6)),
    Planted("real-valued", (3.4,)),
    Planted("anisotropic", (2,), unit=(1, 2)),
)
EVERYWHERE = ("inflation continuous exact", "inflation continuous paper", "FractionalConv2d")
FLOORED = ("inflation paper exact", "inflation paper paper")
PEERS = {"dcls": ("DCLS", "rfsearch_peers"), "rfnext": ("mmcv", "mmengine", "rfsearch_peers")}
KINDS: dict[str, Callable[[int], Choice]] = {
    "inflation": lambda dilation: Inflated(dilation, learned=True),
    "FractionalConv2d": Dilated,
    "fractional": Searched,
    "dcls": lambda dilation: Guest(dilation, "rfsearch_peers.dcls:dcls"),
    "rfnext": lambda dilation: Guest(dilation, "rfsearch_peers.rfnext:rfnext"),
}


@dataclass(frozen=True)
class Case:
    """Say what one student gets.

    Attributes:
        planted: What is hidden.
        arm: What learns; of `inflation` also its border and normalisation. "answer" starts with it, and keeps it.
        weights: "known" or "learned".
        maps: "rough" or "smooth".
        start: Its dilations over the answer's.
        seed: Of the teacher, the student and the maps.
    """

    planted: Planted
    arm: str
    weights: str
    maps: str
    start: float = 1.0
    seed: int = 0

    @property
    def kind(self) -> str:
        """The arm without its settings."""
        return self.arm.split()[0]

    @property
    def starts(self) -> list[int]:
        """The whole dilations that the paths start at."""
        return [max(1, round(self.start * answer)) for answer in self.planted.answer]


class Network(nn.Module):
    """Map B x 3 x H x W to B x 3 x H x W by sites, each before a tanh, and a 1 x 1 convolution."""

    def __init__(self, planted: Planted) -> None:
        super().__init__()
        inputs, unit = [CHANNELS, *[HIDDEN] * (planted.sites - 1)], planted.unit
        sites: list[nn.Module] = [nn.Conv2d(count, HIDDEN, 3, padding=unit, dilation=unit) for count in inputs]
        if planted.sampled:
            sites = [LSDFN(CHANNELS, HIDDEN, features=HIDDEN, s=3, learned=True, bounds=BOUNDS)]
        elif unit != (1, 1):  # the dilations in a container are multiplied
            sites = [nn.Sequential(site) for site in sites]
        self.sites, self.output = nn.ModuleList(sites), nn.Conv2d(HIDDEN, CHANNELS, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Run the sites one after the other."""
        for site in self.sites:
            x = torch.tanh(site(x))
        result: Tensor = self.output(x)
        return result


class Data:
    """Draw maps, and what a teacher makes of them, of variance 1."""

    def __init__(self, case: Case) -> None:
        self._generator = torch.Generator().manual_seed(case.seed)
        frequencies = torch.fft.fftfreq(2 * SIDE)[:, None], torch.fft.rfftfreq(2 * SIDE)
        self._amplitude = torch.hypot(*frequencies).clamp(min=0.5 / SIDE) ** -SPECTRA[case.maps]
        self._amplitude[0, 0] = 0
        self.teacher = case.planted.answered().requires_grad_(False)
        for parameter in weights_of(self.teacher):
            fan = parameter[0].numel() if parameter.dim() > 1 else 1
            parameter.copy_(torch.randn(parameter.shape, generator=self._generator) / fan**0.5)
        size = self.teacher(self.maps(64)).std()
        for parameter in self.teacher.output.parameters():
            parameter /= size
        self.held_out = self.batch(HELD_OUT, 0.0)

    def maps(self, count: int) -> Tensor:
        """Draw maps of mean 0 and variance 1, B x 3 x H x W, cut out of wider ones: those repeat at their borders."""
        noise = torch.randn(count, CHANNELS, 2 * SIDE, 2 * SIDE, generator=self._generator)
        x = torch.fft.irfft2(torch.fft.rfft2(noise) * self._amplitude, s=noise.shape[2:])
        return (x / x.std())[..., :SIDE, :SIDE]

    def batch(self, count: int, noise: float = NOISE) -> tuple[Tensor, Tensor]:
        """Draw maps and their targets."""
        x = self.maps(count)
        target = self.teacher(x)
        return x, target + noise * torch.randn(target.shape, generator=self._generator)

    @torch.no_grad()
    def loss(self, student: nn.Module) -> float:
        """Return the loss of a student on held-out maps."""
        x, target = self.held_out
        return F.mse_loss(student(x), target).item()


class Distance:
    """The mean squared error, as `Optimisation` takes a task."""

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Return the loss of one batch."""
        return F.mse_loss(output, target)

    def class_ids(self, target: Tensor) -> None:
        """Return none: there are no classes."""


class Student:
    """A network that a case starts with, and what of it is learned."""

    def __init__(self, case: Case, data: Data) -> None:
        torch.manual_seed(case.seed + 1000)
        self._case, self.layers = case, list[FractionalConv2d]()
        settings = Settings(dilations=DILATIONS, f_bounds=F_BOUNDS)
        if case.kind == "inflation":
            _, border, normalisation = case.arm.split()
            settings = replace(settings, border=border, normalisation=normalisation)
        if case.kind == "answer":
            self.model, self.learnable = case.planted.answered(), Learnable({}, {}, {}, {}, {})
        elif case.planted.sampled:
            self.model = Network(case.planted)
            set_gamma(self.model, case.start * case.planted.answer[0])
            self.learnable = Learnable({}, {}, {"sites.0": self.model.sites[0].stride}, {}, {})
        else:
            self.candidate = case.planted.candidate([KINDS[case.kind](start) for start in case.starts])
            self.model, self.learnable = assemble(Network(case.planted), self.candidate, settings)
        if case.weights == "known":
            with torch.no_grad():
                for ours, theirs in zip(weights_of(self.model), weights_of(data.teacher), strict=True):
                    ours.copy_(theirs.view_as(ours))
                    ours.requires_grad_(False)

    def free_dilations(self) -> list[FractionalConv2d]:
        """Put layers that learn their dilation in the place of the convolutions, as `Moved` does."""
        for path, module in self.learnable.modules.items():
            conv = self.model.get_submodule(module)
            conv = conv[0] if isinstance(conv, nn.Sequential) else conv
            layer = FractionalConv2d(conv, conv.dilation, bounds=BOUNDS, shared=conv.dilation[0] == conv.dilation[1])
            self.model.set_submodule(self.learnable.modules[path], layer)
            self.layers.append(layer)
        return self.layers

    @property
    def undecayed(self) -> list[nn.Parameter]:
        """The places of taps, which are learned as weights are."""
        places = [layer.undecayed() for layer in self.learnable.layers.values() if isinstance(layer, Undecayed)]
        return [place for layer in places for place in layer]

    def found(self, search: DilationSearch | None) -> list[float]:
        """Return what each path has found: dilations, or gamma."""
        if search:
            return list(search.found().values())
        if self.layers:
            return [value for layer in self.layers for value in layer.dilation.tolist()]
        if factors := self.learnable.factors.values():
            return [start / factor.f.item() for start, factor in zip(self._case.starts, factors, strict=True)]
        found = [stride.gamma.item() for stride in self.learnable.strides.values()]
        return found + [found_dilation(layer) for layer in self.learnable.layers.values()]


def run(case: Case, recipe: Recipe | None = None) -> dict[str, Any]:
    """Train one student, and return its row of the table."""
    began, recipe = time.perf_counter(), recipe or RECIPES[case.weights]
    data = Data(case)
    student = Student(case, data)
    learnable, model = student.learnable, student.model
    scalars: list[Scalar] = [*learnable.factors.values(), *learnable.strides.values()]
    optimisation = Optimisation(model, Distance(), recipe, (), scalars, student.undecayed)
    if case.kind == "FractionalConv2d":
        optimisation.add_dilations(student.free_dilations())
    prelude, search = 0, None
    if learnable.dilations:
        prelude, looks = prelude_steps(recipe, student.candidate), lambda split: -data.loss(model)
        rest = learnable, student.candidate, DILATIONS, blank(), recipe, case.seed, optimisation, Tally(), looks
        search = DilationSearch(model, *rest)
    answered = case.kind == "answer" and case.weights == "known"
    for step in range(0 if answered else prelude + recipe.steps):
        if search:
            search.before_step(step)
        for layer in learnable.layers.values():
            layer.advance(step, recipe.steps)
        optimisation.set_rates(step - prelude if step >= prelude else step)
        optimisation.clear()
        optimisation.find_gradients(*data.batch(recipe.batch_size), descend)
        optimisation.move()
    answer = case.planted.answer
    found = list(answer) if case.kind == "answer" else student.found(search)
    if len(found) > len(answer):  # one on each axis
        answer = tuple(d * unit for d in answer for unit in case.planted.unit)
    of_one_f = case.weights == "known" and len(learnable.factors) == len(case.planted.answer) == 1
    errors = [abs(value / known - 1) for value, known in zip(sorted(found), sorted(answer), strict=True)]
    return {
        "planted": case.planted.name,
        "weights": case.weights,
        "maps": case.maps,
        "arm": case.arm,
        "start": case.start,
        "seed": case.seed,
        "answer": words(answer),
        "found": words(found),
        "best": words([best_dilation(case, data)]) if of_one_f else "",
        "error": round(max(errors), 4),
        "loss": round(data.loss(model), 5),
        "seconds": round(time.perf_counter() - began, 2),
    }


@torch.no_grad()
def best_dilation(case: Case, data: Data) -> float:
    """Return the dilation near the answer at which the loss of a student that starts elsewhere is least."""
    student, (answer,) = Student(case, data), case.planted.answer
    (factor,) = student.learnable.factors.values()
    losses = {}
    for dilation in answer * np.geomspace(0.8, 1.25, 61):
        factor.f.fill_(case.starts[0] / dilation)
        losses[float(dilation)] = data.loss(student.model)
    return min(losses, key=losses.__getitem__)


def descend(loss: Tensor) -> None:
    """Run the backward pass, where anything is left to learn."""
    if loss.requires_grad:
        loss.backward()


def blank() -> ImageSet:
    """Make a set of images that nobody looks at."""
    split = Split(np.zeros((1, CHANNELS, SIDE, SIDE), np.uint8), np.zeros((1, SIDE, SIDE), np.uint8), ("blank",))
    return ImageSet(NAME, (), None, {"train": split, "val": split})


def weights_of(model: nn.Module) -> list[nn.Parameter]:
    """Return the weights and biases of a network, in the order in which students and teachers have them alike."""
    return [parameter for name, parameter in model.named_parameters() if name.endswith((".weight", ".bias"))]


@torch.no_grad()
def set_gamma(network: nn.Module, gamma: float) -> None:
    """Set the sample stride of a network whose site is an LS-DFN block."""
    network.sites[0].stride.gamma.fill_(gamma)


def words(values: Sequence[float]) -> str:
    """Write numbers in one field of a table."""
    return " ".join(f"{value:.3g}" for value in values)


def cases(seeds: int = 1) -> Iterator[Case]:
    """List what is measured: everything once, and f of one site by the loss's own gradient with every seed."""
    peers = [arm for arm, modules in PEERS.items() if all(map(importlib.util.find_spec, modules))]
    for maps in SPECTRA:
        for weights in RECIPES:
            for planted in PLANTED:
                yield Case(planted, "answer", weights, maps)
                if planted.unit == (1, 1):
                    yield Case(planted, "fractional", weights, maps)
                for arm in EVERYWHERE:
                    yield from (Case(planted, arm, weights, maps, start) for start in STARTS)
            for arm in (*FLOORED, *peers):
                yield from (Case(ONE_SITE, arm, weights, maps, start) for start in STARTS)
            for seed in range(1, seeds):
                yield Case(ONE_SITE, "answer", weights, maps, seed=seed)
                yield from (Case(ONE_SITE, EVERYWHERE[0], weights, maps, start, seed) for start in STARTS)
        yield Case(GAMMA, "answer", "known", maps)
        yield from (Case(GAMMA, "lsdfn", "known", maps, start) for start in STARTS)


def key_of(case: Case) -> tuple[object, ...]:
    """Return what tells a case's row from all others."""
    return (case.planted.name, case.weights, case.maps, case.arm, case.start, case.seed)


def main() -> None:
    """Run every case, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=12)
    parser.add_argument("--work", type=Path, required=True, help="file of the rows")
    asked = parser.parse_args()
    kept = [json.loads(line) for line in asked.work.read_text().splitlines()] if asked.work.exists() else []
    done = {tuple(row[name] for name in _NAMES): row for row in kept}
    left = [case for case in cases(asked.seeds) if key_of(case) not in done]
    with (
        ProcessPoolExecutor(initializer=torch.set_num_threads, initargs=(1,)) as processes,
        asked.work.open("a") as file,
    ):
        for row in processes.map(run, left):
            done[tuple(row[name] for name in _NAMES)] = row
            print(json.dumps(row), file=file, flush=True)
            print(*row.values(), flush=True)
    table = pd.DataFrame([done[key_of(case)] for case in cases(asked.seeds)])
    keys = ["planted", "weights", "maps", "seed"]
    answers = table[table.arm == "answer"].set_index(keys).loss.rename("answer_loss")
    table = table[table.arm != "answer"].join(answers, on=keys)
    table.to_csv(RESULTS / f"{NAME}.csv", index=False)
    within = table.error <= table.weights.map(WITHIN)
    groups = table.assign(within=within).groupby(["weights", "arm", "planted", "maps", "start"])
    summary = groups.agg(cases=("error", "size"), within=("within", "sum"), largest_error=("error", "max"))
    write_sidecar(
        NAME,
        {
            **provenance(),
            "error": "largest relative error of what was found; start: the student's dilations over the answer's",
            "loss": "mean squared error over the targets' variance, without noise; answer_loss: trained at the answer",
            "within": WITHIN,
            "recipes": {weights: recipe.model_dump(mode="json") for weights, recipe in RECIPES.items()},
            "rows": summary.reset_index().to_dict("records"),
        },
    )
    print(summary.to_string())


if __name__ == "__main__":
    main()
