"""A published table run again: its rows, what was not followed, and printed beside measured."""

import json
from pathlib import Path

import pytest

from rfsearch import plugins, reproduce
from rfsearch.errors import SpaceError
from rfsearch.ledger import Request, read_run
from rfsearch.reproduce import candidate_of, read_table, requests, table_names
from tests.toys import toy_file

TABLE = """\
title = "Toy table"
cite = "nobody, nowhere, Table 9"
space = "{space}"
fallback = "{space}"
presets = {{ small = "mini" }}

[protocol]
data = "helen"
backbone = "wei-vgg16-helen"
weights = "ImageNet"
steps = 55000
batch_size = 2

[[rows]]
label = "by hand"
candidate = {{ conv6 = {{ dilation = 2 }} }}
printed = {{ rf_px = 260, score = 0.5 }}

[[rows]]
label = "learned"
candidate = {{ conv6 = {{ dilation = 2, f = 1.0, learned = true }} }}

[[rows]]
label = "too far"
candidate = {{ conv6 = {{ dilation = 14 }} }}
printed = {{ score = 0.7 }}

[[rows]]
label = "of its own"
candidate = {{ "features.0" = {{ dilation = 1 }} }}
backbone = {{ small = "deeplab-small" }}
"""


@pytest.fixture
def toy_table(tmp_path, monkeypatch) -> str:
    folder = tmp_path / "baselines" / "published" / "toy"
    folder.mkdir(parents=True)
    (folder / "table9.toml").write_text(TABLE.format(space=toy_file(tmp_path)))
    shipped = plugins.shipped
    monkeypatch.setattr(
        reproduce.plugins, "shipped", lambda name: tmp_path / name if name == "baselines" else shipped(name)
    )
    return "toy-table9"


@pytest.mark.parametrize("name", ["wei-table2", "wei-table3", "wei-table4", "lsdfn-table5"])
def test_every_table_reads_and_its_networks_and_presets_are_known(name):
    table = read_table(name)
    assert name in table_names()
    spaces = [plugins.space_file(space) for space in (table.space, table.fallback)]
    for scale, preset in table.presets.items():
        from rfsearch.space import read_space

        assert all(read_space(space, preset) for space in spaces)
        for row in table.rows:
            candidate_of(row)
            if row.backbone:
                assert callable(plugins.backbone(row.backbone[scale]))


def test_rows_are_grouped_by_network(toy_table):
    found = requests(read_table(toy_table), Request(space=""), "small")
    assert {name: [row.label for row in rows] for name, (_, rows) in found.items()} == {
        "rows": ["by hand", "learned", "too far"],
        "deeplab-small": ["of its own"],
    }
    own, _ = found["deeplab-small"]
    assert (own.backbone, own.sites) == ("deeplab-small", ("features.0",))


def test_an_unknown_table_names_the_nearest():
    with pytest.raises(SpaceError, match="no table 'wei-tabel2' to reproduce. Did you mean 'wei-table2'"):
        read_table("wei-tabel2")


def test_an_unknown_scale_is_reported(toy_table, call):
    code, _, err = call("reproduce", toy_table, "--scale", "large")
    assert code == 2
    assert "--scale is small. Got 'large'" in err


def test_printed_and_measured_side_by_side(toy_table, call, trained_here):
    code, out, _ = call("reproduce", toy_table, "--out", "table", "--json")
    body = json.loads(out)
    assert code == 0
    rows = {row["label"]: row for row in body["rows"]}
    hand, learned = read_run(Path("table/rows")).records
    assert rows["by hand"]["printed"] == {"rf_px": 260, "score": 0.5}
    assert rows["by hand"]["measured"] == {"rf_px": 31, "score": hand.test}
    assert rows["learned"]["measured"]["f"] == learned.f["conv6"]
    assert rows["too far"]["measured"] == {}
    assert "Largest dilation that fits: 5" in rows["too far"]["why"]
    assert rows["of its own"]["measured"]["score"] == read_run(Path("table/deeplab-small")).records[0].test
    said = " ".join(body["not_followed"])
    assert "rendered drawings, not helen" in said
    assert "Steps: 8, not 55,000." in said
    assert "Batch size" not in said
    assert "trains from scratch" in said

    code, again, _ = call("reproduce", toy_table, "--out", "table", "--json")
    assert json.loads(again)["rows"] == body["rows"]  # nothing is trained twice
    assert len(read_run(Path("table/rows")).records) == 2
