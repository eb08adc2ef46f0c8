"""Building a candidate: the untouched model at neutral settings, its weights kept, sizes kept at all others."""

import copy
import io
import pickle
from dataclasses import replace

import pytest
import torch
from torch import nn

from rfsearch.choices import Candidate, Choice, Dilated, Inflated, Sampled, SitePath
from rfsearch.errors import ModelError, SpaceError
from rfsearch.layers import inflate, interpolate
from rfsearch.surgery import Settings, assemble, build, match_sites, neutral, set_dilation


class Foreign(nn.Module):
    """A network that brings no inflation layer of its own."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 6, 3, stride=2, padding=1)
        self.body = nn.Sequential(nn.ReLU(), nn.Conv2d(6, 6, 3, padding=1), nn.ReLU())
        self.head = nn.Conv2d(6, 2, 1)

    def forward(self, x):
        return self.head(self.body(self.stem(x)))


X = torch.randn(2, 3, 20, 16, generator=torch.Generator().manual_seed(1))


def one(choice: Choice, site: str = "body.1") -> Candidate:
    return Candidate({site: choice})


def test_dilation_one_is_the_untouched_model_bit_for_bit():
    model = Foreign().eval()
    assert torch.equal(build(model, one(Dilated(1)))(X), model(X))


def test_the_given_model_is_left_alone():
    model = Foreign()
    build(model, one(Inflated(3, 0.5, learned=True)))
    assert model.body[1].dilation == (1, 1)
    assert isinstance(model.body[1], nn.Conv2d)


@pytest.mark.parametrize("choice", [Dilated(3), Inflated(2, 0.7), Inflated(2, 1.6, learned=True)])
@pytest.mark.parametrize("site", ["stem", "body.1"])
def test_output_size_and_weights_are_kept(choice, site):
    model = Foreign()
    made = build(model, one(choice, site))
    assert made(X).shape == model(X).shape
    before = torch.cat([p.flatten() for name, p in model.named_parameters()])
    after = torch.cat([p.flatten() for name, p in made.named_parameters() if not name.endswith("factor.f")])
    assert torch.equal(before, after)


@pytest.mark.parametrize(("kernel", "padding", "stride"), [(4, 1, 1), (3, "same", 1), (3, 1, 2), (5, 2, 2), (2, 1, 1)])
@pytest.mark.parametrize("dilation", [1, 2])
def test_an_inflated_site_keeps_the_size_of_any_convolution(kernel, padding, stride, dilation):
    model = nn.Sequential(nn.Conv2d(3, 4, kernel, stride, padding))
    made = build(model, one(Inflated(dilation, 1.3), "0"))
    assert made(X).shape == build(model, one(Dilated(dilation), "0"))(X).shape == model(X).shape


def test_a_learned_factor_of_one_changes_no_value():
    model = Foreign().eval()
    made = build(model, one(Inflated(2, learned=True))).eval()
    assert torch.allclose(made(X), build(model, one(Dilated(2))).eval()(X), atol=1e-6)


def test_an_inflated_site_is_the_written_out_composition():
    model = Foreign().eval()
    made = build(model, one(Inflated(2, 1.5))).eval()
    hidden = torch.relu(model.stem(X))
    conv = nn.Conv2d(6, 6, 3, padding=2, dilation=2)
    conv.load_state_dict(model.body[1].state_dict())
    small = interpolate(conv(inflate(hidden, 1.5)), 1.5, 1, (10, 8))
    assert torch.allclose(made(X), model.head(torch.relu(small)), atol=1e-6)


@pytest.mark.parametrize(("mode", "padding"), [("zeros", "zeros"), ("replicate", "replicate"), ("circular", "zeros")])
def test_a_map_is_continued_as_its_convolution_pads(mode, padding):
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, padding_mode=mode))
    made = build(model, one(Inflated(2, 1.5), "0"))
    assert made[0].inflation.padding == padding
    small = made[0].conv(inflate(X, 1.5, padding=padding))
    assert torch.equal(made(X), interpolate(small, 1.5, 1, X.shape[2:]))


@pytest.mark.parametrize("border", ["continuous", "paper"])
def test_layers_get_the_border_of_the_settings(border):
    made = build(Foreign(), one(Inflated(2, 1.3)), Settings(border=border))
    assert made.body[1].inflation.border == made.body[1].interpolation.border == border


def test_factors_are_found_by_site_and_learn():
    candidate = one(Inflated(2, 1.3, learned=True))
    made, learnable = assemble(Foreign(), candidate, Settings())
    (factor,) = learnable.factors.values()
    made(X).square().mean().backward()
    assert factor.f.grad is not None
    assert factor.f.grad.abs() > 0
    assert assemble(Foreign(), one(Dilated(2)), Settings())[1].factors == {}


def test_a_learned_factor_survives_the_state_dict():
    candidate = one(Inflated(2, learned=True))
    made, learnable = assemble(Foreign(), candidate, Settings())
    with torch.no_grad():
        learnable.factors["body.1"].f.fill_(1.7)
    again, found = assemble(Foreign(), candidate, Settings())
    again.load_state_dict(made.state_dict())
    assert found.factors["body.1"].f.item() == pytest.approx(1.7)


def test_a_site_that_is_none_is_told():
    with pytest.raises(ModelError, match="no such module"):
        build(Foreign(), one(Dilated(2), "body.7"))
    with pytest.raises(ModelError, match="is a ReLU"):
        build(Foreign(), one(Dilated(2), "body.0"))


class Along(nn.Module):
    """A network of one, two or three axes, strided and grouped, that pads in several ways."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        torch.manual_seed(rank)
        conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[rank - 1]
        norm = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)[rank - 1]
        self.stem = conv(2, 4, 3, stride=2, padding=1, bias=False)
        self.norm = norm(4)
        self.body = conv(4, 4, 4, padding="same", groups=2, padding_mode="replicate")
        self.head = conv(4, 2, 3)

    def forward(self, x):
        return self.head(torch.relu(self.body(torch.relu(self.norm(self.stem(x))))))


