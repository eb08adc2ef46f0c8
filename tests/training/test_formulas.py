"""Formulas against costs counted by hand, for each family of operators, and for all that torch calls its core."""

import copy
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rfsearch.training import Meter
from rfsearch.training.operators import formula_of


def flop_of(work: Callable[[], object]) -> float:
    with Meter() as meter:
        work()
    return meter.flop


def backward_flop_of(work: Callable[[], Tensor]) -> float:
    """Count the gradients alone: the slope of the result is made outside, and no gradient is added to an older one."""
    result = work()
    slope = torch.ones_like(result)
    for leaf in (X, ROWS, VOLUME):
        leaf.grad = None
    return flop_of(lambda: result.backward(slope))


def core_operators() -> dict[str, list[torch._ops.OpOverload]]:
    """All overloads of each operator of `torch.ops.aten` that has one tagged as core, by name."""
    found: dict[str, list[torch._ops.OpOverload]] = {}
    for full in torch._C._dispatch_get_all_op_names():
        namespace, _, name = full.partition("::")
        name, _, overload = name.partition(".")
        operator = getattr(getattr(torch.ops.aten, name, None), overload or "default", None)
        if namespace == "aten" and operator is not None:
            found.setdefault(name, []).append(operator)
    return {name: ops for name, ops in found.items() if any(torch.Tag.core in op.tags for op in ops)}


def test_every_core_operator_of_torch_has_a_formula_or_a_stated_zero() -> None:
    operators = core_operators()
    assert len(operators) > 150
    assert [name for name, overloads in operators.items() if not all(map(formula_of, overloads))] == []


