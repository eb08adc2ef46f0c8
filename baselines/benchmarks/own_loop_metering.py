"""Measure how well, and at what price, a user's own training loop is metered.

How well: some steps of ten networks in four kinds of loop, counted call by call as a trial counts them, against a
meter of every operator, and beside torch's own counter, which knows convolutions and matrix products alone. These are
also counted by hand: each layer's closed form, from the shapes that it is called with, shares no code with either. At
what price: CPU time of a step on one thread, counted and uncounted steps taking turns in one process.

What counting adds to a step that is like those before it is the same whatever the size of batch and images. It is
timed where a step is shortest, on the smallest images, since the spread of a long step would hide it; its share is that
of steps with small images, and with those of a usual training.
"""

from __future__ import annotations

import argparse
import json
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import timm
import torch
from provenance import RESULTS, provenance, write_sidecar
from torch import nn
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from rfsearch.choices import Candidate, Dilated
from rfsearch.ledger import Request
from rfsearch.own_loop import metering
from rfsearch.own_loop.metering import LoopMeter, known_calls
from rfsearch.own_loop.planning import OwnCode, own_space
from rfsearch.own_loop.trial import Trial
from rfsearch.space import Length
from rfsearch.training import settings_of
from rfsearch.training.meter import Meter

NAME = "own_loop_metering"
NETWORKS = (
    "resnet18", "resnet50", "mobilenetv3_small_100", "tf_efficientnet_lite0", "convnext_atto", "regnety_002",
    "densenet121", "vit_tiny_patch16_224", "mobilevit_xxs", "hrnet_w18_small",
)  # fmt: skip
TIMED = ("resnet18", "resnet50", "tf_efficientnet_lite0")
STEPS, BATCH, CLASSES = 13, 2, 10  # more than the first ones, in which every call is watched
LEAST, SMALL, USUAL = 32, 96, 224
TIMED_STEPS = 7
WARM_UP = 15

Step = Callable[[nn.Module, torch.optim.Optimizer, torch.Tensor, torch.Tensor], None]


def plain(model: nn.Module, optimizer: torch.optim.Optimizer, images: torch.Tensor, labels: torch.Tensor) -> None:
    """Take a step as everybody does."""
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(images), labels).backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()


def mixed(model: nn.Module, optimizer: torch.optim.Optimizer, images: torch.Tensor, labels: torch.Tensor) -> None:
    """Take a step in bfloat16."""
    optimizer.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        loss = nn.functional.cross_entropy(model(images), labels)
    loss.backward()
    optimizer.step()


def accumulated(model: nn.Module, optimizer: torch.optim.Optimizer, images: torch.Tensor, labels: torch.Tensor) -> None:
    """Take a step with the gradients of two batches."""
    for _ in range(2):
        (nn.functional.cross_entropy(model(images), labels) / 2).backward()
    optimizer.step()
    optimizer.zero_grad()


def skipping(model: nn.Module, optimizer: torch.optim.Optimizer, images: torch.Tensor, labels: torch.Tensor) -> None:
    """Take a step whose network, by a draw, is left without its head."""
    optimizer.zero_grad()
    features = model.forward_features(images)
    if torch.rand(()) < 0.5:
        loss = features.square().mean()
    else:
        loss = nn.functional.cross_entropy(model.forward_head(features), labels)
    loss.backward()
    optimizer.step()


@cache
def teacher_of(model: nn.Module) -> nn.Module:
    """Return a frozen copy of a network."""
    return deepcopy(model).eval()


def taught(model: nn.Module, optimizer: torch.optim.Optimizer, images: torch.Tensor, labels: torch.Tensor) -> None:
    """Take a step towards what a teacher says."""
    with torch.no_grad():
        aim = teacher_of(model)(images)
    optimizer.zero_grad()
    nn.functional.mse_loss(model(images), aim).backward()
    optimizer.step()


LOOPS = {
    "plain": plain,
    "bfloat16": mixed,
    "accumulated": accumulated,
    "a teacher beside it": taught,
    "its head skipped at random": skipping,
}


