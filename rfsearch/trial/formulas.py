"""What each operator costs: FLOP of one call, by a formula for every operator that torch's own counter scores 0.

FLOP = 2 x MAC. Conventions: an element-wise operation or a reduction costs one FLOP per element per arithmetic step;
moving data costs none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_leaves

Formula = Callable[[Sequence[Any], Mapping[str, Any], Any], float]

# One bilinear sample: the position, four weights, four multiply-adds.
_SAMPLE = 11


def _numel(values: Any) -> int:
    return sum(leaf.numel() for leaf in tree_leaves(values) if isinstance(leaf, Tensor))


def _per_output(steps: float) -> Formula:
    return lambda args, kwargs, out: steps * _numel(out)


def _per_input(steps: float) -> Formula:
    return lambda args, kwargs, out: steps * _numel(args[0])


def _pooling(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> float:
    """Every output element looks at its whole window."""
    kernel = args[1] if isinstance(args[1], (list, tuple)) else [args[1]]
    window = 1
    for side in kernel:
        window *= side
    if len(kernel) == 1:
        window *= window
    first = out[0] if isinstance(out, (list, tuple)) else out
    return float(window * first.numel())


def _convolution_backward(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> float:
    """Each of the two gradients multiplies as much as the forward pass, groups included; torch's own formula takes a
    grouped weight gradient for a dense one."""
    grad, image, weight, transposed, mask = args[0], args[1], args[2], args[7], args[10]
    places = image if transposed else grad
    return 2.0 * places.shape[0] * places[0, 0].numel() * weight.numel() * (mask[0] + mask[1])


def _deformable_convolution(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> float:
    """torchvision's deform_conv2d: 2 x MAC of its kernel, and _SAMPLE (with a mask, one more) for each of the C x taps
    values that every place of its output samples. The convolution that gives the offsets counts by itself."""
    image, weight, masked = args[0], args[1], args[13]
    sampled = image.shape[1] * weight.shape[2] * weight.shape[3]
    return out.numel() / out.shape[1] * (2.0 * weight.numel() + (_SAMPLE + masked) * sampled)


def _deformable_convolution_backward(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> float:
    """Two products as large as the forward one. Sampling once more, for the weight's gradient, and twice that for the
    gradients of the map and of the offsets, as grid_sampler_2d_backward."""
    grad, image, weight, masked = args[0], args[1], args[2], args[14]
    sampled = image.shape[1] * weight.shape[2] * weight.shape[3]
    return grad.numel() / grad.shape[1] * (4.0 * weight.numel() + 3 * (_SAMPLE + masked) * sampled)


def _grid_sampler_backward(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> float:
    """_SAMPLE for each of the gradients, of the map and of the grid, that is asked for."""
    grad, wanted = args[0], args[6]
    return _SAMPLE * sum(wanted) * grad.numel()


def _embedding_bag(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> float:
    """A multiply-add for every value of every row that goes into a bag."""
    rows, index = args[0], args[1]
    return 2.0 * index.numel() * rows.shape[1]


def _table(steps: float, names: str, formula: Callable[[float], Formula] = _per_output) -> dict[str, Formula]:
    return dict.fromkeys(names.split(), formula(steps))


FORMULAS: dict[str, Formula] = {
    # Data movement, allocation, views and bookkeeping: no arithmetic.
    **_table(
        0,
        """view _unsafe_view reshape _reshape_alias t transpose permute expand slice select detach clone copy _to_copy
        cat stack empty empty_like empty_strided zeros zeros_like ones ones_like new_empty new_zeros new_ones
        new_full new_empty_strided full full_like fill zero arange linspace index index_select gather scatter
        index_put _unsafe_index squeeze unsqueeze as_strided split split_with_sizes chunk unbind constant_pad_nd
        reflection_pad1d reflection_pad2d replication_pad1d replication_pad2d lift_fresh alias set resize contiguous
        _local_scalar_dense is_same_size flip roll select_backward slice_backward diagonal tril triu narrow repeat
        unfold movedim scalar_tensor max_unpool2d channel_shuffle pixel_shuffle pixel_unshuffle expand_as
        view_as_real view_as_complex sort topk argsort nonzero masked_select unique_dim eye tril_indices embedding
        native_channel_shuffle meshgrid equal im2col promote_types result_type can_cast _pin_memory record_stream""",
    ),
    # One arithmetic step per output element.
    **_table(
        1,
        """add sub rsub mul div neg relu threshold_backward clamp clamp_min clamp_max abs sign floor ceil round trunc
        exp log log2 log1p sqrt rsqrt pow reciprocal sin cos where lt le gt ge eq ne minimum maximum logical_and
        logical_or logical_not bitwise_and bitwise_or bitwise_not bitwise_xor masked_fill bernoulli normal uniform
        rand randn rand_like randn_like randperm randint square erf sgn fmod remainder isnan isinf isfinite hardtanh
        hardtanh_backward leaky_relu leaky_relu_backward max_pool2d_backward max_pool2d_with_indices_backward
        nll_loss_backward nll_loss2d_backward cumsum floor_divide relu6 mse_loss special_erf heaviside _prelu_kernel
        _prelu_kernel_backward""",
    ),
    **_table(
        2,
        """lerp addcmul addcdiv native_dropout native_dropout_backward mse_loss_backward smooth_l1_loss""",
    ),
    **_table(
        4,
        """sigmoid sigmoid_backward tanh tanh_backward silu silu_backward hardswish hardswish_backward hardsigmoid
        hardsigmoid_backward glu glu_backward elu elu_backward softplus softplus_backward mish mish_backward
        gelu_backward _softmax _safe_softmax _softmax_backward_data _log_softmax _log_softmax_backward_data
        binary_cross_entropy_with_logits""",
    ),
    **_table(8, "gelu upsample_bilinear2d _upsample_bilinear2d_aa"),
    **_table(1, "upsample_nearest2d upsample_nearest2d_backward _upsample_nearest_exact2d"),
    **_table(32, "upsample_bicubic2d _upsample_bicubic2d_aa"),
    **_table(_SAMPLE, "grid_sampler_2d"),
    # One arithmetic step per input element.
    **_table(
        1,
        """sum mean max min amax amin argmax argmin norm any all prod linalg_vector_norm nll_loss_forward
        nll_loss2d_forward logsumexp count_nonzero histc bincount adaptive_avg_pool2d _adaptive_avg_pool2d
        adaptive_max_pool2d _adaptive_avg_pool2d_backward avg_pool2d_backward adaptive_max_pool2d_backward
        upsample_bicubic2d_backward _upsample_bicubic2d_aa_backward
        reflection_pad1d_backward reflection_pad2d_backward replication_pad1d_backward
        replication_pad2d_backward col2im embedding_dense_backward""",
        _per_input,
    ),
    **_table(2, "dot vdot", _per_input),
    **_table(3, "var std var_mean std_mean", _per_input),
    **_table(8, "upsample_bilinear2d_backward _upsample_bilinear2d_aa_backward", _per_input),
    "grid_sampler_2d_backward": _grid_sampler_backward,
    **dict.fromkeys(["_embedding_bag", "_embedding_bag_forward_only"], _embedding_bag),
    **_table(
        5,
        """native_batch_norm cudnn_batch_norm _native_batch_norm_legit _native_batch_norm_legit_functional
        _native_batch_norm_legit_no_training _batch_norm_with_update batch_norm native_layer_norm native_group_norm
        miopen_batch_norm""",
        _per_input,
    ),
    **_table(
        11,
        """native_batch_norm_backward cudnn_batch_norm_backward batch_norm_backward native_layer_norm_backward
        native_group_norm_backward""",
        _per_input,
    ),
    "convolution_backward": _convolution_backward,
    "torchvision::deform_conv2d": _deformable_convolution,
    "torchvision::_deform_conv2d_backward": _deformable_convolution_backward,
    **dict.fromkeys(
        ["max_pool2d", "max_pool2d_with_indices", "avg_pool2d", "max_pool1d", "avg_pool1d", "max_pool3d"], _pooling
    ),
    # One addition per element of the source, their last argument.
    **dict.fromkeys(["scatter_add", "index_add", "scatter_reduce"], lambda args, kwargs, out: float(_numel(args[3]))),
    # Lists of tensors, as the optimisers use them.
    **_table(
        1,
        """_foreach_add _foreach_sub _foreach_mul _foreach_div _foreach_neg _foreach_sqrt _foreach_norm
        _foreach_maximum""",
        _per_input,
    ),
    **_table(2, "_foreach_addcmul _foreach_addcdiv _foreach_lerp", _per_input),
    **_table(0, "_foreach_zero _foreach_copy", _per_input),
    **_table(4, "_fused_sgd", _per_input),
    **_table(12, "_fused_adam _fused_adamw", _per_input),
}


def register_flop(operator: str, formula: Formula) -> None:
    """Give an operator its formula. operator: its name without overload, as in `aten::NAME` or `NAMESPACE::NAME`.

    formula(args, kwargs, out) -> FLOP of one call. Built-in names of the `aten` namespace go without it.
    """
    FORMULAS[operator.removeprefix("aten::")] = formula
