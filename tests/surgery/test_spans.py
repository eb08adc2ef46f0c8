"""Containers and spans as sites: dilated together, inflated as one, copied into parallel paths."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn

from rfsearch.choices import Candidate, Choice, Dilated, Inflated, Sampled
from rfsearch.errors import ModelError, SpaceError
from rfsearch.layers import inflate, interpolate
from rfsearch.surgery import Settings, assemble, build, match_sites, neutral, set_dilation
from rfsearch.surgery.inserts import InflatedSite
from rfsearch.training.meter import Meter


class Block(nn.Module):
    """Two branches that meet again, at half the size."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv2d(4, 4, 3, stride=2, padding=2, dilation=2)
        self.two = nn.Sequential(nn.Conv2d(4, 4, (3, 2), padding="same"), nn.MaxPool2d(2, ceil_mode=True))
        self.skip = nn.Conv2d(4, 4, 1)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, x):
        return self.norm(self.skip(self.one(x) + self.two(x)))


def network() -> nn.Module:
    torch.manual_seed(0)
    body = [nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 5, 2, padding=2), nn.ReLU()]
    model = nn.Sequential(nn.Sequential(*body), Block(), nn.Conv2d(4, 2, 1))
    model(torch.randn(2, 3, 20, 24))
    return model.eval()


X = torch.randn(2, 3, 21, 18, generator=torch.Generator().manual_seed(1))
SITES = ["0", "1", "0.1:0.3", "0.2:0.2", "0:1"]


def of(choice: Choice, site: str) -> Candidate:
    return Candidate({site: choice})


@pytest.mark.parametrize("site", SITES)
def test_a_dilation_of_one_leaves_a_span_as_it_is(site):
    model = network()
    candidate = neutral(model, match_sites(model, [site]))
    assert candidate == of(Dilated(1), site)
    made, learnable = assemble(model, candidate, Settings())
    assert torch.equal(made(X), model(X))
    assert [name for name, _ in made.named_modules()] == [name for name, _ in model.named_modules()]
    assert made.get_submodule(learnable.modules[site]) is made.get_submodule(site.rpartition(":")[2])


def test_a_dilation_multiplies_what_every_convolution_has():
    model = network()
    made = build(model, Candidate({"0.1:0.3": Dilated(3), "1": Dilated(2)}))
    assert {name: m.dilation for name, m in made.named_modules() if isinstance(m, nn.Conv2d)} == {
        "0.0": (1, 1),
        "0.2": (3, 3),
        "1.one": (4, 4),
        "1.two.0": (2, 2),
        "1.skip": (1, 1),
        "2": (1, 1),
    }
    assert (made[0][2].padding, made[1].one.padding, made[1].two[0].padding) == ((6, 6), (4, 4), "same")
    assert made.state_dict()["1.one.searched_dilation"].tolist() == [4, 4]
    assert "1.skip.searched_dilation" not in made.state_dict()


def test_a_convolution_that_stands_twice_is_dilated_once():
    conv = nn.Conv2d(1, 1, 3, padding=1)
    made = build(nn.Sequential(conv, nn.ReLU(), conv), of(Dilated(2), "0:2"))
    assert made[0].dilation == made[2].dilation == (2, 2)


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("f", [0.6, 1.5])
def test_an_inflated_span_is_the_written_out_composition(site, f):
    model = network()
    made, learnable = assemble(model, of(Inflated(1, f, learned=True), site), Settings())
    made.eval()
    (factor,) = learnable.factors.values()
    f = factor.f.item()  # in single precision
    flat = [*model[0], *model[1:]]
    start, end = {"0": (0, 4), "1": (4, 5), "0.1:0.3": (1, 4), "0.2:0.2": (2, 3), "0:1": (0, 5)}[site]
    for x in (X, X[..., :-3], X):
        hidden = nn.Sequential(*flat[:start])(x)
        span = nn.Sequential(*flat[start:end])
        windows = [(0, 2)] * 2 if site == "0.2:0.2" else None  # one convolution of stride 2
        back = interpolate(span(inflate(hidden, f, windows=windows)), f, 1, span(hidden).shape[2:])
        assert torch.equal(made(x), nn.Sequential(*flat[end:])(back))
    assert list(learnable.factors) == [site]
    made(X).square().sum().backward()
    assert learnable.factors[site].f.grad != 0


def test_a_factor_of_one_that_is_learned_changes_no_value():
    model = network()
    made = build(model, of(Inflated(1, learned=True), "0:1")).eval()
    torch.testing.assert_close(made(X), model(X))


