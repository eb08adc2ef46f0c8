"""Dilations that a network cannot take are tried on shapes, and said."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from rfsearch.cli.app import app
from rfsearch.errors import SpaceError
from rfsearch.inspection import list_site_fields
from rfsearch.ledger import Request
from rfsearch.surgery.refused import refused_dilations
from tests.planned import planned
from tests.toys import toy_file

SHAPE = (1, 3, 32, 32)
NETS = '''
import torch
from torch import nn

class Meeting(nn.Module):
    """Unpadded and strided: its map meets one that is twice halved by pooling."""
    def __init__(self, classes=4, channels=3):
        super().__init__()
        self.stem = nn.Conv2d(channels, 4, 3, padding=1)
        self.patches = nn.Conv2d(4, 4, 2, stride=2)
        self.spare = nn.Conv2d(4, 4, 3, padding=1)
        self.free = nn.Conv2d(4, 4, 3)
        self.head = nn.Conv2d(4, classes, 1)

    def forward(self, image):
        x = self.stem(image)
        self.spare(x)
        x = self.patches(x) + nn.functional.avg_pool2d(x, 2)
        return self.head(self.free(x))
'''


@pytest.fixture
def net(tmp_path: Path) -> Path:
    (tmp_path / "nets.py").write_text(NETS)
    return tmp_path / "nets.py"


def made(net: Path) -> nn.Module:
    space: dict[str, type[nn.Module]] = {}
    exec(net.read_text(), space)
    return space["Meeting"]()


def test_only_dilations_that_change_a_map_which_meets_another_are_refused(net: Path) -> None:
    model = made(net)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    wanted = {"stem": [1, 2, 8], "patches": [1, 2, 3], "free": [1, 2]}
    refused = refused_dilations(model, SHAPE, wanted)
    assert {site: list(reasons) for site, reasons in refused.items()} == {"patches": [2, 3]}
    assert refused["patches"][2].startswith("it gives a map of 15 x 15 instead of 16 x 16 px")
    assert model.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert [(conv.dilation, conv.padding) for conv in (model.stem, model.patches)] == [
        ((1, 1), (1, 1)),
        ((1, 1), (0, 0)),
    ]


def test_a_network_that_reads_values_is_tried_on_values() -> None:
    class Reading(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 3)
            self.margin = nn.Parameter(torch.tensor([1.0]), requires_grad=False)

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            cut = int(self.margin.item())
            return self.conv(image) + image[..., cut:-cut, cut:-cut]

    assert list(refused_dilations(Reading(), SHAPE, {"conv": [1, 2, 3]})["conv"]) == [2, 3]


def test_a_container_is_tried_as_a_whole(net: Path) -> None:
    model = nn.Sequential(nn.Sequential(nn.Conv2d(3, 3, 3), nn.Conv2d(3, 3, 3)), nn.AvgPool2d(28), nn.Flatten())
    assert list(refused_dilations(model, SHAPE, {"0": [1, 2]})["0"]) == [2]


def test_sites_says_why_a_convolution_is_no_site(net: Path) -> None:
    rows = {site.row.path: site for site in list_site_fields(made(net), SHAPE)}
    assert rows["patches"].row.why_not.startswith("the network takes no other dilation (at 2 it gives a map of 15 x 15")
    assert rows["spare"].row.why_not == "the output does not depend on it"
    assert not rows["patches"].by_dilation
    assert list(rows["free"].by_dilation) == [1, 2, 3, 4, 6]
    assert rows["stem"].row.why_not == ""
    printed = CliRunner().invoke(app, ["sites", f"{net}:Meeting", "--input", "3x32x32", "--json"])
    told = {row["site"]: row for row in json.loads(printed.output)}
    assert list(told["patches"]["refused"]) == ["2", "3", "4", "6", "8", "12", "16", "24"]
    table = CliRunner().invoke(app, ["sites", f"{net}:Meeting", "--input", "3x32x32"]).output
    assert "1 more may not be changed: the network takes no other dilation." in table


def test_a_plan_leaves_out_what_the_network_cannot_take(net: Path) -> None:
    backbone = f"{net}:Meeting"
    space = str(toy_file(net.parent))
    request = Request(space=space, backbone=backbone, sites=("patches", "spare"), strategies=("exhaustive",))
    the_plan = planned(request, net.parent)
    assert the_plan.space.dilations == (1,)
    assert the_plan.space.sites == ("patches",)
    assert "Left out, since the output does not depend on them: spare." in the_plan.notices
    assert any("Left out for patches: dilations 2, 4" in said for said in the_plan.notices)
    asked = Request(
        space=space,
        backbone=backbone,
        sites=("patches",),
        candidates=('{"patches": {"dilation": 2, "f": 1.0, "learned": false}}',),
    )
    with pytest.raises(SpaceError, match=r"patches: dilation 2 does not fit into the network: it gives a map of"):
        planned(asked, net.parent)
