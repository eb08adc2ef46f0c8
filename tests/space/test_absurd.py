"""Numbers that no training can have: one message each, at once, before anything is computed or allocated."""

import pytest
import torch

from rfsearch.data import RenderedFaces
from rfsearch.errors import BudgetError, SpaceError
from rfsearch.ledger import Request
from rfsearch.planning.plan import make_plan, read_data
from rfsearch.planning.request import check_request
from rfsearch.space import read_space
from tests.toys import TOY, toy_file

TEXT = TOY.format(backbone="wei-small", budget="3x", steps=8)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("[48, 48]", "[1000000, 1000000]", "line 15, presets.mini.image_size.0: .*less than or equal to 32768"),
        ("[48, 48]", "[0, 48]", "line 15, presets.mini.image_size.0: .*greater than or equal to 1"),
        ("rungs = 3", "rungs = 1_000_000_000", "line 25, presets.mini.recipe.rungs: .*less than or equal to 10000"),
        ("steps = 8", "steps = 1_000_000_000_000_000_000", "recipe.steps: .*less than or equal to"),
        ("steps = 8", f"steps = {'9' * 5000}", "a value that cannot be read: .*4300 digits"),
        ("batch_size = 2", "batch_size = 1_000_000_000", "recipe.batch_size: .*less than or equal to"),
        ("rung_images = 4", "rung_images = 10_000_000_000", "recipe.rung_images: .*less than or equal to"),
        ("[1, 2, 4]", "[1, 2, 1000000000000]", "dilations.2: .*less than or equal to 32768"),
        ("[12, 6, 6]", "[12, 6, 1000000000]", "data.rendered.2: .*less than or equal to 1000000"),
        ("lr = 0.05", "lr = inf", "line 22, presets.mini.recipe.lr: .*finite"),
        ("lr = 0.05", "lr = nan", "recipe.lr: .*finite"),
        ("lr = 0.05", "lr = 1e300", "lr times each multiplier, weight_decay and f_clip are at most 1e"),
        ("f_lr_multiplier = 1.0", "f_lr_multiplier = 1e40", "lr times each multiplier, .* are at most 1e"),
        ("f_lr_multiplier = 1.0", "weight_decay = 1e39", "weight_decay and f_clip are at most 1e"),
        ("f_lr_multiplier = 1.0", "f_clip = 1e39", "f_clip are at most 1e"),
        ("f_lr_multiplier = 1.0", "f_lr_multiplier = inf", "recipe.f_lr_multiplier: .*finite"),
        ("f_lr_multiplier = 1.0", "f_clip = inf", "recipe.f_clip: .*finite"),
        ("f_lr_multiplier = 1.0", "lr_steps = [nan]", "recipe.lr_steps.0: .*finite"),
        ("f_lr_multiplier = 1.0", "scale = [1.0, 1e300]", r"scale = \[low, high\] needs"),
        ("reference = 1", "reference = 1\nf_bounds = [1e-300, 1e300]", r"f_bounds = \[low, high\] needs"),
        ("reference = 1", "reference = 1\nsampling = { bounds = [1.0, inf] }", "sampling.bounds.1: .*finite"),
        ("reference = 1", "reference = 1\nsampling = { features = 10000000000 }", "sampling.features: .*less than"),
        ("reference = 1", f"reference = 1\nx = {'[' * 5000}{']' * 5000}", "nested too deeply"),
        ("reference = 1", f"reference = 1\nx = {'{a=' * 5000}1{'}' * 5000}", "nested too deeply"),
    ],
    ids=lambda value: value[-40:],
)
def test_a_number_of_a_space_file_that_no_training_can_have_is_told_with_its_line(tmp_path, old, new, said):
    path = tmp_path / "toy.toml"
    assert TEXT.count(old) == 1
    path.write_text(TEXT.replace(old, new))
    with pytest.raises(SpaceError, match=said):
        read_space(path, None)


@pytest.mark.parametrize("budget", ["1e300x", "1e31flop", "1e30h", "1e400x", "1e999999999x"])
def test_a_budget_that_nobody_could_spend_is_told(tmp_path, budget):
    with pytest.raises(BudgetError, match=f"Got '{budget}'"):
        check_request(Request(space=str(toy_file(tmp_path)), budget=budget))


def test_more_seeds_than_anyone_could_train_are_told(tmp_path):
    with pytest.raises(SpaceError, match="at least 1 and at most 1000. Got 1000000000"):
        check_request(Request(space=str(toy_file(tmp_path)), seeds=10**9))


def test_images_that_the_memory_cannot_hold_are_told_with_what_they_take(tmp_path, monkeypatch):
    monkeypatch.setattr("rfsearch.planning.plan.physical_memory", lambda: 2**34)
    monkeypatch.setattr(RenderedFaces, "make", lambda *_: pytest.fail("they were drawn"))
    path = toy_file(tmp_path)
    path.write_text(path.read_text().replace("[48, 48]", "[32768, 32768]"))
    with pytest.raises(SpaceError, match="are held in 96.0 GiB of memory, and this machine has 16.0 GiB"):
        read_data(check_request(Request(space=str(path))), tmp_path)


def test_a_training_step_that_the_memory_cannot_hold_is_told_before_it_is_taken(tmp_path, monkeypatch):
    path = toy_file(tmp_path)
    path.write_text(path.read_text().replace("batch_size = 2\n", "batch_size = 200000\n"))
    request = check_request(Request(space=str(path), strategies=("exhaustive",)))
    data = read_data(request, tmp_path)
    monkeypatch.setattr("rfsearch.planning.forecaster.TrainingLoop", lambda *_, **__: pytest.fail("a step was taken"))
    with pytest.raises(SpaceError, match=r"one training step of 200000 images takes [\d,.]+ [GT]iB of memory"):
        make_plan(request, data, torch.device("cpu"))