def along(rank: int) -> tuple[nn.Module, torch.Tensor]:
    model = Along(rank)
    x = torch.randn(2, 2, *[15, 14, 16][:rank], generator=torch.Generator().manual_seed(0))
    model(x)  # batch statistics of its own
    return model.eval(), x


RANKS = pytest.mark.parametrize("rank", [1, 2, 3])


@RANKS
def test_the_neutral_candidate_is_the_model_bit_for_bit(rank):
    model, x = along(rank)
    sites = match_sites(model, ["*"])
    assert sites == ("stem", "body", "head")
    for start in (model, build(model, Candidate({"body": Dilated(3), "head": Dilated(2)}))):
        made = build(start, neutral(start, sites))
        assert torch.equal(made.eval()(x), start.eval()(x))
    assert neutral(start, sites) == Candidate({"stem": Dilated(1), "body": Dilated(3), "head": Dilated(2)})


def test_the_neutral_candidate_of_a_known_network_is_the_model_bit_for_bit():
    torchvision = pytest.importorskip("torchvision")
    torch.manual_seed(0)
    model = torchvision.models.resnet18().eval()
    x = torch.randn(1, 3, 64, 48)
    sites = match_sites(model, ["conv1", "layer1.*", "layer4", "layer2.0:layer2.1"])
    assert torch.equal(build(model, neutral(model, sites))(x), model(x))


def test_a_dilation_for_each_axis_is_no_candidate():
    model = nn.Sequential(nn.Conv2d(1, 1, 3, dilation=(1, 2)), nn.Conv2d(1, 1, (1, 3), dilation=(1, 2)))
    with pytest.raises(SpaceError, match=r"'0': a candidate dilates every axis alike, this convolution has 1x2"):
        neutral(model, ["0"])
    assert neutral(model, ["1"]) == Candidate({"1": Dilated(2)})


@RANKS
@pytest.mark.parametrize("choice", [Dilated(2), Inflated(1, 1.5), Inflated(2, 0.7, learned=True)])
@pytest.mark.parametrize("site", ["stem", "body", "head"])
def test_any_number_of_axes_keeps_its_size_and_learns(rank, choice, site):
    model, x = along(rank)
    made, learnable = assemble(model, one(choice, site), Settings())
    if site == "head":  # is not padded
        assert made(x).shape[2:] == tuple(n - 2 * (choice.dilation - 1) for n in model(x).shape[2:])
    else:
        assert made(x).shape == model(x).shape
    first = (slice(None), slice(None), *[slice(3)] * rank)
    assert not torch.allclose(made(x)[first], model(x)[first])
    made(x).square().mean().backward()
    for factor in learnable.factors.values():
        assert (factor.f.grad is not None) == choice.learned


