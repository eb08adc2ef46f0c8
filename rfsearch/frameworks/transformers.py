"""Callbacks for transformers' Trainer (pip install transformers): a model learns its field, or trains a trial."""

from __future__ import annotations

from collections.abc import Mapping
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from rfsearch.errors import RequestError
from rfsearch.frameworks.learned import Learned
from rfsearch.frameworks.trial_epochs import Kept, TrialEpochs
from rfsearch.own_loop.group import Stopped
from rfsearch.own_loop.kept import Stateful
from rfsearch.training import checkpoint


class LearnedField(Learned, TrainerCallback):
    """Learn the dilations of a model's sites while `Trainer.train` trains it; takes what `Learned` takes.

    The model is changed when the Trainer is made. What a resumed training needs is in a file `rfsearch.pt` in every
    checkpoint, whose weights are of the layers that learn.

    Example:
        >>> Trainer(model, arguments, callbacks=[LearnedField("encoder.*.conv", [1, 2, 4])], train_dataset=images)
    """

    def on_init_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any) -> None:
        """Change the model before a checkpoint is loaded."""
        self.begin(given["model"])

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any
    ) -> None:
        """Follow the optimizer, from where a resumed training had stopped."""
        if state.global_step:
            file = _state_file(args, state)
            if not file.is_file():
                raise RequestError(f"{file} is missing, which a resumed training needs beside its checkpoint.")
            self.learner.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
        self.learner.attach(given["optimizer"], state.max_steps)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any) -> None:
        """Keep what a resumed training needs."""
        if state.is_world_process_zero:
            checkpoint.save(self.learner.state_dict(), _state_file(args, state))

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any) -> None:
        """End."""
        self.end()


def _state_file(args: TrainingArguments, state: TrainerState) -> Path:
    return Path(str(args.output_dir)) / f"checkpoint-{state.global_step}" / "rfsearch.pt"


class SearchTrial(TrialEpochs, TrainerCallback):
    """Let `Trainer.train` be the training of a search's trial; takes what `TrialEpochs` takes.

    The score is one of the metrics that the Trainer evaluates after every epoch, such as "eval_iou". Of several
    evaluation sets it belongs to the last one.

    Example:
        >>> def train(trial):
        ...     model = trial.prepare(make_model())
        ...     arguments = TrainingArguments(num_train_epochs=20, eval_strategy="epoch", seed=trial.seed)
        ...     callbacks = [SearchTrial(trial, "eval_iou")]
        ...     Trainer(model, arguments, train_dataset=images, eval_dataset=held_out, callbacks=callbacks).train()
    """

    _begun = _scoring = False
    _first = 0
    _logged: Mapping[str, float] = {}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any
    ) -> None:
        """Check how it trains."""
        self.check(max(args.world_size, args.n_gpu))
        if args.load_best_model_at_end:
            raise RequestError(
                "a search keeps and scores the weights of the last epoch, and load_best_model_at_end=True would put "
                "others in their place behind it: set it to False."
            )
        if args.max_steps > 0 or args.num_train_epochs % 1 or args.eval_strategy != "epoch" or args.eval_delay:
            raise RequestError(
                "a search counts whole epochs, and scores each: set num_train_epochs and eval_strategy='epoch', and "
                "neither max_steps nor eval_delay."
            )

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any
    ) -> None:
        """Attach what is trained before its first epoch."""
        self._check_scored()
        if self._begun:
            return
        self._begun = True
        wrapped, loader = given["optimizer"], given["train_dataloader"]
        self._schedule = _Schedule(given["lr_scheduler"])
        kept: dict[str, Stateful] = {"schedule": self._schedule}
        kept["state"] = Kept(lambda: vars(state), vars(state).update)
        if (scaler := getattr(wrapped, "scaler", None)) is not None:
            kept["scaler"] = scaler
        optimizer = getattr(wrapped, "optimizer", wrapped)
        if not self.begin(given["model"], optimizer, int(args.num_train_epochs), kept):
            raise Stopped  # A Trainer cannot end before a step; what was scored last counts.
        if self.epoch and hasattr(loader, "set_epoch"):
            # The Trainer counts epochs from 0 again, and so would the order of images.
            self._first, set_epoch = self.epoch, loader.set_epoch
            loader.set_epoch = lambda _: set_epoch(self.epoch)
            loader.set_epoch(self.epoch)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any) -> None:
        """Count the epochs of an earlier start."""
        state.epoch += self._first

    def on_epoch_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any) -> None:
        """Charge what follows as evaluation."""
        self._scoring, self._logged = True, {}
        self.evaluate()

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any) -> None:
        """End the epoch, if its score is there."""
        if not self._scoring:
            return
        self._logged = {**self._logged, **given["metrics"]}
        if self._score not in given["metrics"]:
            return
        self._scoring = False
        self.evaluated()
        self._schedule.due = self._logged.get(f"eval_{str(args.metric_for_best_model).removeprefix('eval_')}")
        self.report(self._logged)
        if not self.go_on():
            control.should_training_stop = True

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any) -> None:
        """End."""
        self._check_scored()
        self.end()

    def _check_scored(self) -> None:
        if self._scoring:
            self.report(self._logged)  # raises: it has no score


class _Schedule:
    """Keep a schedule as it will be: one that goes by a metric steps only after the trial was kept."""

    def __init__(self, schedule: Any) -> None:
        self._schedule = schedule
        self.due: float | None = None

    def state_dict(self) -> dict[str, Any]:
        """Return its state, and the metric that it will be given next."""
        due = self.due if "metrics" in signature(self._schedule.step).parameters else None
        return {"schedule": self._schedule.state_dict(), "due": due}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from it."""
        self._schedule.load_state_dict(state["schedule"])
        if state["due"] is not None:
            self._schedule.step(state["due"])
