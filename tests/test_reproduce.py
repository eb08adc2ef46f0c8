"""A published table run again: its rows, what was not followed, and printed beside measured."""

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

from rfsearch import plugins, published
from rfsearch.errors import SpaceError
from rfsearch.ledger import Request, read_run
from rfsearch.published import candidate_of, read_table, table_names
from rfsearch.reproduce import Measured, departures, joined, requests
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


@pytest.mark.parametrize(
    "name", ["wei-table2", "wei-table3", "wei-table4", "wei-table5", *(f"lsdfn-table{n}" for n in range(1, 7))]
)
def test_every_table_reads_and_its_networks_and_presets_are_known(name):
    table = read_table(name)
    assert name in table_names()
    spaces = [plugins.space_file(space) for space in (table.run.space, table.run.fallback)]
    for scale, preset in table.run.presets.items():
        assert all(read_space(space, preset) for space in spaces)
        for row in table.rows:
            if row.candidate:
                candidate_of(row)
            for part in row.parts:
                if part.backbone:
                    assert callable(plugins.backbone(part.backbone[scale]))


PRINTED = """\
[[rows]]
label = "one"
printed = { score = 0.61 }
marks = { time = "-" }
not_run = "Nobody here has it."

[[rows]]
label = "other"
printed = { eye = 40.0 }
suspect = { eye = "repeats the number beside it" }
not_run = "Nobody has that either."
"""


@pytest.fixture
def printed_table(toy_table, tmp_path) -> str:
    """A table none of whose rows can be trained."""
    path = tmp_path / "baselines" / "published" / "toy" / "table9.toml"
    path.write_text(path.read_text().split("[[rows]]")[0] + PRINTED)
    return toy_table


def test_a_table_that_cannot_be_trained_says_why_row_by_row(printed_table, call):
    code, out, _ = call("reproduce", printed_table, "--json")
    rows = json.loads(out)["rows"]
    assert code == 1
    assert [row["why"] for row in rows] == ["Nobody here has it.", "Nobody has that either."]
    for row in rows:
        assert row["printed"]
        assert (row["measured"], row["trainings"]) == ({}, 0)


def test_the_terminal_shows_the_marks_and_misprints_of_a_table_that_cannot_be_trained(printed_table, call):
    code, out, _ = call("reproduce", printed_table)
    text = " ".join(out.split())
    assert code == 1
    assert "-: not reported." in text
    assert "other, eye, %: repeats the number beside it" in text


def test_columns_with_networks_of_their_own_are_trained_apart_and_joined_in_their_row():
    table = read_table("lsdfn-table4")
    found = requests(table, Request(space=""), "small")
    assert len(found) == 8  # four rows of two columns, each network a run
    request, (part,) = found["small_s3_gamma2_dynamic24_unattended_plain"]
    assert request.backbone == "rfsearch.backbones.rfcn:small_s3_gamma2_dynamic24_unattended_plain"
    assert (part.label, part.column) == ("C' = 24, without residual learning", "without_attention")
    row = table.rows[1]
    parts = [
        Measured(row.label, row.printed, {"with_attention": 12.5}, 3, not_followed=("a", "b")),
        Measured(row.label, row.printed, {}, why="without attention: the loss became nan by step 12", marks=row.marks),
    ]
    whole = joined(parts)
    assert whole.measured == {"with_attention": 12.5}
    assert (whole.trainings, whole.why) == (3, "without attention: the loss became nan by step 12")
    assert whole.not_followed == ("a", "b")


