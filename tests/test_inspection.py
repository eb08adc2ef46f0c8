"""What `rf` and `sites` tell of a model, and what a plan makes of a network that its space was not written for."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch import Tensor, nn
from torch.nn.utils import weight_norm as old_weight_norm
from torch.nn.utils.parametrizations import orthogonal, spectral_norm, weight_norm

from rfsearch import inspection, plugins
from rfsearch.cli import main
from rfsearch.errors import ModelError, SpaceError
from rfsearch.ledger import Request
from rfsearch.planning.plan import Plan, forecast_rows
from rfsearch.receptive import receptive_field
from rfsearch.surgery import set_dilation
from tests.planned import planned
from tests.toys import toy_file

NETS = '''
import torch
from torch import nn


class Net(nn.Module):
    """Grouped, asymmetric and reflect-padded convolutions and a residual branch."""

    def __init__(self, num_classes, in_channels):
        super().__init__()
        self.stem = nn.Conv2d(in_channels, 8, 3, 2, 1)
        self.grouped = nn.Conv2d(8, 8, 3, padding=1, groups=4, padding_mode="reflect")
        self.flat = nn.Conv2d(8, 8, (1, 5), padding=(0, 2))
        self.out = nn.Conv2d(8, num_classes, 1)

    def forward(self, x):
        x = self.stem(x).relu()
        return self.out((x + self.flat(self.grouped(x).relu())).relu())


class Pooled(nn.Module):
    def __init__(self, num_classes, in_channels):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, num_classes, 3, padding=1)

    def forward(self, x):
        return self.conv(x).mean((2, 3))


class OneByOne(nn.Conv2d):
    def __init__(self, num_classes, in_channels):
        super().__init__(in_channels, num_classes, 1)


class Inverse(Net):
    def forward(self, x):
        return torch.linalg.inv(super().forward(x))
'''


@pytest.fixture
def nets(tmp_path: Path) -> Path:
    path = tmp_path / "nets.py"
    path.write_text(NETS)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Squares of 4 and of 20 px on 64 x 64 images."""
    root = tmp_path / "data"
    for split, count in (("train", 8), ("val", 4), ("test", 4)):
        (root / split / "images").mkdir(parents=True)
        (root / split / "labels").mkdir()
        for i in range(count):
            label = np.zeros((64, 64), dtype=np.uint8)
            label[5:9, 10:14] = 1
            label[30:50, 20:40] = 2
            Image.fromarray(np.stack([label * 100] * 3, axis=2)).save(root / split / "images" / f"{i}.png")
            Image.fromarray(label).save(root / split / "labels" / f"{i}.png")
    (root / "classes.txt").write_text("background\nsmall\nlarge\n")
    return root


def call(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str, str]:
    import sys
    from unittest import mock

    with mock.patch.object(sys, "argv", ["rfsearch", *args]), pytest.raises(SystemExit) as end:
        main()
    told = capsys.readouterr()
    return int(end.value.code or 0), told.out, told.err


@pytest.mark.slow
def test_sites_tells_what_each_dilation_really_gives(nets: Path) -> None:
    model = inspection.build_network(f"{nets}:Net", 5, 3)
    found = {site.row.path: site for site in inspection.list_site_fields(model, (1, 3, 64, 64))}
    assert found["out"].row.why_not
    assert not found["out"].by_dilation
    for path in ("stem", "grouped", "flat"):
        assert set(found[path].by_dilation) <= set(inspection.DILATIONS)
        for dilation, (whole, _) in found[path].by_dilation.items():
            changed = inspection.build_network(f"{nets}:Net", 5, 3)
            set_dilation(changed.get_submodule(path), dilation)
            assert whole.px == receptive_field(changed, (1, 3, 64, 64)).px, (path, dilation)
    # (3 - 1) 2 d behind the stem's 3 px, next to (5 - 1) 2
    assert {d: site.local_px for d, (_, site) in found["grouped"].by_dilation.items()} == {
        d: 3 + 4 * d for d in (1, 2, 3, 4, 6, 8, 12)
    }


def test_a_signal_and_its_sites() -> None:
    """A temporal network: dilations 1, 2, 4 of three taps."""
    model = nn.Sequential(*[nn.Conv1d(2 if d == 1 else 4, 4, 3, padding=d, dilation=d) for d in (1, 2, 4)])
    found = inspection.inspect(model, (1, 2, 200))
    assert [layer.field.px for layer in found.layers] == [3, 7, 15]
    assert found.effective is not None
    assert found.effective.size_px <= 15
    assert [site.row.dilation for site in inspection.list_site_fields(model, (1, 2, 200))] == [(1,), (2,), (4,)]
    assert inspection.list_site_fields(model, (1, 2, 200))[2].by_dilation[8][0].px == 23


