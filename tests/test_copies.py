"""What is copied, what is not, and networks that cannot be: hooks that close over them, weight norms, lazy modules."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, weight_norm

import rfsearch
from rfsearch import plugins
from rfsearch.choices import Candidate, Dilated, Fractional, Inflated, Searched
from rfsearch.copies import copy_module
from rfsearch.errors import ModelError, SpaceError
from rfsearch.inspection import list_site_fields
from rfsearch.lazy import give_sizes
from rfsearch.planning.forecaster import Forecaster
from rfsearch.receptive import receptive_field
from rfsearch.surgery import Settings, assemble, build, install
from rfsearch.surgery.inserts import SplitSite
from rfsearch.tasks.from_space import task_of
from rfsearch.training.loop import TrainingLoop
from tests.toys import toy_faces, toy_space

X = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
CPU = torch.device("cpu")
WRAPPERS = [weight_norm, parametrizations.weight_norm]


class Closing(nn.Module):
    """Hands features on by hooks that close over it and over its containers; a copy would hand them to the original."""

    def __init__(self, num_classes: int = 4, in_channels: int = 3) -> None:
        super().__init__()
        self.body = nn.Conv2d(in_channels, 4, 3, padding=1)
        self.head = nn.Conv2d(4, num_classes, 1)
        self.features = {}
        self.body.register_forward_hook(lambda module, args, output: self.features.update(body=output))

    def forward(self, image):
        self.body(image)
        return self.head(self.features["body"])


class Uncopied(Closing):
    """Hold no closure, but something that cannot be copied."""

    def __init__(self, num_classes: int = 4, in_channels: int = 3) -> None:
        super().__init__(num_classes, in_channels)
        self.body._forward_hooks.clear()

    def forward(self, image):
        return self.head(self.body(image))

    def __deepcopy__(self, memo):
        raise TypeError("one of a kind")


class Unsized(nn.Module):
    def __init__(self, num_classes: int = 4, in_channels: int = 3) -> None:
        super().__init__()
        self.body = nn.LazyConv2d(4, 3, padding=1)
        self.norm = nn.LazyBatchNorm2d()
        self.site = nn.LazyConv2d(4, 3, padding=1)
        self.head = nn.LazyConv2d(num_classes, 1)

    def forward(self, image):
        return self.head(self.site(torch.relu(self.norm(self.body(image)))))


def patch(site: str = "body", dilation: int = 2) -> dict[str, object]:
    return {
        "format": "rfsearch-patch",
        "version": 1,
        "backbone": "x",
        "classes": [],
        "sites": {site: {"dilation": dilation, "f": 1.0, "learned": False}},
        "settings": {},
    }


@pytest.mark.parametrize(("make", "why"), [(Closing, "closes over"), (Uncopied, "one of a kind")])
def test_a_network_that_cannot_be_copied_is_patched_itself_or_refused_in_one_message(make, why):
    model = make()
    with pytest.raises(ModelError, match=rf"{why}.*copy=False"):
        rfsearch.apply(model, patch())
    with pytest.raises(ModelError, match=why):
        build(model, Candidate({"body": Dilated(2)}))
    assert model.body.dilation == (1, 1)
    assert rfsearch.apply(model, patch(), copy=False) is model
    assert model.body.dilation == (2, 2)
    assert model(X).shape == (2, 4, 16, 16)


@pytest.mark.parametrize("make", [Closing, Uncopied, Unsized])
def test_a_search_trains_networks_that_cannot_be_copied(make, tmp_path, monkeypatch):
    space, data = toy_space(tmp_path), toy_faces()
    monkeypatch.setattr(plugins, "make_backbone", lambda spec, classes, channels: make(classes, channels))
    space = space.with_(sites=("site" if make is Unsized else "body",), backbone="x")
    candidate = space.uniform(Inflated(2, learned=True))
    assert Forecaster(space, task_of(space, data), data, CPU, flop_per_s=1e9)(candidate).rf_px > 1
    torch.manual_seed(0)
    loop = TrainingLoop(space, data, candidate, 0, CPU)
    assert loop.train_step(0) > 0
    assert math.isfinite(loop.score(data.splits["val"].some(2))[0].primary)


def test_a_copy_shares_nothing_and_keeps_hooks_that_need_no_original():
    model = nn.Sequential(nn.Conv2d(3, 3, 3), nn.ReLU())
    seen = []
    model[0].register_forward_hook(lambda module, args, output: seen.append(module))
    twin = copy_module(model)
    twin(X)
    assert seen == [twin[0]]
    assert twin[0].weight is not model[0].weight


@pytest.mark.parametrize("wrap", WRAPPERS)
@pytest.mark.parametrize("choice", [Dilated(2), Inflated(2, 1.3, learned=True), [Dilated(1), Dilated(2)]], ids=str)
def test_a_weight_norm_is_dilated_inflated_and_forked_and_trains(wrap, choice):
    model = nn.Sequential(wrap(nn.Conv2d(3, 4, 3, padding=1)), nn.Conv2d(4, 2, 1))
    model(X)
    made = build(model, Candidate({"0": choice}))
    made(X).square().sum().backward()
    gains = [parameter for name, parameter in made.named_parameters() if name.endswith(("weight_g", "original0"))]
    assert len(gains) == (2 if isinstance(choice, list) else 1)
    assert all(gain.grad is not None and gain.grad.abs().sum() > 0 for gain in gains)
    again = build(nn.Sequential(wrap(nn.Conv2d(3, 4, 3, padding=1)), nn.Conv2d(4, 2, 1)), Candidate({"0": choice}))
    again.load_state_dict(made.state_dict())
    torch.testing.assert_close(again.eval()(X), made.eval()(X))
    receptive_field(made, (1, 3, 16, 16))


@pytest.mark.parametrize("wrap", WRAPPERS)
def test_a_weight_norm_gives_what_its_plain_convolution_would_at_a_dilation(wrap):
    conv = nn.Conv2d(3, 4, 3, padding=1)
    plain = build(nn.Sequential(copy.deepcopy(conv)), Candidate({"0": Dilated(3)}))
    normed = build(nn.Sequential(wrap(conv)), Candidate({"0": Dilated(3)}))
    torch.testing.assert_close(normed(X), plain(X))


@pytest.mark.parametrize("wrap", WRAPPERS)
def test_a_computed_weight_has_no_real_dilation_and_no_split(wrap):
    real = Candidate({"0": Fractional(2 / 1.3)})
    with pytest.raises(SpaceError, match="a real dilation is that of"):
        build(nn.Sequential(wrap(nn.Conv2d(3, 4, 3, padding=1))), real)
    with pytest.raises(SpaceError, match="split"):
        SplitSite(wrap(nn.Conv2d(3, 4, 3, padding=1)), 2, 1)
    found, learnable = assemble(
        nn.Sequential(wrap(nn.Conv2d(3, 4, 3, padding=1))),
        Candidate({"0": Searched(2)}),
        Settings(),
    )
    assert not learnable.let_move(found, (1.0, 4.0))


def test_lazy_modules_are_sized_before_sites_are_listed_and_the_same_by_seed():
    made = []
    for _ in range(2):
        torch.manual_seed(3)
        made.append(Unsized())
        give_sizes(made[-1], (1, 3, 16, 16))
        torch.rand(1)
    assert all(torch.equal(a, b) for a, b in zip(*(model.state_dict().values() for model in made), strict=True))
    assert type(made[0].body) is nn.Conv2d
    assert made[0].training
    assert made[0].norm.training
    assert not made[0].norm.running_mean.any()
    assert made[0].norm.num_batches_tracked == 0


def test_measuring_a_lazy_network_leaves_it_lazy():
    model = Unsized()
    assert receptive_field(model, (1, 3, 16, 16)).px == 5
    rows = list_site_fields(model, (1, 3, 16, 16))
    assert [(site.row.in_channels, site.row.kind) for site in rows][:2] == [(3, "Conv2d"), (4, "Conv2d")]
    assert isinstance(model.body, nn.LazyConv2d)
    assert model.norm.has_uninitialized_params()
    assert model(X).shape == (2, 4, 16, 16)


def test_a_lazy_site_without_a_size_and_a_lazy_module_that_never_runs_are_refused():
    with pytest.raises(ModelError, match="Send one batch through the network first"):
        install(Unsized(), Candidate({"site": Dilated(2)}), Settings())
    model = Unsized()
    model.spare = nn.LazyLinear(2)
    with pytest.raises(ModelError, match="spare: this LazyLinear never runs"):
        give_sizes(model, (1, 3, 16, 16))
