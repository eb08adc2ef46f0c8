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
from torch.utils.flop_counter import flop_registry

Formula = Callable[[Sequence[Any], Mapping[str, Any], Any], float]

# One bilinear sample: four weights, four products, three sums.
_SAMPLE = 11
# By grid_sample's interpolation mode: bilinear, nearest, bicubic (of four by four).
_SAMPLE_2D = (_SAMPLE, 1, 47)
# Trilinear (eight weights, eight products, seven sums), nearest.
_SAMPLE_3D = (23, 1)
# Steps of one recurrent cell per hidden unit: sigmoid and tanh cost 4 each, as by themselves.
_LSTM_STEPS = 28  # 4 sums of the gates' two parts, 3 sigmoid, 2 tanh, 3 products, 1 sum
_GRU_STEPS = 19  # 3 such sums, 2 sigmoid, 1 tanh, 2 products, a sum, a difference
_RNN_STEPS = 5  # 1 such sum, 1 tanh
_CELL_STEPS = (2, _RNN_STEPS, _LSTM_STEPS, _GRU_STEPS)  # by torch's number of the mode: relu, tanh, lstm, gru


def _numel(values: Any) -> int:
    """Count the real numbers in all tensors of a nest: a complex element is two."""
    return sum(leaf.numel() * (1 + leaf.is_complex()) for leaf in tree_leaves(values) if isinstance(leaf, Tensor))


def _per_output(steps: float) -> Formula:
    return lambda args, kwargs, out: steps * _numel(out)


def _per_input(steps: float) -> Formula:
    return lambda args, kwargs, out: steps * _numel(args[0])


def _per_list(steps: float) -> Formula:
    """Count for lists of tensors, as optimisers use them. In place they return none, so the longest argument counts."""
    return lambda args, kwargs, out: steps * max(map(_numel, args))


