"""Trainings of their users' own that learn their receptive field: planted answers, every kind of loop, and resuming."""

import copy
import functools
import io
import re

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import rfsearch
from rfsearch.errors import ModelError, RequestError, SpaceError
from tests.own_loop.planted import ANSWER, DILATIONS, TEACHER, images, loss_of, network


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        model.train()
        optimizer.zero_grad()
        loss_of(model, step).backward()
        optimizer.step()


def learned(start: int, steps: int = 120, optimizer=torch.optim.AdamW, **options) -> tuple[nn.Module, rfsearch.Learner]:
    model = network(norm=False)
    learner = rfsearch.learn(model, "1", DILATIONS, steps=steps, start=start, **options)
    made = optimizer(model.parameters(), lr=1e-3)
    learner.attach(made)
    train(model, made, range(steps))
    return model, learner


@pytest.mark.parametrize("method", ["fractional", "inflation"])
@pytest.mark.parametrize("start", [2, 8])
def test_a_training_finds_the_dilation_that_was_planted(method, start):
    model, learner = learned(start, method=method)
    assert learner.report().dilations == {"1": ANSWER}
    assert str(learner.report()) == f"After 120 steps. 1: dilation 4, from {start}."
    x = images(999)
    before = model.eval()(x)
    assert learner.settle() is model
    assert torch.equal(model(x), before)
    assert type(model[1]) is nn.Conv2d
    assert (model[1].dilation, model[1].padding) == ((4, 4), (4, 4))


