"""Hooks for mmengine's Runner (pip install mmengine): its model learns its receptive field, or trains a trial."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmengine.hooks import EMAHook, Hook
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapperDict
from mmengine.registry import HOOKS
from mmengine.runner import IterBasedTrainLoop, Runner
from torch import nn

from rfsearch.errors import RequestError
from rfsearch.frameworks.learned import Learned
from rfsearch.frameworks.trial_epochs import Kept, TrialEpochs

_KEY = "rfsearch"


@HOOKS.register_module()
class LearnedField(Learned, Hook):
    """Learn the dilations of a model's sites while `Runner.train` trains it; takes what `Learned` takes.

    The model is changed before weights are initialised or loaded. What a resumed training needs is in every checkpoint,
    whose weights are of the layers that learn.

    Example:
        >>> custom_imports = dict(imports=["rfsearch.frameworks.mmengine"])
        >>> custom_hooks = [dict(type="LearnedField", sites="backbone.layer4.*.conv2", dilations=[1, 2, 3, 4, 6, 8])]
    """

    def before_run(self, runner: Runner) -> None:
        """Change the model before a checkpoint is loaded."""
        self.begin(_model_of(runner))

    def before_train(self, runner: Runner) -> None:
        """Follow the optimizer, which may step once for several iterations."""
        every = runner.optim_wrapper._accumulative_counts
        self.learner.attach(runner.optim_wrapper, -(-runner.max_iters // every))

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Keep what a resumed training needs."""
        checkpoint[_KEY] = self.learner.state_dict()

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Go on from a checkpoint of this hook; one that is loaded for its weights alone brings no more."""
        if _KEY in checkpoint and runner._resume:
            self.learner.load_state_dict(checkpoint[_KEY])

    def after_train(self, runner: Runner) -> None:
        """End."""
        self.end()


class SearchTrial(TrialEpochs, Hook):
    """Let `Runner.train` be the training of a search's trial; takes what `TrialEpochs` takes.

    An epoch of the trial is what is trained from one validation to the next, be it epochs or iterations.

    Example:
        >>> def train(trial):
        ...     model = trial.prepare(make_model())
        ...     Runner(model, custom_hooks=[SearchTrial(trial, "iou/mean")], **settings).train()
    """

    priority = "LOWEST"
    _metrics: Mapping[str, Any] = {}
    _done = 0

    def before_train(self, runner: Runner) -> None:
        """Attach what is trained."""
        loop = runner.train_loop
        self.check(runner.world_size)
        if isinstance(runner.optim_wrapper, OptimWrapperDict):
            raise RequestError(
                f"a search follows the steps of one optimizer. Got {len(runner.optim_wrapper)}: write this training as "
                "a loop, with trial.attach(model, first, second)."
            )
        length, every = loop.max_iters if isinstance(loop, IterBasedTrainLoop) else loop.max_epochs, loop.val_interval
        regular = len(loop.dynamic_intervals) == 1 and loop.val_begin <= every and length % every == 0
        if runner.val_loop is None or not regular:
            raise RequestError(
                "a search scores a training at regular intervals, and at its end: set val_dataloader, val_cfg and "
                f"val_evaluator, and a val_interval that divides the length of the training. Got {length}, and "
                f"val_interval={every}, val_begin={loop.val_begin}."
            )
        kept = {
            "runner": Kept(lambda: _state_of(runner), lambda state: self._resume(state, runner)),
            "metrics": Kept(lambda: self._metrics, self._note),
        }
        loop.stop_training = not self.begin(runner.model, runner.optim_wrapper.optimizer, length // every, kept)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Count on from an earlier start, whose images were passed over already."""
        if self._done:
            runner.train_loop._iter, self._done = self._done, 0

    def before_val(self, runner: Runner) -> None:
        """Charge what follows as evaluation."""
        self.evaluate()

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Note what was scored."""
        self._note(metrics or {})

    def after_val(self, runner: Runner) -> None:
        """End the epoch, whose schedules and hooks are done with it."""
        self.evaluated()
        if self.epoch is None:  # it validates outside of its training
            return
        self.report(self._metrics)
        if runner.train_loop.stop_training:
            self.end()
        else:
            runner.train_loop.stop_training = not self.go_on()

    def after_train(self, runner: Runner) -> None:
        """End; with averaged weights, where these were scored."""
        self.end()
        path = next((name for name, one in _model_of(runner).named_modules() if one is self._trial.model), None)
        for hook in runner.hooks:
            if isinstance(hook, EMAHook) and self._metrics and path is not None:
                self._trial.finish(self._metrics[self._score], model=hook.ema_model.module.get_submodule(path))

    def _note(self, metrics: Mapping[str, Any]) -> None:
        self._metrics = metrics

    def _resume(self, state: dict[str, Any], runner: Runner) -> None:
        """Let a runner that is about to train go on, with the images that come next."""
        loop = runner.train_loop
        if isinstance(loop, IterBasedTrainLoop):
            for _ in range(state["iter"]):
                next(loop.dataloader_iterator)
            self._done = state["iter"]  # else the loop would pass over them again
        else:
            loop._epoch, loop._iter = state["epoch"], state["iter"]
        runner.optim_wrapper.initialize_count_status(runner.model, state["iter"], loop.max_iters)
        if state["scaler"] is not None:
            runner.optim_wrapper.loss_scaler.load_state_dict(state["scaler"])
        for schedule, saved in zip(runner.param_schedulers or (), state["schedules"], strict=True):
            schedule.load_state_dict(saved)
        runner.message_hub.load_state_dict(state["messages"])
        before, runner._resume = runner._resume, True
        runner.call_hook("after_load_checkpoint", checkpoint=state["checkpoint"])
        runner._resume = before


def _state_of(runner: Runner) -> dict[str, Any]:
    """Return what a checkpoint holds, but for what the trial keeps itself."""
    scaler = getattr(runner.optim_wrapper, "loss_scaler", None)
    checkpoint = {"state_dict": _model_of(runner).state_dict()}
    runner.call_hook("before_save_checkpoint", checkpoint=checkpoint)
    return {
        "epoch": runner.epoch,
        "iter": runner.iter,
        "scaler": scaler and scaler.state_dict(),
        "schedules": [schedule.state_dict() for schedule in runner.param_schedulers or ()],
        "messages": runner.message_hub.state_dict(),
        "checkpoint": checkpoint,
    }


def _model_of(runner: Runner) -> nn.Module:
    model: nn.Module = runner.model.module if is_model_wrapper(runner.model) else runner.model
    return model