@RANKS
def test_an_inflated_site_of_any_number_of_axes_is_the_written_out_composition(rank):
    model, x = along(rank)
    made = build(model, one(Inflated(2, 1.5), "body")).eval()
    hidden = torch.relu(model.norm(model.stem(x)))
    conv = copy.deepcopy(model.body)
    set_dilation(conv, 2)
    back = interpolate(conv(inflate(hidden, 1.5, padding="replicate")), 1.5, 1, hidden.shape[2:])
    assert torch.equal(made(x), model.head(torch.relu(back)))


@RANKS
def test_parallel_paths_of_any_number_of_axes(rank):
    model, x = along(rank)
    made = build(model, Candidate({"body": [Dilated(1), Dilated(1)]}))
    torch.testing.assert_close(made(x), model(x))


def test_what_is_for_two_axes_only_is_told():
    settings = Settings(classes=("background", "a"))
    for rank in (1, 3):
        model, x = along(rank)
        with pytest.raises(SpaceError, match=rf"body: an LS-DFN block .* 2-D convolution. Got a Conv{rank}d"):
            build(model, one(Sampled(1, 2.0), "body"), settings)
        with pytest.raises(SpaceError, match="body/1: a path is guided by labels on 2-D maps only"):
            build(model, Candidate({"body": [SitePath(Dilated(1), ("a",)), Dilated(1)]}), settings)
        weighed = Settings(classes=("background", "a"), f_background=0.5)
        with pytest.raises(ModelError, match="2-D maps only"):
            build(model, one(Inflated(1, 1.5), "body"), weighed)(x)


SEARCHED = {
    "dilations": Candidate({"stem": Dilated(2), "body.1": Dilated(4)}),
    "factors": Candidate({"stem": Inflated(2, 0.7), "body.1": Inflated(4, 1.3, learned=True)}),
    "paths": Candidate({"stem": [Dilated(2), Inflated(3, 0.7)], "body.1": [Inflated(4, learned=True), Dilated(2)]}),
    "blocks": Candidate({"stem": Sampled(2, 1.5, 3), "body.1": Sampled(4, 2.5, 3, True)}),
}


def moved(candidate: Candidate) -> Candidate:
    """The same kind of candidate with every value another."""

    def other(_: str, choice: Choice) -> Choice:
        more = {"gamma": 1, "s": 0, "f": 0.2, "dilation": -1}
        return replace(choice, **{name: value + more[name] for name, value in choice.numbers.items()})

    return candidate.changed(other)


@pytest.mark.parametrize("kind", SEARCHED)
def test_everything_searched_survives_the_state_dict(kind):
    """{2, 4} comes back as {2, 4}, into a model that was built as {1, 3}."""
    saved = build(Foreign(), SEARCHED[kind]).eval()
    for parameter in saved.parameters():
        with torch.no_grad():
            parameter.add_(0.01)
    file = io.BytesIO()
    torch.save(saved.state_dict(), file)
    file.seek(0)
    again = build(Foreign(), moved(SEARCHED[kind])).eval()
    assert not torch.allclose(again(X), saved(X), atol=1e-3)
    again.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(again(X), saved(X))
    with pytest.raises(RuntimeError, match="searched_dilation"):
        Foreign().load_state_dict(saved.state_dict())


@pytest.mark.parametrize("kind", SEARCHED)
def test_everything_searched_survives_copies(kind):
    saved = build(Foreign(), SEARCHED[kind]).eval()
    expected = saved(X)  # also fills what is kept of the sizes
    for again in (copy.deepcopy(saved), pickle.loads(pickle.dumps(saved))):
        assert torch.equal(again(X), expected)
        other = build(Foreign(), moved(SEARCHED[kind])).eval()
        again.load_state_dict(other.state_dict())
        assert torch.equal(again(X), other(X))
    assert torch.equal(saved(X), expected)


def test_a_neutral_dilation_is_kept_too_and_pretrained_weights_still_load():
    model = Foreign()
    made = build(model, one(Dilated(1)))
    assert made.state_dict()["body.1.searched_dilation"].tolist() == [1, 1]
    made.load_state_dict(model.state_dict())
