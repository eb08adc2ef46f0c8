"""What each operator costs: FLOP of one call, by a formula for every operator that torch's own counter scores 0.

FLOP = 2 x MAC. Conventions:
- An element-wise operation or a reduction costs one FLOP per element per arithmetic step; moving, picking and ordering
  data costs none.
- A complex number is two real ones; a product of two costs 6 FLOP, a complex multiply-add 8.
- A fused operator (attention, a recurrent layer) costs what the same arithmetic costs operator by operator.
- A fast Fourier transform of n complex values costs 5 n log2 n, of n real ones half of that. Decompositions of matrices
  cost what Golub and Van Loan, Matrix Computations (4th edition), state for them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

Formula = Callable[[Sequence[Any], Mapping[str, Any], Any], float]

# One bilinear sample: four weights, four products, three sums.
_SAMPLE = 11
# By grid_sample's interpolation mode: bilinear, nearest, bicubic (of four by four).
_SAMPLE_2D = (_SAMPLE, 1, 47)
# Trilinear (eight weights, eight products, seven sums), nearest.
_SAMPLE_3D = (23, 1)
# Two boxes are compared by four minima and maxima, two differences, a product, two sums, a quotient, and the limit.
_PAIR = 11
# Units of the map that a bin of a pooled region averages, where their number depends on the region: two by two.
_UNITS_OF_A_BIN = 4
# Steps of one recurrent cell per hidden unit: sigmoid and tanh cost 4 each, as by themselves.
LSTM_STEPS = 28  # 4 sums of the gates' two parts, 3 sigmoid, 2 tanh, 3 products, 1 sum
GRU_STEPS = 19  # 3 such sums, 2 sigmoid, 1 tanh, 2 products, a sum, a difference
_RNN_STEPS = 5  # 1 such sum, 1 tanh
_CELL_STEPS = (2, _RNN_STEPS, LSTM_STEPS, GRU_STEPS)  # by torch's number of the mode: relu, tanh, lstm, gru


def _numel(values: Any) -> int:
    """Real numbers in all tensors of a nest: a complex element is two."""
    return sum(leaf.numel() * (1 + leaf.is_complex()) for leaf in tree_leaves(values) if isinstance(leaf, Tensor))


def per_output(steps: float) -> Formula:
    """Count arithmetic steps per number of the output."""
    return lambda args, kwargs, out: steps * _numel(out)


def per_input(steps: float) -> Formula:
    """Count arithmetic steps per number of the first argument."""
    return lambda args, kwargs, out: steps * _numel(args[0])


def per_list(steps: float) -> Formula:
    """Count steps per number of lists of tensors, as optimisers use them: in place, the longest argument counts."""
    return lambda args, kwargs, out: steps * max(map(_numel, args))


def product(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> float:
    """Count a product element by element: 6 FLOP if both factors are complex, else one per number of the output."""
    both = all(isinstance(factor, Tensor) and factor.is_complex() for factor in args[:2])
    return (3.0 if both else 1.0) * _numel(out)


def pooling(axes: int) -> Formula:
    """Count pooling: every output element looks at its whole window."""

    def window(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> float:
        kernel = args[1] if isinstance(args[1], list | tuple) else [args[1]]
        sides = list(kernel) * (axes if len(kernel) == 1 else 1)
        first = out[0] if isinstance(out, list | tuple) else out
        return float(math.prod(sides) * first.numel())

    return window


def matrix_vector(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> float:
    """Count mv(matrix, vector) and addmv(added, matrix, vector): a multiply-add per element of the matrix."""
    result: float = 2.0 * args[-2].numel() * multiply_add(out)
    return result


def multiply_add(out: Tensor) -> float:
    """Count the real multiply-adds that one number of the output costs."""
    return 4.0 if out.is_complex() else 1.0


def batches_added(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> float:
    """Count addbmm(added, left, right): all products of the batch."""
    result: float = 2.0 * args[1].numel() * args[2].shape[-1]
    return result


def trilinear(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> float:
    """Count two products and a sum per element of three tensors broadcast to one another, as nn.Bilinear uses it."""
    shapes = []
    for tensor, expanded in zip(args[:3], args[3:6], strict=True):
        shape = list(tensor.shape)
        for dim in sorted(expanded):
            shape.insert(dim, 1)
        shapes.append(shape)
    result: float = 3.0 * math.prod(torch.broadcast_shapes(*shapes))
    return result


def attention(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> float:
    """Count attention of ... x heads x tokens x channels: scores, their softmax, the mix of values."""
    query, key, value = args[:3]
    scores = query[..., 0].numel() * key.shape[-2]
    return float(scores * (2 * query.shape[-1] + 4 + 2 * value.shape[-1]))


def attention_backward(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> float:
    """Count the scores again, two products each for the gradients of scores and values, and that of the softmax."""
    query, key, value = args[1:4]
    scores = query[..., 0].numel() * key.shape[-2]
    return float(scores * (2 * query.shape[-1] * 3 + 4 + 2 * value.shape[-1] * 2))


def multi_head_attention(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> float:
    """Count nn.MultiheadAttention fused in evaluation: four projections around attention of B x tokens x channels."""
    query, key, _, channels = args[:4]
    tokens, others = query[..., 0].numel(), key.shape[-2]
    projections = 2 * channels * channels * (2 * tokens + 2 * key[..., 0].numel())
    return float(projections + tokens * others * (4 * channels + 4 * args[4]))


def transformer_layer(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> float:
    """Count nn.TransformerEncoderLayer fused in evaluation: attention, two linear layers, two layer norms, two sums."""
    source, channels, heads, gelu, hidden = args[0], args[1], args[2], args[7], args[14].shape[0]
    attention = multi_head_attention((source, source, source, channels, heads), {}, out)
    activation = 8 if gelu else 1
    result: float = attention + source[..., 0].numel() * (
        4.0 * channels * hidden + activation * hidden + (2 * 5 + 2) * channels
    )
    return result


def _recurrent(places: Tensor, matrices: Sequence[Tensor], cells: int, steps: int) -> float:
    """Each of B x L places is multiplied by every matrix and goes through `cells` hidden units in all."""
    rows = places.numel() // places.shape[-1]
    return float(rows * (2 * sum(matrix.numel() for matrix in matrices) + steps * cells))


def mkldnn_layer(passes: int, weights: int, mode: int) -> Formula:
    """Count one direction of one layer: its matrices begin at the place `weights`, the hidden size follows the mode."""
    return lambda args, kwargs, out: (
        passes * _recurrent(args[0], args[weights : weights + 2], args[mode + 1], _CELL_STEPS[args[mode]])
    )


def fused_layers(passes: int, mode: int) -> Formula:
    """Count all layers and directions of cudnn or MIOpen, their weights in a list."""

    def count(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> float:
        kind = args[mode]
        matrices = [weight for weight in args[1] if weight.dim() == 2]
        gates = matrices[0].shape[0]  # all of a layer's, one below the other; a projection has fewer rows
        layers = sum(matrix.shape[0] == gates for matrix in matrices) // 2
        return passes * _recurrent(args[0], matrices, layers * gates // (1, 1, 4, 3)[kind], _CELL_STEPS[kind])

    return count


def fourier(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> float:
    """Count 5 n log2 n for n complex values, half of that where the values or the spectrum are real."""
    full = next((side for side in (args[0], out) if not side.is_complex()), args[0])
    return 5.0 * _numel(full) / 2 * sum(math.log2(max(1, full.shape[dim])) for dim in args[1])


def matrices(count: Callable[[int, int], float]) -> Formula:
    """Count a decomposition of every m x n matrix in the first argument: count(m, n), m >= n."""

    def formula(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> float:
        shape = args[0].shape
        n, m = sorted(shape[-2:])
        return float(math.prod(shape[:-2]) * count(m, n))

    return formula


def solved(factorised: bool, matrix: int, sides: int, triangles: int) -> Formula:
    """Count triangular systems of every n x n matrix for every right-hand side, with its LU factors if `factorised`."""

    def formula(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> float:
        shape = args[matrix].shape
        n = shape[-1]
        factors = 2 / 3 * n**3 * math.prod(shape[:-2]) if factorised else 0.0
        return factors + float(triangles * n * args[sides].numel())

    return formula


def distances(pairs: int, rows: int, steps: float) -> Formula:
    """Count a difference, a product and a sum per channel for every pair of rows.

    pairs, rows: places of the arguments that have an element per pair (-1: the result) and a channel per column.
    """
    return lambda args, kwargs, out: steps * (out if pairs < 0 else args[pairs]).numel() * args[rows].shape[-1]


def transformed_kernel(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> float:
    """Count a weight's norm (two steps per element), and the weight times its scale."""
    result: float = 3.0 * args[0].numel() + args[1].numel()
    return result