def test_a_look_finds_it_from_any_start():
    model = network()
    learner = rfsearch.learn(
        model, "1", DILATIONS, steps=200, start=1, look=lambda: -loss_of(model, -1, 16).item(), whole_from=None
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    learner.attach(optimizer)
    train(model, optimizer, range(63))
    assert model.training
    assert learner.report().dilations["1"] in DILATIONS
    train(model, optimizer, range(63, 200))
    assert learner.report().dilations["1"] == pytest.approx(ANSWER, rel=0.1)
    assert str(learner.report()).endswith(" of 1, 2, 3, 4, 6, 8.")


def test_while_weights_are_shared_every_step_has_a_dilation_and_evaluation_the_best():
    model = network()
    learner = rfsearch.learn(model, "1", DILATIONS, steps=100, look=lambda: -loss_of(model, -1).item())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    learner.attach(optimizer)
    seen = set()
    for step in range(19):
        train(model, optimizer, range(step, step + 1))
        seen.add(model[1].value)
        model.eval()(images(0))
        assert model[1].value == learner.report().dilations["1"] == 3  # the middle, until a look
    assert len(seen - {3}) >= 4


@pytest.mark.parametrize("optimizer", [torch.optim.AdamW, torch.optim.SGD, torch.optim.RMSprop, torch.optim.Adagrad])
def test_the_users_optimizer_leaves_what_is_learned_alone(optimizer):
    """With rate 0 the weights stand still, and the dilation moves as far whatever the optimiser."""
    model = network()
    learner = rfsearch.learn(model, "1", DILATIONS, steps=20, start=2)
    made = optimizer(model.parameters(), lr=0.0, weight_decay=0.9)
    learner.attach(made)
    weight = model[1].weight.clone()
    train(model, made, range(10))
    assert torch.equal(model[1].weight, weight)
    assert model[1].value == pytest.approx(moved_under_sgd(), rel=1e-6)
    assert abs(model[1].value - 2) > 0.1


@functools.cache
def moved_under_sgd() -> float:
    model = network()
    learner = rfsearch.learn(model, "1", DILATIONS, steps=20, start=2)
    made = torch.optim.SGD(model.parameters(), lr=0.0)
    learner.attach(made)
    train(model, made, range(10))
    return model[1].value


def test_steps_depend_on_no_scale_of_the_loss_and_sum_over_accumulated_batches():
    def moved(scale: float, parts: int) -> list:
        model = network()
        learner = rfsearch.learn(model, "1", DILATIONS, steps=12, start=2)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
        learner.attach(optimizer)
        for step in range(8):
            optimizer.zero_grad()
            x = images(step)
            error = (model.eval()(x) - TEACHER(x)).square()
            for some in error.chunk(parts):
                (scale * some.sum() / error.numel()).backward(retain_graph=True)
            optimizer.step()
        return [value for _, _, value in learner.report().trace]

    expected = moved(1.0, 1)
    assert len(set(expected)) == 8
    for scale, parts in ((1000.0, 1), (1.0, 4)):
        assert moved(scale, parts) == pytest.approx(expected, rel=1e-4)


def test_gradients_of_a_closure_count_too():
    model, plain = network(), network()
    for net in (model, plain):
        learner = rfsearch.learn(net, "1", DILATIONS, steps=20, start=2)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
        learner.attach(optimizer)
        for step in range(5):

            def closure(net: nn.Module = net, step: int = step, optimizer: torch.optim.Optimizer = optimizer):
                optimizer.zero_grad()
                loss = loss_of(net, step)
                loss.backward()
                return loss

            if net is model:
                optimizer.step(closure)
            else:
                closure()
                optimizer.step()
    assert model[1].value == plain[1].value != 2
    assert torch.equal(model[1].weight, plain[1].weight)


def test_steps_that_overflowed_move_nothing():
    model = network()
    learner = rfsearch.learn(model, "1", DILATIONS, steps=20, start=2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    learner.attach(optimizer)
    model[1].log_dilation.grad = torch.full_like(model[1].log_dilation, float("nan"))
    optimizer.step()
    assert model[1].value == 2
    train(model, optimizer, range(3))
    assert 1 < model[1].value != 2


@pytest.mark.parametrize(("stop", "model_first"), [(7, True), (16, False), (25, True), (25, False), (37, False)])
@pytest.mark.parametrize(
    ("method", "looks"), [("fractional", False), ("fractional", True), ("inflation", False)], ids=str
)
def test_a_resumed_training_ends_as_an_unbroken_one(method, looks, stop, model_first):
    def made() -> tuple[nn.Module, torch.optim.Optimizer, rfsearch.Learner]:
        model = network()
        look = (lambda: -loss_of(model, -1).item()) if looks else None
        learner = rfsearch.learn(model, "1", DILATIONS, method=method, look=look)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        return model, optimizer, learner

    model, optimizer, learner = made()
    learner.attach(optimizer, steps=40)
    train(model, optimizer, range(stop))
    file = io.BytesIO()
    torch.save([part.state_dict() for part in (model, optimizer, learner)], file)
    train(model, optimizer, range(stop, 40))
    learner.settle()
    file.seek(0)
    states = torch.load(file, weights_only=True)

    again, optimizer, resumed = made()
    loads = [(again, states[0]), (resumed, states[2])]
    for part, state in loads if model_first else loads[::-1]:
        part.load_state_dict(state)
    optimizer.load_state_dict(states[1])
    resumed.attach(optimizer)
    train(again, optimizer, range(stop, 40))
    resumed.settle()
    assert resumed.report() == learner.report()
    assert model.state_dict().keys() == again.state_dict().keys()
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("method", ["fractional", "inflation"])
def test_the_settled_state_loads_into_a_patched_fresh_network(method, whole):
    model, learner = learned(2, 30, method=method, whole_from=None)
    learner.settle(whole=whole)
    fresh = rfsearch.apply(network(norm=False), learner.patch())
    fresh.load_state_dict(model.state_dict())
    x = images(5)
    assert torch.equal(fresh.eval()(x), model.eval()(x))
    assert float(learner.report().dilations["1"]).is_integer() is whole


def test_averaged_weights_settle_too():
    model = network()
    learner = rfsearch.learn(model, "1", DILATIONS, steps=40, start=3)
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    learner.attach(optimizer)
    for step in range(40):
        train(model, optimizer, range(step, step + 1))
        averaged.update_parameters(model)
    learner.settle()
    learner.settle(averaged.module)
    dilation = int(learner.report().dilations["1"])
    assert averaged.module[1].dilation == model[1].dilation == (dilation, dilation)
    assert not torch.equal(averaged.module[1].weight, model[1].weight)


@pytest.mark.parametrize("method", ["fractional", "inflation"])
def test_a_settled_network_goes_on_training_and_keeps_what_it_had(method):
    """Without a bias, in channels-last double precision, frozen: all as before."""
    model = nn.Sequential(nn.Conv2d(2, 4, 3, 1, 1, bias=False), nn.Conv2d(4, 5, 1))
    model[0].weight.requires_grad_(False)
    look = (lambda: 0.0) if method == "fractional" else None
    learner = rfsearch.learn(model, "0", [1, 2, 3], steps=10, method=method, look=look)
    model.to(torch.float64, memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    learner.attach(optimizer)
    for _ in range(10):
        model(images(0).double()).square().mean().backward()
        optimizer.step()
    learner.settle()
    conv = model[0]
    assert type(conv) is nn.Conv2d
    assert (conv.bias, conv.weight.requires_grad, conv.weight.dtype) == (None, False, torch.float64)
    assert conv.weight.is_contiguous(memory_format=torch.channels_last)
    model(images(0).double()).square().mean().backward()
    assert learner.report().steps == 10
    optimizer.step()
    assert learner.report().steps == 10


def test_a_container_is_found_by_looks_or_inflated():
    def model() -> nn.Module:
        return nn.Sequential(nn.Conv2d(2, 4, 1), nn.Sequential(nn.Conv2d(4, 4, 3, 1, 1), nn.Conv2d(4, 5, 3, 1, 2, 2)))

    untouched = model()
    with pytest.raises(SpaceError, match=r"^1 holds 2 convolutions: only a plain .* look=, or learn with method='infl"):
        rfsearch.learn(untouched, ["1"], [1, 2, 3], steps=10)
    assert repr(untouched) == repr(model())
    for options in ({"method": "inflation"}, {"look": lambda: 0.0}):
        net = model()
        learner = rfsearch.learn(net, "1", [1, 2, 3], steps=20, start=2, **options)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
        learner.attach(optimizer)
        train(net, optimizer, range(20))
        learner.settle()
        dilation = int(learner.report().dilations["1"])
        assert [part.dilation[0] for part in net.modules() if isinstance(part, nn.Conv2d)] == [
            1,
            dilation,
            2 * dilation,
        ]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_it_learns_in_mixed_precision_with_scaled_and_clipped_gradients(dtype):
    model = network(norm=False)
    learner = rfsearch.learn(model, "1", DILATIONS, steps=120, start=2)
    optimizer, scaler = torch.optim.AdamW(model.parameters(), lr=1e-3), torch.amp.GradScaler("cpu")
    learner.attach(optimizer)
    for step in range(120):
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype):
            loss = loss_of(model, step)
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), 0.01)
        scaler.step(optimizer)
        scaler.update()
    assert learner.report().dilations == {"1": ANSWER}


