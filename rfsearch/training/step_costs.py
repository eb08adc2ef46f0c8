"""The memory of what steps and passes have cost, by what their cost depends on, so that the next can be foretold."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import Any

from torch import nn

from rfsearch.layers import LSDFN, Inflation, Interpolation
from rfsearch.surgery import Changing

_MODES = {True: "training", False: "evaluation"}


class Work:
    """Watch what the cost of a network's passes should depend on, beside what its control flow decides.

    Args:
        model: The network; its inflations, interpolations and LS-DFN blocks stay in it.
    """

    def __init__(self, model: nn.Module) -> None:
        """Watch the maps that are resampled from now on."""
        self._model = model
        self._blocks = [module for module in model.modules() if isinstance(module, LSDFN)]
        # In training and in evaluation, which may see images of another size.
        self._map_sizes: dict[bool, dict[Inflation | Interpolation, tuple[int, ...]]] = {True: {}, False: {}}
        for module in model.modules():
            if isinstance(module, Inflation | Interpolation):
                module.register_forward_pre_hook(self._note_map)

    def kind(self, batch: int, layers: Iterable[nn.Module], training: bool) -> str:
        """Describe a pass: two of one description cost alike.

        It holds what inflations, interpolations and the layers in the place of convolutions say, how far every LS-DFN
        block reads, which of its places lie between pixels and whether gamma is learned.

        Args:
            batch: Number of images.
            layers: Those in the place of convolutions.
            training: Whether it is a training step, or a pass in evaluation.
        """
        sizes: list[Hashable] = [batch]
        sizes += [layer.work for layer in layers if isinstance(layer, Changing)]
        for block in self._blocks:
            sizes += [block.work, int(block.stride.gamma.requires_grad)]
        for resampling, size in self._map_sizes[training].items():
            sizes += resampling.work(size)
        return repr(sizes)

    def state(self) -> dict[str, dict[str, list[int]]]:
        """Return the sizes of the maps that were resampled, by module, in training and in evaluation."""
        names = {module: name for name, module in self._model.named_modules()}
        return {
            _MODES[training]: {names[layer]: list(size) for layer, size in sizes.items()}
            for training, sizes in self._map_sizes.items()
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave, also that of an earlier version, in which both modes had the same sizes."""
        earlier = any(not isinstance(sizes, Mapping) for sizes in state.values())
        for training, mode in _MODES.items():
            sizes = state if earlier else state.get(mode, {})
            for name, layer in self._model.named_modules():
                if isinstance(layer, Inflation | Interpolation) and name in sizes:
                    self._map_sizes[training][layer] = tuple(sizes[name])

    def _note_map(self, layer: nn.Module, args: tuple[Any, ...]) -> None:
        """Note the size of the map that a layer inflates, or that it interpolates to."""
        assert isinstance(layer, Inflation | Interpolation)
        sizes = self._map_sizes[self._model.training]
        sizes[layer] = tuple(args[0].shape[2:] if isinstance(layer, Inflation) else args[1])


class StepCosts:
    """Remember what each kind of step and of one image's pass has cost, in FLOP, and how long the last ones took.

    Attributes:
        last_flop: Of the last step.
        step_s: Seconds of the last step.
        image_s: Seconds for each image of the last scoring.
    """

    def __init__(self) -> None:
        """Begin without any cost."""
        self._step: dict[str, float] = {}
        self._image: dict[str, float] = {}
        self.last_flop = self.step_s = self.image_s = 0.0

    def add_step(self, kind: str, flop: float) -> bool:
        """Take in what a step has cost; returns whether it is the dearest of its kind so far."""
        self.last_flop = flop
        dearest = flop > self._step.get(kind, 0.0)
        if dearest:
            self._step[kind] = flop
        return dearest

    def step(self, kind: str) -> float:
        """Return what the next step should cost: as much as the dearest one of its kind, or else as the last one."""
        return self._step.get(kind, self.last_flop)

    def add_image(self, kind: str, flop: float) -> None:
        """Take in what one image's pass has cost."""
        self._image[kind] = flop

    def image(self, kind: str) -> float | None:
        """Return what one image's pass costs, None for a kind that was not metered yet."""
        return self._image.get(kind)

    def state(self) -> dict[str, dict[str, float]]:
        """Return the costs by kind."""
        return {"step": dict(self._step), "score": dict(self._image)}

    def load_state(self, state: Mapping[str, Mapping[str, float]]) -> None:
        """Go on from what `state` gave."""
        self._step.update(state.get("step", {}))  # costs that an older version did not keep are metered again
        self._image.update(state.get("score", {}))