def test_rf_writes_pictures_and_holds_objects_against_the_field(
    nets: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    space = tmp_path / "here.toml"
    space.write_text(
        (Path(plugins.shipped("search_spaces")) / "folder.toml").read_text().replace("[128, 128]", "[64, 64]")
    )
    out = tmp_path / "out"
    code, said, _ = call(
        capsys, "rf", f"{nets}:Net", "--data", str(folder), "--space", str(space), "--out", str(out), "--json"
    )
    body = json.loads(said)
    assert code == 0
    # 3 px of the stem, 4 of the grouped convolution, along the width 8 more of the flat one
    assert [axis["px"] for axis in body["axes"]] == [7, 15]
    assert (body["larger"], body["smaller"]) == (["large"], ["small"])
    assert body["objects"]["small"]["median"] == 4
    assert body["objects"]["large"]["median"] == 20
    assert {path.name for path in out.iterdir()} == {"erf.png", "layers.csv", "rf.html"}
    assert Image.open(out / "erf.png").size[0] > 100
    page = (out / "rf.html").read_text()
    assert "theoretical field, 15 px" in page
    assert "https://" not in page.split("<body>")[1].split("<script")[0]
    assert (out / "layers.csv").read_text().splitlines()[1].startswith("stem,Conv2d,3x3,2x2,1x1,8x32x32,3,False,2,0")


@pytest.mark.parametrize("command", ["rf", "sites"])
def test_set_says_how_the_images_are_read(
    command: str, nets: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Label 11 is no class: a folder with it is refused until somebody says that it is to be ignored."""
    for label in folder.glob("*/labels/*.png"):
        pixels = np.array(Image.open(label))
        pixels[:2] = 11
        Image.fromarray(pixels).save(label)
    more = ["--no-effective", "--out", str(tmp_path / "o")] if command == "rf" else []
    words = [command, f"{nets}:Net", "--data", str(folder), *more, "--json", "--set", "image_size=[64,64]"]
    code, _, err = call(capsys, *words)
    assert (code, "11" in err) == (2, True)
    code, said, err = call(capsys, *words, "--set", "data.ignore_index=11")
    assert code == 0, err
    body = json.loads(said)
    if command == "rf":
        assert body["input"] == [3, 64, 64]
        assert body["objects"]["small"]["median"] == 4
    else:
        assert body[0]["map"] == [64, 64]


def test_rf_prints_a_table(nets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, said, _ = call(capsys, "rf", f"{nets}:Net", "--input", "3x64x64", "--out", str(tmp_path / "o"), "--all")
    assert code == 0
    for expected in ("stem", "Conv2d 3x3 s2", "7 x 15", "A unit of the output reads 7 x 15 px"):
        assert expected in said
    code, said, _ = call(capsys, "sites", f"{nets}:Net", "--input", "3x64x64", "--all")
    assert code == 0
    assert "1x1 kernel" in said
    assert "3x3 g4" in said
    assert "more may not be changed" not in said  # they are all listed
    code, said, _ = call(capsys, "sites", f"{nets}:Net", "--input", "3x64x64")
    assert "more may not be changed" in said
    assert "--input" not in said


@pytest.mark.parametrize("command", ["rf", "sites"])
def test_the_size_of_an_input_that_nobody_gave_is_said(
    command: str, nets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["--no-effective", "--out", str(tmp_path / "o")] if command == "rf" else []
    code, said, _ = call(capsys, command, f"{nets}:Net", *more)
    assert code == 0
    assert "Measured on an input of 3x224x224; --input has others." in said


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["rf", "wei-smal"], "Did you mean 'wei-small'"),
        (["rf", "wei-small", "--at", "conv66"], "Did you mean 'conv6'"),
        (["rf", "wei-small", "--input", "3x0x64"], "--input is channels x axes"),
        (["rf", "torchvision:resnet5"], "resnet50"),
        (["rf", "wei-small", "--set", "data.ignore_index=11"], "--set goes with --data or --space"),
        (["sites", "NETS:OneByOne"], "no site.*reads one pixel"),
        (["rf", "NETS:Inverse"], "aten::linalg_inv.*register"),
        (["plan", "--space", "helen", "--backbone", "NETS:Pooled", "--site", "conv"], "logits of"),
        (["plan", "--space", "helen", "--backbone", "NETS:Net", "--site", "groupd"], "Did you mean 'grouped'"),
        (["plan", "--space", "helen", "--backbone", "NETS:Inverse", "--site", "grouped"], "aten::linalg_inv"),
    ],
)
def test_wrong_requests_get_one_message(
    args: list[str], message: str, nets: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import re

    code, _, err = call(capsys, *[arg.replace("NETS", str(nets)) for arg in args])
    assert code == 2
    assert re.search(f"(?s){message}", err), err
    assert "Traceback" not in err


def a_plan(**request: object) -> Plan:
    asked = Request(**request)  # type: ignore[arg-type]
    return planned(asked, Path("unused"))


def test_dilations_that_do_not_fit_another_network_are_left_out(nets: Path) -> None:
    """The map of `grouped` is 48 x 48 px, that of `deep` 6 x 6: largest dilations 23 and 2."""
    deep = (
        NETS
        + """

class Deep(Net):
    def __init__(self, num_classes, in_channels):
        super().__init__(num_classes, in_channels)
        conv = nn.Conv2d(8, 8, 3, padding=2, dilation=2)
        self.grouped = nn.Sequential(nn.AvgPool2d(8), conv, nn.Upsample(scale_factor=8))
"""
    )
    nets.write_text(deep)
    plan = a_plan(space="helen", backbone=f"{nets}:Deep", sites=("grouped.1",), strategies=("exhaustive",))
    assert plan.space.dilations == (1, 2)
    assert plan.space.reference == 2
    assert any("(6 x 6 px): dilations 3, 4, 6, 8, 11; the largest that fits is 2." in said for said in plan.notices)
    assert any("dilation 2, the network as it stands" in said for said in plan.notices)
    plan = a_plan(space="helen", backbone=f"{nets}:Net", sites=("grouped",), strategies=("exhaustive",))
    assert plan.space.dilations == (1, 2, 3, 4, 6, 8, 11)
    assert plan.space.reference == 1


@pytest.mark.slow
def test_a_plan_collapses_what_cannot_be_told_apart(nets: Path, tmp_path: Path) -> None:
    """Behind a window of 95 px every unit of a 48 px image that is dilated on sees all of it, whatever the dilation."""
    space = toy_file(tmp_path)
    space.write_text(space.read_text().replace("[1, 2, 4]", "[1, 2, 3, 4, 6, 8, 11]"))
    nets.write_text(
        NETS
        + """

class Wide(Net):
    def __init__(self, num_classes, in_channels):
        super().__init__(num_classes, in_channels)
        self.stem = nn.Sequential(nn.Conv2d(in_channels, 8, 1), nn.AvgPool2d(95, 1, 47), nn.AvgPool2d(2))
"""
    )
    plan = a_plan(space=str(space), backbone=f"{nets}:Wide", sites=("grouped",), strategies=("exhaustive",))
    rows = forecast_rows(plan)
    assert len(rows) == 1
    assert len(rows[0].alike) == 6
    apart = a_plan(space=str(space), backbone=f"{nets}:Net", sites=("grouped",), strategies=("exhaustive",))
    rows = forecast_rows(apart)
    assert [row.alike for row in rows] == [()] * 7
    shares = [row.objects for row in rows]
    assert shares == sorted(shares)
    sizes = np.concatenate(list(apart.sizes.px.values()))
    assert shares[2] == pytest.approx((sizes <= rows[2].rf_px).mean())


def test_another_branch_that_decides_the_field_collapses_nothing() -> None:
    """DeepLab's first branch is smaller than its last: the output's field is the same for every dilation of it."""
    plan = a_plan(space="helen", backbone="deeplab-small", sites=("branches.0",), strategies=("exhaustive",))
    rows = forecast_rows(plan)
    assert len(rows) > 3
    assert len({row.rf_px for row in rows[:4]}) == 1


def test_a_network_that_returns_something_else_is_refused_before_training() -> None:
    with pytest.raises(SpaceError, match="conv6"):
        a_plan(space="helen", backbone="deeplab-small", sites=("conv6",))

    class Unnamed(nn.Module):
        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"scores": x}

    with pytest.raises(ModelError, match="entry 'out' or 'logits' of a dict or object"):
        inspection.inspect(Unnamed(), (1, 3, 8, 8))


@pytest.mark.parametrize("normalise", [weight_norm, orthogonal, spectral_norm, old_weight_norm])
def test_layers_whose_weight_is_computed_are_reported_as_what_they_are(normalise: Callable[..., nn.Module]) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 5, 2, 2), nn.Conv2d(4, 2, 3, padding=1))
    for conv in model:
        normalise(conv)
    found = inspection.inspect(model, (1, 3, 32, 32), effective=False)
    assert [(layer.path, layer.kind, layer.kernel, layer.stride) for layer in found.layers] == [
        ("0", "Conv2d", (3, 3), (1, 1)),
        ("1", "Conv2d", (5, 5), (2, 2)),
        ("2", "Conv2d", (3, 3), (1, 1)),
    ]
    assert [layer.field.px for layer in found.layers] == [3, 7, 11]
    assert {site.row.kind for site in inspection.list_site_fields(model, (1, 3, 32, 32))} == {"Conv2d"}


class Adapted(nn.Conv2d):
    """A convolution with a low-rank one beside it, as LoRA's."""

    def __init__(self) -> None:
        super().__init__(3, 3, 3, padding=1)
        self.low = nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + self.low(x)


class Attending(nn.MultiheadAttention):
    """Attention over pixels. Its output layer is a module that it never calls."""

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        pixels = x.flatten(2).mT
        return super().forward(pixels, pixels, pixels)[0].mT.reshape(x.shape)


def test_layers_that_hold_modules_but_work_themselves_are_reported() -> None:
    model = nn.Sequential(Adapted(), Attending(3, 1, batch_first=True))
    found = inspection.inspect(model, (1, 3, 8, 8), effective=False)
    assert [(layer.path, layer.field.local_px, layer.field.whole) for layer in found.layers] == [
        ("0.low", 1, False),
        ("0", 3, False),
        ("1", 0, True),
    ]