def test_a_step_that_a_scaler_skips_moves_nothing_and_the_next_one_does():
    """In float16 the first scales overflow: the scaler finds gradients that are infinite and does not step."""
    model = network(norm=False)
    learner = rfsearch.learn(model, "1", DILATIONS, steps=40, start=2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40, growth_interval=1000)
    learner.attach(optimizer)
    skipped = []
    for step in range(40):
        optimizer.zero_grad()
        before = learner.report().dilations["1"]
        with torch.autocast("cpu", torch.float16):
            loss = loss_of(model, step)
        scaler.scale(loss).backward()
        scale = scaler.get_scale()
        scaler.step(optimizer)
        scaler.update()
        if scaler.get_scale() < scale:
            skipped.append(step)
            assert learner.report().dilations["1"] == before
    assert 0 < len(skipped) < 40
    assert learner.report().dilations["1"] != 2.0
    learner.settle()
    assert all(bool(parameter.isfinite().all()) for parameter in model.parameters())


def trained_in_parallel(rank: int, folder: str, searched: bool) -> None:
    torch.distributed.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=2)
    model = network(norm=False)
    # Each process looks at images of its own, which must not part them.
    look = (lambda: -loss_of(model, -1 - rank).item()) if searched else None
    learner = rfsearch.learn(model, "1", DILATIONS, steps=60, look=look)
    parallel = nn.parallel.DistributedDataParallel(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    learner.attach(optimizer)
    for step in range(60):
        optimizer.zero_grad()
        loss_of(parallel, 2 * step + rank).backward()
        optimizer.step()
    learner.settle()
    torch.save((learner.report().trace, model.state_dict()), f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("searched", [True, False])
def test_processes_of_a_distributed_training_learn_the_same(tmp_path, searched):
    torch.multiprocessing.spawn(trained_in_parallel, (str(tmp_path), searched), nprocs=2)
    (trace, state), (other_trace, other) = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert trace == other_trace
    assert len({dilation for _, _, dilation in trace}) > 10
    assert all(torch.equal(value, other[name]) for name, value in state.items())


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"sites": "2.conv"}, SpaceError, "matches no convolution with a kernel larger than 1"),
        ({"dilations": [0, 2]}, SpaceError, "whole numbers of at least 1. Got [0, 2]"),
        ({"dilations": []}, SpaceError, "whole numbers of at least 1. Got []"),
        ({"start": 9}, SpaceError, "start lies within the legal dilations, 1 to 8. Got 9"),
        ({"method": "magic"}, RequestError, "'fractional' or 'inflation'. Got 'magic'"),
        ({"method": "inflation", "look": float}, RequestError, "look decides between dilations of the method"),
        ({"delay": 2}, RequestError, "delay is a share of the training, 0 to 1. Got 2"),
        ({"steps": 0}, RequestError, "at least 1. Got 0"),
    ],
)
def test_wrong_requests_get_one_message(options, kind, message):
    with pytest.raises(kind, match=re.escape(message)):
        rfsearch.learn(network(), **{"sites": "1", "dilations": DILATIONS, "steps": 10, **options})


