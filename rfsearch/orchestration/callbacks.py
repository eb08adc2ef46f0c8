"""Callbacks of Ray Tune that a user wants called: those that raise are named, and called no more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ray import tune

from rfsearch import plugins

_HOOKS = tuple(name for name in dir(tune.Callback) if name.startswith("on_") or name == "setup")


class Switched(tune.Callback):
    """Call another callback until it raises.

    Args:
        name: Its name, for the warning.
        callback: It.
        warn: Called with a sentence, once.

    Example:
        >>> tune.RunConfig(callbacks=[Switched("mine", tune.Callback(), print)])
    """

    def __init__(self, name: str, callback: tune.Callback, warn: Callable[[str], None]) -> None:
        self._name, self._warn = name, warn
        self._callback: tune.Callback | None = callback

    def _called(self, hook: str, *args: Any, **kwargs: Any) -> None:
        if self._callback is None:
            return
        try:
            getattr(self._callback, hook)(*args, **kwargs)
        except (Exception, SystemExit) as error:
            self._callback = None
            self._warn(
                f"callback {self._name} is switched off, the run goes on without it: {plugins.describe_error(error)}"
            )


def _calling(hook: str) -> Callable[..., None]:
    def called(self: Switched, *args: Any, **kwargs: Any) -> None:
        self._called(hook, *args, **kwargs)

    return called


for _hook in _HOOKS:
    setattr(Switched, _hook, _calling(_hook))
