"""Rules of operators that go along a sequence unit by unit: running sums, recurrent layers."""

from __future__ import annotations

from rfsearch.receptive.call import Call
from rfsearch.receptive.field import Field, hull
from rfsearch.receptive.picking import everywhere


def running(call: Call) -> Field:
    """cumsum and the like: every unit reads those before it."""
    return call.field.accumulated(call.argument(1, "dim") % len(call.field.shape))


def recurrent(call: Call) -> list[Field]:
    """nn.RNN, nn.GRU, nn.LSTM: their output, and what their last states saw."""
    if not isinstance(call.args[0], Field):
        raise call.lost("reads a packed sequence, or one that does not depend on the image")
    layer = call.module
    return _sequence(call, 1 if layer.batch_first and len(call.output) == 3 else 0, layer.bidirectional)


def recurrent_layer(call: Call) -> list[Field]:
    """One direction of one layer, sequence first, as on a CPU."""
    return _sequence(call, 0, False, backwards=call.args[7])


def recurrent_layers(call: Call) -> list[Field]:
    """All layers and directions, as on a GPU."""
    return _sequence(call, 1 if call.args[8] else 0, call.args[11])


def recurrent_cell(call: Call) -> list[Field]:
    """One step: each hidden unit by its own gates, here by all of them."""
    return [hull([field.mixed([-1]) for field in call.fields], shape) for shape in call.outputs]


def _sequence(call: Call, dim: int, both_ways: bool, backwards: bool = False) -> list[Field]:
    """The output along dimension `dim`, then the last states: layers x batch x hidden."""
    source, *states = call.fields
    fields = [source.mixed([-1]), *(everywhere(state) for state in states)]
    read = hull(fields, (*call.output[:-1], 1))
    whole = read.mixed([dim])
    found = [(whole if both_ways else read.accumulated(dim, backwards)).spread(call.output)]
    last = whole.mixed([dim], keep=False)
    for shape in call.outputs[1:]:
        held = len(shape) > len(last.shape)  # a work space is no state
        found.append(last.spread(shape) if held else last.unseeing(shape))
    return found
