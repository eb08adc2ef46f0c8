"""The FlowNets: sizes, the published number of weights, receptive fields, what is joined where, and that they learn."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from rfsearch import plugins
from rfsearch.backbones import flownet
from rfsearch.errors import ModelError
from rfsearch.layers import LSDFN, Correlation, SampleStride
from rfsearch.receptive import receptive_field, receptive_field_at
from rfsearch.surgery import match_sites, set_dilation

NAMES = [name for name in plugins.names("backbones") if name.startswith("flownet")]
SMALL = [name for name in NAMES if name.endswith("small")]
PUBLISHED = [name for name in NAMES if name not in SMALL]


def weights(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


def test_every_network_of_table_6_is_there_in_both_sizes():
    assert len(PUBLISHED) == 7
    reaches = {"flownet-c-near-small", "flownet-c-wide-small"}
    assert {f"{name}-small" for name in PUBLISHED} | reaches == set(SMALL)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_networks_give_five_scales_from_a_quarter_to_a_64th(name):
    with torch.device("meta"):
        net = plugins.backbone(name)(2, 6)
    for part in net.modules():
        if isinstance(part, SampleStride):
            part.gamma = nn.Parameter(torch.tensor(2.0))  # sizes of buffers depend on it
    fields = net.eval()(torch.zeros(2, 6, 384, 512, device="meta"))
    assert [tuple(field.shape) for field in fields] == [(2, 2, 384 // s, 512 // s) for s in (4, 8, 16, 32, 64)]


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("size", [(96, 96), (65, 83)])
def test_small_networks_give_a_quarter_and_an_eighth(name, size):
    with torch.no_grad():
        fields = plugins.backbone(name)(2, 6).eval()(torch.zeros(1, 6, *size))
    assert [tuple(field.shape[2:]) for field in fields] == [tuple(-(-side // s) for side in size) for s in (4, 8)]


def test_the_published_number_of_weights():
    """39,175,298 of FlowNetC, 38.7 million of FlowNetS, in the networks that FlowNet 2's authors released."""
    with torch.device("meta"):
        assert weights(flownet.flownet_c(2, 6)) == 39_175_298
        assert round(weights(flownet.flownet_s(2, 6)) / 1e6, 1) == 38.7
        thin, full = weights(flownet.flownet_slim(2, 6)), weights(flownet.flownet_s(2, 6))
    assert thin / full == pytest.approx((3 / 8) ** 2, rel=0.01)


def test_layers_are_those_of_the_papers_figure():
    with torch.device("meta"):
        net = flownet.flownet_c(2, 6)
    convolutions = {
        name.removesuffix(".conv"): (part.in_channels, part.out_channels, part.kernel_size[0], part.stride[0])
        for name, part in net.named_modules()
        if isinstance(part, nn.Conv2d) and name.endswith(".conv")
    }
    assert convolutions == {
        "conv1": (3, 64, 7, 2),
        "conv2": (64, 128, 5, 2),
        "conv3": (128, 256, 5, 2),
        "conv_redir": (256, 32, 1, 1),
        "conv3_1": (441 + 32, 256, 3, 1),
        "conv4": (256, 512, 3, 2),
        "conv4_1": (512, 512, 3, 1),
        "conv5": (512, 512, 3, 2),
        "conv5_1": (512, 512, 3, 1),
        "conv6": (512, 1024, 3, 2),
        "conv6_1": (1024, 1024, 3, 1),
    }
    up = [(part.conv.in_channels, part.conv.out_channels) for part in net.deconv]
    assert up == [(1024, 512), (1026, 256), (770, 128), (386, 64)]
    assert [part.in_channels for part in net.predict] == [1024, 1026, 770, 386, 194]
    assert (net.correlation.reach, net.correlation.stride) == (20, 2)


@pytest.mark.parametrize(("name", "regions"), [("flownet-s-lsdfn", 7), ("flownet-c-lsdfn", 7), ("flownet-c-lsdfn9", 9)])
def test_the_block_stands_behind_the_third_convolution_and_is_read_by_two(name, regions):
    with torch.device("meta"):
        net = plugins.backbone(name)(2, 6)
    (block,) = (part for part in net.modules() if isinstance(part, LSDFN))
    assert (block.s, block.in_channels, block.out_channels, block.features) == (regions, 256, 24, 128)
    assert net.conv4.conv.in_channels == 256 + 24
    assert net.predict[3].in_channels == 256 + 24 + 128 + 2  # at conv3_1's size, on the way up


