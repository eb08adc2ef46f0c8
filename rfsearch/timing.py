"""Time the networks of a finished run, one after the other, when nothing of the run is training any more.

A latency that is measured while other trials train says how busy the machine was. Every distinct shape of network is
measured once, and the trials that ended with it share the measurement; see `rfsearch.training.latency`.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import nn

from rfsearch import plugins
from rfsearch.choices import Candidate
from rfsearch.direction import merit
from rfsearch.errors import ModelError, RfsearchError
from rfsearch.export import patch_of
from rfsearch.ledger import Journal, Latency, Record, Run, leaders, read_run
from rfsearch.networks import load_trained
from rfsearch.numbers import counted
from rfsearch.planning.search_plan import SearchPlan
from rfsearch.provenance import machine
from rfsearch.report.front import COST_AXES, trials_and_front
from rfsearch.storage import name_of
from rfsearch.surgery import Changing, assemble
from rfsearch.training.latency import shape_of, time_passes

MOST_S = 120.0
"""Seconds after which no further network is measured: a search of thousands of real dilations has as many shapes."""


def time_networks(
    the_plan: SearchPlan, run_dir: Path, device: torch.device, check: Callable[[], None], most_s: float = MOST_S
) -> list[str]:
    """Measure the latency of every scored trial's network that has none yet, and enter it into the ledger.

    Trials that may be on a front, and each arm's leader, come first. Latencies that were measured on another device, or
    with another number of threads, cannot be compared with those measured here: then all networks are measured again.

    Args:
        the_plan: The plan of the run.
        run_dir: Its directory; every trial has finished.
        device: The device that the trials had. This process has as many threads as a trial had.
        check: Called between passes. What it raises ends the measurement; what was measured by then is in the ledger.
        most_s: After this many seconds no further network is measured.

    Returns:
        One sentence for everything that was left out, with its reason.
    """
    run, where = read_run(run_dir), _where(device)
    missing = [r for r in run.records if r.scored and r.trial not in run.latencies]
    if not missing:
        return []
    known = {latency.shape: latency for latency in run.latencies.values() if latency.where == where}
    if not known:
        missing = [r for r in run.records if r.scored]
    journal, began, faults = Journal(run_dir), time.perf_counter(), dict[str, list[str]]()
    waiting = _by_network(the_plan, _in_order(run, missing))
    while waiting and time.perf_counter() - began < most_s:
        records = waiting.pop(0)
        trials = [record.trial for record in records]
        try:
            model = _network(the_plan, run_dir, records[0]).to(device).eval()
            shape = shape_of(model, the_plan.input_shape, device)
            if shape not in known:
                passes = time_passes(model, the_plan.input_shape, device, check)
                known[shape] = Latency(*passes, where, shape)
        except Exception as error:
            faults.setdefault(plugins.explain(error), []).extend(trials)
            continue
        journal.latency(trials, known[shape])
    return _left_out(run_dir, sum(map(len, waiting)), faults, most_s)


def _where(device: torch.device) -> str:
    """Return what comparable measurements have in common: the device in words, and for a CPU the number of threads."""
    if device.type != "cpu":
        return machine(device.type).device
    return f"{machine(device.type).cpu}, {counted(torch.get_num_threads(), 'thread')}"


def _in_order(run: Run, records: Iterable[Record]) -> list[Record]:
    """Order records by score, but those on the front of another cost and each arm's leader first."""
    exact = [axis for axis in COST_AXES if axis.spread is None]
    first = {r.trial for axis in exact for r in trials_and_front(axis, run.records, run.direction)[1]}
    first |= {record.trial for record in leaders(run.records, run.direction).values()}
    return sorted(records, key=lambda record: (record.trial not in first, -merit(record.val or 0.0, run.direction)))


def _by_network(the_plan: SearchPlan, records: Iterable[Record]) -> list[list[Record]]:
    """Group records that ended as the same candidate, in the order of their first one.

    What a layer in a convolution's place has become is known from its own checkpoint alone, so each trial with such a
    layer is a group of its own.
    """
    found: dict[str, list[Record]] = {}
    for record in records:
        try:
            candidate = patch_of(the_plan.space.backbone, the_plan.settings, record).candidate
        except RfsearchError:  # building the network will say why
            candidate = None
        alone = candidate is None or any(path.choice.cost_changes for _, path in candidate)
        found.setdefault(record.trial if candidate is None or alone else candidate.to_json(), []).append(record)
    return list(found.values())


def _network(the_plan: SearchPlan, run_dir: Path, record: Record) -> nn.Module:
    """Return a network of the shape that a trial ended with. Its weights are new ones, which makes no difference.

    Raises:
        ModelError: The shape depends on trained weights, and no checkpoint holds them.
    """
    candidate = patch_of(the_plan.space.backbone, the_plan.settings, record).candidate
    model, learnable = assemble(the_plan.make_network(), candidate, the_plan.settings)
    changing = [path for path, layer in learnable.layers.items() if isinstance(layer, Changing)]
    if not changing:
        return model
    if not (run_dir / "checkpoints" / record.trial / "model.pt").is_file():
        known = dict(Candidate.from_json(record.candidate))
        layers = ", ".join(
            dict.fromkeys(spec for path in changing for spec in known[path].choice.specs or (known[path].choice.kind,))
        )
        raise ModelError(f"what {layers} costs changes in training, and only an arm's leader keeps its checkpoint")
    return load_trained(run_dir, record.trial)


def _left_out(run_dir: Path, late: int, faults: dict[str, list[str]], most_s: float) -> list[str]:
    """Return one sentence for the trials that time was too short for, and one for each fault."""
    sentences = []
    if late:
        sentences.append(
            f"{counted(late, 'trial')} left without a latency after {most_s:g} s of measuring. "
            f"More are measured by: rfsearch resume {shlex.quote(name_of(run_dir))}"
        )
    for why, trials in faults.items():
        names = ", ".join(trials[:3]) + (f" and {len(trials) - 3} more" if len(trials) > 3 else "")
        sentences.append(f"No latency of {names}: {why}")
    return sentences