def made(name: str, size: int = SMALL) -> tuple[nn.Module, torch.optim.Optimizer, torch.Tensor, torch.Tensor]:
    """Return a network with its optimiser, images and labels."""
    torch.manual_seed(0)
    size = USUAL if name.startswith("vit") else size
    model = timm.create_model(name, num_classes=CLASSES).train()
    return model, torch.optim.AdamW(model.parameters()), torch.rand(BATCH, 3, size, size), torch.zeros(BATCH).long()


def in_a_thread(work: Callable[[], None]) -> None:
    """Run work in a thread that ends with it, as a trial does."""
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


class ByHand:
    """Count convolutions and matrix products of a model's forward and backward passes by closed forms, 2 FLOP per MAC.

    Args:
        model: The model; copies that are made of it are counted too.

    Attributes:
        flop: So far.
    """

    def __init__(self, model: nn.Module) -> None:
        """Watch its convolutions, linear layers and attentions."""
        self.flop = 0
        for module in model.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                module.register_forward_hook(self._layer)
            elif isinstance(module, timm.layers.Attention):
                module.register_forward_hook(self._attention)

    def __deepcopy__(self, memo: dict[int, Any]) -> ByHand:
        """Let the hooks of a copied model count here."""
        return self

    def _layer(self, layer: nn.Conv2d | nn.Linear, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        """Add an output's elements times what each sums up, again for the gradients of weight and input."""
        products = 2 * output.numel() * layer.weight[0].numel()
        gradients = int(layer.weight.requires_grad) + int(args[0].requires_grad)
        self.flop += products * (1 + torch.is_grad_enabled() * gradients)

    def _attention(self, layer: nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        """Add Q K' and its product with V; both factors of both have gradients, for which Q K' is computed again."""
        images, tokens, channels = args[0].shape
        product = 2 * images * tokens**2 * channels
        self.flop += product * (2 + torch.is_grad_enabled() * (4 + 1))


class Products(Meter):
    """Meter every operator, convolutions and matrix products aside from all others.

    Attributes:
        others: FLOP of the others.
    """

    def __init__(self) -> None:
        """Begin at zero."""
        super().__init__(memory=False)
        self.others = 0.0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operator and meter it."""
        before = self.flop
        out = super().__torch_dispatch__(func, types, args, kwargs)
        if func.overloadpacket not in flop_registry:
            self.others += self.flop - before
        return out


def accuracy(name: str, kind: str) -> dict[str, object]:
    """Count a few steps in four ways."""
    step, meter = LOOPS[kind], LoopMeter()

    def run(counting: object = None) -> ByHand | None:
        model, optimizer, images, labels = made(name)
        by_hand = ByHand(model) if counting is ByHand else None
        if counting is meter:
            meter.begin([optimizer], model)
        torch.manual_seed(1)
        for _ in range(STEPS):
            step(model, optimizer, images, labels)
        return by_hand

    with known_calls():
        in_a_thread(lambda: run(meter))
    with Products() as every:
        run()
    with FlopCounterMode(display=False) as of_torch:
        run()
    by_hand = run(ByHand)
    assert by_hand
    return {
        "network": name,
        "loop": kind,
        "flop": meter.flop,
        "over_every_operator": meter.flop / every.flop,
        "over_torch_counter": meter.flop / of_torch.get_total_flops(),
        "over_by_hand": (meter.flop - every.others) / by_hand.flop,
    }


def overheads(name: str, pairs: int, attached: bool) -> list[dict[str, object]]:
    """Measure what counting adds to a step, and its share of steps with images of two sizes.

    Args:
        name: Of the network.
        pairs: Steps of each kind that are timed.
        attached: Whether `Trial.attach` begins the counting, with a candidate that learns nothing.
    """
    seconds: dict[bool, list[float]] = {True: [], False: []}

    def run() -> None:
        # In one thread: memory that one allocates and another frees takes other ways.
        torch.set_num_threads(1)
        model, optimizer, images, labels = made(name, LEAST)
        meter = (attach if attached else begin)(model, [optimizer])
        for number in range(2 * (pairs + WARM_UP)):
            counting = (number + number // 2) % 2 == 0  # the order changes from pair to pair
            with nullcontext() if counting else uncounting(meter, optimizer):
                started = time.thread_time()
                plain(model, optimizer, images, labels)
                seconds[counting].append(time.thread_time() - started)

    with known_calls():
        in_a_thread(run)
    with_it, without = (np.array(seconds[counting][WARM_UP:]) for counting in (True, False))
    added = with_it - without
    draws = np.random.default_rng(0).integers(len(added), size=(2000, len(added)))
    low, high = np.percentile(np.median(added[draws], axis=1), [2.5, 97.5])
    return [
        {
            "network": name,
            "counted_by": "trial.attach" if attached else "the meter alone",
            "image_px": size,
            "step_ms": 1000 * (base := step_s(name, size)),
            "added_ms": 1000 * float(np.median(added)),
            "added_ms_low": 1000 * float(low),
            "added_ms_high": 1000 * float(high),
            "share": float(np.median(added)) / base,
        }
        for size in (SMALL, USUAL)
    ]


@cache
def step_s(name: str, size: int) -> float:
    """Return CPU seconds of a step that is not counted, with eight images."""
    model, optimizer, images, labels = made(name, size)
    images, labels = images.repeat(4, 1, 1, 1), labels.repeat(4)
    seconds = []
    for _ in range(TIMED_STEPS):
        started = time.thread_time()
        plain(model, optimizer, images, labels)
        seconds.append(time.thread_time() - started)
    return float(np.median(seconds))


@contextmanager
def uncounting(meter: LoopMeter, optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Run what is inside as if nothing had ever been counted."""
    meter._tally.calls.__exit__(None, None, None)
    metering._training.meter = None
    hooks = optimizer._optimizer_step_pre_hooks, optimizer._optimizer_step_post_hooks
    optimizer._optimizer_step_pre_hooks, optimizer._optimizer_step_post_hooks = OrderedDict(), OrderedDict()
    try:
        yield
    finally:
        optimizer._optimizer_step_pre_hooks, optimizer._optimizer_step_post_hooks = hooks
        metering._training.meter = meter
        meter._tally.calls.__enter__()


def begin(model: nn.Module, optimizers: list[torch.optim.Optimizer]) -> LoopMeter:
    """Count without a trial."""
    meter = LoopMeter()
    meter.begin(optimizers, model)
    return meter


def attach(model: nn.Module, optimizers: list[torch.optim.Optimizer]) -> LoopMeter:
    """Attach a trial whose candidate is the network as it is, so that nothing of it learns."""
    site = next(name for name, module in model.named_modules() if getattr(module, "kernel_size", 1) == (3, 3))
    code = OwnCode.of(plain, lambda: model)
    space = own_space(code, Request(space="", sites=(site,), dilations=(1, 2), input_shape=(1, 3, 96, 96)))
    length = Length(epochs=1, steps=1000, train_flop=1, score_flop=0, end_flop=0, epoch_s=1, end_s=0)
    candidate = Candidate({site: Dilated(1)})
    trial = Trial(candidate, space.with_(length=length), settings_of(space), 0, torch.device("cpu"), Accepting())
    trial.attach(trial.prepare(model), *optimizers)
    return trial.meter


class Accepting:
    """Conduct a trial that any model may have."""

    def before_installing(self, model: nn.Module) -> None:
        """Accept it."""


def printed(row: dict[str, object]) -> dict[str, object]:
    """Print a row as soon as it is known."""
    print(row, flush=True)
    return row


def main() -> None:
    """Measure both, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=300, help="steps of each kind that are timed")
    parser.add_argument("--beside", default="", help="what else ran on the machine, for the record")
    parser.add_argument("--counts-only", action="store_true", help="time nothing, and keep the times that are there")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    counts = pd.DataFrame([printed(accuracy(name, kind)) for name in NETWORKS for kind in LOOPS])
    counts.round(6).to_csv(RESULTS / f"{NAME}.csv", index=False)
    if asked.counts_only:
        body = json.loads((RESULTS / f"{NAME}.json").read_text(encoding="utf-8"))
        write_sidecar(NAME, {**body, "counts": provenance()})
        return
    times = pd.DataFrame(
        [printed(row) for name in TIMED for attached in (False, True) for row in overheads(name, asked.pairs, attached)]
    )
    write_sidecar(
        NAME,
        {
            **provenance(),
            "beside": asked.beside,
            "overhead": times.round(5).to_dict(orient="records"),
            "share": "added by counting to the CPU time of a step (median over pairs, 95 % bootstrap interval),"
            " of that of a step with eight images of that size",
        },
    )


if __name__ == "__main__":
    main()
