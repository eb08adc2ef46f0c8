"""Effective fields of the report: of the networks that it shows, measured once, and drawn where they look."""

import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import rfsearch
from rfsearch.choices import Candidate
from rfsearch.data.batches import normalised_images
from rfsearch.effective_fields import measure_fields
from rfsearch.ledger import read_run
from rfsearch.planning.directory import reopen_run
from rfsearch.receptive import effective_receptive_field
from rfsearch.report.effective import FIELDS_FILE, Looked, MeasuredFields
from rfsearch.report.page import write
from rfsearch.report.view import build_view
from rfsearch.training import build_network
from tests.small_run import run_in_process
from tests.toys import toy_file

CPU = torch.device("cpu")


def nothing():
    pass


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    """A run whose hand default, dilation 4, leads no arm."""
    folder = tmp_path_factory.mktemp("effective")
    space = toy_file(folder, budget="4.5x", steps=24)
    changes = ["--set", "reference=4", "--set", "recipe.lr=0.2"]
    run_in_process("run", "--space", space, *changes, "--strategies", "exhaustive", "--out", folder / "run")
    return folder / "run"


@pytest.fixture(scope="module")
def plan(run_dir):
    return reopen_run(run_dir, CPU)


def test_the_hand_defaults_weights_are_kept_beside_the_leaders(run_dir):
    view = build_view(read_run(run_dir))
    kept = {folder.name for folder in (run_dir / "checkpoints").iterdir()}
    leaders = {arm.incumbent.trial for arm in view.arms}
    defaults = max(view.defaults, key=lambda record: record.val).trial
    assert kept == leaders | {defaults}


def test_fields_are_those_of_fresh_and_trained_weights_on_the_examples(run_dir, plan):
    measured = MeasuredFields.read(run_dir / FIELDS_FILE)
    inputs = normalised_images(plan.data.splits["test"].some(4))
    records = {record.trial: record for record in read_run(run_dir).records}
    assert measured.networks
    for looked in measured.networks:
        record = records[looked.trial]
        torch.manual_seed(record.train_seed)
        fresh = build_network(plan.space, plan.task, plan.data, Candidate.from_json(record.outcome)).model
        for model, share, size in zip(
            (fresh, rfsearch.trained(run_dir, looked.trial)), looked.maps, looked.sizes_px, strict=True
        ):
            truth = effective_receptive_field(model, inputs)
            np.testing.assert_allclose(share, truth.map, atol=1e-6)
            assert size == pytest.approx(truth.size_px)
        assert looked.rf_px == record.rf_px
        assert not np.allclose(*looked.maps, atol=1e-5), "training has moved no weight"


def test_a_default_that_is_not_recommended_is_shown_beside_what_is(run_dir, plan, tmp_path, monkeypatch):
    copy = tmp_path / "run"
    shutil.copytree(run_dir, copy)
    (copy / FIELDS_FILE).unlink()
    kept = [folder.name for folder in (copy / "checkpoints").iterdir()]
    records = [record for record in read_run(copy).records if record.trial in kept]
    best, other = records[0], records[-1]
    decision = SimpleNamespace(recommended=SimpleNamespace(records=[best]), keeps_default=False)
    view = SimpleNamespace(decision=decision, defaults=[replace(other, trial="not-kept"), other])
    monkeypatch.setattr("rfsearch.effective_fields.build_view", lambda run: view)
    assert measure_fields(plan, copy, nothing) == []
    networks = MeasuredFields.read(copy / FIELDS_FILE).networks
    assert [(one.role, one.trial) for one in networks] == [("recommended", best.trial), ("hand default", other.trial)]


def test_what_is_measured_is_not_measured_again(run_dir, plan, monkeypatch):
    monkeypatch.setattr("rfsearch.effective_fields.effective_receptive_field", None)
    assert measure_fields(plan, run_dir, nothing) == []


def test_a_network_that_cannot_be_measured_is_named_and_the_page_does_without(run_dir, plan, tmp_path, monkeypatch):
    copy = tmp_path / "run"
    shutil.copytree(run_dir, copy)
    (copy / FIELDS_FILE).write_bytes(b"damaged")

    def refuse(model, inputs):
        raise rfsearch.ModelError("the output has no unit in its centre.")

    monkeypatch.setattr("rfsearch.effective_fields.effective_receptive_field", refuse)
    notices = measure_fields(plan, copy, nothing)
    assert notices
    assert all(notice.startswith("No effective field of ") and "no unit in its centre" in notice for notice in notices)
    assert "What it looks at" not in write(copy).read_text(encoding="utf-8")


def test_the_page_draws_them(run_dir):
    page, measured = write(run_dir).read_text(encoding="utf-8"), MeasuredFields.read(run_dir / FIELDS_FILE)
    assert page.count('alt="Effective receptive field: ') == 2 * len(measured.networks)
    for looked in measured.networks:
        assert str(looked) in page


def test_a_field_glows_where_its_share_is_and_nowhere_else():
    from rfsearch.report.field_page import overlaid

    share = np.zeros((20, 20))
    share[2, 2] = 1.0
    picture = np.asarray(overlaid(np.full((20, 20, 3), 200, np.uint8), share, 6, 4))
    enlarged = picture.shape[0] // 20
    dots = picture[enlarged // 2 :: enlarged, enlarged // 2 :: enlarged]
    assert tuple(dots[2, 2]) == (255, 214, 64)
    assert len({tuple(pixel) for pixel in dots[4:6, :6].reshape(-1, 3)}) == 1
    assert int(dots[4, 4].sum()) < 3 * 200, "the image is dimmed"


def test_what_was_written_is_read_back(tmp_path):
    looked = Looked("recommended", "a", 31, (9.4, 12.0), np.random.default_rng(0).random((2, 5, 6)).astype(np.float32))
    with (tmp_path / "fields.npz").open("wb") as file:
        MeasuredFields(np.ones((5, 6, 3), np.uint8), (looked,)).write(file)
    again = MeasuredFields.read(tmp_path / "fields.npz")
    assert str(again.networks[0]) == "Recommended: 31 px in theory; in effect 9 px before training, 12 px trained."
    np.testing.assert_array_equal(again.networks[0].maps, looked.maps)
    assert MeasuredFields.read(tmp_path / "missing.npz") is None
