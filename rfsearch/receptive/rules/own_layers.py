"""Follow the layers of rfsearch itself, which sample a map at real positions."""

from __future__ import annotations

import numpy as np

from rfsearch.layers import LSDFN, Correlation, FractionalConv2d, Inflation, Interpolation, WeightedGradient
from rfsearch.receptive.call import Call, Operator, Rule
from rfsearch.receptive.field import Field, hull
from rfsearch.receptive.rules.elementwise import unchanged
from rfsearch.receptive.rules.windows import over_channels


def _inflation(call: Call) -> Field:
    """Follow an inflation: a map f times its size, sampled at t / f. A kernel behind it reaches (k - 1) d j / f px."""
    f, field = call.module.factor.f.item(), call.field
    for dim in range(2, len(call.output)):
        field = field.sampled(dim, np.arange(call.output[dim]) / f, stride=1 / f)
    return field


def _interpolation(call: Call) -> Field:
    stride = call.module.stride_between(call.output[2:], call.argument(2, "plain"))
    step, field = call.module.factor.f.item() / stride, call.field
    for dim in range(2, len(call.output)):
        field = field.sampled(dim, np.arange(call.output[dim]) * step, stride=step)
    return field


def _large_sampling_field(call: Call) -> Field:
    """Follow LS-DFN: s places gamma apart with k taps around each, gamma (s - 1) + k px of its map."""
    block, field = call.module, call.field
    reach = block.stride.gamma.item() * (block.s - 1) / 2 + (block.k - 1) / 2
    for dim in range(2, len(call.output)):
        places = np.arange(call.output[dim], dtype=np.float64)
        ends = [field.sampled(dim, places - reach), field.sampled(dim, places + reach)]
        field = hull(ends, field.shape)
    return field.mixed([1]).spread(call.output)


def _correlation(call: Call) -> Field:
    """Follow a correlation, which reads one map in its place and the other up to its reach around it."""
    first, second = call.args[:2]
    edge = call.module.reach // call.module.stride * call.module.stride
    seen = [first.mixed([1])] if isinstance(first, Field) else []
    if isinstance(second, Field):
        for dim in range(2, len(call.output)):
            places = np.arange(call.output[dim])[:, None]
            second = second.read(dim, places + np.array([[-edge, edge]]))
        seen.append(second.mixed([1]))
    return hull(seen, seen[0].shape).spread(call.output)


def _fractional(call: Call) -> Field:
    """Follow k taps at a real dilation d; between taps the field is that of a plain convolution: (k - 1) d j px."""
    conv, field = call.module, call.field
    for i, places in enumerate(conv.places(field.shape[2:])):
        taps = np.asarray(places).T
        if conv.padding_mode == "circular":
            taps %= field.shape[2 + i]
        at_taps = [field.sampled(2 + i, tap, stride=conv.stride[i]) for tap in taps]
        field = hull(at_taps, at_taps[0].shape)
    return over_channels(field, conv.groups, call.output[1])


RULES: dict[Operator, Rule] = {
    WeightedGradient: unchanged,
    Inflation: _inflation,
    Interpolation: _interpolation,
    LSDFN: _large_sampling_field,
    Correlation: _correlation,
    FractionalConv2d: _fractional,
}
