"""Run a trial's training on a worker of Ray Tune."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from ray import tune
from ray.util import get_node_ip_address

from rfsearch.errors import RunDirectoryError
from rfsearch.ledger import Assignment, Cost
from rfsearch.ledger.journal import LEDGER_FILE
from rfsearch.orchestration.watchdog import watched
from rfsearch.sources import refuse_from_here_on, unpack
from rfsearch.storage import Storage
from rfsearch.training import Order, RunningTraining, Trainings

LOSSES = "lost"  # in the configuration of a worker, beside the fields of an assignment: what earlier tries lost


FIRST_STEP = "first_step"  # likewise: the forecast cost of its first step


PATIENCE = "patience_s"  # likewise: how long it may take to the next rung before it is taken for one that hangs


CHECKPOINTS = "checkpoints"


FAULT = "fault"  # in a result without a record: why the run directory cannot be written


BLIND = "blind"  # likewise: the address of a machine that does not see the run directory


@dataclass(frozen=True)
class Losses:
    """Count what a trial has lost since its last rung.

    Attributes:
        tries: How often its worker has died.
        seconds: How long those workers had held their devices.

    Example:
        >>> Losses(tries=1, seconds=12.5)
        Losses(tries=1, seconds=12.5)
    """

    tries: int = 0
    seconds: float = 0.0


class TrialTraining(tune.Trainable):
    """Train one trial on a worker. The worker is kept for the next trial, with its imports and its data.

    Example:
        >>> tune.with_parameters(TrialTraining, trainings=trainings, run_dir="runs/mine", currency="flop")
    """

    def setup(
        self,
        config: dict[str, Any],
        trainings: Trainings | None = None,
        run_dir: str = "",
        currency: str = "",
        resources: tuple[float, float] = (1, 0),
        storage: str = "",
        files: Mapping[str, bytes] | None = None,
        refusal: str = "",
    ) -> None:
        """Keep what all trials of the worker share, and begin with the first."""
        assert trainings is not None
        refuse_from_here_on(refusal)
        if files:
            self._own_files = tempfile.TemporaryDirectory(prefix="rfsearch-", ignore_cleanup_errors=True)
            unpack(files, Path(self._own_files.name))
        cpus, gpus = resources
        torch.set_num_threads(max(1, int(cpus)))
        self._shared = (trainings, currency)
        self._device = torch.device("cuda" if gpus else "cpu")
        self._run_dir = Path(run_dir)
        self._remote = Storage(storage, self._run_dir) if storage else None
        self._training: RunningTraining | None = None
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Begin with another trial."""
        config = dict(new_config)
        lost, step = Losses(**config.pop(LOSSES, {})), Cost(**config.pop(FIRST_STEP, {}))
        self._patience_s = float(config.pop(PATIENCE))
        assignment = Assignment(**config)
        currency = self._shared[1]
        directory = self._directory = self._run_dir / CHECKPOINTS / assignment.trial
        self.cleanup()
        self._order = Order(assignment, currency, self._device, directory, lost.tries, lost.seconds, step)
        return True

    def cleanup(self) -> None:
        """Let go of the last trial's training."""
        if self._training is not None:
            self._training.close()
        self._training = None

    def step(self) -> dict[str, Any]:
        """Train to the next rung, or to the end, and report the record."""
        # A machine that does not see the directory would make one of its own, and train into that.
        if self._remote is None and not (self._run_dir / LEDGER_FILE).exists():
            return {BLIND: get_node_ip_address(), "done": True}
        try:
            if self._training is None:
                self._take_up()
            with watched(self._directory, self._patience_s):
                self._training = self._training or self._shared[0].begin(self._order)
                record = self._training.advance()
            if self._remote:
                self._remote.push(f"{CHECKPOINTS}/{self._directory.name}")
        except RunDirectoryError as error:
            return {FAULT: str(error), "done": True}
        plain = {"val": record.val, "train_flop": record.cost.flop}  # for whoever reads Ray's own results
        metrics = {name: value for name, value in plain.items() if value is not None}
        return {"record": json.dumps(record.to_json()), "done": record.status != "pruned", **metrics}

    def _take_up(self) -> None:
        """Fetch what an earlier worker has left of the training, and its parent, where they are on storage."""
        assignment = self._order.assignment
        if self._remote:
            for trial in filter(None, (assignment.trial, assignment.heir_of)):
                self._remote.pull(f"{CHECKPOINTS}/{trial}")

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Save nothing: a training keeps its own checkpoints in the run directory."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Load nothing. See `save_checkpoint`."""