def test_rows_are_grouped_by_network_and_delay(toy_table):
    found = requests(read_table(toy_table), Request(space=""), "small")
    assert {name: [row.label for row in rows] for name, (_, rows) in found.items()} == {
        "rows": ["by hand", "learned", "too far", "by hand, again", "two paths"],
        "rows-f-after-13750": ["after a delay"],
        "deeplab-small": ["of its own"],
    }
    assert {name: request.changes for name, (request, _) in found.items()} == {
        "rows": ("recipe.f_delay=0.0",),
        "rows-f-after-13750": ("recipe.f_delay=0.25",),
        "deeplab-small": ("recipe.f_delay=0.0", "weights=none"),  # those of a space are of the space's network
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
    runs = [read_run(Path("table") / name) for name in ("rows", "rows-f-after-13750")]
    records = {record.candidate: record for run in runs for record in run.records}
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
    assert [run.manifest.resolved_space.recipe.f_delay for run in runs] == [0.0, 0.25]
    assert "f waits" not in own["learned"]
    assert "Rate of f over that of the weights: 1.00, not 3.00 to 9.00." in own["learned"]
    assert "waits" not in own["by hand"] + own["after a delay"]
    assert "Network: wei-small, not wei-vgg16-helen." in own["by hand"]
    assert "Network: deeplab-small, not wei-vgg16-helen." in own["of its own"]
    assert "not measured on this data: time." in own["two paths"]
    assert "It shares its training with 'by hand': nothing that a row can set" in own["by hand, again"]
    assert rows["by hand, again"]["measured"] == rows["by hand"]["measured"]

    code, again, _ = call("reproduce", toy_table, "--out", "table", "--json")
    assert json.loads(again)["rows"] == body["rows"]  # nothing is trained twice
    assert [len(read_run(Path("table") / name).records) for name in ("rows", "rows-f-after-13750")] == [3, 1]


def planned(name: str, preset: str, changes: Sequence[str] = ()) -> SimpleNamespace:
    """A plan of a space's preset on its own data."""
    space = read_space(plugins.space_file(name), preset, changes)
    return SimpleNamespace(space=space, data=SimpleNamespace(name=name, rendered=False, image_size=space.image_size))


@pytest.mark.parametrize("name", ["wei-table2", "wei-table4", "wei-table5"])
def test_the_paper_preset_of_helen_departs_only_in_what_no_setting_does(name):
    table, found = read_table(name), {}
    for request, rows in requests(table, Request(space=""), "paper").values():
        assert request.preset == "paper-single"
        for row in rows:
            found[row.label] = departures(table, row, planned("helen", request.preset, request.changes))
    assert len(found) == {"wei-table2": 13, "wei-table4": 4, "wei-table5": 1}[name]
    assert set(map(tuple, found.values())) == {
        (
            "Faces aligned to a canonical position by their landmarks, then cropped or padded.",
            "Not recorded for the paper, so not compared: pretrained weights.",
        )
    }


def test_the_starred_row_waits_for_10_000_of_50_000_steps_in_a_run_of_its_own():
    found = requests(read_table("wei-table2"), Request(space=""), "paper")
    assert {folder: [row.label for row in rows] for folder, (_, rows) in found.items() if folder != "rows"} == {
        "rows-f-after-10000": ["f learned from dilation 2, after a delay"]
    }
    assert found["rows-f-after-10000"][0].changes == ("recipe.f_delay=0.2",)
    assert found["rows"][0].changes == ("recipe.f_delay=0.0",)


def test_the_paper_preset_of_voc_departs_only_in_what_is_open():
    table = read_table("wei-table3")
    ((request, rows),) = requests(table, Request(space=""), "paper").values()
    assert request.changes == ()  # no delay is named for VOC: the recipe's, which has none
    found = {tuple(departures(table, row, planned("voc", "paper-single"))) for row in rows}
    assert found == {
        (
            "Images are cropped at random; at what size is not printed.",
            "Where the two drops of its rate, 200 iterations apart, lie is not printed.",
            "Exceptional gradients of f are clipped, and the background's weighted by less than 1; with what numbers "
            "is not printed.",
            "Not recorded for the paper, so not compared: image size, learning rate, weight decay, momentum, "
            "pretrained weights.",
        )
    }


def test_what_a_small_preset_does_otherwise_is_said_row_by_row():
    table = read_table("wei-table2")
    hand, learned = table.rows[0], table.rows[-1]
    mini = planned(
        "helen",
        "single",
        ("recipe.f_delay=0.0", "recipe.f_step=0.0", "recipe.f_lr_multiplier=0.05", "recipe.border=continuous"),
    )
    said = departures(table, hand, mini)
    for sentence in (
        "Steps: 300, not 50,000.",
        "Power of the rate's decay: 0.900, not 0.",
        "Training images are mirrored, zoomed, shifted, changed in brightness, changed in contrast; the paper names no "
        "such change.",
        "Classes are weighted in the loss (sqrt); the paper names no weights.",
    ):
        assert sentence in said
    own = [sentence for sentence in departures(table, learned, mini) if sentence not in said]
    assert own[:2] == [
        "Rate of f over that of the weights: 0.0500, not 30,000 to 90,000.",
        "Normalisation of f's gradient: exact, not paper.",
    ]
    assert "Border of inflated maps: continuous, not paper." in own
    relative = planned("helen", "single")
    assert "f moves by relative steps of 0.0500, not at 30,000 to 90,000 times the rate of the weights." in departures(
        table, learned, relative
    )


def test_the_networks_of_table_5_are_the_papers_at_its_scale():
    table = read_table("lsdfn-table5")
    trained = [row for row in table.rows if row.candidate]
    assert [row.backbone["paper"] for row in trained[:3]] == [
        "deeplab-resnet101",
        "deeplab-lsdfn-resnet101",
        "deeplab-lsdfn-beside-resnet101",
    ]
    for row in trained:
        space = planned("voc", "paper-single").space.with_(backbone=row.backbone["paper"])
        plan = SimpleNamespace(space=space, data=SimpleNamespace(name="voc", rendered=False, image_size=(328, 328)))
        assert not [sentence for sentence in departures(table, row, plan) if sentence.startswith("Network:")]
    for request, _ in requests(table, Request(space="", data="VOC"), "paper").values():
        space = planned(request.space, request.preset, request.changes).space
        assert space.weights == "none"  # the preset's are VGG-16's, which fit none of these


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
