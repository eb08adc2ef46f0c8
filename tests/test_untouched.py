"""Measurements leave networks as they were: what these keep on themselves, in shared caches, in modes and hooks."""

import copy
import functools
import io
import random
from typing import ClassVar

import pytest
import torch
from torch import nn

from rfsearch import plugins
from rfsearch.choices import Inflated, Moved, Sampled, Searched
from rfsearch.errors import ModelError
from rfsearch.ledger import Assignment
from rfsearch.planning.forecaster import Forecaster
from rfsearch.receptive import effective_receptive_field, receptive_field
from rfsearch.surgery import list_sites, measure_sites
from rfsearch.surgery.shapes import output_shape
from rfsearch.tasks.from_space import task_of
from rfsearch.training import Order, Training
from rfsearch.untouched import restored, untouched
from tests.toys import toy_faces, toy_space

SHAPE = (1, 3, 12, 12)
_SHARED: dict[tuple[int, ...], torch.Tensor] = {}


@functools.lru_cache
def remembered_grid(size: int) -> torch.Tensor:
    return torch.linspace(0, 1, size)


class Store:
    """What a file holds one of, for all its networks."""

    def __init__(self) -> None:
        self.grids: dict[int, torch.Tensor] = {}
        self.last: torch.Tensor | None = None


STORE = Store()


class Storing(nn.Conv2d):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.shape[-1] not in STORE.grids:
            STORE.grids[x.shape[-1]] = torch.ones(x.shape[-1], device=x.device)
        STORE.last = STORE.grids[x.shape[-1]]
        return super().forward(x + STORE.last)


def test_an_object_that_a_file_holds_keeps_nothing_of_a_measurement():
    model = Storing(3, 3, 3)
    for measure in (measured_by_field, measured_by_effect, measured_by_shape):
        measure(model)
        assert not STORE.grids
        assert STORE.last is None


def test_what_passes_on_images_leave_in_shared_places_stays_there():
    model = Storing(3, 3, 3)
    with restored(model):
        model(torch.zeros(SHAPE))
        model.eval()
    assert model.training
    assert STORE.grids.keys() == {12}
    STORE.grids, STORE.last = {}, None


class Keeper(nn.Module):
    """Keeps tensors between calls in every place that networks use, and something of each call."""

    grids: ClassVar[dict[int, torch.Tensor]] = {}

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.register_buffer("calls", torch.zeros(1))
        self.register_buffer("grid", None, persistent=False)
        self.cache: dict[str, list[torch.Tensor]] = {}
        self.helper = Helper()
        self.table = nn.Parameter(torch.zeros(12))
        self.bias = None

    def train(self, mode: bool = True) -> None:  # which returns nothing, as timm's do
        super().train(mode)
        self.bias = None

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        size = image.shape[-1]
        self.calls += 1
        if self.grid is None:
            self.grid = torch.arange(size, dtype=image.dtype, device=image.device)
        if self.bias is None and not self.training:
            self.bias = self.table[torch.arange(size)]
        for memory in (self.grids, _SHARED, self.helper.memory):
            key = (size,) if memory is _SHARED else size
            if key not in memory:
                memory[key] = torch.ones(size, device=image.device)
        x = self.norm(self.conv(image)) + self.grid + self.grids[size] + _SHARED[size,] + self.helper.memory[size]
        self.cache.setdefault("features", []).append(x)
        return x + remembered_grid(size) + (0 if self.bias is None else self.bias)


class Helper:
    def __init__(self) -> None:
        self.memory: dict[int, torch.Tensor] = {}


def measured_by_field(model: nn.Module) -> object:
    return receptive_field(model, SHAPE).px


def measured_by_effect(model: nn.Module) -> object:
    return effective_receptive_field(model, 2, input_shape=SHAPE).size_px


def measured_by_sites(model: nn.Module) -> object:
    return list_sites(model, SHAPE), measure_sites(model, ["conv"], SHAPE[2:], 3)


def measured_by_shape(model: nn.Module) -> object:
    return output_shape(model, SHAPE)


MEASUREMENTS = [measured_by_field, measured_by_effect, measured_by_sites, measured_by_shape]


@pytest.mark.parametrize("measure", MEASUREMENTS)
def test_a_measured_network_is_what_it_was_and_works(measure):
    torch.manual_seed(0)
    model = Keeper()
    model.norm.eval()
    before = {name: dict(vars(module)) for name, module in model.named_modules()}
    state = copy.deepcopy(model.state_dict())
    first = measure(model)
    assert model.training
    assert not model.norm.training
    assert model.conv.training
    for name, module in model.named_modules():
        assert vars(module).keys() == before[name].keys()
        assert all(vars(module)[key] is value for key, value in before[name].items())
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert not model.cache
    assert not model.helper.memory
    assert model.grid is None
    assert model.bias is None
    assert not Keeper.grids
    assert not _SHARED
    assert remembered_grid.cache_info().currsize == 0
    torch.save(model, io.BytesIO())
    copy.deepcopy(model)
    assert measure(model) == first
    model(torch.zeros(2, *SHAPE[1:])).sum().backward()
    model.eval()
    with torch.no_grad():
        assert model(torch.zeros(SHAPE)).isfinite().all()
    for place in (Keeper.grids, _SHARED):
        place.clear()
    remembered_grid.cache_clear()