def test_wrong_calls_get_one_message():
    with pytest.raises(ModelError, match="compiled by torch.compile"):
        rfsearch.learn(torch.compile(network()), "1", DILATIONS)
    model = network()
    learner = rfsearch.learn(model, "1", DILATIONS)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for wrong, message in ((model, "follows a torch.optim.Optimizer. Got Sequential"), (optimizer, "how many steps")):
        with pytest.raises(RequestError, match=message):
            learner.attach(wrong)
    learner.attach(optimizer, 10)
    with pytest.raises(RequestError, match="follows an optimiser already"):
        learner.attach(optimizer, 10)
    state = learner.state_dict()
    for wrong, message in (
        ({"sites": {"2": {}}}, r"with sites = \['2'\]; this one has \['1'\]"),
        ({"dilations": [1, 2]}, r"with dilations = \[1, 2\]; this one has \[1, 2, 3, 4, 6, 8\]"),
        ({"looks": True}, "with look = True; this one has False"),
        ({"steps": 40}, "of a training of 40 steps; this one has 10"),
    ):
        with pytest.raises(RequestError, match=message):
            learner.load_state_dict({**state, **wrong})
    with pytest.raises(RequestError, match="no state of a learner: 'dilations' is missing"):
        learner.load_state_dict({})
    learner.detach()
    with pytest.raises(RequestError, match="this training has 10 steps, as learn or its saved state says. Got 12"):
        learner.attach(optimizer, 12)
    with pytest.raises(RequestError, match="1 has a learned dilation already"):
        rfsearch.learn(model, "*", DILATIONS)
    with pytest.raises(ModelError, match="takes the model itself, which is wrapped afterwards. Got a DataParallel"):
        rfsearch.learn(nn.DataParallel(network()), "module.1", DILATIONS)


def test_without_a_step_of_an_optimizer_nothing_moves_and_settling_warns():
    model = network()
    learner = rfsearch.learn(model, "1", DILATIONS, steps=10)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    train(model, optimizer, range(5))
    x = images(0)
    before = model.eval()(x)
    with pytest.warns(UserWarning, match="no step of an optimiser was followed"):
        learner.settle()
    assert torch.equal(model(x), before)
    assert learner.report().dilations == {"1": 3}