def _product(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> float:
    """Count an element-wise product: 6 FLOP if both factors are complex, else one per real number that comes out."""
    both = all(isinstance(factor, Tensor) and factor.is_complex() for factor in args[:2])
    return (3.0 if both else 1.0) * _numel(out)


def _pooling(axes: int) -> Formula:
    """Count a pooling: every output element looks at its whole window."""

    def window(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> float:
        kernel = args[1] if isinstance(args[1], list | tuple) else [args[1]]
        sides = list(kernel) * (axes if len(kernel) == 1 else 1)
        first = out[0] if isinstance(out, list | tuple) else out
        return float(math.prod(sides) * first.numel())

    return window


def _matrix_vector(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> float:
    """Count mv(matrix, vector) and addmv(added, matrix, vector): a multiply-add per element of the matrix."""
    result: float = 2.0 * args[-2].numel() * _multiply_add(out)
    return result


def _multiply_add(out: Tensor) -> float:
    """Count the real multiply-adds that one of the numbers that come out costs."""
    return 4.0 if out.is_complex() else 1.0


def _batches_added(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> float:
    """Count addbmm(added, left, right): all products of the batch."""
    result: float = 2.0 * args[1].numel() * args[2].shape[-1]
    return result


def _trilinear(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> float:
    """Count two products and a sum per element of three tensors broadcast to one another, as in nn.Bilinear."""
    shapes = []
    for tensor, expanded in zip(args[:3], args[3:6], strict=True):
        shape = list(tensor.shape)
        for dim in sorted(expanded):
            shape.insert(dim, 1)
        shapes.append(shape)
    result: float = 3.0 * math.prod(torch.broadcast_shapes(*shapes))
    return result


def _attention(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> float:
    """Count attention over ... x heads x tokens x channels: scores, their softmax, the mix of values."""
    query, key, value = args[:3]
    scores = query[..., 0].numel() * key.shape[-2]
    return float(scores * (2 * query.shape[-1] + 4 + 2 * value.shape[-1]))


def _attention_backward(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> float:
    """Count the scores again, two products each for the scores' and the values' gradients, and the softmax's own."""
    query, key, value = args[1:4]
    scores = query[..., 0].numel() * key.shape[-2]
    return float(scores * (2 * query.shape[-1] * 3 + 4 + 2 * value.shape[-1] * 2))


def _multi_head_attention(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> float:
    """Count nn.MultiheadAttention's fused evaluation: four projections around attention over B x tokens x channels."""
    query, key, _, channels = args[:4]
    tokens, others = query[..., 0].numel(), key.shape[-2]
    projections = 2 * channels * channels * (2 * tokens + 2 * key[..., 0].numel())
    return float(projections + tokens * others * (4 * channels + 4 * args[4]))


def _transformer_layer(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> float:
    """Count nn.TransformerEncoderLayer's fused evaluation: attention, two linear layers, two layer norms, two sums."""
    source, channels, heads, gelu, hidden = args[0], args[1], args[2], args[7], args[14].shape[0]
    attention = _multi_head_attention((source, source, source, channels, heads), {}, out)
    activation = 8 if gelu else 1
    result: float = attention + source[..., 0].numel() * (
        4.0 * channels * hidden + activation * hidden + (2 * 5 + 2) * channels
    )
    return result


def _recurrent(places: Tensor, matrices: Sequence[Tensor], cells: int, steps: int) -> float:
    """Count a recurrent net: each of B x L places meets every matrix and goes through `cells` hidden units in all."""
    rows = places.numel() // places.shape[-1]
    return float(rows * (2 * sum(matrix.numel() for matrix in matrices) + steps * cells))


def _mkldnn_layer(passes: int, weights: int, mode: int) -> Formula:
    """Count one direction of one layer: its matrices begin at the place `weights`, the hidden size follows the mode."""
    return lambda args, kwargs, out: (
        passes * _recurrent(args[0], args[weights : weights + 2], args[mode + 1], _CELL_STEPS[args[mode]])
    )


def _fused_layers(passes: int, mode: int) -> Formula:
    """Count all layers and directions of cudnn or MIOpen, their weights in a list."""

    def count(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> float:
        kind = args[mode]
        matrices = [weight for weight in args[1] if weight.dim() == 2]
        gates = matrices[0].shape[0]  # all of a layer's, one below the other; a projection has fewer rows
        layers = sum(matrix.shape[0] == gates for matrix in matrices) // 2
        return passes * _recurrent(args[0], matrices, layers * gates // (1, 1, 4, 3)[kind], _CELL_STEPS[kind])

    return count


def _fourier(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> float:
    """Count 5 n log2 n for n complex values, half of that if the values or the spectrum are real."""
    full = next((side for side in (args[0], out) if not side.is_complex()), args[0])
    return 5.0 * _numel(full) / 2 * sum(math.log2(max(1, full.shape[dim])) for dim in args[1])


def _matrices(count: Callable[[int, int], float]) -> Formula:
    """Count a decomposition of every m x n matrix in the first argument: count(m, n), m >= n."""

    def formula(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> float:
        shape = args[0].shape
        n, m = sorted(shape[-2:])
        return float(math.prod(shape[:-2]) * count(m, n))

    return formula


def _solved(factorised: bool, matrix: int, sides: int, triangles: int) -> Formula:
    """Count triangular systems of every n x n matrix for every right-hand side, and its LU factors if `factorised`."""

    def formula(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> float:
        shape = args[matrix].shape
        n = shape[-1]
        factors = 2 / 3 * n**3 * math.prod(shape[:-2]) if factorised else 0.0
        return factors + float(triangles * n * args[sides].numel())

    return formula


def _distances(pairs: int, rows: int, steps: float) -> Formula:
    """Count a difference, a product and a sum per channel for every pair of rows.

    pairs, rows: places of the arguments that have an element per pair (-1: the result) and a channel per column.
    """
    return lambda args, kwargs, out: steps * (out if pairs < 0 else args[pairs]).numel() * args[rows].shape[-1]


def _transformed_kernel(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> float:
    """Count a weight's norm (two steps per element), and the weight times its scale."""
    result: float = 3.0 * args[0].numel() + args[1].numel()
    return result


def _transformed_kernel_backward(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> float:
    """Count the inner product with the weight (two steps), the weight times that, a difference, and the scale."""
    result: float = 5.0 * args[1].numel() + 4.0 * args[2].numel()
    return result


def _grid_sampler(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> float:
    return float((_SAMPLE_2D if out.dim() == 4 else _SAMPLE_3D)[args[2]] * out.numel())


def _accumulated(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> float:
    """Count index_put: an addition per value if they accumulate, else data that move."""
    accumulate = args[3] if len(args) > 3 else kwargs.get("accumulate", False)
    return float(_numel(args[2])) if accumulate else 0.0


def _scattered(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> float:
    return float(args[2].numel()) if "reduce" in kwargs else 0.0


def _convolution_backward(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> float:
    """Count each of the two gradients as much as the forward pass, groups included.

    Torch's own formula takes a grouped weight gradient for a dense one.
    """
    grad, image, weight, transposed, mask = args[0], args[1], args[2], args[7], args[10]
    places = image if transposed else grad
    result: float = 2.0 * places.shape[0] * places[0, 0].numel() * weight.numel() * (mask[0] + mask[1])
    return result


def _deformable_convolution(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> float:
    """Count torchvision's deform_conv2d: 2 x MAC of its kernel, and the sampling.

    It is _SAMPLE (with a mask, one more) for each of the C x taps values that every place of its output samples. The
    convolution that gives the offsets counts by itself.
    """
    image, weight, masked = args[0], args[1], args[13]
    sampled = image.shape[1] * weight.shape[2] * weight.shape[3]
    result: float = out.numel() / out.shape[1] * (2.0 * weight.numel() + (_SAMPLE + masked) * sampled)
    return result


def _deformable_convolution_backward(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> float:
    """Count two products as large as the forward one, and the sampling.

    It samples once more for the weight's gradient, and twice that for the gradients of the map and of the offsets, as
    grid_sampler_2d_backward.
    """
    grad, image, weight, masked = args[0], args[1], args[2], args[14]
    sampled = image.shape[1] * weight.shape[2] * weight.shape[3]
    result: float = grad.numel() / grad.shape[1] * (4.0 * weight.numel() + 3 * (_SAMPLE + masked) * sampled)
    return result


def _grid_sampler_backward(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> float:
    """Count one sample for each gradient that is asked for: the map's, the grid's."""
    grad, mode, wanted = args[0], args[3], args[6]
    return float((_SAMPLE_2D if grad.dim() == 4 else _SAMPLE_3D)[mode] * sum(wanted) * grad.numel())


def _embedding_bag(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> float:
    """Count a multiply-add per value of every row that goes into a bag, forward and backward alike."""
    rows, index = args[0], args[1]
    result: float = 2.0 * index.numel() * rows.shape[1]
    return result


def _embedding_bag_weights(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> float:
    """Count the inner product of a bag's gradient with each of its rows."""
    result: float = 2.0 * args[2].numel() * args[1].shape[1]
    return result


def _lu(m: int, n: int) -> float:
    return m * n**2 - n**3 / 3


def _numel_of(position: int, steps: float = 1) -> Formula:
    """Return a count of some steps per element of one argument."""
    return lambda args, kwargs, out: steps * _numel(args[position])


def _table(steps: float, names: str, formula: Callable[[float], Formula] = _per_output) -> dict[str, Formula]:
    return dict.fromkeys(names.split(), formula(steps))


def _foreach(names: str) -> str:
    return " ".join(f"_foreach_{name}" for name in names.split())


_SDPA = """_scaled_dot_product_flash_attention _scaled_dot_product_efficient_attention
    _scaled_dot_product_cudnn_attention _scaled_dot_product_flash_attention_for_cpu
    _scaled_dot_product_fused_attention_overrideable"""

FORMULAS: dict[str, Formula] = {
    # Data movement, allocation, views, order and bookkeeping: no arithmetic.
    **_table(
        0,
        """view _unsafe_view reshape _reshape_alias t transpose permute expand slice select detach clone copy _to_copy
        cat stack empty empty_like empty_strided empty_permuted zeros zeros_like ones ones_like new_empty new_zeros
        new_ones new_full new_empty_strided full full_like fill zero arange linspace logspace range index index_select
        gather take put index_copy index_fill _unsafe_index _unsafe_masked_index squeeze unsqueeze as_strided split
        split_with_sizes unsafe_split unsafe_split_with_sizes chunk unbind constant_pad_nd reflection_pad1d
        reflection_pad2d reflection_pad3d replication_pad1d replication_pad2d replication_pad3d lift lift_fresh alias
        set resize resize_as contiguous _local_scalar_dense is_same_size flip rot90 roll select_backward
        slice_backward diagonal_backward diagonal diag_embed block_diag tril triu trace narrow repeat
        repeat_interleave unfold movedim scalar_tensor max_unpool2d max_unpool3d channel_shuffle pixel_shuffle
        pixel_unshuffle expand_as view_as_real view_as_complex complex sort topk argsort median nanmedian kthvalue mode
        searchsorted bucketize isin nonzero nonzero_static masked_select masked_scatter masked_scatter_backward
        select_scatter slice_scatter diagonal_scatter as_strided_scatter _unique _unique2 unique_dim
        unique_consecutive unique_dim_consecutive eye tril_indices triu_indices embedding native_channel_shuffle
        meshgrid equal im2col promote_types result_type can_cast _pin_memory record_stream _chunk_cat _stack
        _efficientzerotensor _linalg_check_errors _assert_async _assert_scalar lu_unpack _amp_update_scale
        _cudnn_rnn_flatten_weight alias_copy as_strided_copy diagonal_copy expand_copy narrow_copy permute_copy
        select_copy slice_copy split_copy split_with_sizes_copy squeeze_copy t_copy transpose_copy unbind_copy
        unfold_copy unsqueeze_copy view_copy view_as_real_copy view_as_complex_copy _conj_copy""",
    ),
    # One arithmetic step per output element. So do all others that torch tags as element-wise, if nothing else is said.
    **_table(
        1,
        """add sub rsub div neg relu threshold threshold_backward clamp clamp_min clamp_max abs sign floor ceil round
        trunc exp log log2 log1p sqrt rsqrt pow reciprocal sin cos where lt le gt ge eq ne minimum maximum logical_and
        logical_or logical_not bitwise_and bitwise_or bitwise_not bitwise_xor masked_fill bernoulli normal uniform
        rand randn rand_like randn_like randperm randint randint_like random cauchy exponential geometric log_normal
        poisson multinomial square erf sgn fmod remainder isnan isinf isfinite hardtanh hardtanh_backward leaky_relu
        leaky_relu_backward max_pool2d_backward max_pool2d_with_indices_backward max_pool3d_with_indices_backward
        fractional_max_pool2d_backward fractional_max_pool3d_backward nll_loss_backward nll_loss2d_backward cumsum
        cumprod cummax cummin floor_divide relu6 mse_loss special_erf heaviside _prelu_kernel _prelu_kernel_backward
        hardshrink_backward softshrink_backward _masked_scale""",
    ),
    "mul": _product,
    **_table(
        2,
        """lerp addcmul addcdiv native_dropout native_dropout_backward _fused_dropout mse_loss_backward smooth_l1_loss
        smooth_l1_loss_backward huber_loss huber_loss_backward rrelu_with_noise rrelu_with_noise_backward addr
        softshrink polar soft_margin_loss_backward""",
    ),
    **_table(3, "logcumsumexp linalg_cross logit logit_backward xlogy kl_div logaddexp soft_margin_loss"),
    **_table(
        4,
        """sigmoid sigmoid_backward tanh tanh_backward silu silu_backward hardswish hardswish_backward hardsigmoid
        hardsigmoid_backward glu glu_backward elu elu_backward celu softplus softplus_backward mish mish_backward
        gelu_backward _softmax _safe_softmax _softmax_backward_data _log_softmax _log_softmax_backward_data
        binary_cross_entropy_with_logits log_sigmoid_forward log_sigmoid_backward binary_cross_entropy
        binary_cross_entropy_backward sinc""",
    ),
    **_table(6, "affine_grid_generator cudnn_affine_grid_generator"),
    **_table(8, "gelu upsample_bilinear2d _upsample_bilinear2d_aa"),
    **_table(
        1,
        """upsample_nearest1d upsample_nearest1d_backward _upsample_nearest_exact1d _upsample_nearest_exact1d_backward
        upsample_nearest2d upsample_nearest2d_backward _upsample_nearest_exact2d _upsample_nearest_exact2d_backward
        upsample_nearest3d upsample_nearest3d_backward _upsample_nearest_exact3d _upsample_nearest_exact3d_backward""",
    ),
    **_table(4, "upsample_linear1d"),
    **_table(16, "upsample_trilinear3d"),
    **_table(32, "upsample_bicubic2d _upsample_bicubic2d_aa _upsample_lanczos2d_aa"),
    **dict.fromkeys(["grid_sampler_2d", "grid_sampler_3d", "cudnn_grid_sampler"], _grid_sampler),
    **dict.fromkeys(["grid_sampler_2d_backward", "grid_sampler_3d_backward"], _grid_sampler_backward),
    # One arithmetic step per input element.
    **_table(
        1,
        """sum mean max min amax amin argmax argmin norm any all prod linalg_vector_norm nll_loss_forward
        nll_loss2d_forward logsumexp count_nonzero histc histogram bincount adaptive_avg_pool1d adaptive_avg_pool2d
        _adaptive_avg_pool2d adaptive_avg_pool3d _adaptive_avg_pool3d adaptive_max_pool2d adaptive_max_pool3d
        _adaptive_avg_pool2d_backward _adaptive_avg_pool3d_backward adaptive_avg_pool3d_backward avg_pool2d_backward
        avg_pool3d_backward adaptive_max_pool2d_backward adaptive_max_pool3d_backward upsample_bicubic2d_backward
        _upsample_bicubic2d_aa_backward _upsample_lanczos2d_aa_backward reflection_pad1d_backward
        reflection_pad2d_backward reflection_pad3d_backward replication_pad1d_backward replication_pad2d_backward
        replication_pad3d_backward col2im unfold_backward embedding_dense_backward segment_reduce
        _segment_reduce_backward allclose""",
        _per_input,
    ),
    **_table(2, "dot vdot nansum aminmax multilabel_margin_loss_forward multi_margin_loss", _per_input),
    **_table(3, "var std var_mean std_mean dist renorm embedding_renorm", _per_input),
    **_table(4, "upsample_linear1d_backward", _per_input),
    **_table(8, "upsample_bilinear2d_backward _upsample_bilinear2d_aa_backward", _per_input),
    **_table(16, "upsample_trilinear3d_backward", _per_input),
    **dict.fromkeys(["multilabel_margin_loss_backward", "multi_margin_loss_backward"], _numel_of(1, 2)),
    **_table(
        5,
        """native_batch_norm cudnn_batch_norm _native_batch_norm_legit _native_batch_norm_legit_functional
        _native_batch_norm_legit_no_training _batch_norm_with_update batch_norm native_layer_norm native_group_norm
        miopen_batch_norm""",
        _per_input,
    ),
    **_table(4, "_fused_rms_norm", _per_input),  # the mean of squares, and two products
    **_table(
        11,
        """native_batch_norm_backward cudnn_batch_norm_backward batch_norm_backward native_layer_norm_backward
        native_group_norm_backward miopen_batch_norm_backward""",
        _per_input,
    ),
    **_table(9, "_fused_rms_norm_backward", _per_input),
    # Kernels and products.
    "convolution_backward": _convolution_backward,
    "torchvision::deform_conv2d": _deformable_convolution,
    "torchvision::_deform_conv2d_backward": _deformable_convolution_backward,
    **dict.fromkeys(["max_pool1d", "avg_pool1d"], _pooling(1)),
    **dict.fromkeys(["max_pool2d", "max_pool2d_with_indices", "avg_pool2d", "fractional_max_pool2d"], _pooling(2)),
    **dict.fromkeys(["max_pool3d", "max_pool3d_with_indices", "avg_pool3d", "fractional_max_pool3d"], _pooling(3)),
    **dict.fromkeys(["mv", "addmv"], _matrix_vector),
    "addbmm": _batches_added,
    "_trilinear": _trilinear,
    "_cdist_forward": _distances(-1, 0, 3),
    "_cdist_backward": _distances(0, 1, 4),
    "_pdist_forward": _distances(-1, 0, 3),
    "_pdist_backward": _distances(0, 1, 5),
    "_weight_norm_interface": _transformed_kernel,
    "_weight_norm_interface_backward": _transformed_kernel_backward,
    **dict.fromkeys(_SDPA.split(), _attention),
    **dict.fromkeys([f"{name}_backward" for name in _SDPA.split()], _attention_backward),
    "_native_multi_head_attention": _multi_head_attention,
    "_transformer_encoder_layer_fwd": _transformer_layer,
    # Recurrent layers, whole and cell by cell. Going back takes each product twice, and about two steps for each one.
    "mkldnn_rnn_layer": _mkldnn_layer(1, weights=1, mode=9),
    "mkldnn_rnn_layer_backward": _mkldnn_layer(2, weights=1, mode=14),
    "_cudnn_rnn": _fused_layers(1, mode=6),
    "miopen_rnn": _fused_layers(1, mode=5),
    **dict.fromkeys(["_cudnn_rnn_backward", "miopen_rnn_backward"], _fused_layers(2, mode=10)),
    "_thnn_fused_lstm_cell": _numel_of(2, _LSTM_STEPS),
    "_thnn_fused_lstm_cell_backward_impl": _numel_of(2, 2 * _LSTM_STEPS),
    "_thnn_fused_gru_cell": _numel_of(2, _GRU_STEPS),
    "_thnn_fused_gru_cell_backward": _numel_of(0, 2 * _GRU_STEPS),
    **dict.fromkeys(["_fft_r2c", "_fft_c2r", "_fft_c2c"], _fourier),
    # Decompositions of matrices and systems of equations.
    **dict.fromkeys(["linalg_lu_factor_ex", "linalg_lu", "_linalg_det", "_linalg_slogdet"], _matrices(_lu)),
    **dict.fromkeys(["linalg_cholesky_ex", "linalg_ldl_factor_ex"], _matrices(lambda m, n: n**3 / 3)),
    **dict.fromkeys(["linalg_inv_ex", "cholesky_inverse"], _matrices(lambda m, n: 2 * n**3)),
    # The triangular factor and, as much again, the orthogonal one.
    **dict.fromkeys(["linalg_qr", "linalg_lstsq"], _matrices(lambda m, n: 4 * m * n**2 - 4 / 3 * n**3)),
    **dict.fromkeys(["geqrf", "linalg_householder_product"], _matrices(lambda m, n: 2 * m * n**2 - 2 / 3 * n**3)),
    **_table(0, "_conj _neg_view conj_physical _conj_physical"),
    **dict.fromkeys(["_linalg_svd", "linalg_pinv"], _matrices(lambda m, n: 6 * m * n**2 + 20 * n**3)),
    **dict.fromkeys(["_linalg_eigh", "linalg_matrix_sqrth", "linalg_polar"], _matrices(lambda m, n: 9 * n**3)),
    **dict.fromkeys(["linalg_eig", "linalg_eigvals", "_linalg_eigvals"], _matrices(lambda m, n: 25 * n**3)),
    "linalg_matrix_exp": _matrices(lambda m, n: 16 * n**3),  # a Taylor polynomial of degree 18: 5 products, 3 squares
    "_linalg_solve_ex": _solved(True, 0, 1, 2),
    "linalg_lu_solve": _solved(False, 0, 2, 2),
    "linalg_ldl_solve": _solved(False, 0, 2, 2),
    "cholesky_solve": _solved(False, 1, 0, 2),
    "linalg_solve_triangular": _solved(False, 0, 1, 1),
    "triangular_solve": _solved(False, 1, 0, 1),
    # One addition per element of the source, their last argument.
    **dict.fromkeys(["scatter_add", "index_add", "scatter_reduce", "index_reduce"], _numel_of(3)),
    "scatter": _scattered,
    **dict.fromkeys(["index_put", "_index_put_impl", "_unsafe_index_put", "put"], _accumulated),
    "_unsafe_masked_index_put_accumulate": _numel_of(3),
    **dict.fromkeys(["_embedding_bag", "_embedding_bag_forward_only"], _embedding_bag),
    **dict.fromkeys(["_embedding_bag_backward", "_embedding_bag_dense_backward"], _embedding_bag),
    "_embedding_bag_per_sample_weights_backward": _embedding_bag_weights,
    # Lists of tensors, as the optimisers use them.
    **_table(
        1,
        _foreach(
            """add sub mul div neg sqrt rsqrt abs reciprocal pow exp log norm powsum max maximum minimum clamp_min
            clamp_max sign round floor ceil trunc frac sin cos tan asin acos atan sinh cosh erf erfc expm1 log10 log1p
            log2 lgamma"""
        ),
        _per_list,
    ),
    **_table(2, f"{_foreach('addcmul addcdiv lerp')} _amp_foreach_non_finite_check_and_unscale", _per_list),
    **_table(0, _foreach("zero copy clone"), _per_list),
    **_table(4, f"_fused_sgd {_foreach('sigmoid tanh')}", _per_list),
    **_table(6, "_fused_adagrad", _per_list),
    **_table(12, "_fused_adam _fused_adamw", _per_list),
}


def formula_of(operator: Any) -> Formula | None:
    """Return the formula of a dispatched operator (a torch `OpOverload`), or None for one that has none.

    An operator in place costs what it does out of place; one that torch tags as element-wise and that is not in the
    table costs a step per output element.
    """
    name = operator._schema.name.removeprefix("aten::")
    known = FORMULAS.get(name) or FORMULAS.get(name.removesuffix("_"))
    if known is not None:
        return known
    counted = flop_registry.get(operator._overloadpacket)
    if counted is not None:
        return lambda args, kwargs, out: float(counted(*args, **kwargs, out_val=out)) * _multiply_add(out)
    if operator.is_view or name.startswith(("prim::", "profiler::", "sym_")):
        return _per_output(0)
    if operator.namespace == "aten" and torch.Tag.pointwise in operator.tags:
        return _per_output(1)
    return None


def register_flop(operator: str, formula: Formula) -> None:
    """Give an operator its formula. operator: its name without overload, as in `aten::NAME` or `NAMESPACE::NAME`.

    formula(args, kwargs, out) -> FLOP of one call. Built-in names of the `aten` namespace go without it.
    """
    FORMULAS[operator.removeprefix("aten::")] = formula
