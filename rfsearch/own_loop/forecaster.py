"""What a full training by a user's own function should cost, before it is trained.

The pilot has shown what the hand default costs. Another candidate costs as much more or less as a forward and a
backward pass of its network do, counted on shapes alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from rfsearch.choices import Candidate
from rfsearch.errors import ModelError, RfsearchError
from rfsearch.ledger import Cost
from rfsearch.planning.forecast import Forecast
from rfsearch.planning.forecaster import shapes_only
from rfsearch.receptive.call import explain_precision
from rfsearch.space import Length, OwnSpace
from rfsearch.surgery import Learnable, install
from rfsearch.surgery.shapes import OnShapes
from rfsearch.training.dilation_search import bounds_of, looked_at, starts_of
from rfsearch.training.latency import charged_passes
from rfsearch.training.meter import Meter
from rfsearch.training.network import fields_of, settings_of
from rfsearch.untouched import untouched

# A map is resampled wherever f is not exactly 1, which a learned one leaves with its first step.
_BESIDE = 1.01
# A real dilation between 1 and 2 px reads more places than any other, px.
_DEAREST = 1.5


class _Passes(NamedTuple):
    """Hold what one image's passes cost, FLOP: forward, and forward with backward."""

    forward: float
    both: float


class LoopForecaster:
    """Forecast full trainings of one space; each candidate is counted once.

    Args:
        space: The space.
        length: Of a full training of the hand default.
        make: Makes the network.

    Example:
        >>> LoopForecaster(space, length, make_model)(space.reference_candidate).cost.flop
    """

    def __init__(self, space: OwnSpace, length: Length, make: Callable[[], nn.Module]) -> None:
        """Begin with nothing counted."""
        self._space, self._length, self._make = space, length, make
        self._known: dict[Candidate, Forecast] = {}
        self._passes: dict[Candidate, _Passes] = {}

    @property
    def flop_per_s(self) -> float:
        """FLOP per second of one worker in the pilot."""
        length = self._length
        return (length.train_flop + length.score_flop) / length.epoch_s

    def reference_flop(self) -> float:
        """Return the budget unit 1x: training FLOP of a full training of the hand default, without evaluations."""
        return self._length.train_flop * self._length.epochs

    def __call__(self, candidate: Candidate) -> Forecast:
        """Return the forecast of a candidate's full training.

        Raises:
            ModelError: The network fails with this candidate.
        """
        if candidate not in self._known:
            self._known[candidate] = self._forecast(candidate)
        return self._known[candidate]

    def _forecast(self, candidate: Candidate) -> Forecast:
        length, one, reference = self._length, self._pass(candidate), self._pass(self._space.reference_candidate)
        dearer, scoring = one.both / reference.both, one.forward / reference.forward
        epoch_flop = dearer * length.train_flop + scoring * length.score_flop
        looks = looked_at(len(self._space.dilations), len(candidate.searched)) * length.look_flop
        end_flop = scoring * length.end_flop + (2 + charged_passes(self._space.costs)) * one.forward
        model, learnable = self._installed(candidate)
        fields = fields_of(model, learnable, candidate, self._space.input_shape)
        epoch = Cost(epoch_flop, dearer * length.epoch_s, 1.0)
        least = Cost(epoch_flop + looks + end_flop, epoch.device_s + length.end_s, 1.0)
        return Forecast(
            cost=Cost(epoch_flop * length.epochs + end_flop + looks, epoch.device_s * length.epochs + length.end_s,
                      float(length.epochs)),
            least=least,
            stretch=Cost(epoch_flop + looks, epoch.device_s, 1.0),
            peak_bytes=length.peak_bytes,
            rf_px=fields.rf_px,
            path_rf_px=fields.path_rf_px,
            seen=fields.seen,
            step=epoch,
            entry=least,
        )  # fmt: skip

    def _pass(self, candidate: Candidate) -> _Passes:
        """Return the FLOP of one image's passes; of dilations that move, as between two pixels; of f, as beside 1."""
        if candidate not in self._passes:
            try:
                self._passes[candidate] = self._counted(candidate)
            except RfsearchError:
                raise
            except Exception as error:
                model = self._installed(candidate)[0]
                why = explain_precision(model, error) or f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"
                raise ModelError(
                    f"the model fails at {candidate} on an input of {'x'.join(map(str, self._space.input_shape))} "
                    f"before anything is trained: {why}"
                ) from error
        return self._passes[candidate]

    def _counted(self, candidate: Candidate) -> _Passes:
        model, learnable = self._installed(candidate)
        if learnable.dilations:
            low, high = bounds_of(self._space.dilations, starts_of(learnable, candidate))
            for layer in learnable.let_move(model, (low, high + 1)).values():
                between = layer.dilation.detach() + 0.5
                if low < _DEAREST and between < _DEAREST + 2:  # it may move there
                    between = between.clamp(max=_DEAREST)
                layer.log_dilation.data = between.log()
        for factor in learnable.factors.values():
            if factor.f.requires_grad:
                factor.f.data *= _BESIDE
        model = shapes_only(model.eval())
        image = torch.zeros(*self._space.input_shape, device="meta")
        with untouched(model), Meter(memory=False) as meter, OnShapes():  # type: ignore[no-untyped-call]
            output = model(image)
            forward = float(meter.flop)
            means = [leaf.mean() for leaf in tree_leaves(output) if isinstance(leaf, Tensor) and leaf.requires_grad]
            if means:
                torch.stack(means).sum().backward()
        return _Passes(forward, float(meter.flop))

    def _installed(self, candidate: Candidate) -> tuple[nn.Module, Learnable]:
        model = self._make()
        return model, install(model, candidate, settings_of(self._space))