@pytest.mark.parametrize("answer", [float("nan"), float("-inf")])
def test_looks_that_tell_nothing_end_the_training(answer):
    model = network()
    learner = rfsearch.learn(model, "1", DILATIONS, steps=20, look=lambda: answer)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    learner.attach(optimizer)
    with pytest.raises(RequestError, match="a finite number. Got"):
        train(model, optimizer, range(20))


def test_only_legal_dilations_are_settled_on():
    model = network(norm=False)
    learner = rfsearch.learn(model, "1", [2, 8], steps=120, start=2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    learner.attach(optimizer)
    train(model, optimizer, range(107))
    assert 2.5 < learner.report().dilations["1"] < 5
    train(model, optimizer, range(107, 120))
    assert learner.report().dilations == {"1": 2}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_network_of_half_precision_settles_on_a_whole_dilation(dtype):
    model = nn.Sequential(nn.Conv2d(2, 4, 3, 1, 1), nn.Conv2d(4, 5, 1)).to(dtype)
    learner = rfsearch.learn(model, "0", list(range(1, 10)), steps=10, start=6)
    model.to(dtype)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    learner.attach(optimizer)
    for _ in range(10):
        (model(images(0).to(dtype)) - 1).square().mean().backward()
        optimizer.step()
    learner.settle()
    assert type(model[0]) is nn.Conv2d
    assert learner.report().dilations == {"0": float(model[0].dilation[0])}
    assert len({value for _, _, value in learner.report().trace}) > 5


@pytest.mark.parametrize(
    "shape",
    [
        {"kernel_size": 5, "stride": 2, "padding": 2},
        {"kernel_size": (1, 5), "padding": (0, 2)},
        {"kernel_size": 3, "padding": (1, 2), "dilation": (1, 2)},
        {"kernel_size": 3, "padding": "same", "groups": 2},
    ],
)
def test_every_shape_of_kernel_moves_and_keeps_the_size_of_its_map(shape):
    model = nn.Sequential(nn.Conv2d(2, 4, **shape), nn.Conv2d(4, 5, 1))
    x = images(0)
    size = model(x).shape
    learner = rfsearch.learn(model, "0", [1, 2, 3, 4], steps=20, start=2)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    learner.attach(optimizer)
    for _ in range(20):
        output = model(x)
        assert output.shape == size
        (output - 1).square().mean().backward()
        optimizer.step()
    assert len({value for _, _, value in learner.report().trace}) > 10
    before = model(x)
    learner.settle()
    assert type(model[0]) is nn.Conv2d
    assert torch.allclose(model(x), before, atol=1e-6)


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (nn.Conv2d(2, 5, 4, padding=2), "0 has an even kernel"),
        (nn.Conv2d(2, 5, 3), "0 does not pad"),
        (nn.Conv2d(2, 5, 3, padding=1, padding_mode="reflect"), "0 pads in the mode 'reflect'"),
        (nn.Conv1d(2, 5, 3, padding=1), "0 is a Conv1d"),
    ],
)
def test_a_site_that_cannot_move_says_why(layer, reason):
    with pytest.raises(SpaceError, match=reason):
        rfsearch.learn(nn.Sequential(layer), "0", DILATIONS)


def test_a_learner_can_be_resumed_after_it_was_attached():
    def made() -> tuple[nn.Module, torch.optim.Optimizer, rfsearch.Learner]:
        model = network()
        learner = rfsearch.learn(model, "1", DILATIONS, steps=40, look=lambda: -loss_of(model, -1).item())
        return model, torch.optim.SGD(model.parameters(), lr=0.01), learner

    model, optimizer, learner = made()
    unattached = learner.state_dict()
    learner.attach(optimizer)
    train(model, optimizer, range(30))
    states = [copy.deepcopy(part.state_dict()) for part in (model, optimizer, learner)]
    again, other, resumed = made()
    again.load_state_dict(states[0])
    other.load_state_dict(states[1])
    resumed.attach(other)
    resumed.load_state_dict(states[2])
    for part in ((model, optimizer), (again, other)):
        train(*part, range(30, 40))
    assert resumed.report() == learner.report()
    model, optimizer, learner = made()
    learner.load_state_dict(unattached)
    learner.attach(optimizer)
    train(model, optimizer, range(2))
