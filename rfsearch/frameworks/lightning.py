"""Callbacks for Lightning's Trainer (pip install lightning): a module learns its receptive field, or trains a trial."""

from __future__ import annotations

import math
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loops.loop import _Loop

from rfsearch.errors import RequestError
from rfsearch.frameworks.learned import Learned
from rfsearch.frameworks.trial_epochs import Kept, TrialEpochs


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


class SearchTrial(TrialEpochs, Callback):
    """Let `Trainer.fit` be the training of a search's trial; takes what `TrialEpochs` takes.

    Every validation is charged as evaluation. The score is reported at the end of every epoch that was validated, or of
    every one where nothing is validated.

    Example:
        >>> def train(trial):
        ...     module = Module(trial.prepare(make_model()))
        ...     callbacks = [SearchTrial(trial, "val_iou")]
        ...     Trainer(max_epochs=20, devices=trial.world_size, callbacks=callbacks).fit(module, loader, val_loader)
    """

    _validated = _begun = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check how it trains."""
        if stage != "fit":
            return
        self.check(trainer.world_size)
        if trainer.max_steps != -1 or trainer.min_epochs or trainer.min_steps or not (trainer.max_epochs or -1) > 0:
            raise RequestError(
                "a search counts epochs, and may end a training after each: set max_epochs, and neither max_steps, "
                "min_epochs nor min_steps."
            )
        if trainer.check_val_every_n_epoch != 1:
            raise RequestError(
                "a search scores every epoch, the first one already in its pilot: leave check_val_every_n_epoch at 1. "
                f"Got {trainer.check_val_every_n_epoch}."
            )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Attach what is trained, once a check of the validation loop has run, which is no part of the training."""
        if len(trainer.optimizers) != 1:
            raise RequestError(
                f"a search follows the steps of one optimizer. Got {len(trainer.optimizers)}: write this training as a "
                "loop, with trial.attach(model, first, second)."
            )
        kept = {"lightning": Kept(lambda: _state_of(trainer), lambda state: _go_on_from(state, trainer))}
        trainer.should_stop = not self.begin(pl_module, trainer.optimizers[0], trainer.max_epochs, kept)
        self._begun = True

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End the epoch before, whose schedules and callbacks are done with it only now."""
        if self._begun:
            self._begun = False
            return
        self._report(trainer)
        if not self.go_on():
            trainer.should_stop = True
            raise StopIteration  # ends Lightning's loop over epochs

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Charge what follows as evaluation."""
        if not trainer.sanity_checking:
            self.evaluate()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Charge what follows as training."""
        self.evaluated()
        self._validated = not trainer.sanity_checking

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End the last epoch."""
        if self.epoch is not None:
            self._report(trainer)
        self.end()

    def _report(self, trainer: Trainer) -> None:
        if self._validated or not trainer.enable_validation:
            self.report(trainer.callback_metrics)
        self._validated = False


def _state_of(trainer: Trainer) -> dict[str, Any]:
    """Return what a checkpoint holds, but for what the trial keeps itself."""
    state: dict[str, Any] = trainer._checkpoint_connector.dump_checkpoint(weights_only=False)
    del state["optimizer_states"]
    return state


def _go_on_from(state: dict[str, Any], trainer: Trainer) -> None:
    """Let a trainer that is about to train go on from such a checkpoint, with the epoch that follows."""
    connector = trainer._checkpoint_connector
    connector._loaded_checkpoint = state
    trainer.lightning_module.on_load_checkpoint(state)
    connector.restore_datamodule()
    connector.restore_callbacks()
    connector.restore_precision_plugin_state()
    connector.restore_lr_schedulers()
    connector._loaded_checkpoint = {}
    _load_progress(trainer.fit_loop, state["loops"]["fit_loop"], "")
    for progress in (trainer.fit_loop.epoch_progress.total, trainer.fit_loop.epoch_progress.current):
        progress.reset_on_restart()


def _load_progress(loop: _Loop, state: dict[str, Any], prefix: str) -> None:
    """Let a loop and those inside it count on, as if they had not been interrupted."""
    loop._load_from_state_dict(state, prefix)
    for name, inner in vars(loop).items():
        if isinstance(inner, _Loop):
            _load_progress(inner, state, f"{prefix}{name}.")
