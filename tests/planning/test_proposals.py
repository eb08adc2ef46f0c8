"""Sites that are proposed for networks whose right answer is known, and what a plan and a run make of them."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from rfsearch.backbones.small import wei_small
from rfsearch.errors import SpaceError
from rfsearch.inspection import build_network
from rfsearch.ledger import Request
from rfsearch.ledger.manifest import read_manifest
from rfsearch.planning.directory import reopen_run, start_run
from rfsearch.planning.plan import Plan
from rfsearch.planning.proposals import propose_sites
from rfsearch.receptive import receptive_field
from rfsearch.space import read_space
from rfsearch.surgery import set_dilation
from tests.calls import wrong
from tests.planned import planned
from tests.toys import toy_file

SEVEN = (1, 2, 3, 4, 6, 8, 12)
IMAGE = (1, 3, 64, 64)


def conv(in_channels: int, out_channels: int, **options: int) -> nn.Conv2d:
    """A 3x3 convolution that keeps the size of its map but for its stride."""
    return nn.Conv2d(in_channels, out_channels, 3, padding=options.get("dilation", 1), **options)


def chain(*last: nn.Module) -> nn.Sequential:
    """Two convolutions on the image, two more on a map of half its size, and a head."""
    return nn.Sequential(conv(3, 4), conv(4, 4, stride=2), conv(4, 4), conv(4, 4), *last)


class Block(nn.Module):
    """A residual block, whose second convolution is the one that practitioners dilate."""

    def __init__(self, in_channels: int, channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1, self.conv2 = conv(in_channels, channels, stride=stride), conv(channels, channels)
        self.shortcut = nn.Conv2d(in_channels, channels, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        return self.shortcut(x) + self.conv2(self.conv1(x).relu())


class Auxiliary(nn.Module):
    """A network whose auxiliary output comes from a coarser map, and runs last."""

    def __init__(self, body: nn.Module | None = None) -> None:
        super().__init__()
        self.body, self.head = body or chain(), nn.Conv2d(4, 2, 1)
        self.aux = nn.Sequential(conv(4, 4, stride=2), conv(4, 4), nn.Conv2d(4, 2, 1))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = self.body(x)
        return {"out": self.head(x), "aux": self.aux(x)}


class Branches(nn.Module):
    """Branches side by side behind a convolution: a field of 3 px of their map beside one of 25 px."""

    def __init__(self, *dilations: int) -> None:
        super().__init__()
        self.stem, self.before = conv(3, 4, stride=2), conv(4, 4)
        self.branches = nn.ModuleList(conv(4, 4, dilation=d) for d in dilations)
        self.head = nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.before(self.stem(x).relu()).relu()
        return self.head(sum(branch(x) for branch in self.branches))


class UShaped(nn.Module):
    """An encoder of two stages, a decoder that goes up again beside the first one's map, and a 3x3 head.

    The decoder is a part of its own, or one convolution beside the stages.
    """

    def __init__(self, decoder: nn.Module) -> None:
        super().__init__()
        self.stage1, self.stage2 = Block(3, 4, stride=2), Block(4, 4, stride=2)
        self.decoder, self.head = decoder, conv(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        fine = self.stage1(x)
        up = nn.functional.interpolate(self.stage2(fine), scale_factor=2.0)
        return self.head(self.decoder(torch.cat([up, fine], 1)))


class Pyramid(nn.Module):
    """Atrous branches and the convolution that joins them, as DeepLab V3 has them."""

    def __init__(self) -> None:
        super().__init__()
        self.branches = nn.ModuleList(conv(4, 4, dilation=d) for d in (3, 6, 9))
        self.join = conv(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.join(torch.cat([branch(x) for branch in self.branches], 1))


class Joined(nn.Module):
    """A convolution that pads nothing, whose map is added to another one, behind a padded one."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.padded = conv(3, 4, stride=2), conv(4, 4)
        self.bare, self.head = nn.Conv2d(4, 4, 3), nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.padded(self.stem(x))
        return self.head(self.bare(x) + x[..., 1:-1, 1:-1])


def in_and_out() -> UShaped:
    return UShaped(nn.Sequential(conv(8, 4), conv(4, 4)))


def strided() -> nn.Sequential:
    return nn.Sequential(conv(3, 4, stride=2), conv(4, 4, stride=2), nn.Conv2d(4, 2, 1))


def in_parts() -> nn.Sequential:
    parts = {"backbone": nn.Sequential(Block(3, 4, 2), Block(4, 4)), "pyramid": Pyramid(), "head": nn.Conv2d(4, 2, 1)}
    net = nn.Sequential()
    for name, part in parts.items():
        net.add_module(name, part)
    return net