def test_what_follows_an_inflated_span_keeps_its_path():
    model = network()
    made, learnable = assemble(model, of(Inflated(1, 1.5), "0.1:0.2"), Settings())
    assert learnable.modules == {"0.1:0.2": "0.1"}
    assert isinstance(made[0][1], InflatedSite)
    assert isinstance(made[0][2], nn.Identity)
    assert made.get_submodule("0.1.conv.2").weight.equal(model[0][2].weight)
    assert isinstance(made[0][3], nn.ReLU)
    assert sum(p.numel() for p in made.parameters()) == sum(p.numel() for p in model.parameters()) + 1


def test_sites_beside_an_inflated_span_are_still_found():
    model = network()
    candidate = Candidate({"0.0": Dilated(2), "0.1:0.2": Inflated(2, 1.5), "1.one": Dilated(3), "1.two": Dilated(2)})
    made = build(model, candidate)
    assert made[0][0].dilation == made.get_submodule("0.1.conv.2").dilation == (2, 2)
    assert (made[1].one.dilation, made[1].two[0].dilation) == ((3, 3), (2, 2))
    assert made(X).shape == model(X).shape


def test_finding_the_size_leaves_no_trace():
    """Neither in the state dict and the batch statistics, nor in hooks, modes and the count of FLOP."""
    model = network()
    made = build(model, of(Inflated(1, 1.5), "1"))
    made.train()
    seen = []
    made[1].conv.one.register_forward_hook(lambda *args: seen.append(args))
    state = set(made.state_dict())
    with Meter() as first:
        made(X)
    assert len(seen) == 1
    assert made[1].conv.norm.num_batches_tracked == model[1].norm.num_batches_tracked + 1
    with Meter() as second:
        made(X)
    assert first.flop == second.flop
    assert set(made.state_dict()) == state
    assert all(module.training for module in made.modules())


def test_the_size_is_found_again_where_a_dilation_changes_it():
    """And on shapes alone, in half precision and in a copy."""
    span = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    made = build(nn.Sequential(span), of(Inflated(1, 1.5), "0"))
    assert made(X).shape == (2, 4, 19, 16)
    set_dilation(made[0].conv[0], 3)
    for model in (made, copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
        assert model(X).shape == (2, 4, 15, 12)
    assert made.half()(X.half()).shape == (2, 4, 15, 12)
    factor = made[0].inflation.factor
    value = factor.f
    made.to("meta")
    factor.f = value  # as a forecast does
    assert made(X.half().to("meta")).shape == (2, 4, 15, 12)


def test_a_searched_span_survives_the_state_dict():
    def built(dilation: int, f: float) -> nn.Module:
        candidate = Candidate({"0.1:0.2": Inflated(dilation, f, learned=True), "1": Dilated(dilation + 2)})
        return build(network(), candidate).eval()

    saved, again, file = built(2, 1.5), built(1, 0.8), io.BytesIO()
    again(X)
    torch.save(saved.state_dict(), file)
    file.seek(0)
    again.load_state_dict(torch.load(file, weights_only=True))
    assert again[1].one.dilation == (8, 8)
    assert again[0][1].inflation.factor.f == 1.5
    assert torch.equal(again(X), saved(X))


@pytest.mark.parametrize("site", SITES)
def test_parallel_spans(site):
    model = network()
    made, learnable = assemble(model, Candidate({site: [Dilated(1), Dilated(1)]}), Settings())
    torch.testing.assert_close(made.eval()(X), model(X))
    first = site.partition(":")[0]
    assert list(learnable.modules.values()) == [f"{first}.paths.0", f"{first}.paths.1"]
    made, learnable = assemble(model, Candidate({site: [Dilated(1), Inflated(2, 1.4, learned=True)]}), Settings())
    assert made(X).shape == model(X).shape
    assert list(learnable.factors) == [f"{site}/2"]


def test_what_a_span_cannot_have_is_told():
    for site in ("1", "0.1:0.2"):
        with pytest.raises(SpaceError, match=rf"{site}: an LS-DFN block .*Got a container or span"):
            build(network(), of(Sampled(1, 2.0), site))
    with pytest.raises(SpaceError, match="Sites lie apart"):
        build(network(), Candidate({"0": Dilated(2), "0.2": Dilated(1)}))
    with pytest.raises(ModelError, match="'0.1' is a ReLU"):
        build(network(), of(Dilated(2), "0.1"))
    with pytest.raises(ModelError, match="no such module as '0.9'"):
        build(network(), of(Dilated(2), "0.1:0.9"))

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 3)

        def forward(self, x):
            return self.conv(x), x

    made = build(nn.Sequential(Two()), of(Inflated(1, learned=True), "0"))
    with pytest.raises(ModelError, match="maps one tensor to one. Got a tuple of a Two"):
        made[0]._plain_size(X)
