"""A callback for the Trainer of transformers that lets a model learn its receptive field (pip install transformers)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from rfsearch.errors import RequestError
from rfsearch.frameworks.learned import Learned
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
