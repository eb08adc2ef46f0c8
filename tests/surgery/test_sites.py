"""Finding sites: by pattern, container and span; what fits there; and the list of all convolutions."""

import pytest
import torch
from torch import nn

from rfsearch.choices import Candidate, Dilated
from rfsearch.errors import ModelError, SpaceError
from rfsearch.surgery import check_fits, list_sites, match_sites, measure_sites
from tests.surgery.test_build import Foreign, one


class Many(nn.Module):
    """Convolutions of every kind, defined in another order than they run in."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Conv2d(4, 3, 1)
        self.unused = nn.Conv2d(4, 4, 3)
        self.up = nn.ConvTranspose2d(4, 4, 2, stride=2)
        self.line = nn.Conv1d(4, 4, 3, padding=1)
        self.point = nn.Conv2d(4, 4, 3, padding=1)
        self.deep = nn.Sequential(
            nn.Conv2d(3, 4, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(4, 4, (3, 5), padding=(2, 2), dilation=(2, 1), groups=2),
            nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU()),
        )

    def forward(self, x):
        x = self.deep(x)
        pooled = self.point(input=x.mean((2, 3), keepdim=True))
        line = self.line(x.mean(2))[:, :, None]
        for size in (x, x[..., ::2, ::2]):
            self.last(size)
        return self.last(self.up(x + pooled + line))


def test_patterns_find_sites_and_a_miss_names_the_nearest():
    assert match_sites(Foreign(), ["*"]) == ("stem", "body.1")  # head is 1 x 1: nothing to dilate
    assert match_sites(Foreign(), ["body.1"]) == ("body.1",)
    with pytest.raises(SpaceError, match="'body.2' matches no convolution.*Did you mean 'body.1'"):
        match_sites(Foreign(), ["body.2"])
    with pytest.raises(SpaceError, match="'bdy' matches no convolution.*Did you mean 'body'"):
        match_sites(Foreign(), ["bdy"])


def test_containers_and_spans_are_sites():
    model = nn.Sequential(Foreign(), nn.Conv1d(1, 1, 2), nn.Conv3d(1, 1, (1, 1, 3)), nn.ConvTranspose2d(1, 1, 3))
    assert match_sites(model, ["*"]) == ("0.stem", "0.body.1", "1", "2")
    assert match_sites(model, ["0"]) == ("0",)
    assert match_sites(model, ["0.body", "1:2"]) == ("0.body", "1:2")
    assert match_sites(model, ["0.body.0:0.body.2", "0.stem"]) == ("0.body.0:0.body.2", "0.stem")
    with pytest.raises(
        SpaceError, match="matches no convolution.*Did you mean '0.body'"
    ):  # a shell pattern names convolutions alone
        match_sites(model, ["0.bod*y"])
    for empty in ("3", "0.head", "0.body.0"):
        with pytest.raises(SpaceError, match="matches no convolution"):
            match_sites(model, [empty])


@pytest.mark.parametrize(
    ("span", "said"),
    [
        ("body.0:body.7", "no such module as 'body.7'"),
        ("body.0:", "no such module as ''"),
        ("stem:head", "one child of an nn.Sequential"),
        ("stem:body.1", "one child of an nn.Sequential"),
        ("body.2:body.0", r"Did you mean 'body.0:body.2'"),
        ("body.0:body.0", "is a ReLU; a site is"),
    ],
)
def test_a_span_that_is_none_is_told(span, said):
    with pytest.raises(ModelError, match=said):
        match_sites(Foreign(), [span])


def test_a_span_stays_within_one_sequential():
    model = nn.Sequential(*(nn.Sequential(nn.Conv2d(1, 1, 3)) for _ in range(2)))
    with pytest.raises(ModelError, match="'0.0:1.0': a span runs from one child of an nn.Sequential to another one"):
        match_sites(model, ["0.0:1.0"])


@pytest.mark.parametrize(
    "patterns", [["body", "body.1"], ["body.1", "body"], ["body.0:body.1", "body.1:body.2"], ["*", "body.1:body.2"]]
)
def test_sites_lie_apart(patterns):
    with pytest.raises(SpaceError, match="Sites lie apart. Got 'body.*' and 'body.*', which share 'body.1'"):
        match_sites(Foreign(), patterns)


def test_names_that_begin_alike_lie_apart():
    model = nn.ModuleDict({"a": nn.Conv2d(1, 1, 3), "ab": nn.Sequential(nn.Conv2d(1, 1, 3))})
    assert match_sites(model, ["a", "ab"]) == ("a", "ab")


def test_the_largest_dilation_that_fits_the_map():
    (site,) = measure_sites(Foreign(), ["body.1"], (46, 60), 3)
    assert site.map_size == (23, 30)
    assert (site.largest_dilation, site.span(11), site.span(16)) == (11, 23, 33)
    check_fits([site], [one(Dilated(11))], "test")
    with pytest.raises(
        SpaceError,
        match=r"3x3 kernel at dilation 16 spans 33 px, its input map is 23 x 30 px. Largest dilation that fits: 11. "
        r"Asked for by somewhere",
    ):
        check_fits([site], [one(Dilated(16))], "somewhere")


def test_the_convolution_with_the_least_room_decides_for_a_container():
    """12 x 15 px behind the first: 5 taps fit 3 times into 15, 3 taps 2 px apart 2 times into 12."""
    (site,) = measure_sites(Many(), ["deep"], (24, 30), 3)
    assert (site.path, site.kernel, site.map_size, site.unit) == ("deep", (3, 5), (12, 15), (2, 1))
    assert (site.largest_dilation, site.span(2), site.span(3)) == (2, 9, 13)
    with pytest.raises(SpaceError, match=r"deep: a 3x5 kernel at dilation 3 times its own spans 13 px"):
        check_fits([site], [one(Dilated(3), "deep")], "test")
    assert measure_sites(Many(), ["deep.1:deep.2"], (24, 30), 3)[0].largest_dilation == 2
    (alone,) = measure_sites(Many(), ["deep.2"], (24, 30), 3)
    assert (alone.unit, alone.largest_dilation) == ((1, 1), 3)


@pytest.mark.parametrize(
    ("rank", "said"),
    [
        (1, "a 3 px kernel at dilation 9 spans 19 px, its input map is 17 px"),
        (3, "a 3x3x1 kernel at dilation 9 .* is 17 x 18 x 4 px"),
    ],
)
def test_maps_of_one_and_three_axes(rank, said):
    conv, kernel = (nn.Conv1d, 3) if rank == 1 else (nn.Conv3d, (3, 3, 1))
    (site,) = measure_sites(nn.Sequential(conv(2, 1, kernel)), ["0"], (17, 18, 4)[:rank], 2)
    assert site.largest_dilation == 8
    with pytest.raises(SpaceError, match=said):
        check_fits([site], [Candidate({"0": Dilated(9)})], "test")


def test_a_site_that_runs_at_several_sizes_must_fit_all():
    assert measure_sites(Many(), ["last"], (40, 40), 3)[0].map_size == (10, 10)


def test_a_network_that_refuses_the_image_is_told():
    with pytest.raises(ModelError, match="does not take a 4-channel image of 20 x 16 px"):
        measure_sites(Foreign(), ["body.1"], (20, 16), 4)
    with pytest.raises(ModelError, match="site 'unused' is never used"):
        measure_sites(Many(), ["unused"], (20, 16), 3)


def test_every_convolution_is_listed_in_the_order_of_the_forward_pass():
    model = Many().train()
    model.deep.eval()
    rows = {row.path: row for row in list_sites(model, (1, 3, 24, 30))}
    assert list(rows) == ["deep.0", "deep.2", "deep.3.0", "point", "line", "last", "up", "unused"]
    assert (model.training, model.deep[0].training) == (True, False)
    row = rows["deep.2"]
    assert (row.kind, row.kernel, row.stride, row.dilation) == ("Conv2d", (3, 5), (1, 1), (2, 1))
    assert (row.groups, row.in_channels, row.out_channels, row.map_size) == (2, 4, 4, (12, 15))
    assert {path: row.largest_dilation for path, row in rows.items() if not row.why_not} == {
        "deep.0": 11,
        "deep.2": 3,
        "line": 7,
    }
    assert {path: row.why_not for path, row in rows.items() if row.why_not} == {
        "deep.3.0": "1x1 kernel: reads one pixel",
        "point": "input map is 1 px: a dilated tap would see padding only",
        "last": "1x1 kernel: reads one pixel",
        "up": "transposed",
        "unused": "never runs on this input",
    }
    assert [path for path, row in rows.items() if row.map_size is None] == ["unused"]
    assert {row.largest_dilation for row in rows.values() if row.why_not} == {None}
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_sites_of_a_network_of_shapes_in_half_precision_are_listed():
    model = Foreign().half().to("meta")
    assert [(row.path, row.map_size) for row in list_sites(model, (1, 3, 20, 16))] == [
        ("stem", (20, 16)),
        ("body.1", (10, 8)),
        ("head", (10, 8)),
    ]
    assert next(model.parameters()).dtype == torch.float16
