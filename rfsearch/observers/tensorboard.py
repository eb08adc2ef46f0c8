"""Write event files for TensorBoard: a run of its own for every trial, under `tensorboard/` of the run's directory."""

from __future__ import annotations

from pathlib import Path

from tensorboardX import SummaryWriter
from tensorboardX.summary import hparams

from rfsearch.ledger.record import Record
from rfsearch.observers.base import Observer, Watched, about, curve, outcome, parameters

FOLDER = "tensorboard"


class TensorBoard(Observer):
    """Write curves at rungs as scalars over the training step, candidates as hyperparameters, the page as a text."""

    def __init__(self, watched: Watched) -> None:
        self._folder = watched.directory / FOLDER
        self._metric = watched.metric
        self._writers: dict[str, SummaryWriter] = {}

    def rung(self, record: Record) -> None:
        writer = self._writer(record.trial)
        for name, value in curve(record.rungs[-1]).items():
            writer.add_scalar(name, value, record.rungs[-1].step)
        writer.flush()

    def finished(self, record: Record) -> None:
        writer, numbers = self._writer(record.trial), outcome(record)
        for name, value in numbers.items():
            writer.add_scalar(f"end/{name}", value, record.steps)
        asked = {**parameters(record.candidate), "strategy": record.strategy, "seed": record.seed}
        for summary in hparams(asked, {f"end/{name}": value for name, value in numbers.items()}):
            writer.file_writer.add_summary(summary)
        words = "\n".join(f"- {name}: {said}" for name, said in about(record).items())
        writer.add_text("trial", words, record.steps)
        self._writers.pop(record.trial).close()

    def ended(self, page: Path) -> None:
        from rfsearch.ledger import read_run
        from rfsearch.report import summarise

        writer = self._writer("report")
        writer.add_text("verdict", "\n\n".join(summarise(read_run(page.parent)).sentences))
        writer.add_text("page", str(page.name))
        writer.flush()

    def close(self) -> None:
        for writer in self._writers.values():
            writer.close()

    def _writer(self, trial: str) -> SummaryWriter:
        if trial not in self._writers:
            self._writers[trial] = SummaryWriter(str(self._folder / trial))
        return self._writers[trial]
