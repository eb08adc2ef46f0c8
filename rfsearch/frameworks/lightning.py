"""A callback for Lightning's Trainer that lets a LightningModule learn its receptive field (pip install lightning)."""

from __future__ import annotations

import math
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from rfsearch.errors import RequestError
from rfsearch.frameworks.learned import Learned


class LearnedField(Learned, Callback):
    """Learn the dilations of a module's sites while `Trainer.fit` trains it; takes what `Learned` takes.

    The module is changed in `setup`, so give it pretrained weights before. What a resumed training needs is in every
    checkpoint, whose weights are of the layers that learn. Of several optimizers it follows the first one.

    Example:
        >>> Trainer(callbacks=[LearnedField("net.layer4.*.conv2", [1, 2, 3, 4, 6, 8])]).fit(module, loader)
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Change the module before its optimizers are made and a checkpoint is loaded."""
        if stage == "fit":
            self.begin(pl_module)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Follow the optimizer."""
        steps = trainer.estimated_stepping_batches
        if not math.isfinite(steps):
            raise RequestError("when dilations move depends on how long the training is: set max_epochs or max_steps.")
        self.learner.attach(trainer.optimizers[0], int(steps))

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End."""
        self.end()

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed training needs."""
        return self.learner.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        self.learner.load_state_dict(state_dict)
