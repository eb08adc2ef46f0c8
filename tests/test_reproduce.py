"""A published table run again: its rows, what was not followed, and printed beside measured."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from rfsearch import plugins, published
from rfsearch.errors import SpaceError
from rfsearch.ledger import Request, read_run
from rfsearch.published import candidate_of, read_table, table_names
from rfsearch.reproduce import departures, requests
from rfsearch.space import read_space
from tests.toys import toy_file

TABLE = """\
title = "Toy table"
cite = "nobody, nowhere, Table 9"

[columns]
dilation = { title = "dilation", setting = true }
f = { title = "f" }
rf_px = { title = "RF", unit = "px" }
score = { title = "F" }
eye = { title = "eye", unit = "%", measured = "f_eye_pooled" }
time = { title = "time", unit = "ms" }

[marks]
"*" = "f waits"
"-" = "not reported"

[protocol]
data = "helen"
backbone = "wei-vgg16-helen"
weights = "ImageNet"
steps = 55000
batch_size = 2
image_size = [48, 48]
loss = "sum"
lr = 1e-5
f_lr_multiplier = [3, 9]
f_delay_steps = 0
beyond = ["Faces were aligned."]

[run]
space = "SPACE"
fallback = "SPACE"
presets = { small = "mini" }

[[rows]]
label = "by hand"
candidate = { conv6 = { dilation = 2 } }
printed = { rf_px = 260, score = 0.5 }

[[rows]]
label = "learned"
candidate = { conv6 = { dilation = 2, f = 1.0, learned = true } }

[[rows]]
label = "too far"
candidate = { conv6 = { dilation = 14 } }
printed = { score = 0.7 }

[[rows]]
label = "of another method"
printed = { score = 0.61 }
not_run = "Nobody here has it."

[[rows]]
label = "of its own"
candidate = { "features.0" = { dilation = 1 } }
backbone = { small = "deeplab-small" }

[[rows]]
label = "after a delay"
candidate = { conv6 = { dilation = 1, f = 1.0, learned = true } }
protocol = { f_delay_steps = 13750 }
printed = { dilation = 1, f = 0.880, eye = 40.0 }
marks = { f = "*", time = "-" }
suspect = { eye = "repeats the number beside it" }

[[rows]]
label = "by hand, again"
candidate = { conv6 = { dilation = 2 } }