X = torch.rand(2, 4, 6, 8, requires_grad=True)
SQUARE = torch.eye(6).repeat(3, 1, 1)  # three 6 x 6 matrices
ROWS, OTHERS = torch.rand(5, 7, requires_grad=True), torch.rand(3, 7)
COMPLEX = torch.zeros(4, 8, dtype=torch.complex64)
GRID, GRID_3D = torch.zeros(2, 5, 3, 2), torch.zeros(1, 2, 5, 3, 3)
VOLUME = torch.rand(1, 2, 4, 6, 8, requires_grad=True)
BY_HAND = {
    "matrix by vector": (lambda: torch.mv(ROWS, torch.ones(7)), 2 * 5 * 7),
    "matrix by vector, added": (lambda: torch.addmv(torch.ones(5), ROWS, torch.ones(7)), 2 * 5 * 7),
    "products of a batch, added": (lambda: torch.addbmm(torch.ones(6, 6), SQUARE, SQUARE), 2 * 3 * 6**3),
    "split": (lambda: torch.unsafe_split(X, 2, 1), 0),
    "three sides of a pixel": (lambda: F.pad(VOLUME, (1,) * 6, mode="replicate"), 0),
    "weight norm": (lambda: torch._weight_norm(ROWS, torch.ones(5, 1), 0), 3 * 35 + 5),
    "pool of a signal": (lambda: F.avg_pool1d(torch.ones(1, 2, 9), [3]), 2 * 3 * 3),
    "pool of an image": (lambda: F.avg_pool2d(X, [2]), 2 * 4 * 12 * 4),
    "pool of a volume": (lambda: F.avg_pool3d(VOLUME, 2), 2 * 24 * 8),
    "maxima of a volume": (lambda: F.max_pool3d(VOLUME, 2), 2 * 24 * 8),
    "bins of a volume": (lambda: F.adaptive_avg_pool3d(VOLUME, (2, 3, 4)), VOLUME.numel()),
    "nearest in a signal": (lambda: F.interpolate(torch.ones(1, 2, 5), scale_factor=2), 2 * 10),
    "linear in a signal": (lambda: F.interpolate(torch.ones(1, 2, 5), scale_factor=2, mode="linear"), 4 * 2 * 10),
    "linear in a volume": (lambda: F.interpolate(VOLUME, size=(2, 2, 2), mode="trilinear"), 16 * 16),
    "samples": (lambda: F.grid_sample(X, GRID, align_corners=False), 11 * 2 * 4 * 15),
    "nearest samples": (lambda: F.grid_sample(X, GRID, "nearest", align_corners=False), 2 * 4 * 15),
    "bicubic samples": (lambda: F.grid_sample(X, GRID, "bicubic", align_corners=False), 47 * 2 * 4 * 15),
    "samples of a volume": (lambda: F.grid_sample(VOLUME, GRID_3D, align_corners=False), 23 * 2 * 30),
    "distances": (lambda: torch.cdist(ROWS, OTHERS, p=1.0), 3 * 5 * 3 * 7),
    "distances of all pairs": (lambda: torch.pdist(ROWS, p=1.0), 3 * 10 * 7),
    "running product": (lambda: X.cumprod(2), X.numel()),
    "bilinear layer": (lambda: F.bilinear(ROWS, ROWS, torch.ones(2, 7, 7)), 3 * 5 * 7 * 7 * 2),
    "complex Fourier transform": (lambda: torch.fft.fft2(COMPLEX), 5 * 32 * math.log2(32)),
    "real Fourier transform": (lambda: torch.fft.rfft(torch.ones(3, 8)), 2.5 * 24 * 3),
    "real Fourier transform back": (lambda: torch.fft.irfft(torch.ones(3, 5, dtype=torch.complex64)), 2.5 * 24 * 3),
    "complex product": (lambda: COMPLEX * COMPLEX, 6 * 32),
    "complex number by a real one": (lambda: COMPLEX * 2.0, 2 * 32),
    "complex sum": (lambda: COMPLEX + COMPLEX, 2 * 32),
    "complex matrices": (lambda: COMPLEX @ COMPLEX.T, 8 * 4 * 4 * 8),
    "inverse": (lambda: torch.linalg.inv_ex(SQUARE), 3 * 2 * 6**3),
    "Cholesky factor": (lambda: torch.linalg.cholesky_ex(SQUARE), 3 * 6**3 / 3),
    "equations": (lambda: torch.linalg.solve_ex(SQUARE, torch.ones(3, 6, 2)), 3 * (2 / 3 * 6**3 + 2 * 36 * 2)),
    "triangular equations": (
        lambda: torch.linalg.solve_triangular(SQUARE, torch.ones(3, 6, 2), upper=True),
        3 * 36 * 2,
    ),
    "values put": (lambda: torch.zeros(9).index_put((torch.arange(3),), torch.ones(3)), 0),
    "values put on top": (lambda: torch.zeros(9).index_put((torch.arange(3),), torch.ones(3), accumulate=True), 3),
    "an element-wise operator of no table": (lambda: torch.special.bessel_j0(ROWS), 35),
    "linear layer in inference mode": (
        torch.inference_mode()(lambda: F.linear(torch.ones(3, 7), OTHERS)),
        2 * 3 * 3 * 7,
    ),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_a_formula_counts_what_a_hand_counts(name: str) -> None:
    work, flop = BY_HAND[name]
    assert flop_of(work) == pytest.approx(flop)


BACKWARD_BY_HAND = {
    # the slope by the transposed matrix; the vector asks for none
    "matrix by vector": (lambda: torch.mv(ROWS, torch.ones(7)), 5 * 7),
    "weight norm": (lambda: torch._weight_norm(ROWS, torch.ones(5, 1), 0), 5 * 35 + 4 * 5),
    "pool of a volume": (lambda: F.avg_pool3d(VOLUME, 2), 2 * 24),
    "samples of a volume": (lambda: F.grid_sample(VOLUME, GRID_3D, align_corners=False), 23 * 2 * 30),
    "distances": (lambda: torch.cdist(ROWS, OTHERS, p=1.0), 4 * 5 * 3 * 7),
    "linear in a volume": (lambda: F.interpolate(VOLUME, size=(2, 2, 2), mode="trilinear"), 16 * 16),
}


@pytest.mark.parametrize("name", BACKWARD_BY_HAND)
def test_a_formula_of_a_gradient_counts_what_a_hand_counts(name: str) -> None:
    work, flop = BACKWARD_BY_HAND[name]
    assert backward_flop_of(work) == flop


def attention(device: str, **keys: object) -> Callable[[], Tensor]:
    """Attend with 3 heads, 10 queries, 12 keys; 8 channels of scores, 4 of values."""
    query, key, value = (
        torch.zeros(2, 3, *shape, device=device, requires_grad=True) for shape in ((10, 8), (12, 8), (12, 4))
    )
    return lambda: F.scaled_dot_product_attention(query, key, value, **keys)  # type: ignore[arg-type]


def test_attention_is_its_products_and_its_softmax() -> None:
    scores = 2 * 3 * 10 * 12
    assert flop_of(attention("meta")) == pytest.approx(scores * (16 + 4 + 8), rel=0.1)
    tokens = [torch.zeros(2, 3, 10, 8, requires_grad=True) for _ in range(3)]

    def fused() -> Tensor:
        return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(*tokens)[0]

    scores = 2 * 3 * 10 * 10
    assert flop_of(fused) == scores * (16 + 4 + 16)
    assert backward_flop_of(fused) == scores * (5 * 16 + 4)


@pytest.mark.parametrize("name", ["flash", "efficient", "cudnn"])
def test_attention_costs_the_same_by_every_kernel(name: str) -> None:
    operator = getattr(torch.ops.aten, f"_scaled_dot_product_{name}_attention").default
    gradient = getattr(torch.ops.aten, f"_scaled_dot_product_{name}_attention_backward").default
    query, key, value = (torch.empty(2, 3, *shape, device="meta") for shape in ((10, 8), (12, 8), (12, 4)))
    forward, backward = formula_of(operator), formula_of(gradient)
    assert forward is not None
    assert backward is not None
    assert forward((query, key, value), {}, (query,)) == 720 * (16 + 4 + 8)
    assert backward((query, query, key, value), {}, (query, key, value)) == 720 * (3 * 16 + 4 + 2 * 8)


@pytest.mark.parametrize("kind", [nn.RNN, *(pytest.param(kind, marks=pytest.mark.slow) for kind in (nn.LSTM, nn.GRU))])
def test_a_recurrent_layer_costs_the_same_in_one_and_in_steps(kind: type[nn.RNNBase]) -> None:
    """On shapes PyTorch takes steps; on a CPU it has one operator for an LSTM, and on a GPU one for all of them."""
    layers = kind(3, 4, 2, bidirectional=True, batch_first=True)
    x = torch.zeros(2, 50, 3, requires_grad=True)
    shapes, like_x = copy.deepcopy(layers).to("meta"), torch.zeros(2, 50, 3, device="meta", requires_grad=True)
    forward = flop_of(lambda: shapes(like_x))
    products = 2 * 100 * sum(weight.numel() for name, weight in layers.named_parameters() if "weight" in name)
    steps = {"LSTM": 28, "GRU": 19, "RNN": 5}[kind.__name__] * 100 * 4 * 4
    assert forward == products + steps
    assert flop_of(lambda: layers(x)) == pytest.approx(forward, rel=0.03)
    assert backward_flop_of(lambda: layers(x)[0]) == pytest.approx(2 * forward, rel=0.08)
    assert backward_flop_of(lambda: shapes(like_x)[0]) == pytest.approx(2 * forward, rel=0.08)
    mode = {"LSTM": 2, "GRU": 3, "RNN": 1}[kind.__name__]
    fused, back = formula_of(torch.ops.aten._cudnn_rnn.default), formula_of(torch.ops.aten._cudnn_rnn_backward.default)
    assert fused is not None
    assert back is not None
    weights = list(layers.parameters())
    assert fused((x, weights, 4, None, x, None, mode), {}, ()) == forward
    assert back((x, weights, 4, None, x, None, x, x, None, None, mode), {}, ()) == 2 * forward


def test_fused_evaluation_of_a_transformer_costs_what_its_training_does() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    heads = nn.MultiheadAttention(8, 2, batch_first=True)
    x = torch.zeros(3, 20, 8)
    trained = [flop_of(lambda: layer(x)), flop_of(lambda: heads(x, x, x, need_weights=False))]
    with torch.no_grad():
        layer.eval(), heads.eval()
        fused = [flop_of(lambda: layer(x)), flop_of(lambda: heads(x, x, x, need_weights=False))]
    assert fused == pytest.approx(trained, rel=0.05)


IMAGE, SIGNAL, VOXELS, TOKENS = (2, 4, 8, 8), (2, 4, 12), (1, 4, 6, 6, 6), (2, 5, 8)
LAYERS = [
    *((layer, SIGNAL) for layer in (nn.Conv1d(4, 4, 3, groups=2), nn.ConvTranspose1d(4, 4, 3), nn.MaxPool1d(2))),
    *((layer, SIGNAL) for layer in (nn.AvgPool1d(2), nn.AdaptiveAvgPool1d(3), nn.AdaptiveMaxPool1d(3))),
    *((nn.Upsample(scale_factor=2, mode=mode), SIGNAL) for mode in ("nearest", "nearest-exact", "linear")),
    *((layer, VOXELS) for layer in (nn.Conv3d(4, 4, 3), nn.ConvTranspose3d(4, 4, 3), nn.MaxPool3d(2))),
    *((layer, VOXELS) for layer in (nn.AvgPool3d(2), nn.AdaptiveAvgPool3d(3), nn.AdaptiveMaxPool3d(3))),
    *((layer, VOXELS) for layer in (nn.ReflectionPad3d(1), nn.ReplicationPad3d(1), nn.FractionalMaxPool3d(2, 3))),
    *((nn.Upsample(scale_factor=2, mode=mode), VOXELS) for mode in ("nearest", "nearest-exact", "trilinear")),
    *((layer, IMAGE) for layer in (nn.CELU(), nn.SELU(), nn.ELU(), nn.Hardshrink(), nn.Softshrink(), nn.Tanhshrink())),
    *((layer, IMAGE) for layer in (nn.RReLU(), nn.LogSigmoid(), nn.Softsign(), nn.Threshold(0.1, 0), nn.Softmin(1))),
    *((layer, IMAGE) for layer in (nn.Softplus(), nn.Mish(), nn.Hardsigmoid(), nn.ReLU6(), nn.Softmax2d())),
    *((layer, IMAGE) for layer in (nn.LPPool2d(2, 2), nn.LocalResponseNorm(2), nn.RMSNorm(8), nn.CosineSimilarity())),
    *((layer, IMAGE) for layer in (nn.Fold((9, 9), 2), nn.FractionalMaxPool2d(2, 3), nn.FeatureAlphaDropout())),
    *(
        (layer, IMAGE)
        for layer in (nn.Upsample(scale_factor=2, mode="nearest-exact"), nn.Dropout2d(), nn.AlphaDropout())
    ),
    *((layer, TOKENS) for layer in (nn.LSTM(8, 4), nn.GRU(8, 4), nn.RNN(8, 4), nn.LSTM(8, 4, proj_size=2))),
    *((layer, TOKENS) for layer in (nn.TransformerEncoderLayer(8, 2, 8), nn.MultiheadAttention(8, 2))),
    *((layer, (5, 8)) for layer in (nn.LSTMCell(8, 4), nn.GRUCell(8, 4), nn.RNNCell(8, 4))),
]


@pytest.mark.parametrize(("layer", "shape"), LAYERS, ids=lambda value: type(value).__name__)
def test_layers_of_torch_train_and_evaluate_under_the_meter(layer: nn.Module, shape: tuple[int, ...]) -> None:
    x = torch.rand(2, 16, 64) if isinstance(layer, nn.Fold) else torch.rand(shape)
    x.requires_grad_()
    count = 3 if isinstance(layer, nn.MultiheadAttention) else 2 if isinstance(layer, nn.CosineSimilarity) else 1

    def output() -> Tensor:
        out = layer(*[x] * count)
        return out[0] if isinstance(out, tuple) else out

    assert flop_of(lambda: output().square().mean().backward()) > x.numel()
    layer.eval()
    with torch.no_grad():
        flop_of(output)
    with torch.inference_mode():
        flop_of(output)


OPTIMISERS = [
    kind
    for kind in (getattr(torch.optim, name) for name in torch.optim.__all__)
    if isinstance(kind, type)
    and issubclass(kind, torch.optim.Optimizer)
    and kind not in (torch.optim.Optimizer, torch.optim.LBFGS, torch.optim.SparseAdam)
]


@pytest.mark.parametrize("kind", OPTIMISERS, ids=lambda kind: kind.__name__)
def test_optimisers_of_torch_step_under_the_meter(kind: type[torch.optim.Optimizer]) -> None:
    """One by one, all in lists, and fused where there is a fused one: none is free, and none is an unknown operator."""
    for extra in ({"foreach": False}, {"foreach": True}, {"fused": True}):
        weight = nn.Parameter(torch.ones(4, 4))
        try:
            optimiser = kind([weight], **extra)  # type: ignore[call-arg]
        except (TypeError, RuntimeError):
            continue  # it has no such form
        for _ in range(2):
            weight.grad = torch.ones(4, 4)
            assert flop_of(optimiser.step) >= weight.numel()


def test_scaled_losses_of_half_precision_are_metered() -> None:
    weights = [nn.Parameter(torch.ones(4, 4)) for _ in range(2)]
    optimiser, scaler = torch.optim.SGD(weights, 0.1), torch.amp.GradScaler("cpu")

    def step() -> None:
        scaler.scale(sum(weight.sum() for weight in weights)).backward()
        scaler.step(optimiser)
        scaler.update()

    assert flop_of(step) >= 2 * 2 * 16
