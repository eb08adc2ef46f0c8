"""R-FCN and CoupleNet: pooling against loops, hard examples, boxes, and the block between features and head."""

import pytest
import torch
from torch import nn

from rfsearch import plugins
from rfsearch.backbones import regions as regions_of
from rfsearch.backbones import rfcn
from rfsearch.detector import Maps, Objects
from rfsearch.errors import ModelError
from rfsearch.layers import LSDFN
from rfsearch.layers.lsdfn_ablated import AblatedLSDFN
from rfsearch.testing import DETECTOR_CHECKS
from tests.references import lsdfn_loops, position_sensitive_loops

SMALL = ("rfcn-small", "rfcn-lsdfn-small", "couplenet-small")


def regions(count=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(count, 2, generator=generator, dtype=torch.float64) * 30
    sides = 4 + 26 * torch.rand(count, 2, generator=generator, dtype=torch.float64)
    return torch.cat([corners, corners + sides], dim=1)


def head(quantised, classes=2):
    torch.manual_seed(0)
    features = nn.Conv2d(3, 5, 1)
    return rfcn.Rfcn(classes, features, 5, 4, hard=4, quantised=quantised).double()


@pytest.mark.parametrize("quantised", [False, True])
def test_position_sensitive_pooling_is_that_of_loops(quantised):
    net, boxes = head(quantised), regions()
    scores, shifts = torch.randn(1, 3 * 49, 12, 14).double(), torch.randn(1, 4 * 49, 12, 14).double()
    maps = Maps({"scores": scores, "shifts": shifts}, scores, (48, 56))
    pool = position_sensitive_loops.averaged if quantised else position_sensitive_loops.sampled
    for got, plane in zip(net.pooled(maps, [boxes]), (scores, shifts), strict=True):
        expected = [pool(plane[0].tolist(), box, 7, 1 / 4) for box in boxes.tolist()]
        torch.testing.assert_close(got, torch.tensor(expected, dtype=torch.float64), atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("quantised", [False, True])
def test_gradients_of_position_sensitive_pooling_are_the_differences(quantised):
    net, boxes = head(quantised), regions(2)

    def pooled(scores, shifts):
        return net.pooled(Maps({"scores": scores, "shifts": shifts}, scores, (20, 24)), [boxes])

    scores = torch.randn(1, 3 * 49, 5, 6, dtype=torch.float64, requires_grad=True)
    shifts = torch.randn(1, 4 * 49, 5, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(pooled, (scores, shifts), fast_mode=True)


def test_only_the_hardest_regions_are_learned_from():
    net = head(False)
    boxes, images = regions(9), torch.randn(1, 3, 48, 56).double()
    objects = [Objects(boxes[:1], torch.tensor([1]), boxes[1:])]
    maps = net.maps(images)
    logits, shifts = net.pooled(maps, [torch.cat([boxes[1:], boxes[:1]])])
    labels, wanted = regions_of.matched(torch.cat([boxes[1:], boxes[:1]]), objects[0])
    losses = nn.functional.cross_entropy(logits, labels, reduction="none")
    losses = losses + (labels > 0) * nn.functional.smooth_l1_loss(shifts, wanted, reduction="none").sum(1)
    expected = losses.sort(descending=True).values[:4].mean()
    torch.testing.assert_close(net.find_loss(maps, objects), expected)


def test_shifts_lead_from_a_region_to_its_object_and_back():
    boxes, others = regions(5), regions(5, seed=1)
    torch.testing.assert_close(regions_of.shifted(boxes, regions_of.shifts_between(boxes, others)), others)


def test_regions_of_an_object_are_those_that_cover_half_of_it():
    objects = Objects(torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([2]), torch.zeros(0, 4))
    labels, wanted = regions_of.matched(torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 20.1], [20, 20, 30, 30]]), objects)
    assert labels.tolist() == [3, 0, 0]
    assert not wanted[1:].any()


def test_without_regions_the_message_says_how_to_get_some():
    net = rfcn.rfcn_small(2).train()
    nothing = Objects(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0, 4))
    with pytest.raises(ModelError, match=r"Set proposals = 100.*\[task\]"):
        net(torch.zeros(1, 3, 32, 32)).loss([nothing])