def one_axis() -> nn.Sequential:
    return nn.Sequential(nn.Conv1d(3, 4, 5, 4, 2), nn.Conv1d(4, 4, 3, padding=1), nn.ReLU(), nn.Conv1d(4, 2, 1))


def high_and_narrow() -> nn.Sequential:
    """A field of 31 px and more of the height, behind which a kernel of 1 x 3 px widens the shorter axis alone."""
    stem = nn.Conv2d(3, 4, (31, 3), 2, (15, 1))
    return nn.Sequential(stem, nn.Conv2d(4, 4, (1, 3), padding=(0, 1)), nn.Conv2d(4, 2, 1))


KNOWN: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], tuple[int, ...], tuple[str, ...]]] = {
    "wei": (lambda: wei_small(5), (1, 3, 96, 96), SEVEN, ("conv6",)),
    "1x1 head": (lambda: chain(nn.Conv2d(4, 2, 1)), IMAGE, SEVEN, ("3",)),
    "3x3 head": (lambda: chain(conv(4, 2)), IMAGE, SEVEN, ("3",)),
    "few dilations": (lambda: chain(nn.Conv2d(4, 2, 1)), IMAGE, (1, 2, 4), ("2", "3")),
    "two dilations": (lambda: chain(conv(4, 4), nn.Conv2d(4, 2, 1)), IMAGE, (1, 2), ("2", "3", "4")),
    "another hand default": (lambda: chain(conv(4, 4, dilation=2), nn.Conv2d(4, 2, 1)), IMAGE, (1, 2, 4), ("4",)),
    "longer than its map": (lambda: chain(conv(4, 4, dilation=16), nn.Conv2d(4, 2, 1)), IMAGE, SEVEN, ("3",)),
    "auxiliary head": (Auxiliary, IMAGE, SEVEN, ("body.3",)),
    "dominated branch": (lambda: Branches(12, 1), IMAGE, SEVEN, ("branches.0",)),
    "branches that dominate each other": (lambda: Branches(4, 4), IMAGE, SEVEN, ("before",)),
    "equal branches": (lambda: Branches(1, 1), IMAGE, (1, 2, 4), ("before", "branches.1")),
    "decoder": (in_and_out, IMAGE, SEVEN, ("stage2.conv2",)),
    "decoder, no room below": (in_and_out, (1, 3, 16, 16), (1, 3), ("stage1.conv2",)),
    "flat decoder": (lambda: UShaped(conv(8, 4)), IMAGE, SEVEN, ("stage2.conv2",)),
    "flat decoder, no room below": (lambda: UShaped(conv(8, 4)), (1, 3, 16, 16), (1, 3), ("stage1.conv2",)),
    "pyramid": (in_parts, IMAGE, SEVEN, ("backbone.1.conv2",)),
    "padless": (Joined, IMAGE, SEVEN, ("padded",)),
    "all strided": (strided, IMAGE, SEVEN, ("1",)),
    "1-D": (one_axis, (1, 3, 200), SEVEN, ("1",)),
    "shorter axis": (high_and_narrow, (1, 3, 64, 64), SEVEN, ("1",)),
    "a head alone": (lambda: nn.Sequential(conv(3, 2)), IMAGE, SEVEN, ("0",)),
}


@pytest.mark.parametrize("name", KNOWN)
def test_the_convolution_that_a_practitioner_would_dilate_is_proposed(name: str) -> None:
    make, shape, dilations, sites = KNOWN[name]
    assert propose_sites(make(), shape, dilations).sites == sites


@pytest.mark.parametrize("name", KNOWN)
def test_every_dilation_at_a_proposed_site_changes_the_measured_field(name: str) -> None:
    """Measured on networks that are built and dilated anew, not on a trace whose dilations are replaced."""
    make, shape, dilations, sites = KNOWN[name]
    net = make()
    for site in sites:
        room = (min(n for n in shape[2:]) - 1) // 2
        fields = []
        for dilation in (d for d in dilations if d <= room):
            changed = copy.deepcopy(net)
            set_dilation(changed.get_submodule(site), dilation)  # type: ignore[arg-type]
            fields.append(tuple(axis.local_px for axis in receptive_field(changed, shape).axes))
        assert len(set(fields)) == len(fields) > 1