def transformed_kernel_backward(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> float:
    """Count the inner product with the weight (two steps), the weight times that, a difference, and the scale."""
    result: float = 5.0 * args[1].numel() + 4.0 * args[2].numel()
    return result


def grid_sampler(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> float:
    """Count an interpolation per number of the output."""
    return float((_SAMPLE_2D if out.dim() == 4 else _SAMPLE_3D)[args[2]] * out.numel())


def accumulated(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> float:
    """Count index_put: an addition per value if values accumulate, and none if data only move."""
    accumulate = args[3] if len(args) > 3 else kwargs.get("accumulate", False)
    return float(_numel(args[2])) if accumulate else 0.0


def scattered(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> float:
    """Count one addition per number of the source if numbers are added or multiplied, and none if they replace."""
    return float(args[2].numel()) if "reduce" in kwargs else 0.0


def convolution_backward(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> float:
    """Count each of the two gradients as much as the forward pass, groups included.

    Torch's own formula takes a grouped weight gradient for a dense one.
    """
    grad, image, weight, transposed, mask = args[0], args[1], args[2], args[7], args[10]
    places = image if transposed else grad
    result: float = 2.0 * places.shape[0] * places[0, 0].numel() * weight.numel() * (mask[0] + mask[1])
    return result


def deformable_convolution(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> float:
    """Count torchvision's deform_conv2d: 2 x MAC of its kernel, and the sampling.

    It is _SAMPLE (with a mask, one more) for each of the C x taps values that every place of its output samples. The
    convolution that gives the offsets counts by itself.
    """
    image, weight, masked = args[0], args[1], args[13]
    sampled = image.shape[1] * weight.shape[2] * weight.shape[3]
    result: float = out.numel() / out.shape[1] * (2.0 * weight.numel() + (_SAMPLE + masked) * sampled)
    return result


def deformable_convolution_backward(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> float:
    """Count two products as large as the forward one, and the sampling.

    It samples once more for the weight's gradient, and twice that for the gradients of the map and of the offsets, as
    grid_sampler_2d_backward.
    """
    grad, image, weight, masked = args[0], args[1], args[2], args[14]
    sampled = image.shape[1] * weight.shape[2] * weight.shape[3]
    result: float = grad.numel() / grad.shape[1] * (4.0 * weight.numel() + 3 * (_SAMPLE + masked) * sampled)
    return result


def suppression(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> float:
    """Count torchvision's nms: every pair of boxes, as if none were suppressed before it is compared."""
    count = len(args[0])
    return _PAIR * count * (count - 1) / 2


def region_sampled(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> float:
    """Count torchvision's roi_align and ps_roi_align: bilinear samples and their mean, for each bin of each region."""
    pooled = out[0] if isinstance(out, list | tuple) else out
    return _samples_of(args[5]) * float(pooled.numel())


def region_sampled_backward(side: int) -> Formula:
    """Count the same samples once more, of the gradient; `side` is the place of the samples an axis."""
    return lambda args, kwargs, out: _samples_of(args[side]) * float(args[0].numel())


def _samples_of(side: int) -> float:
    """Count what one bin costs; -1 samples an axis are as many as its region is wide."""
    return (_SAMPLE + 1) * (side * side if side > 0 else _UNITS_OF_A_BIN)


def region_averaged(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> float:
    """Count torchvision's roi_pool and ps_roi_pool: the units of every bin of every region."""
    pooled = out[0] if isinstance(out, list | tuple) else out
    return float(_UNITS_OF_A_BIN * pooled.numel())


def grid_sampler_backward(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> float:
    """Count one sample for each of the gradients, of the map and of the grid, that is asked for."""
    grad, mode, wanted = args[0], args[3], args[6]
    return float((_SAMPLE_2D if grad.dim() == 4 else _SAMPLE_3D)[mode] * sum(wanted) * grad.numel())


def embedding_bag(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> float:
    """Count a multiply-add for every value of every row that goes into a bag, forward and backward alike."""
    rows, index = args[0], args[1]
    result: float = 2.0 * index.numel() * rows.shape[1]
    return result


def embedding_bag_weights(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> float:
    """Count the inner product of a bag's gradient with each of its rows."""
    result: float = 2.0 * args[2].numel() * args[1].shape[1]
    return result


def lu(m: int, n: int) -> float:
    """Count the steps of an LU decomposition of an m x n matrix."""
    return m * n**2 - n**3 / 3


def numel_of(position: int, steps: float = 1) -> Formula:
    """Count steps per element of one argument."""
    return lambda args, kwargs, out: steps * _numel(args[position])