def test_the_global_branch_sees_a_region_twice_as_wide():
    """Outside of the region and its double nothing changes the scores; between the two it does."""
    torch.manual_seed(0)
    branch = rfcn.GlobalBranch(4, 4, 3, 1 / 4)
    box = torch.tensor([[24.0, 24, 40, 40]])
    plane = torch.rand(1, 4, 16, 16)
    before = branch(plane, [box])
    far, near = plane.clone(), plane.clone()
    far[..., :3, :] += 1  # 12 px: the doubled region begins at 16, its samples half a unit further out at most
    near[..., 4, 4] += 1
    torch.testing.assert_close(branch(far, [box]), before)
    assert not torch.allclose(branch(near, [box]), before)


@pytest.mark.parametrize(("s", "gamma"), [(1, 1), (3, 1), (3, 2), (5, 1)])
def test_a_block_with_nothing_left_out_is_the_block(s, gamma):
    torch.manual_seed(0)
    whole = LSDFN(6, 3, features=4, s=s, k=3, gamma=float(gamma))
    for parameter in whole.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter, std=0.3)
    other = AblatedLSDFN(6, 3, features=4, s=s, k=3, gamma=gamma)
    other.load_state_dict({k: v for k, v in whole.state_dict().items() if not k.startswith("stride")})
    x = torch.randn(2, 6, 9, 7)
    torch.testing.assert_close(other(x), whole(x), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("residual", [True, False])
def test_without_attention_the_largest_of_the_filtered_regions_is_taken(residual):
    torch.manual_seed(0)
    block = AblatedLSDFN(3, 2, features=2, s=3, k=3, gamma=2, attention=False, residual=residual).double()
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.5)
    x = torch.randn(1, 3, 5, 6).double()
    features = block.feature(x)[0].tolist()
    u = block.channel_kernels(x).unflatten(1, (2, 2))[0]  # C' x C x H x W
    v = block.tap_kernels(x).unflatten(1, (9, 2))[0]  # k^2 x C' x H x W
    one = 0.5 if residual else 0.0  # 1 / C
    got = block(x)[0].detach()
    u, v = u.detach(), v.detach()
    for out in range(2):
        for row in range(5):
            for column in range(6):
                regions = []
                for a in (-2, 0, 2):
                    for b in (-2, 0, 2):
                        total = 0.0
                        for tap in range(9):
                            dy, dx = tap // 3 - 1, tap % 3 - 1
                            for c in range(2):
                                weight = float(v[tap, out, row, column])
                                weight += float(u[out, c, row, column]) + one if tap == 4 else 0.0
                                total += weight * lsdfn_loops.read(features[c], row + a + dy, column + b + dx)
                        regions.append(total)
                assert float(got[out, row, column]) == pytest.approx(max(regions), abs=1e-9)


@pytest.mark.parametrize("check", DETECTOR_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", SMALL)
def test_small_networks_pass_the_suite_of_detectors(check, name):
    check(plugins.backbone(name))


@pytest.mark.parametrize("name", ["rfcn-resnet50", "couplenet-resnet101"])
def test_large_networks_have_a_stride_of_16_and_seven_bins(name):
    with torch.device("meta"):
        net = plugins.backbone(name)(20)
    maps = net.eval().maps(torch.zeros(1, 3, 64, 96, device="meta"))
    assert maps.out.shape == (1, 21 * 49, 4, 6)
    assert maps.named["shifts"].shape == (1, 4 * 49, 4, 6)


def test_networks_of_the_ablations_have_names():
    net = plugins.backbone("rfsearch.backbones.rfcn:small_s5_gamma2_dynamic32_unattended")(4)
    (block,) = [module for module in net.modules() if isinstance(module, AblatedLSDFN)]
    assert (block.s, block.gamma, block.out_channels) == (5, 2, 8)
    assert net.score.in_channels == 64 + 8
    with pytest.raises(ModelError, match="has no callable 'small_s7'"):
        plugins.backbone("rfsearch.backbones.rfcn:small_s7")
