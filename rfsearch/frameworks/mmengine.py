"""A hook for mmengine's Runner that lets its model learn its receptive field (pip install mmengine)."""

from __future__ import annotations

from typing import Any

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from rfsearch.frameworks.learned import Learned

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
        self.begin(runner.model.module if is_model_wrapper(runner.model) else runner.model)

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
