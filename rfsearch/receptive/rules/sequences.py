"""Follow operators that go along a sequence unit by unit: running sums and recurrent layers."""

from __future__ import annotations

from torch import nn

from rfsearch.receptive.call import Call, Operator, Rule, operator_table
from rfsearch.receptive.field import Field, hull


def _running(call: Call) -> Field:
    """Follow cumsum and the like: every unit reads those before it."""
    return call.field.accumulated(call.argument(1, "dim") % len(call.field.shape))


def _recurrent(call: Call) -> list[Field]:
    """Follow nn.RNN, nn.GRU and nn.LSTM: their output, and what their last states saw."""
    if not isinstance(call.args[0], Field):
        raise call.cannot_follow("reads a packed sequence, or one that does not depend on the image")
    layer = call.module
    return _sequence(call, 1 if layer.batch_first and len(call.output) == 3 else 0, layer.bidirectional)


def _recurrent_layer(call: Call) -> list[Field]:
    """Follow one direction of one layer, sequence first, as it is dispatched on a CPU."""
    return _sequence(call, 0, False, backwards=call.args[7])


def _recurrent_layers(call: Call) -> list[Field]:
    """Follow all layers and directions, as they are dispatched on a GPU."""
    return _sequence(call, 1 if call.args[8] else 0, call.args[11])


def _recurrent_cell(call: Call) -> list[Field]:
    """Follow one step. Each hidden unit has its own gates; here it reads all of them."""
    return [hull([field.mixed([-1]) for field in call.fields], shape) for shape in call.outputs]


def _sequence(call: Call, dim: int, both_ways: bool, backwards: bool = False) -> list[Field]:
    """Return the field of the output along dimension `dim`, then those of the last states, layers x batch x hidden."""
    source, *states = call.fields
    fields = [source.mixed([-1]), *(state.merged() for state in states)]
    read = hull(fields, (*call.output[:-1], 1))
    whole = read.mixed([dim])
    found = [(whole if both_ways else read.accumulated(dim, backwards)).spread(call.output)]
    last = whole.mixed([dim], keep=False)
    for shape in call.outputs[1:]:
        held = len(shape) > len(last.shape)  # a work space is no state
        found.append(last.spread(shape) if held else last.unseeing(shape))
    return found


RULES: dict[Operator, Rule] = {
    **dict.fromkeys([nn.RNN, nn.GRU, nn.LSTM], _recurrent),
    **dict.fromkeys([nn.RNNCell, nn.GRUCell, nn.LSTMCell], _recurrent_cell),
    **operator_table(
        (_running, "cumsum cumprod cummax cummin logcumsumexp"),
        (_recurrent_layer, "mkldnn_rnn_layer"),
        (_recurrent_layers, "_cudnn_rnn"),
        (_recurrent_cell, "_thnn_fused_lstm_cell _thnn_fused_gru_cell"),
    ),
}
