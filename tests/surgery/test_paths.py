"""Parallel paths and LS-DFN blocks: alike they are the network that was, and each path keeps what is its own."""

import io

import pytest
import torch
from torch import nn

from rfsearch.backbones.small import wei_small
from rfsearch.choices import Candidate, Choice, Dilated, Inflated, Sampled, SitePath
from rfsearch.data.helen import HELEN_CLASSES
from rfsearch.errors import ModelError, SpaceError
from rfsearch.layers import LSDFN, guided
from rfsearch.space import SamplingSpec
from rfsearch.surgery import Settings, assemble, build, check_fits, check_labels, measure_sites
from tests.surgery.test_build import Foreign, X

IMAGE = torch.randn(2, 3, 48, 40, generator=torch.Generator().manual_seed(2))
HELEN = Settings(classes=HELEN_CLASSES)
EYES = ("left eye", "right eye")


def faces() -> nn.Module:
    torch.manual_seed(0)
    model = wei_small(len(HELEN_CLASSES))
    model(IMAGE)  # batch statistics of its own
    return model.eval()


def of(*paths: Choice, site: str = "conv6") -> Candidate:
    return Candidate({site: paths})


@pytest.mark.parametrize("count", [2, 3])
def test_alike_paths_of_a_parsing_network_sum_to_as_many_times_its_logits(count):
    model = faces()
    made = build(model, of(*[Dilated(1)] * count))
    torch.testing.assert_close(made(IMAGE), count * model(IMAGE), rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    "paths", [[Dilated(1), Inflated(3, 0.7)], [Inflated(2, 1.5), Dilated(1), Inflated(4, learned=True)]]
)
def test_paths_of_a_parsing_network_sum_what_each_alone_would_give(paths):
    model = faces()
    made = build(model, of(*paths))
    alone = [build(model, of(path))(IMAGE) for path in paths]
    torch.testing.assert_close(made(IMAGE), sum(alone), rtol=1e-5, atol=1e-7)
    assert not torch.allclose(alone[0], alone[1], rtol=1e-3)


def test_the_features_are_shared_and_the_paths_are_not():
    model = faces()
    made = build(model, of(Dilated(1), Dilated(1)))
    names = [name for name, _ in model.named_parameters()]
    own = [name for name in names if not name.startswith("features.")]
    assert {n for n, _ in made.named_parameters()} == {*names, *(f"parallel.0.{name}" for name in own)}
    mine, theirs = made.get_parameter("conv6.weight"), made.get_parameter("parallel.0.conv6.weight")
    assert torch.equal(mine, theirs)
    assert mine.data_ptr() != theirs.data_ptr() != model.conv6.weight.data_ptr()


def test_every_path_is_found_by_its_name():
    _, learnable = assemble(faces(), of(Dilated(1), Inflated(2, 0.5), Inflated(3, learned=True)), HELEN)
    assert learnable.modules == {
        "conv6/1": "conv6",
        "conv6/2": "parallel.0.conv6",
        "conv6/3": "parallel.1.conv6",
    }
    assert {path: factor.f.item() for path, factor in learnable.factors.items()} == {"conv6/2": 0.5, "conv6/3": 1.0}
    _, learnable = assemble(Foreign(), of(Dilated(1), Dilated(2), site="body.1"), HELEN)
    assert learnable.modules == {"body.1/1": "body.1.paths.0", "body.1/2": "body.1.paths.1"}
    assert assemble(Foreign(), of(Dilated(2), site="body.1"), HELEN)[1].modules == {"body.1": "body.1"}


