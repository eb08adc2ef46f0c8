"""Which operator costs what: the formulas by operator, and a way to add one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.flop_counter import flop_registry

from rfsearch.training.formulas import (
    GRU_STEPS,
    LSTM_STEPS,
    Formula,
    accumulated,
    attention,
    attention_backward,
    batches_added,
    convolution_backward,
    deformable_convolution,
    deformable_convolution_backward,
    distances,
    embedding_bag,
    embedding_bag_weights,
    fourier,
    fused_layers,
    grid_sampler,
    grid_sampler_backward,
    lu,
    matrices,
    matrix_vector,
    mkldnn_layer,
    multi_head_attention,
    multiply_add,
    numel_of,
    per_input,
    per_list,
    per_output,
    pooling,
    product,
    region_averaged,
    region_sampled,
    region_sampled_backward,
    scattered,
    solved,
    suppression,
    transformed_kernel,
    transformed_kernel_backward,
    transformer_layer,
    trilinear,
)


def _table(steps: float, names: str, formula: Callable[[float], Formula] = per_output) -> dict[str, Formula]:
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
    "mul": product,
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
    **dict.fromkeys(["grid_sampler_2d", "grid_sampler_3d", "cudnn_grid_sampler"], grid_sampler),
    **dict.fromkeys(["grid_sampler_2d_backward", "grid_sampler_3d_backward"], grid_sampler_backward),
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
        per_input,
    ),
    **_table(2, "dot vdot nansum aminmax multilabel_margin_loss_forward multi_margin_loss", per_input),
    **_table(3, "var std var_mean std_mean dist renorm embedding_renorm", per_input),
    **_table(4, "upsample_linear1d_backward", per_input),
    **_table(8, "upsample_bilinear2d_backward _upsample_bilinear2d_aa_backward", per_input),
    **_table(16, "upsample_trilinear3d_backward", per_input),
    **dict.fromkeys(["multilabel_margin_loss_backward", "multi_margin_loss_backward"], numel_of(1, 2)),
    **_table(
        5,
        """native_batch_norm cudnn_batch_norm _native_batch_norm_legit _native_batch_norm_legit_functional
        _native_batch_norm_legit_no_training _batch_norm_with_update batch_norm native_layer_norm native_group_norm
        miopen_batch_norm""",
        per_input,
    ),
    **_table(4, "_fused_rms_norm", per_input),  # the mean of squares, and two products
    **_table(
        11,
        """native_batch_norm_backward cudnn_batch_norm_backward batch_norm_backward native_layer_norm_backward
        native_group_norm_backward miopen_batch_norm_backward""",
        per_input,
    ),
    **_table(9, "_fused_rms_norm_backward", per_input),
    # Kernels and products.
    "convolution_backward": convolution_backward,
    "torchvision::deform_conv2d": deformable_convolution,
    "torchvision::_deform_conv2d_backward": deformable_convolution_backward,
    "torchvision::nms": suppression,
    **dict.fromkeys(["torchvision::roi_align", "torchvision::ps_roi_align"], region_sampled),
    "torchvision::_roi_align_backward": region_sampled_backward(9),
    "torchvision::_ps_roi_align_backward": region_sampled_backward(6),
    **dict.fromkeys(["torchvision::roi_pool", "torchvision::ps_roi_pool"], region_averaged),
    "torchvision::_roi_pool_backward": numel_of(0),
    "torchvision::_ps_roi_pool_backward": numel_of(0, 4),
    **dict.fromkeys(["max_pool1d", "avg_pool1d"], pooling(1)),
    **dict.fromkeys(["max_pool2d", "max_pool2d_with_indices", "avg_pool2d", "fractional_max_pool2d"], pooling(2)),
    **dict.fromkeys(["max_pool3d", "max_pool3d_with_indices", "avg_pool3d", "fractional_max_pool3d"], pooling(3)),
    **dict.fromkeys(["mv", "addmv"], matrix_vector),
    "addbmm": batches_added,
    "_trilinear": trilinear,
    "_cdist_forward": distances(-1, 0, 3),
    "_cdist_backward": distances(0, 1, 4),
    "_pdist_forward": distances(-1, 0, 3),
    "_pdist_backward": distances(0, 1, 5),
    "_weight_norm_interface": transformed_kernel,
    "_weight_norm_interface_backward": transformed_kernel_backward,
    **dict.fromkeys(_SDPA.split(), attention),
    **dict.fromkeys([f"{name}_backward" for name in _SDPA.split()], attention_backward),
    "_native_multi_head_attention": multi_head_attention,
    "_transformer_encoder_layer_fwd": transformer_layer,
    # Recurrent layers, whole and cell by cell. Going back takes each product twice, and about two steps for each one.
    "mkldnn_rnn_layer": mkldnn_layer(1, weights=1, mode=9),
    "mkldnn_rnn_layer_backward": mkldnn_layer(2, weights=1, mode=14),
    "_cudnn_rnn": fused_layers(1, mode=6),
    "miopen_rnn": fused_layers(1, mode=5),
    **dict.fromkeys(["_cudnn_rnn_backward", "miopen_rnn_backward"], fused_layers(2, mode=10)),
    "_thnn_fused_lstm_cell": numel_of(2, LSTM_STEPS),
    "_thnn_fused_lstm_cell_backward_impl": numel_of(2, 2 * LSTM_STEPS),
    "_thnn_fused_gru_cell": numel_of(2, GRU_STEPS),
    "_thnn_fused_gru_cell_backward": numel_of(0, 2 * GRU_STEPS),
    **dict.fromkeys(["_fft_r2c", "_fft_c2r", "_fft_c2c"], fourier),
    # Decompositions of matrices and systems of equations.
    **dict.fromkeys(["linalg_lu_factor_ex", "linalg_lu", "_linalg_det", "_linalg_slogdet"], matrices(lu)),
    **dict.fromkeys(["linalg_cholesky_ex", "linalg_ldl_factor_ex"], matrices(lambda m, n: n**3 / 3)),
    **dict.fromkeys(["linalg_inv_ex", "cholesky_inverse"], matrices(lambda m, n: 2 * n**3)),
    # The triangular factor and, as much again, the orthogonal one.
    **dict.fromkeys(["linalg_qr", "linalg_lstsq"], matrices(lambda m, n: 4 * m * n**2 - 4 / 3 * n**3)),
    **dict.fromkeys(["geqrf", "linalg_householder_product"], matrices(lambda m, n: 2 * m * n**2 - 2 / 3 * n**3)),
    **_table(0, "_conj _neg_view conj_physical _conj_physical"),
    **dict.fromkeys(["_linalg_svd", "linalg_pinv"], matrices(lambda m, n: 6 * m * n**2 + 20 * n**3)),
    **dict.fromkeys(["_linalg_eigh", "linalg_matrix_sqrth", "linalg_polar"], matrices(lambda m, n: 9 * n**3)),
    **dict.fromkeys(["linalg_eig", "linalg_eigvals", "_linalg_eigvals"], matrices(lambda m, n: 25 * n**3)),
    "linalg_matrix_exp": matrices(lambda m, n: 16 * n**3),  # a Taylor polynomial of degree 18: 5 products, 3 squares
    "_linalg_solve_ex": solved(True, 0, 1, 2),
    "linalg_lu_solve": solved(False, 0, 2, 2),
    "linalg_ldl_solve": solved(False, 0, 2, 2),
    "cholesky_solve": solved(False, 1, 0, 2),
    "linalg_solve_triangular": solved(False, 0, 1, 1),
    "triangular_solve": solved(False, 1, 0, 1),
    # One addition per element of the source, their last argument.
    **dict.fromkeys(["scatter_add", "index_add", "scatter_reduce", "index_reduce"], numel_of(3)),
    "scatter": scattered,
    **dict.fromkeys(["index_put", "_index_put_impl", "_unsafe_index_put", "put"], accumulated),
    "_unsafe_masked_index_put_accumulate": numel_of(3),
    **dict.fromkeys(["_embedding_bag", "_embedding_bag_forward_only"], embedding_bag),
    **dict.fromkeys(["_embedding_bag_backward", "_embedding_bag_dense_backward"], embedding_bag),
    "_embedding_bag_per_sample_weights_backward": embedding_bag_weights,
    # Lists of tensors, as the optimisers use them.
    **_table(
        1,
        _foreach(
            """add sub mul div neg sqrt rsqrt abs reciprocal pow exp log norm powsum max maximum minimum clamp_min
            clamp_max sign round floor ceil trunc frac sin cos tan asin acos atan sinh cosh erf erfc expm1 log10 log1p
            log2 lgamma"""
        ),
        per_list,
    ),
    **_table(2, f"{_foreach('addcmul addcdiv lerp')} _amp_foreach_non_finite_check_and_unscale", per_list),
    **_table(0, _foreach("zero copy clone"), per_list),
    **_table(4, f"_fused_sgd {_foreach('sigmoid tanh')}", per_list),
    **_table(6, "_fused_adagrad", per_list),
    **_table(12, "_fused_adam _fused_adamw", per_list),
}


def formula_of(operator: Any) -> Formula | None:
    """The formula of a dispatched operator (a torch `OpOverload`), or None for one that has none.

    An operator in place costs what it does out of place; one that torch tags as element-wise and that is not in the
    table costs a step per output element. What processes send each other is no arithmetic.
    """
    name = operator._schema.name.removeprefix("aten::")
    known = FORMULAS.get(name) or FORMULAS.get(name.removesuffix("_"))
    if known is not None:
        return known
    counted = flop_registry.get(operator._overloadpacket)
    if counted is not None:
        return lambda args, kwargs, out: float(counted(*args, **kwargs, out_val=out)) * multiply_add(out)
    if operator.is_view or name.startswith(("prim::", "profiler::", "sym_", "c10d::")):
        return per_output(0)
    if operator.namespace == "aten" and torch.Tag.pointwise in operator.tags:
        return per_output(1)
    return None


def register_flop(operator: str, formula: Formula) -> None:
    """Give an operator its formula. operator: its name without overload, as in `aten::NAME` or `NAMESPACE::NAME`.

    formula(args, kwargs, out) -> FLOP of one call. Built-in names of the `aten` namespace go without it.
    """
    FORMULAS[operator.removeprefix("aten::")] = formula