@pytest.mark.parametrize("measure", MEASUREMENTS)
def test_what_a_network_kept_before_stays(measure):
    model = Keeper()
    with torch.no_grad():
        model.eval()
        model(torch.zeros(SHAPE))
    kept = model.bias, model.grid, model.cache["features"][0], Keeper.grids[12], _SHARED[12,], remembered_grid(12)
    measure(model)
    now = model.bias, model.grid, model.cache["features"][0], Keeper.grids[12], _SHARED[12,], remembered_grid(12)
    assert all(a is b for a, b in zip(kept, now, strict=True))
    assert len(model.cache["features"]) == 1
    assert model.calls.item() == 1
    for place in (Keeper.grids, _SHARED):
        place.clear()
    remembered_grid.cache_clear()


class Merging(nn.Module):
    """Merges an adapter into its weight when it enters evaluation, as LoRA layers do."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1, bias=False)
        self.adapter = nn.Parameter(torch.ones(1))

    def train(self, mode: bool = True) -> "Merging":
        if mode != self.training:
            self.conv.weight.data += -self.adapter if mode else self.adapter
        return super().train(mode)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.conv(image)


@pytest.mark.parametrize("measure", MEASUREMENTS)
def test_weights_that_a_mode_merges_are_as_they_were_to_the_bit(measure):
    model = Merging()
    weight, memory = model.conv.weight.detach().clone(), model.conv.weight.data_ptr()
    measure(model)
    assert model.training
    assert torch.equal(model.conv.weight, weight)
    assert model.conv.weight.data_ptr() == memory


def test_a_forward_and_hooks_of_a_model_s_own_survive_a_measurement():
    model = nn.Sequential(nn.Conv2d(3, 3, 3), nn.MultiheadAttention(4, 1))
    seen = []
    handle = model[0].register_forward_hook(lambda *args: seen.append(1))
    plain = model[0].forward
    model[0].forward = lambda x: 2 * plain(x)
    model.__dict__["forward"] = lambda x: model[0](x)
    own = vars(model)["forward"], vars(model[0])["forward"], dict(model[0]._forward_hooks)
    receptive_field(model, SHAPE)
    assert own == (vars(model)["forward"], vars(model[0])["forward"], dict(model[0]._forward_hooks))
    handle.remove()
    assert not model[0]._forward_hooks


class Drawing(nn.Conv2d):
    def forward(self, x):
        return super().forward(x) + torch.rand(()) + random.random()


def test_a_network_that_draws_leaves_random_numbers_where_they_were():
    model = Drawing(3, 3, 3)
    states = torch.get_rng_state(), random.getstate()
    list_sites(model, SHAPE)
    effective_receptive_field(model, 1, input_shape=SHAPE)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]


def test_gradients_and_modules_outside_the_registry_are_put_back():
    model = nn.Sequential(nn.Conv2d(3, 3, 3))
    model.hidden = [nn.BatchNorm2d(3)]
    model[0].weight.grad = torch.ones_like(model[0].weight)
    grad = model[0].weight.grad
    with untouched(model):
        model.hidden[0](torch.randn(2, 3, 4, 4))
        model[0].weight.grad = None
        model.hidden.append(1)
    assert model[0].weight.grad is grad
    assert len(model.hidden) == 1
    assert not model.hidden[0].running_mean.any()


def test_a_scripted_network_keeps_its_mode():
    model = torch.jit.script(nn.Sequential(nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3)))
    with untouched(model):
        model.eval()
    assert model.training


class Positions(nn.Module):
    """Looks positions up in a table: a size beyond it is refused by values, which shapes do not show."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.table = nn.Embedding(16, 4)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = self.conv(image)
        return x + self.table(torch.arange(x.shape[-1])).mT[:, None]


def test_a_size_that_the_network_refuses_by_its_values_is_refused():
    assert receptive_field(Positions(), (1, 3, 16, 16)).px == 3
    with pytest.raises(ModelError, match="index out of range"):
        receptive_field(Positions(), (1, 3, 17, 17))


class Kept(nn.Module):
    """A network of a search that keeps a grid, an eval-time bias and its last features."""

    def __init__(self, num_classes: int, in_channels: int = 3) -> None:
        super().__init__()
        self.site = nn.Conv2d(in_channels, 6, 3, padding=1)
        self.keeper = Keeper()
        self.keeper.conv = nn.Conv2d(6, 4, 3, padding=1)
        self.keeper.table = nn.Parameter(torch.zeros(48))
        self.head = nn.Conv2d(4, num_classes, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.head(self.keeper(self.site(image)))


@pytest.mark.parametrize(
    "choice",
    [
        Searched(1),
        *(pytest.param(x, marks=pytest.mark.slow) for x in (Inflated(2, learned=True), Moved(1), Sampled(1, 2.0))),
    ],
    ids=str,
)
def test_a_search_plans_and_trains_a_network_that_keeps_tensors(choice, tmp_path, monkeypatch):
    monkeypatch.setattr(plugins, "make_backbone", lambda spec, classes, channels: Kept(classes, channels))
    space, data = toy_space(tmp_path).with_(sites=("site",), backbone="x"), toy_faces()
    candidate, device = space.uniform(choice), torch.device("cpu")
    forecast = Forecaster(space, task_of(space, data), data, device)(candidate)
    given = Assignment("t-0-000", "listed", 0, candidate.to_json(), 7, 1e18)
    work = Training(space, data, Order(given, "flop", device, tmp_path / "t"))
    while (record := work.advance()).status == "pruned":
        pass
    assert (record.status, record.cause) == ("completed", "")
    assert record.rf_init_px == forecast.rf_px
    for place in (Keeper.grids, _SHARED):
        place.clear()
    remembered_grid.cache_clear()