[[rows]]
label = "two paths"
candidate = { conv6 = [{ dilation = 1 }, { dilation = 2 }] }
printed = { dilation = [1, 2], rf_px = [260, 308], time = 12 }
"""


@pytest.fixture
def toy_table(tmp_path, monkeypatch) -> str:
    folder = tmp_path / "baselines" / "published" / "toy"
    folder.mkdir(parents=True)
    (folder / "table9.toml").write_text(TABLE.replace("SPACE", str(toy_file(tmp_path))))
    shipped = plugins.shipped
    monkeypatch.setattr(
        published.plugins, "shipped", lambda name: tmp_path / name if name == "baselines" else shipped(name)
    )
    return "toy-table9"


@pytest.mark.parametrize("name", ["wei-table2", "wei-table3", "wei-table4", "wei-table5", "lsdfn-table5"])
def test_every_table_reads_and_its_networks_and_presets_are_known(name):
    table = read_table(name)
    assert name in table_names()
    spaces = [plugins.space_file(space) for space in (table.run.space, table.run.fallback)]
    for scale, preset in table.run.presets.items():
        assert all(read_space(space, preset) for space in spaces)
        for row in table.rows:
            if row.candidate:
                candidate_of(row)
            if row.backbone:
                assert callable(plugins.backbone(row.backbone[scale]))


@pytest.mark.parametrize("number", [1, 2, 3, 4, 6])
def test_a_table_that_cannot_be_trained_says_why_row_by_row(number, call):
    table = read_table(f"lsdfn-table{number}")
    code, out, _ = call("reproduce", f"lsdfn-table{number}", "--json")
    body = json.loads(out)
    assert code == 1
    assert len(body["rows"]) == len(table.rows)
    for row in body["rows"]:
        assert row["printed"]
        assert "rfsearch has no " in row["why"]
        assert (row["measured"], row["trainings"]) == ({}, 0)


def test_the_terminal_shows_the_marks_and_misprints_of_a_table_that_cannot_be_trained(call):
    code, out, _ = call("reproduce", "lsdfn-table4")
    text = " ".join(out.split())
    assert code == 1
    assert "C' = 24, without residual learning 24 68.1 F rfsearch has no detection" in text
    assert "F: does not converge." in text
    assert "C' = 24, with residual learning, with attention, %: two decimals" in text


def test_rows_are_grouped_by_network(toy_table):
    found = requests(read_table(toy_table), Request(space=""), "small")
    assert {name: [row.label for row in rows] for name, (_, rows) in found.items()} == {
        "rows": ["by hand", "learned", "too far", "after a delay", "by hand, again", "two paths"],
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
    # Two workers: which of the trainings ends first is chance.
    records = {record.candidate: record for record in read_run(Path("table/rows")).records}
    trained = {row.label: candidate_of(row).to_json() for row in read_table(toy_table).rows if row.candidate}
    hand, learned, delayed = (records[trained[label]] for label in ("by hand", "learned", "after a delay"))
    assert rows["by hand"]["printed"] == {"rf_px": 260, "score": 0.5}
    assert rows["by hand"]["measured"] == {"rf_px": 31, "score": hand.test, "eye": 100 * hand.scores["f_eye_pooled"]}
    assert rows["learned"]["measured"]["f"] == learned.f["conv6"]
    assert rows["too far"]["measured"] == {}
    assert "Largest dilation that fits: 5" in rows["too far"]["why"]
    assert rows["of another method"]["measured"] == {}
    assert rows["of another method"]["why"] == "Nobody here has it."
    assert [row["label"] for row in body["rows"]] == [row.label for row in read_table(toy_table).rows]
    assert rows["after a delay"]["printed"] == {"dilation": 1, "f": 0.88, "eye": 40}
    assert rows["after a delay"]["measured"]["eye"] == 100 * delayed.scores["f_eye_pooled"]
    assert rows["after a delay"]["marks"] == {"f": "*", "time": "-"}
    assert rows["after a delay"]["suspect"] == {"eye": "repeats the number beside it"}
    assert rows["two paths"]["printed"] == {"dilation1": 1, "dilation2": 2, "rf_px1": 260, "rf_px2": 308, "time": 12}
    assert {"rf_px1": 23, "rf_px2": 31}.items() <= rows["two paths"]["measured"].items()
    assert rows["of its own"]["measured"]["score"] == read_run(Path("table/deeplab-small")).records[0].test
    said = " ".join(body["not_followed"])
    assert "rendered drawings, not helen" in said
    assert "Steps: 8, not 55,000." in said
    assert "Batch size" not in said
    assert "trains from scratch" in said
    assert "Learning rate: 0.0500, not 0.0230." in said  # 1e-5 on a sum over 48 x 48 px
    assert "Faces were aligned." in said
    assert "waits" not in said  # that is of some rows only
    own = {label: " ".join(row["not_followed"]) for label, row in rows.items()}
    assert "f waits for 25 % of the training, not for 0 %." in own["learned"]
    assert "Rate of f over that of the weights: 1.00, not 3.00 to 9.00." in own["learned"]
    assert "waits" not in own["by hand"] + own["after a delay"]
    assert "Network: wei-small, not wei-vgg16-helen." in own["by hand"]
    assert "Network: deeplab-small, not wei-vgg16-helen." in own["of its own"]
    assert "not measured on this data: time." in own["two paths"]
    assert "It shares its training with 'by hand': nothing that a row can set" in own["by hand, again"]
    assert rows["by hand, again"]["measured"] == rows["by hand"]["measured"]

    code, again, _ = call("reproduce", toy_table, "--out", "table", "--json")
    assert json.loads(again)["rows"] == body["rows"]  # nothing is trained twice
    assert len(read_run(Path("table/rows")).records) == 4


def test_a_plan_that_follows_the_paper_departs_only_in_what_no_setting_does():
    table = read_table("wei-table2")
    space = read_space(plugins.space_file("helen"), "paper-single")
    # 1e-7 and 5e-4 on a loss summed over 500 x 500 px, as rates of its mean.
    follows = {"lr": 0.025, "weight_decay": 2e-9, "f_lr_multiplier": 5e4, "normalisation": "paper"}
    data = SimpleNamespace(name="helen", rendered=False, image_size=(500, 500))
    found = {}
    for row in table.rows:
        delay = {"f_delay": 10_000 / 55_000 if "delay" in row.label else 0.0}
        recipe = space.recipe.model_copy(update=follows | delay)
        found[row.label] = departures(table, row, SimpleNamespace(space=space.with_(recipe=recipe), data=data))
    assert len(found) == 13
    assert set(map(tuple, found.values())) == {
        (
            "Trainings go on to their last step; the paper's stopped after 50,000 of 55,000.",
            "Faces aligned to a canonical position by their landmarks, then cropped or padded.",
            "Not recorded for the paper, so not compared: pretrained weights.",
        )
    }


@pytest.mark.parametrize(
    ("there", "instead", "fault"),
    [
        ('not_run = "Nobody here has it."', "", "'of another method' needs either a candidate or not_run"),
        ('label = "learned"', 'label = "by hand"', "rows of one name: by hand"),
        ("{ score = 0.7 }", "{ dice = 0.7 }", "row 'too far': no such column: dice"),
        ('{ f = "*"', '{ f = "†"', r"row 'after a delay': \[marks\] does not explain †"),
        ("suspect = { eye", "suspect = { score", "row 'after a delay': suspect without a printed number: score"),
        ("f_delay_steps = 13750", "f_delay_steps = 13.5", "f_delay_steps"),
        ("f_delay_steps = 13750", "f_delays = 13750", "f_delays"),
        ("time = { title", "time2 = { title", "does not end in a digit: time2"),
        ("{ dilation = 14 }", "{ dilation = 0 }", "row 'too far'"),
    ],
)
def test_a_faulty_table_is_refused_and_its_fault_named(toy_table, tmp_path, there, instead, fault):
    path = tmp_path / "baselines" / "published" / "toy" / "table9.toml"
    text = path.read_text()
    assert there in text
    path.write_text(text.replace(there, instead))
    with pytest.raises(SpaceError, match=f"(?s)table9.toml: not a table: .*{fault}"):
        read_table(toy_table)


def test_a_table_with_candidates_says_where_they_are_trained(toy_table, tmp_path):
    path = tmp_path / "baselines" / "published" / "toy" / "table9.toml"
    head, _, rest = path.read_text().partition("[run]")
    path.write_text(head + rest[rest.index("[[rows]]") :])
    with pytest.raises(SpaceError, match=r"row 'by hand' has a candidate, and the table no \[run\]"):
        read_table(toy_table)
