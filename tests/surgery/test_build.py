"""Building a candidate: the untouched model at neutral settings, its weights kept, sizes kept at all others."""

import pytest
import torch
from torch import nn

from rfsearch.errors import ModelError, SpaceError
from rfsearch.layers import inflate, interpolate
from rfsearch.space import Candidate, Choice
from rfsearch.surgery import Settings, assemble, build, check_fits, match_sites, measure_sites


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
    return Candidate.of({site: choice})


def test_dilation_one_is_the_untouched_model_bit_for_bit():
    model = Foreign().eval()
    assert torch.equal(build(model, one(Choice(1)))(X), model(X))


def test_the_given_model_is_left_alone():
    model = Foreign()
    build(model, one(Choice(3, f=0.5, learned=True)))
    assert model.body[1].dilation == (1, 1)
    assert isinstance(model.body[1], nn.Conv2d)


@pytest.mark.parametrize("choice", [Choice(3), Choice(2, f=0.7), Choice(2, f=1.6, learned=True)])
@pytest.mark.parametrize("site", ["stem", "body.1"])
def test_output_size_and_weights_are_kept(choice, site):
    model = Foreign()
    made = build(model, one(choice, site))
    assert made(X).shape == model(X).shape
    before = torch.cat([p.flatten() for name, p in model.named_parameters()])
    after = torch.cat([p.flatten() for name, p in made.named_parameters() if not name.endswith("factor.f")])
    assert torch.equal(before, after)


@pytest.mark.parametrize(("kernel", "padding", "stride"), [(4, 1, 1), (3, "same", 1), (3, 0, 1), (5, 2, 2), (2, 1, 1)])
@pytest.mark.parametrize("dilation", [1, 2])
def test_an_inflated_site_keeps_the_size_of_any_convolution(kernel, padding, stride, dilation):
    model = nn.Sequential(nn.Conv2d(3, 4, kernel, stride, padding))
    made = build(model, one(Choice(dilation, f=1.3), "0"))
    assert made(X).shape == build(model, one(Choice(dilation), "0"))(X).shape == model(X).shape


def test_a_learned_factor_of_one_changes_no_value():
    model = Foreign().eval()
    made = build(model, one(Choice(2, learned=True))).eval()
    assert torch.allclose(made(X), build(model, one(Choice(2))).eval()(X), atol=1e-6)


def test_an_inflated_site_is_the_written_out_composition():
    model = Foreign().eval()
    made = build(model, one(Choice(2, f=1.5))).eval()
    hidden = torch.relu(model.stem(X))
    conv = nn.Conv2d(6, 6, 3, padding=2, dilation=2)
    conv.load_state_dict(model.body[1].state_dict())
    small = interpolate(conv(inflate(hidden, 1.5)), 1.5, 1, (10, 8))
    assert torch.allclose(made(X), model.head(torch.relu(small)), atol=1e-6)


def test_factors_are_found_by_site_and_learn():
    candidate = one(Choice(2, f=1.3, learned=True))
    made, learnable = assemble(Foreign(), candidate, Settings())
    (factor,) = learnable.factors.values()
    made(X).square().mean().backward()
    assert factor.f.grad is not None
    assert factor.f.grad.abs() > 0
    assert assemble(Foreign(), one(Choice(2)), Settings())[1].factors == {}


def test_a_learned_factor_survives_the_state_dict():
    candidate = one(Choice(2, learned=True))
    made, learnable = assemble(Foreign(), candidate, Settings())
    with torch.no_grad():
        learnable.factors["body.1"].f.fill_(1.7)
    again, found = assemble(Foreign(), candidate, Settings())
    again.load_state_dict(made.state_dict())
    assert found.factors["body.1"].f.item() == pytest.approx(1.7)


def test_a_site_that_is_none_is_told():
    with pytest.raises(ModelError, match="no such module"):
        build(Foreign(), one(Choice(2), "body.7"))
    with pytest.raises(ModelError, match="is a ReLU"):
        build(Foreign(), one(Choice(2), "body.0"))


def test_patterns_find_sites_and_a_miss_names_the_nearest():
    assert match_sites(Foreign(), ["*"]) == ("stem", "body.1")  # head is 1 x 1: nothing to dilate
    assert match_sites(Foreign(), ["body.1"]) == ("body.1",)
    with pytest.raises(SpaceError, match="'body.2' matches no convolution.*Did you mean 'body.1'"):
        match_sites(Foreign(), ["body.2"])


def test_the_largest_dilation_that_fits_the_map():
    (site,) = measure_sites(Foreign(), ["body.1"], (46, 60), 3)
    assert site.map_size == (23, 30)
    assert (site.largest_dilation, site.span(11), site.span(16)) == (11, 23, 33)
    check_fits([site], [one(Choice(11))], "test")
    with pytest.raises(
        SpaceError,
        match=r"3x3 kernel at dilation 16 spans 33 px, its input map is 23 x 30 px. Largest dilation that fits: 11. "
        r"Asked for by somewhere",
    ):
        check_fits([site], [one(Choice(16))], "somewhere")


def test_a_network_that_refuses_the_image_is_told():
    with pytest.raises(ModelError, match="does not take a 4-channel image of 20 x 16 px"):
        measure_sites(Foreign(), ["body.1"], (20, 16), 4)
