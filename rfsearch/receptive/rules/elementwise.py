"""Follow operators that read the unit in the same place of each tensor."""

from __future__ import annotations

from rfsearch.receptive.call import Call, Operator, Rule, operator_table
from rfsearch.receptive.field import Field, hull


def elementwise(call: Call) -> Field:
    """Return the hull of the fields of tensors that meet element by element."""
    return hull(call.fields, call.output)


def unchanged(call: Call) -> Field:
    """Return the field of the first argument, which the operator leaves as it is."""
    return call.field


# Operators that torch does not mark as elementwise.
RULES: dict[Operator, Rule] = operator_table(
    (
        elementwise,
        """clone alias detach _to_copy copy contiguous lift_fresh native_dropout dropout feature_dropout where
        lerp fill masked_fill relu hardtanh leaky_relu elu gelu silu mish hardswish hardsigmoid softplus
        clamp pow tril triu zero bernoulli uniform normal exponential random complex polar _conj _neg_view
        lift _prelu_kernel prelu rrelu rrelu_with_noise log_sigmoid_forward native_batch_norm batch_norm
        _native_batch_norm_legit_no_training cudnn_batch_norm miopen_batch_norm""",
    ),
    (unchanged, "native_layer_norm native_group_norm _native_batch_norm_legit _fused_rms_norm"),
)