@pytest.mark.parametrize("name", [name for name in SMALL if "lsdfn" in name])
def test_a_new_block_averages_its_features(name):
    net = plugins.backbone(name)(2, 6).eval()
    block = next(part for part in net.modules() if isinstance(part, LSDFN))
    assert block.stride.gamma.item() == 2
    for branch in (block.channel_kernels, block.tap_kernels, block.sampling_attention, block.position_attention):
        assert not branch.weight.any()


@pytest.mark.parametrize("dilation", [1, 5])
@pytest.mark.parametrize(("name", "before", "around"), [("flownet-s-small", 33, 0), ("flownet-c-small", 33, 2 * 4 * 4)])
def test_the_dilation_of_the_last_convolution_sets_the_field(name, before, around, dilation):
    """5 + 8 + 8 + 8 px up to conv3_1, 8 more at conv4; the correlation reads its reach to either side, 4 px a unit."""
    net, shape = plugins.backbone(name)(2, 6), (1, 6, 128, 128)
    assert match_sites(net, ["conv4_1.conv"]) == ("conv4_1.conv",)
    set_dilation(net.conv4_1.conv, dilation)
    assert receptive_field_at(net, shape, "conv4").px == before + around
    assert receptive_field_at(net, shape, "conv4_1").px == before + around + 2 * 8 * dilation
    coarse = before + around + 2 * 8 * dilation
    assert receptive_field(net, shape).px > coarse


@pytest.mark.parametrize("name", [name for name in NAMES if "-c" in name])
def test_images_that_are_no_pair_are_refused(name):
    with pytest.raises(ModelError, match=r"an even number of channels, 6 for RGB, as --input 6x96x96. Got 3"):
        plugins.backbone(name)(2, 3)


def test_the_two_images_share_the_weights_of_their_features():
    net = flownet.flownet_c_small(2, 6).eval()
    seen = []
    net.correlation.register_forward_hook(lambda module, maps, output: seen.append(maps))
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        net(torch.cat([image, image], dim=1))
    first, second = seen[0]
    assert torch.equal(first, second)


def test_the_way_up_joins_the_map_of_the_first_image():
    net = flownet.FlowNet(replace(flownet.SMALL, skips=("conv2",)), 2, 6, correlated=True).eval()
    joined = []
    net.predict[1].register_forward_hook(lambda module, maps, output: joined.append(maps[0]))
    images = torch.randn(1, 6, 32, 32)
    with torch.no_grad():
        net(images)
        expected = net.conv2(net.conv1(images[:, :3]))
    torch.testing.assert_close(joined[0][:, : expected.shape[1]], expected)


@pytest.mark.parametrize("make", [flownet.flownet_s_small, flownet.flownet_c_small])
def test_it_learns(make):
    """How far a texture has moved, in forty steps."""
    torch.manual_seed(0)
    net = make(2, 6)
    shifts = torch.tensor([[4, 0], [-4, 0], [0, 4], [0, -4], [4, 4], [-4, -4]])
    optimiser = torch.optim.AdamW(net.parameters(), lr=3e-3)
    errors = []
    for _ in range(40):
        first = nn.functional.interpolate(torch.randn(len(shifts), 3, 12, 12), size=(48, 48), mode="bicubic")
        second = torch.stack([part.roll((int(v), int(u)), (1, 2)) for part, (u, v) in zip(first, shifts, strict=True)])
        optimiser.zero_grad()
        field = net(torch.cat([first, second], dim=1))[0]
        error = torch.linalg.vector_norm(field - shifts[:, :, None, None], dim=1).mean()
        error.backward()
        optimiser.step()
        errors.append(error.item())
    assert errors[-1] < 0.6 * errors[0]


@pytest.mark.parametrize(("name", "reach", "places"), [("near", 2, 25), ("wide", 8, 81)])
def test_correlations_of_another_reach_are_networks_of_their_own(name, reach, places):
    net = plugins.backbone(f"flownet-c-{name}-small")(2, 6)
    (correlation,) = (part for part in net.modules() if isinstance(part, Correlation))
    assert (correlation.reach, correlation.side**2) == (reach, places)
    assert net.conv3_1.conv.in_channels == places + 8
