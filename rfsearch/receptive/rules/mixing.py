"""Follow operators that mix all units along some dimensions: reductions, products, attention, spectra, distances."""

from __future__ import annotations

import numpy as np

from rfsearch.receptive.call import Call, Operator, Rule, operator_table
from rfsearch.receptive.field import Field, hull


def _reduce(call: Call) -> Field:
    """Follow reductions such as mean and sum over dimensions."""
    field = call.field
    dims = call.argument(2 if "vector_norm" in call.name or call.name == "norm" else 1, "dim")
    everything = list(range(len(field.shape)))
    dims = everything if dims is None or dims == [] else [dims] if isinstance(dims, int) else list(dims)
    return field.mixed(dims, keep=len(call.output) == len(field.shape))


def _mix(call: Call) -> Field:
    """Follow a softmax: every unit along a dimension depends on all of them."""
    return hull([call.field, call.field.mixed([call.args[1]])], call.output)


def _product(call: Call) -> Field:
    """Follow matrix products: rows of one tensor by columns of the other, mixed over what they share."""
    (*added, left, right) = call.args[: 3 if "add" in call.name else 2]
    fields = []
    if isinstance(left, Field):
        fields.append(left.mixed([-1], keep=False).viewed((*left.shape[:-1], 1)))
    if isinstance(right, Field):
        fields.append(right.mixed([-2], keep=False).viewed((*right.shape[:-2], 1, right.shape[-1])))
    return hull([*fields, *(field for field in added if isinstance(field, Field))], call.output)


def _attention(call: Call) -> Field:
    """Follow scaled dot products: each query reads all keys and values."""
    query, key, value = call.args[:3]
    fields = [query.mixed([-1])] if isinstance(query, Field) else []
    fields += [field.mixed([-2, -1]) for field in (key, value) if isinstance(field, Field)]
    return hull(fields, call.output)


def _gated(call: Call) -> Field:
    """Follow glu: one half of a dimension multiplied by the other."""
    dim = call.argument(1, "dim", -1) % len(call.field.shape)
    half = np.arange(call.output[dim])[:, None]
    return hull([call.field.read(dim, half), call.field.read(dim, half + len(half))], call.output)


def _spectrum(call: Call) -> Field:
    """Follow a Fourier transform, which mixes all units of its dimensions, in either direction."""
    return call.field.mixed(call.args[1]).spread(call.output)


def _as_complex(call: Call) -> Field:
    return call.field.mixed([-1], keep=False)


def _vector_product(call: Call) -> Field:
    """Follow mv, addmv and dot: rows of a matrix by a vector."""
    fields = []
    for value in call.args[1:] if call.name == "addmv" else call.args:
        if isinstance(value, Field):
            fields.append(value.mixed([-1], keep=False))
    if call.name == "addmv" and isinstance(call.args[0], Field):
        fields.append(call.args[0])
    return hull(fields, call.output)


def _distances(call: Call) -> Field:
    """Follow cdist: rows of one map against rows of another."""
    left, right = call.args[:2]
    fields = [left.mixed([-1])] if isinstance(left, Field) else []
    if isinstance(right, Field):
        rank = len(right.shape)
        fields.append(right.mixed([-1]).permuted([*range(rank - 2), rank - 1, rank - 2]))
    return hull(fields, call.output)


def _all_distances(call: Call) -> Field:
    return call.field.merged().spread(call.output)


RULES: dict[Operator, Rule] = operator_table(
    (
        _reduce,
        """mean sum prod amax amin argmax argmin max min var std var_mean std_mean norm linalg_vector_norm
        logsumexp any all count_nonzero aminmax median nanmedian nansum""",
    ),
    (_mix, "_softmax _log_softmax _safe_softmax"),
    (_spectrum, "_fft_r2c _fft_c2r _fft_c2c"),
    (_as_complex, "view_as_complex"),
    (_gated, "glu"),
    (_product, "mm bmm addmm baddbmm"),
    (_vector_product, "mv addmv dot vdot"),
    (_distances, "_cdist_forward"),
    (_all_distances, "_pdist_forward"),
    (
        _attention,
        """_scaled_dot_product_flash_attention_for_cpu _scaled_dot_product_flash_attention
        _scaled_dot_product_efficient_attention _scaled_dot_product_cudnn_attention
        _scaled_dot_product_attention_math _scaled_dot_product_fused_attention_overrideable""",
    ),
)