def test_a_site_among_the_features_forks_there():
    model = faces()
    made, learnable = assemble(model, of(Dilated(1), Dilated(1), site="features.6"), HELEN)
    assert learnable.modules["features.6/2"] == "features.6.paths.1"
    torch.testing.assert_close(made(IMAGE), model(IMAGE), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("site", ["stem", "body.1"])
def test_alike_paths_of_a_foreign_network_are_the_untouched_model(count, site):
    model = Foreign().eval()
    made = build(model, of(*[Dilated(1)] * count, site=site))
    torch.testing.assert_close(made(X), model(X), rtol=0, atol=1e-6)


def test_paths_of_a_foreign_network_are_averaged():
    model = Foreign().eval()
    made = build(model, of(Dilated(1), Dilated(3), Inflated(2, 1.5), site="body.1"))
    hidden = torch.relu(model.stem(X))
    alone = [build(model, of(c, site="body.1")).body[1](hidden) for c in (Dilated(1), Dilated(3), Inflated(2, 1.5))]
    expected = model.head(torch.relu((alone[0] + alone[1] + alone[2]) / 3))
    torch.testing.assert_close(made(X), expected, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(alone[0], alone[1], atol=1e-2)


def test_two_sites_can_both_be_parallel():
    model = Foreign().eval()
    candidate = Candidate({"stem": [Dilated(1), Dilated(1)], "body.1": [Dilated(1), Dilated(1), Dilated(1)]})
    made, learnable = assemble(model, candidate, Settings())
    torch.testing.assert_close(made(X), model(X), rtol=0, atol=1e-6)
    assert len(learnable.modules) == 5


@pytest.mark.parametrize(("make", "site", "data"), [(faces, "conv6", IMAGE), (Foreign, "body.1", X)])
def test_the_factor_of_every_path_survives_the_state_dict(make, site, data):
    candidate = of(*[Inflated(2, learned=True)] * 3, site=site)
    made, learnable = assemble(make(), candidate, Settings())
    with torch.no_grad():
        for number, factor in enumerate(learnable.factors.values()):
            factor.f.fill_(0.8 + 0.3 * number)
    saved = io.BytesIO()
    torch.save(made.state_dict(), saved)
    saved.seek(0)
    again, found = assemble(make(), candidate, Settings())
    again.load_state_dict(torch.load(saved, weights_only=True))
    values = {path: factor.f.item() for path, factor in found.factors.items()}
    assert values == pytest.approx({f"{site}/1": 0.8, f"{site}/2": 1.1, f"{site}/3": 1.4})
    assert torch.equal(again.eval()(data), made.eval()(data))


@pytest.mark.parametrize(("make", "site", "data"), [(faces, "conv6", IMAGE), (Foreign, "body.1", X)])
def test_every_path_learns_its_own_factor(make, site, data):
    made, learnable = assemble(make(), of(Inflated(2, learned=True), Inflated(1, learned=True), site=site), Settings())
    made(data).square().mean().backward()
    grads = [factor.f.grad.item() for factor in learnable.factors.values()]
    assert len(grads) == 2
    assert 0 not in grads
    assert grads[0] != grads[1]


def guided_gradients(model: nn.Module, labels: torch.Tensor, data: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    with guided(model, labels):
        model(data).square().sum().backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("which", [0, 1])
def test_guidance_lands_behind_its_path_of_a_parsing_network(which):
    paths = [SitePath(Dilated(1)), SitePath(Dilated(1))]
    paths[which] = SitePath(Dilated(1), EYES)
    made = build(faces(), of(*paths), Settings(classes=HELEN_CLASSES, guidance_weight=1.5))
    eye = torch.full((2, 48, 40), HELEN_CLASSES.index("right eye"))
    plain, there = guided_gradients(made, 0 * eye, IMAGE), guided_gradients(made, eye, IMAGE)
    for name in ("conv6.weight", "conv7.bias", "output.weight", "bn.weight"):
        scales = [1.5 if path.labels else 1.0 for path in paths]
        torch.testing.assert_close(there[name], scales[0] * plain[name])
        torch.testing.assert_close(there[f"parallel.0.{name}"], scales[1] * plain[f"parallel.0.{name}"])
    # both paths gave the features the same, so they get (1.5 + 1) / 2 of it
    torch.testing.assert_close(there["features.0.weight"], 1.25 * plain["features.0.weight"], rtol=1e-4, atol=1e-5)


def test_guidance_lands_behind_its_path_of_a_foreign_network_pixel_by_pixel():
    model = Foreign().eval()
    settings = Settings(classes=("sky", "tree"), guidance_weight=1.5)
    made = build(model, of(Dilated(1), SitePath(Dilated(3), ("tree",)), Dilated(2), site="body.1"), settings).eval()
    labels = torch.zeros(2, 20, 16, dtype=torch.int64)
    labels[:, :8, 6:] = 1
    found = guided_gradients(made, labels, X)

    hidden = torch.relu(model.stem(X)).detach()
    convs = made.body[1].paths
    mean = torch.stack([conv(hidden) for conv in convs]).mean(0).detach().requires_grad_()
    (behind,) = torch.autograd.grad(model.head(torch.relu(mean)).square().sum(), mean)
    weight = torch.ones(2, 1, 10, 8)
    weight[:, :, :4, 3:] = 1.5  # the map has every second pixel
    for number, conv in enumerate(convs):
        grad = behind / 3 * (weight if number == 1 else 1)
        (expected,) = torch.autograd.grad(conv(hidden), conv.weight, grad)
        torch.testing.assert_close(found[f"body.1.paths.{number}.weight"], expected, rtol=1e-4, atol=1e-5)


def test_guidance_changes_no_value_and_none_is_shown_in_evaluation():
    made = build(faces(), of(SitePath(Dilated(1), EYES), Dilated(2)), HELEN)
    plain = build(faces(), of(Dilated(1), Dilated(2)), HELEN)
    with guided(made, torch.full((2, 48, 40), 4)):
        assert torch.equal(made(IMAGE), plain(IMAGE))


def test_only_one_of_several_paths_of_a_foreign_network_can_be_guided():
    with pytest.raises(SpaceError, match=r"body.1: only one of several parallel paths can be guided"):
        build(Foreign(), of(SitePath(Dilated(1), EYES), site="body.1"), HELEN)


def test_a_label_that_the_data_lacks_names_the_nearest():
    wrong = of(Dilated(1), SitePath(Dilated(1), ("left eye", "lft eye")))
    message = r"conv6/2: guided by the label 'lft eye', which the data does not have. Did you mean 'left eye'"
    with pytest.raises(SpaceError, match=message):
        check_labels(wrong, HELEN)
    with pytest.raises(SpaceError, match=message):
        build(faces(), wrong, HELEN)
    with pytest.raises(SpaceError, match="conv6/1: guided by the label 'left eye'"):
        check_labels(of(SitePath(Dilated(1), EYES), Dilated(1)), Settings())
    check_labels(of(SitePath(Dilated(1), EYES), Dilated(1)), HELEN)


def test_less_weight_for_a_background_that_the_data_lacks_is_refused():
    settings = Settings(classes=("backgrund", "a"), f_background=0.5)
    with pytest.raises(SpaceError, match=r"f_background = 0.5 .*'background'; the data has none.*'backgrund'"):
        check_labels(of(Dilated(1)), settings)
    check_labels(of(Dilated(1)), Settings(classes=("a", "b")))


@pytest.mark.parametrize(("make", "site", "data"), [(faces, "conv6", IMAGE), (Foreign, "body.1", X)])
def test_background_counts_its_weight_in_every_factor_and_one_in_every_weight(make, site, data):
    candidate = of(Inflated(2, learned=True), Inflated(1, learned=True), site=site)
    background = torch.zeros(2, *data.shape[2:], dtype=torch.int64)
    found = {}
    for share in (1.0, 0.25, 0.0):
        settings = Settings(classes=("background", "face"), f_background=share)
        made, learnable = assemble(make(), candidate, settings)
        weights = guided_gradients(made, background, data)
        found[share] = [factor.f.grad.item() for factor in learnable.factors.values()], weights
    assert found[0.25][0] == pytest.approx([0.25 * grad for grad in found[1.0][0]], rel=1e-4)
    assert found[0.0][0] == [0, 0]
    assert 0 not in found[1.0][0]
    for name, grad in found[1.0][1].items():
        if not name.endswith("factor.f"):
            assert torch.equal(found[0.0][1][name], grad), name
    face = guided_gradients(made, background + 1, data)
    assert face[next(name for name in face if name.endswith("factor.f"))] != 0


def test_a_dilation_that_does_not_fit_says_in_how_many_paths():
    sites = measure_sites(Foreign(), ["body.1"], (20, 16), 3)
    check_fits(sites, [of(Dilated(1), Dilated(3), site="body.1")], "test")
    with pytest.raises(SpaceError, match=r"dilation 4 in one of 2 paths spans 9 px, its input map is 10 x 8 px"):
        check_fits(sites, [of(Dilated(1), Dilated(4), site="body.1")], "test")


def test_a_site_that_is_none_is_told_for_paths_too():
    with pytest.raises(ModelError, match="no such module"):
        build(Foreign(), of(Dilated(1), Dilated(2), site="body.7"))


def block(gamma: float = 2.0, s: int = 3, learned: bool = False, dilation: int = 1) -> Choice:
    return Sampled(dilation, gamma, s, learned)


@pytest.mark.parametrize("dilation", [1, 3])
@pytest.mark.parametrize("choice", [{}, {"gamma": 1.3, "s": 5, "learned": True}, {"s": 1}])
@pytest.mark.parametrize(
    ("make", "site", "data"), [(faces, "conv6", IMAGE), (Foreign, "body.1", X), (Foreign, "stem", X)]
)
def test_a_block_starts_as_the_bare_convolution(make, site, data, choice, dilation):
    model = make().eval()
    made = build(model, of(block(**choice, dilation=dilation), site=site), HELEN).eval()
    assert torch.equal(made(data), build(model, of(Dilated(dilation), site=site)).eval()(data))
    with torch.no_grad():
        made.get_submodule(site).project.weight.normal_()
    assert made(data).shape == model(data).shape
    assert not torch.allclose(made(data), model(data), rtol=1e-2)


def test_a_block_is_made_as_the_space_says():
    spec = SamplingSpec(features=7, kernel=5, bounds=(0.5, 3.0))
    for settings, channels in ((Settings(sampling=spec), 6), (Settings(classes=("a", "b"), sampling=spec), 2)):
        made, learnable = assemble(Foreign(), of(block(2.5, 5, learned=True), site="body.1"), settings)
        (found,) = [module for module in made.modules() if isinstance(module, LSDFN)]
        assert (found.in_channels, found.out_channels, found.features, found.s, found.k) == (6, channels, 7, 5, 5)
        assert learnable.strides == {"body.1": found.stride}
        assert (found.stride.gamma.item(), found.stride.learned) == (2.5, True)
        assert found.stride.bounds.tolist() == [0.5, 3.0]
    spec = SamplingSpec(channels=4)
    assert build(Foreign(), of(block(), site="body.1"), Settings(sampling=spec)).body[1].block.out_channels == 4


def test_a_learned_sample_stride_gets_a_gradient_once_its_block_is_heard():
    made, learnable = assemble(Foreign(), of(block(1.5, learned=True), site="body.1"), Settings())
    with torch.no_grad():
        made.body[1].project.weight.normal_()
    made(X).square().mean().backward()
    assert learnable.strides["body.1"].gamma.grad != 0


def test_a_sample_stride_survives_the_state_dict():
    candidate = of(block(1.5, learned=True), site="body.1")
    made, learnable = assemble(Foreign(), candidate, Settings())
    with torch.no_grad():
        learnable.strides["body.1"].gamma.fill_(2.7)
    again, found = assemble(Foreign(), candidate, Settings())
    again.load_state_dict(made.state_dict())
    assert found.strides["body.1"].gamma.item() == pytest.approx(2.7)


def test_the_largest_sample_stride_that_fits_the_map():
    sites = measure_sites(Foreign(), ["body.1"], (46, 60), 3)  # a map of 23 x 30 px
    check_fits(sites, [of(block(5.0, 5), site="body.1"), of(block(10.0, 3), site="body.1")], "test")
    with pytest.raises(
        SpaceError,
        match=r"body.1: 5 x 5 regions at sample stride 6 span 27 px, the map is 23 x 30 px. "
        r"Largest sample stride that fits: 5. Asked for by somewhere",
    ):
        check_fits(sites, [of(block(6.0, 5), site="body.1")], "somewhere")
    with pytest.raises(SpaceError, match=r"span 25 px.*fits: 4.5"):
        check_fits(sites, [of(block(5.0, 5), site="body.1")], "test", kernel=5)
    check_fits(sites, [of(block(1.0, 1), site="body.1")], "test")