# On images of 128 x 128 px, whose coarsest maps of 4 x 4 px have no room.
ZOO = {
    "torchvision:resnet18": "features.layer3.1.conv1 features.layer3.1.conv2",
    "torchvision:resnet50": "features.layer3.4.conv2 features.layer3.5.conv2",
    "torchvision:vgg16_bn": "features.features.37 features.features.40",
    "torchvision:mobilenet_v3_large": "features.features.11.block.1.0 features.features.12.block.1.0",
    "torchvision:fcn_resnet50": "backbone.layer4.2.conv2",
    "torchvision:deeplabv3_resnet50": "backbone.layer4.2.conv2",
    "torchvision:lraspp_mobilenet_v3_large": "backbone.11.block.1.0 backbone.12.block.1.0",
    "timm:resnet26d": "net.features.layer3.1.conv2",
    "timm:convnext_atto": "net.features.stages_1.blocks.0.conv_dw net.features.stages_1.blocks.1.conv_dw",
    "timm:hrnet_w18_small": "net.features.stage3.0.branches.2.1.conv1 net.features.stage3.0.branches.2.1.conv2",
    "smp:unet/resnet18": "net.encoder.layer3.1.conv1 net.encoder.layer3.1.conv2",
    "smp:fpn/resnet18": "net.encoder.layer3.1.conv1 net.encoder.layer3.1.conv2",
    "smp:deeplabv3plus/resnet18": "net.encoder.layer4.1.conv1 net.encoder.layer4.1.conv2",
}
QUICK = ("torchvision:resnet18", "smp:deeplabv3plus/resnet18")


@pytest.mark.parametrize("spec", [pytest.param(spec, marks=() if spec in QUICK else pytest.mark.slow) for spec in ZOO])
def test_networks_of_other_packages_get_sites_in_the_last_stage_that_has_room(spec: str) -> None:
    zoo = spec.partition(":")[0]
    pytest.importorskip({"smp": "segmentation_models_pytorch"}.get(zoo, zoo))
    assert propose_sites(build_network(spec, 5, 3), (1, 3, 128, 128), SEVEN).sites == tuple(ZOO[spec].split())


@pytest.mark.slow
def test_a_transformer_has_a_patch_embedding_at_most() -> None:
    pytest.importorskip("timm")
    net = build_network("timm:swin_tiny_patch4_window7_224", 5, 3)
    with pytest.raises(SpaceError, match="patch_embed.* makes patches.*: --site net.features.patch_embed.proj, which"):
        propose_sites(net, (1, 3, 128, 128), SEVEN)


def unpadded() -> nn.Module:
    """A patch embedding, whose map has the size of another one."""

    class Patches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patches, self.head = nn.Conv2d(3, 4, 4, 4), nn.Conv2d(4, 2, 1)
            self.position = nn.Parameter(torch.zeros(1, 4, 16, 16))

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.patches(x) + self.position)

    return Patches()


@pytest.mark.parametrize(
    ("make", "size", "message"),
    [
        (
            lambda: chain(nn.Conv2d(4, 2, 1)),
            4,
            r"0 and 1 more \(dilation 4 does not fit into a map of 4 x 4 px\); .*"
            "Nearest that works: a larger input, for maps larger than the 4 x 4 px that 0 reads",
        ),
        (
            lambda: nn.Sequential(nn.Conv2d(3, 4, 4, 4), nn.Conv2d(4, 2, 1)),
            64,
            r"0 \(a 4x4 kernel that moves by its own length makes patches\); 1 \(1x1 kernel: reads one pixel\)\. "
            "Nearest that works: to name one: --site 0 takes dilations up to 12",
        ),
        (
            lambda: Auxiliary(nn.Conv2d(3, 4, 1)),
            64,
            r"aux\.0 and 1 more \(the output does not depend on it\)\. Nearest that works: another network",
        ),
        (unpadded, 64, "patches .*head .*Nearest that works: another network, such as --backbone wei-small"),
        (lambda: nn.Sequential(nn.Linear(64, 64)), 64, "It has no convolution. Nearest that works: another network"),
        (lambda: conv(3, 2), 64, r"the network itself \(a site is a part of a network, and this is the whole\)"),
    ],
)
def test_where_no_site_can_be_proposed_the_message_says_why_and_what_works(
    make: Callable[[], nn.Module], size: int, message: str
) -> None:
    dilations = (2, 4) if size == 4 else SEVEN
    with pytest.raises(SpaceError, match=f"^no site can be proposed. .*{message}"):
        propose_sites(make(), (1, 3, size, size), dilations)


def test_a_single_dilation_with_other_choices_beside_it_has_sites_too() -> None:
    assert propose_sites(chain(nn.Conv2d(4, 2, 1)), IMAGE, (1,), choices=6).sites == ("3",)
    assert propose_sites(chain(nn.Conv2d(4, 2, 1)), IMAGE, (1,), choices=2).sites == ("2", "3")


def test_a_dilation_that_the_network_refuses_is_not_proposed() -> None:
    net = Joined()
    net.stem, net.padded = nn.Conv2d(3, 4, 1, 2), nn.Conv2d(4, 4, 1)  # what is left must keep the size of its map
    with pytest.raises(SpaceError, match=r"bare \(the network does not take another dilation\)"):
        propose_sites(nn.Sequential(net, nn.Conv2d(2, 2, 1)), IMAGE, SEVEN)


