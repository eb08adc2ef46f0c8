"""What a trial keeps beside its model and optimisers, so that it can be resumed."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pickle import PicklingError
from typing import Any, Protocol, cast

import torch

from rfsearch.errors import RequestError, TrialError


class Stateful(Protocol):
    """Anything whose state a trial can keep."""

    def state_dict(self) -> Any:
        """Return the state."""

    def load_state_dict(self, state: Any) -> object:
        """Go on from a state."""


class Drawing(Protocol):
    """Anything that draws random numbers and whose state a trial can keep, such as a torch.Generator."""

    def get_state(self) -> Any:
        """Return the state."""

    def set_state(self, state: Any, /) -> object:
        """Go on from a state."""


class KeptObjects:
    """Keep objects of the user's, each by a name, whatever their states hold."""

    def __init__(self) -> None:
        """Keep nothing yet."""
        self._objects: dict[str, Stateful] = {}

    def add(self, objects: Mapping[str, Stateful | Drawing]) -> None:
        """Keep more objects.

        Raises:
            RequestError: One has no state.
        """
        for name, one in objects.items():
            if hasattr(one, "state_dict") and hasattr(one, "load_state_dict"):
                self._objects[name] = cast(Stateful, one)
            elif hasattr(one, "get_state") and hasattr(one, "set_state"):
                self._objects[name] = _Generating(one)
            else:
                raise RequestError(
                    "trial.keep takes objects with state_dict and load_state_dict, or with get_state and set_state. "
                    f"{name} has none."
                )

    def states(self) -> dict[str, torch.Tensor]:
        """Return the packed states by name.

        Raises:
            TrialError: One cannot be pickled.
        """
        found = {}
        for name, one in self._objects.items():
            try:
                found[name] = packed(one.state_dict())
            except (PicklingError, AttributeError, TypeError) as error:
                raise TrialError(
                    f"trial.keep writes states to a file. That of {name} cannot be pickled: {error}."
                ) from error
        return found

    def check(self, states: Mapping[str, torch.Tensor]) -> None:
        """Check that states are of the objects that are kept now.

        Raises:
            TrialError: Other objects were kept then.
        """
        if missing := sorted(states.keys() ^ self._objects.keys()):
            raise TrialError(f"trial.keep had other objects when this trial began: {', '.join(missing)}.")

    def load(self, states: Mapping[str, torch.Tensor], device: torch.device) -> None:
        """Go on from what `states` gave."""
        for name, one in self._objects.items():
            where = torch.device("cpu") if isinstance(one, _Generating) else device
            one.load_state_dict(unpacked(states[name], where))


class _Generating:
    """Keep what draws random numbers like anything else; torch wants states of generators on the CPU."""

    def __init__(self, generator: Drawing) -> None:
        self._generator = generator

    def state_dict(self) -> Any:
        return self._generator.get_state()

    def load_state_dict(self, state: Any) -> None:
        self._generator.set_state(state)


def packed(state: object) -> torch.Tensor:
    """Return any state as a tensor: a user's object may keep what checkpoints of built-in trainings never hold."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return torch.frombuffer(bytearray(buffer.getvalue()), dtype=torch.uint8)


def unpacked(state: torch.Tensor, device: torch.device) -> Any:
    """Return what `packed` was given, its tensors on a device."""
    buffer = io.BytesIO(state.cpu().numpy().tobytes())
    return torch.load(buffer, map_location=device, weights_only=False)  # written by this very run
