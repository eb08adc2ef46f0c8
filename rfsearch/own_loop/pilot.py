"""A pilot: one epoch of the hand default, which shows how long a user's training is and what it costs.

A function that trains says nothing of that beforehand, so it is called once, by the driver, with a trial that ends
after its first epoch. The pilot is charged to no arm, and its score is forgotten.
"""

from __future__ import annotations

import tempfile
import time
from functools import partial
from pathlib import Path

import torch
from torch import nn

from rfsearch.errors import LostProcessError, RequestError, RfsearchError
from rfsearch.identity import network_of
from rfsearch.own_loop.group import Group
from rfsearch.own_loop.loop_training import LoopThread, Train, function_of, place_of_error
from rfsearch.own_loop.member import Line
from rfsearch.own_loop.trial import Trial
from rfsearch.own_loop.weighing import weigh
from rfsearch.space import Length, OwnSpace
from rfsearch.training import checkpoint
from rfsearch.training.memory import PeakMemory
from rfsearch.training.network import settings_of


class Pilot:
    """Conduct a trial that ends after one epoch, and do once what every trial does around its epochs.

    Args:
        space: What is searched.
        tensors: Digest of the names and shapes of the searched network's tensors.
    """

    def __init__(self, space: OwnSpace, tensors: str) -> None:
        """Begin without any epoch."""
        self._space, self._tensors = space, tensors
        self.flop = self.ended = 0.0
        """FLOP and moment at the end of the epoch."""

    def before_installing(self, model: nn.Module) -> None:
        """Refuse another model than the one that is searched."""
        if network_of("", model).tensors != self._tensors:
            raise RequestError(
                "trial.prepare got another model than the one named as `model`: their parameters have other names or "
                "shapes. Let both make the same."
            )

    def take_up(self, trial: Trial) -> int:
        """Begin anew, with a network that can be weighed."""
        assert trial.model is not None
        weigh(trial.model, self._space.input_shape)
        return 0

    def goes_on(self, trial: Trial, epoch: int) -> bool:
        """Return whether this is the first epoch. Behind it, what a report keeps must be read back."""
        if epoch and trial.scored is not None:
            _check_kept(trial)
        self.flop, self.ended = trial.flop, time.perf_counter()
        return epoch == 0


def _check_kept(trial: Trial) -> None:
    """Check that a trial could be resumed from what it keeps.

    Raises:
        RfsearchError: It holds what cannot be written, or not be read back.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "progress.pt"
        checkpoint.save(trial.state(), file)
        if checkpoint.load(file, torch.device("cpu")) is None:
            raise RequestError("what this trial keeps cannot be read back by torch.load(..., weights_only=True).")


def run_pilot(
    space: OwnSpace, train: Train | str, tensors: str, device: torch.device, processes: int = 1
) -> tuple[Length, bool]:
    """Call a user's function for one epoch of the hand default.

    Args:
        space: What is searched.
        train: The function, or its SPEC.
        tensors: Digest of the names and shapes of the searched network's tensors.
        device: Kind of device that it trains on.
        processes: How many train a trial together.

    Returns:
        What it has shown, and whether it compiles its model.

    Raises:
        RequestError: It does not train, or fails.
    """
    from rfsearch.orchestration.members import Members

    if processes == 1:
        return _piloted(space, train, tensors, device)
    members = Members(partial(_pilot_together, space, train, tensors), processes, device)
    try:
        said = members.answer()
    except LostProcessError as error:
        raise RequestError(f"the training function fails in its first epoch: {error}.") from error
    finally:
        members.close()
    if said.failed:
        raise RequestError(said.what)
    length, compiled = said.what
    return length, compiled


def _pilot_together(
    space: OwnSpace, train: Train | str, tensors: str, group: Group, line: Line, device: torch.device
) -> None:
    """Be one of the processes; the first says what the pilot has shown."""
    if group.rank == 0:
        line.say(_piloted(space, train, tensors, device, group, line))
        return
    trial = Trial(space.reference_candidate, space, settings_of(space), 0, device, Pilot(space, tensors), group)
    LoopThread(lambda: trial.run(function_of(train))).go_on()


def _piloted(
    space: OwnSpace,
    train: Train | str,
    tensors: str,
    device: torch.device,
    group: Group | None = None,
    line: Line | None = None,
) -> tuple[Length, bool]:
    conduct = Pilot(space, tensors)
    trial = Trial(space.reference_candidate, space, settings_of(space), 0, device, conduct, group)
    memory = PeakMemory(device)
    thread = LoopThread(lambda: trial.run(function_of(train)))
    if line is not None:
        line.abandon = lambda cause: thread.abandon(RequestError(cause))
    try:
        thread.go_on()
    except RfsearchError as error:
        raise RequestError(f"the training function fails in its first epoch: {error}") from error
    except (Exception, SystemExit) as error:
        raise RequestError(
            f"the training function fails in its first epoch: {type(error).__name__}: {error}{place_of_error(error)}."
        ) from error
    spent, ended = trial.spent, time.perf_counter()
    if not spent.epochs:
        raise RequestError(
            "the training function ended without an epoch. It calls trial.prepare(model), trial.attach(model, "
            "optimizer), and iterates over trial.epochs(COUNT)."
        )
    if trial.finished is None and trial.scored is None:
        raise RequestError(
            "the training function ended without a score. It calls trial.finish(val=SCORE) at its end, and "
            "trial.report(val=SCORE) after each epoch."
        )
    train_flop = spent.epoch_train_flop
    if not train_flop > 0:
        raise RequestError(
            "an epoch of the training function ran nothing that has a cost: no pass of a model in the thread that "
            "calls it. What processes or threads of its own run cannot be metered."
        )
    peak_bytes = memory.bytes() or 0
    if device.type == "cuda":
        torch.cuda.empty_cache()  # workers share it
    length = Length(
        epochs=trial.epochs_asked,
        steps=spent.steps,
        train_flop=train_flop,
        score_flop=spent.epoch_score_flop,
        end_flop=max(0.0, trial.flop - conduct.flop),
        epoch_s=spent.epoch_s,
        end_s=max(0.0, ended - conduct.ended),
        look_flop=spent.look_flop,
        looks=trial.looked,
        peak_bytes=peak_bytes,
    )
    return length, trial.compiled