def test_a_network_is_left_as_it_was() -> None:
    net = chain(nn.Conv2d(4, 2, 1)).train()
    before = copy.deepcopy(net.state_dict())
    propose_sites(net, IMAGE, SEVEN)
    assert net.training
    assert repr(net) == repr(chain(nn.Conv2d(4, 2, 1)))
    assert before.keys() == net.state_dict().keys()


OWN = """
from torch import nn

def deep(num_classes, in_channels=3):
    layers = [nn.Conv2d(in_channels, 4, 3, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, num_classes, 1))

def flat(num_classes, in_channels=3):
    return nn.Sequential(nn.Conv2d(in_channels, num_classes, 1))
"""


@pytest.fixture
def own(tmp_path: Path) -> str:
    (tmp_path / "own.py").write_text(OWN)
    return f"{tmp_path / 'own.py'}:"


def asked(tmp_path: Path, **request: object) -> Request:
    """Ask for a search in the toy space, whose dilations are 1, 2, 4 and 7: its images are 48 x 48 px."""
    file = toy_file(tmp_path, budget="60x", steps=2)
    file.write_text(file.read_text().replace("[1, 2, 4]", "[1, 2, 4, 7]"))
    return Request(str(file), strategies=("exhaustive",), gpus_per_trial=0, **request)  # type: ignore[arg-type]


def sentence(plan: Plan) -> str:
    return next((notice for notice in plan.notices if notice.startswith("Sites: ")), "")


def test_a_network_of_ones_own_gets_sites_and_the_dilations_that_fit_them(own: str, tmp_path: Path) -> None:
    """Maps of 12 x 12 px have room for 1, 2, 4 and 5: too many for all combinations at two sites."""
    plan = planned(asked(tmp_path, backbone=f"{own}deep"), tmp_path)
    assert plan.space.sites == ("4",)
    assert plan.space.dilations == (1, 2, 4, 5)
    assert any(
        said.startswith("Left out") and "dilations 7; the largest that fits, 5, is tried instead." in said
        for said in plan.notices
    )
    assert sentence(plan) == (
        "Sites: 4, the last convolution before the head on the coarsest map with room to dilate (12 x 12 px). Every "
        f"dilation gives the output a receptive field of its own. Others: rfsearch sites {own}deep --input 3x48x48, "
        "then --site NAME."
    )


def test_sites_that_are_named_are_not_replaced(own: str, tmp_path: Path) -> None:
    plan = planned(asked(tmp_path, backbone=f"{own}deep", sites=("2",)), tmp_path)
    assert (plan.space.sites, sentence(plan)) == (("2",), "")
    with pytest.raises(SpaceError, match="'conv9' matches no convolution"):
        planned(asked(tmp_path, backbone=f"{own}deep", sites=("conv9",)), tmp_path)


def test_a_network_that_has_the_sites_of_the_space_keeps_them(tmp_path: Path) -> None:
    request = asked(tmp_path, backbone="tests.toys:raising_net")
    plan = planned(request, tmp_path)
    assert (plan.space.sites, sentence(plan)) == (("conv6",), "")


def test_a_space_whose_sites_are_not_in_its_own_network_is_an_error(own: str, tmp_path: Path) -> None:
    request = asked(tmp_path)
    file = Path(request.space)
    file.write_text(file.read_text().replace("wei-small", f"{own}deep"))
    with pytest.raises(SpaceError, match="'conv6' matches no convolution"):
        planned(request, tmp_path)


def without_sites(request: Request) -> Request:
    file = Path(request.space)
    file.write_text(re.sub("sites = .*\n", "", file.read_text()))
    return request


@pytest.mark.parametrize("backbone", [None, "deep"])
def test_a_resumed_run_has_the_sites_that_were_proposed(backbone: str | None, own: str, tmp_path: Path) -> None:
    request = without_sites(asked(tmp_path, backbone=backbone and f"{own}{backbone}"))
    assert read_space(Path(request.space), None).sites == ()
    plan = planned(request, tmp_path)
    expected = ("4",) if backbone else ("conv6",)
    assert plan.space.sites == expected
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    start_run(plan, run_dir, "rfsearch run", 1, "cpu")
    manifest = read_manifest(run_dir)
    assert manifest.space.sites == expected
    assert sentence(plan) in manifest.notices
    again = reopen_run(run_dir, torch.device("cpu"))
    assert again.space == plan.space
    assert again.candidates == plan.candidates
    assert sentence(again) == ""


def test_a_network_without_a_spatial_convolution_is_one_message(call, own: str, tmp_path: Path) -> None:
    told = call("plan", "--space", toy_file(tmp_path), "--backbone", f"{own}flat")
    wrong(told, f"backbone '{own}flat': no site can be proposed", "reads one pixel", "--backbone wei-small")
