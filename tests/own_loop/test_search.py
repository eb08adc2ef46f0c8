"""A search in a user's own training: the contest, the ledger and the report are those of every run."""

import html
import json
import math
import os
import shlex
import signal
import subprocess
import sys
import threading
import traceback
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

import rfsearch
from rfsearch import interrupt
from rfsearch.choices import Candidate, Dilated, Inflated, Moved, Searched
from rfsearch.errors import RequestError, RfsearchError, RunDirectoryError
from rfsearch.identity import require_same
from rfsearch.ledger import Assignment
from rfsearch.own_loop import own_search
from rfsearch.own_loop.planning import OwnCode, OwnPlan
from rfsearch.training import Order
from tests.own_loop import loops
from tests.own_loop.trials import CPU, finished, plan, training
from tests.small_run import train_in_process

SEARCH = {
    "model": loops.make_model,
    "input_shape": loops.INPUT,
    "sites": ["2"],
    "dilations": [1, 2, 4, 6],
    "budget": "4x",
}


@pytest.fixture(scope="module")
def the_plan() -> OwnPlan:
    return plan()


@pytest.fixture(scope="module")
def result(tmp_path_factory) -> rfsearch.Result:
    with pytest.MonkeyPatch.context() as patch:
        train_in_process(patch)
        return rfsearch.search(loops.train, out=tmp_path_factory.mktemp("runs") / "run", **SEARCH)


def test_every_strategy_competes_on_an_equal_budget(result):
    limit = 4 * result.run.manifest.budget.reference_flop
    spent = result.trials.groupby("strategy").train_flop.sum()
    assert set(spent.index) == {"exhaustive", "random", "optuna", "inflation", "fractional"}
    assert (spent <= 1.05 * limit).all()
    assert (spent >= 0.7 * limit).all()  # the trainings of this toy are coarse pieces of 4x
    assert set(result.trials.status) <= {"completed", "cut"}


def test_its_result_is_held_in_python(result):
    assert result.best.scored
    assert result.best.val == result.trials[result.trials.status != "failed"].val.max()
    assert {"strategy", "incumbent", "val"} <= set(result.anytime.columns)
    assert result.pareto("train_flop").axis.unique().tolist() == ["train_flop"]
    assert "anytime" in result.figures
    assert result.figures["anytime"].to_dict()["data"]
    assert result.verdict in str(result)
    assert result.verdict.split(" (")[0] in result._repr_html_()
    page = result.report.read_text(encoding="utf-8")
    assert "Your own training" in page
    assert "What it sees" not in page  # its images are its user's
    with pytest.raises(RequestError, match="rf_px"):
        result.pareto("rf")


def test_the_winner_is_put_into_a_fresh_model(result):
    model = rfsearch.apply(loops.make_model(), result.patch())
    state = torch.load(result.directory / "checkpoints" / result.best.trial / "model.pt", weights_only=True)
    model.load_state_dict(state["model"])
    with torch.no_grad():
        assert loops.scorer(model)() == pytest.approx(result.best.val, rel=1e-5)


def test_asked_again_it_returns_what_there_is(result, monkeypatch):
    monkeypatch.setattr("rfsearch.conduct.start_engine", lambda request: pytest.fail("it trained again"))
    again = rfsearch.search(loops.train, out=result.directory, **SEARCH)
    assert again.trials.equals(result.trials)


def test_another_search_is_not_mixed_into_a_run(result):
    with pytest.raises(RunDirectoryError, match="budget"):
        rfsearch.search(loops.train, out=result.directory, **{**SEARCH, "budget": "5x"})
    with pytest.raises(RunDirectoryError, match="direction"):
        rfsearch.search(loops.train, out=result.directory, direction="minimize", **SEARCH)


def test_only_its_script_can_go_on_with_functions(result):
    from rfsearch.planning.directory import reopen_run

    with pytest.raises(RunDirectoryError, match=r"rfsearch\.search"):
        reopen_run(result.directory, CPU)


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["/somewhere/search.py", "--lr", "0.1", "a b"], "python search.py --lr 0.1 'a b'"),
        (["/x/ipykernel_launcher.py", "-f", "kernel.json"], "rfsearch.search(...)"),
        ([""], "rfsearch.search(...)"),
    ],
)
def test_the_script_is_repeated_with_its_arguments(argv, said, monkeypatch):
    monkeypatch.setattr("sys.argv", argv)
    assert own_search._command() == said


def test_the_pilot_says_how_long_a_training_is(the_plan):
    length = the_plan.space.length
    assert (length.epochs, length.steps, length.looks) == (loops.EPOCHS, 6, True)
    macs = 24 * 24 * (8 * 9 + 8 * 8 * 9 + 8)
    # A weight's and an input's gradient cost as much as the forward pass, but for the gradient of the image.
    passes = 2 * macs * 3 - 2 * 24 * 24 * 8 * 9
    assert length.train_flop == pytest.approx(48 * passes, rel=0.1)  # activations, losses and steps beside it
    assert length.score_flop == pytest.approx(16 * 2 * macs, rel=0.05)


@pytest.mark.parametrize(
    "choice",
    [Dilated(4), Inflated(4, learned=True), Moved(2), Searched(2)],
    ids=["plain", "inflation", "moved", "to be found"],
)
def test_resumed_it_ends_as_if_never_stopped(the_plan, choice, tmp_path):
    unbroken = finished(training(the_plan, choice, tmp_path / "unbroken"))
    assert unbroken.status == "completed", unbroken.cause
    for reports in (1, 4):
        folder = tmp_path / str(reports)
        broken = training(the_plan, choice, folder)
        for _ in range(reports):
            assert broken.advance().status == "pruned"
        broken.close()
        resumed = training(the_plan, choice, folder)
        assert resumed.advance().rungs[-1].step == 6 * reports  # the report is judged again
        record = finished(resumed)
        assert (record.val, record.test, record.outcome) == (unbroken.val, unbroken.test, unbroken.outcome)
        assert [(rung.step, rung.val, rung.f) for rung in record.rungs] == [
            (rung.step, rung.val, rung.f) for rung in unbroken.rungs
        ]
        assert record.cost.flop == pytest.approx(unbroken.cost.flop, rel=0.01)
        assert record.trace == unbroken.trace


def test_a_full_training_costs_its_forecast(the_plan, tmp_path):
    for choice in (Dilated(1), Dilated(6), Inflated(2, f=0.8)):
        record = finished(training(the_plan, choice, tmp_path / str(choice)))
        assert record.cost.flop == pytest.approx(the_plan.forecaster(Candidate({"2": choice})).cost.flop, rel=0.15)
        assert record.cost.epochs == loops.EPOCHS


@pytest.mark.parametrize("currency", ["flop", "epochs"])
def test_it_ends_early_and_scored_where_its_limit_says_so(the_plan, currency, tmp_path):
    whole = getattr(finished(training(the_plan, Dilated(2), tmp_path / "whole")).cost, currency)
    work = training(the_plan, Dilated(2), tmp_path / "cut", limit=0.6 * whole, currency=currency)
    record = finished(work)
    assert record.status == "cut"
    assert record.scored
    assert 0.4 * whole < getattr(record.cost, currency) <= 0.6 * whole
    assert record.steps < 36


def test_a_pruned_training_ends_in_its_loop(the_plan, tmp_path):
    work = training(the_plan, Dilated(1), tmp_path)
    assert work.advance().val is not None
    thread = work._thread._thread
    work.close()
    assert not thread.is_alive()


def test_the_seed_decides_what_a_training_draws(the_plan, tmp_path):
    first, second = (finished(training(the_plan, Dilated(2), tmp_path / name)) for name in "ab")
    assert first.val == second.val


def test_who_searches_is_left_as_they_were(tmp_path, monkeypatch):
    train_in_process(monkeypatch)
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        rfsearch.search(loops.train_without_a_look, out=tmp_path / "run", **{**SEARCH, "strategies": ["exhaustive"]})
        assert torch.get_num_threads() == 2
        assert torch.equal(torch.rand(3), expected)
    finally:
        torch.set_num_threads(threads)


def test_without_a_look_fractional_moves_dilations_from_every_start():
    found = plan(loops.train_without_a_look, strategies=("fractional",))
    assert not found.space.length.looks
    assert [candidate.searched for candidate in found.candidates] == [[]] * 4


def test_sites_are_proposed_where_none_are_named():
    found = plan(sites=())
    assert found.space.sites
    assert any("Sites:" in notice for notice in found.notices)


def test_an_interrupted_search_is_a_keyboard_interrupt_that_says_how_to_go_on(tmp_path, monkeypatch):
    train_in_process(monkeypatch)
    told: list[int] = []

    def train(trial):
        told.append(1)
        if len(told) == 3:  # the pilot, one whole trial, and the one that is interrupted
            interrupt.on_signal(signal.SIGINT, None)
        loops.train_without_a_look(trial)

    given = {**SEARCH, "strategies": ["exhaustive"]}
    with pytest.raises(KeyboardInterrupt) as stop:
        rfsearch.search(train, out=tmp_path / "run", **given)
    said = f"Interrupted. Nothing is lost. Go on with: rfsearch.search(..., out='{tmp_path / 'run'}')"
    shown = "".join(traceback.format_exception(stop.value))
    assert shown.count("Go on with") == 1
    assert shown.rstrip().endswith(said)
    page = html.unescape((tmp_path / "run" / "report.html").read_text(encoding="utf-8"))
    assert f"<code>rfsearch.search(..., out='{tmp_path / 'run'}')</code>" in page
    assert "<code>rfsearch resume" not in page
    result = rfsearch.search(train, out=tmp_path / "run", **given)
    assert len(result.trials) > 1


SCRIPT = """
import torch
import rfsearch
from rfsearch.ledger import Request
from rfsearch.own_loop.planning import OwnCode, make_own_plan
from tests.own_loop import loops
from tests.own_loop.trials import CPU, finished, plan, training

def make_model(*width):
    return loops.make_model()

def make():
    return loops.make_model()

def say(model):
    request = Request("", input_shape=loops.INPUT, strategies=("exhaustive",))
    the_plan = make_own_plan(OwnCode.of(loops.train_without_a_look, model), request, torch.device("cpu"))
    print(next(notice for notice in the_plan.notices if notice.startswith("Sites:")))

"""


def test_how_to_list_other_sites_works_as_it_is_printed(tmp_path):
    """A command for what a command can find and call without arguments, and without searching once more."""
    guard = 'if __name__ == "__main__":\n    for model in (make, make_model, lambda: make()):\n        say(model)'
    (tmp_path / "my search.py").write_text(f"{SCRIPT}{guard}")
    (tmp_path / "unguarded.py").write_text(f"{SCRIPT}say(make)")

    def ran(*words: str) -> str:
        environment = {**os.environ, "PYTHONPATH": str(Path(rfsearch.__file__).parents[1])}
        return subprocess.run(
            [sys.executable, *words], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
        ).stdout

    said = [*ran("my search.py").splitlines(), *ran("unguarded.py").splitlines()]
    printed, naming = zip(*(line.partition("Others: ")[2].rsplit(", then ", 1) for line in said), strict=True)
    assert set(naming) == {"sites=[NAME]."}
    assert printed[0] == "rfsearch sites 'my search.py:make' --input 1x24x24"
    command = ran("-c", "from rfsearch.cli import main; main()", *shlex.split(printed[0])[1:])
    assert [line.split()[0] for line in command.splitlines()[1:3]] == ["0", "2"]
    assert len(set(printed[1:])) == 1
    listed = eval(printed[1], {"rfsearch": rfsearch, "model": loops.make_model})
    assert [site.row.path for site in listed if site.by_dilation] == ["0", "2"]


def test_the_file_of_a_function_that_was_passed_identifies_the_network(the_plan, tmp_path):
    """Also where it is passed with arguments; and a run that holds a file of rfsearch's own instead goes on."""
    own = str(Path(loops.__file__).resolve())
    model = loops.make_model()
    for make in (loops.make_model, partial(loops.make_model)):
        code = OwnCode.of(loops.train, make)
        now = replace(code, model_spec="a_script:make_model").network(model)
        assert list(now.sources) == [own]
    then = replace(now, sources={"/old/rfsearch/own_loop/planning.py": "0" * 64})
    require_same(then, now, "a_script:make_model", tmp_path)
    with pytest.raises(RunDirectoryError, match="has changed since this run started"):
        require_same(replace(now, sources={own: "0" * 64}), now, "a_script:make_model", tmp_path)


def test_functions_in_a_file_are_named_by_spec(tmp_path, monkeypatch):
    train_in_process(monkeypatch)
    source = Path(loops.__file__).read_text(encoding="utf-8")
    file = tmp_path / "mine.py"
    file.write_text(source, encoding="utf-8")
    given = {**SEARCH, "model": f"{file}:make_model", "budget": "2x", "strategies": ["exhaustive"]}
    result = rfsearch.search(f"{file}:train", out=tmp_path / "run", **given)
    manifest = json.loads((result.directory / "manifest.json").read_text())
    assert str(file) in manifest["network"]["code"]["training"]
    file.write_text(source.replace("lr=3e-3", "lr=2e-3"), encoding="utf-8")
    with pytest.raises(RunDirectoryError, match=r"mine\.py has changed"):
        rfsearch.search(f"{file}:train", out=tmp_path / "run", **given)


def test_weights_that_diverged_do_not_win(tmp_path):
    def diverges_at_six(trial):
        model = trial.prepare(loops.make_model())
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        trial.attach(model, optimizer)
        for _ in trial.epochs(2):
            loss = model(torch.ones(loops.INPUT)).mean()
            (loss * math.nan if trial.candidate == Candidate({"2": Dilated(6)}) else loss).backward()
            optimizer.step()
        trial.finish(val=0.9)

    record = finished(training(plan(diverges_at_six, strategies=("exhaustive",)), Dilated(6), tmp_path))
    assert record.status == "failed"
    assert "not finite" in record.cause


def test_the_last_pass_of_weighing_is_within_the_limit_too(the_plan, tmp_path):
    whole = finished(training(the_plan, Dilated(2), tmp_path / "whole")).cost.flop
    weighing = 16 * 2 * 24 * 24 * (8 * 9 + 8 * 8 * 9 + 8)
    record = finished(training(the_plan, Dilated(2), tmp_path / "cut", limit=whole - 0.5 * weighing))
    assert record.status == "cut"
    assert record.cost.flop <= whole - 0.5 * weighing


def test_another_function_is_not_mixed_into_a_run(tmp_path, monkeypatch):
    train_in_process(monkeypatch)

    def train(trial, lr=0.01):
        loops.train_without_a_look(trial)

    given = {**SEARCH, "strategies": ["exhaustive"], "budget": "2x"}
    first = rfsearch.search(partial(train, lr=0.1), out=tmp_path / "run", **given)
    again = rfsearch.search(partial(train, lr=0.1), out=tmp_path / "run", **given)
    assert again.trials.equals(first.trials)
    for other in (partial(train, lr=0.2), train, lambda trial: train(trial, 0.3)):
        with pytest.raises(RunDirectoryError, match="has changed since this run started"):
            rfsearch.search(other, out=tmp_path / "run", **given)


class Failing:
    """Training functions that do what they should not."""

    @staticmethod
    def never_prepares(trial):
        trial.attach(nn.Conv2d(1, 1, 1), None)

    @staticmethod
    def has_no_epochs(trial):
        model = trial.prepare(loops.make_model())
        trial.attach(model, torch.optim.SGD(model.parameters(), 0.1))

    @staticmethod
    def raises(trial):
        trial.prepare(loops.make_model())
        raise KeyError("labels")

    @staticmethod
    def attaches_twice(trial):
        model = trial.prepare(loops.make_model())
        for _ in range(2):
            trial.attach(model, torch.optim.SGD(model.parameters(), 0.1))

    @staticmethod
    def attaches_no_optimizer(trial):
        trial.attach(trial.prepare(loops.make_model()))

    @staticmethod
    def steps_another_optimizer(trial):
        model = trial.prepare(loops.make_model())
        trial.attach(model, torch.optim.SGD(model.parameters(), 0.1))
        other = torch.optim.SGD(model.parameters(), 0.1)
        for _ in trial.epochs(2):
            model(torch.zeros(loops.INPUT)).sum().backward()
            other.step()

    @staticmethod
    def trains_another_model(trial):
        trial.prepare(loops.make_model())
        other = loops.make_model()
        trial.attach(other, torch.optim.SGD(other.parameters(), 0.1))

    @staticmethod
    def prepares_another_model(trial):
        trial.prepare(nn.Sequential(*loops.make_model(), nn.Conv2d(1, 1, 1)))

    @staticmethod
    def exits(trial):
        raise SystemExit(3)

    @staticmethod
    def has_two_loops(trial):
        model = trial.prepare(loops.make_model())
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        trial.attach(model, optimizer)
        for _ in range(2):
            for _ in trial.epochs(2):
                model(torch.zeros(loops.INPUT)).sum().backward()
                optimizer.step()

    @staticmethod
    def trains_elsewhere(trial):
        model = trial.prepare(loops.make_model())
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        trial.attach(model, optimizer)
        for _ in trial.epochs(2):
            thread = threading.Thread(target=lambda: model(torch.zeros(loops.INPUT)).sum().backward())
            thread.start()
            thread.join()
            for parameter in model.parameters():
                parameter.grad = None
            optimizer.step()
        trial.finish(val=0.0)

    @staticmethod
    def belongs_to_a_group(trial):
        model = trial.prepare(loops.make_model())
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch.distributed, "is_initialized", lambda: True)
            patch.setattr(torch.distributed, "get_world_size", lambda: 2)
            trial.attach(model, torch.optim.SGD(model.parameters(), 0.1))

    @staticmethod
    def scores_a_list(trial):
        model = trial.prepare(loops.make_model())
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        trial.attach(model, optimizer)
        for _ in trial.epochs(2):
            model(torch.zeros(loops.INPUT)).sum().backward()
            optimizer.step()
            trial.report(val=[0.5])

    @staticmethod
    def never_scores(trial):
        model = trial.prepare(loops.make_model())
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        trial.attach(model, optimizer)
        for _ in trial.epochs(2):
            model(torch.zeros(loops.INPUT)).sum().backward()
            optimizer.step()

    @staticmethod
    def keeps_a_number(trial):
        model = trial.prepare(loops.make_model())
        trial.attach(model, torch.optim.SGD(model.parameters(), 0.1))
        trial.keep(best=0.3)


@pytest.mark.parametrize(
    ("train", "said"),
    [
        (Failing.never_prepares, r"trial\.prepare"),
        (Failing.has_no_epochs, r"trial\.epochs"),
        (Failing.raises, r"KeyError: 'labels' \(test_search\.py, line \d+, in raises\)"),
        (Failing.attaches_twice, "already"),
        (Failing.attaches_no_optimizer, "Got none"),
        (Failing.steps_another_optimizer, "without a step of the attached optimiser"),
        (Failing.trains_another_model, "another model than trial"),
        (Failing.prepares_another_model, "other names or shapes"),
        (Failing.exits, "SystemExit: 3"),
        (Failing.has_two_loops, "iterated over already"),
        (Failing.trains_elsewhere, "cannot be metered"),
        (Failing.belongs_to_a_group, "a group of 2"),
        (Failing.scores_a_list, "a score is one number"),
        (Failing.never_scores, r"trial\.finish"),
        (Failing.keeps_a_number, "best has none"),
    ],
)
def test_what_a_loop_does_wrong_is_one_message_before_anything_is_searched(train, said):
    with pytest.raises(RequestError, match=said):
        plan(train)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"input_shape": (3, 24)}, "input_shape"),
        ({"dilations": [0, 2]}, "dilations are whole numbers"),
        ({"dilations": [2.5]}, "dilations are whole numbers"),
        ({"sites": ["3x"]}, "3x"),
        ({"model": loops.make_model()}, "Pass the function"),
        ({"model": lambda: 3}, r"makes a torch\.nn\.Module"),
        ({"model": lambda classes: None}, "without arguments"),
        ({"budget": "7"}, "7"),
        ({"budget": 7}, "budget is text"),
        ({"seeds": 1.5}, "seeds"),
        ({"strategies": ["exhaustve"]}, "exhaustive"),
        ({"direction": "up"}, "maximize"),
    ],
)
def test_what_is_asked_wrongly_is_one_message(changes, said, tmp_path):
    with pytest.raises(RfsearchError, match=said):
        rfsearch.search(loops.train, out=tmp_path / "run", **{**SEARCH, **changes})
    assert not (tmp_path / "run").exists()


def test_a_compiled_loss_is_counted_as_it_was_written():
    def train(trial, loss):
        model = trial.prepare(loops.make_model())
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        trial.attach(model, optimizer)
        for _ in trial.epochs(1):
            for x, y in loops.loader(32):
                optimizer.zero_grad()
                loss(model(x) - y).backward()
                optimizer.step()
        trial.finish(val=loops.scorer(model)())

    def loss(difference):
        return (difference.square() * 2 + 1).mean()

    written, compiled = (
        plan(partial(train, loss=one), strategies=("exhaustive",)).space.length.train_flop
        for one in (loss, torch.compile(loss, backend="eager"))
    )
    assert compiled == pytest.approx(written, rel=1e-9)


def train_evaluating(trial, epochs: int, evaluated) -> None:
    """Evaluate for long, after some epochs only."""
    model = trial.prepare(loops.make_model())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    trial.attach(model, optimizer)
    for epoch in trial.epochs(epochs):
        for x, y in loops.loader(16):
            optimizer.zero_grad()
            nn.functional.mse_loss(model(x), y).backward()
            optimizer.step()
        if evaluated(epoch):
            with trial.evaluating():
                for seed in range(1, 6):
                    loops.scorer(model, seed)()
            trial.report(val=0.5)
    trial.finish(val=0.5)


@pytest.mark.parametrize("share", [0.45, 0.55, 0.65, 0.75])
def test_a_limit_holds_where_only_some_epochs_are_evaluated(share, tmp_path):
    planned = plan(partial(train_evaluating, epochs=10, evaluated=lambda epoch: epoch % 2), strategies=("exhaustive",))
    assert any("Nothing was evaluated" in notice for notice in planned.notices)
    whole = finished(training(planned, Dilated(2), tmp_path / "whole")).cost.flop
    record = finished(training(planned, Dilated(2), tmp_path / "cut", limit=share * whole))
    assert record.status == "cut"
    assert record.cost.flop <= share * whole


@pytest.mark.parametrize("share", [0.4, 0.55, 0.7, 0.85])
def test_a_limit_holds_while_f_grows_within_a_short_training(share, tmp_path):
    train = partial(train_evaluating, epochs=4, evaluated=lambda epoch: False)
    planned = plan(train, strategies=("inflation",))
    steep = replace(planned, space=planned.space.with_(f_step=0.2))
    choice = Inflated(4, f=1.0, learned=True)
    whole = finished(training(steep, choice, tmp_path / "whole"))
    assert whole.rungs == ()
    record = finished(training(steep, choice, tmp_path / "cut", limit=share * whole.cost.flop))
    assert record.status == "cut"
    assert record.cost.flop <= share * whole.cost.flop


def test_a_real_dilation_that_may_fall_below_two_is_forecast_at_what_it_costs_there(the_plan):
    whole, low, high = (
        the_plan.forecaster(Candidate({"2": choice})).cost.flop for choice in (Dilated(2), Moved(2), Moved(4))
    )
    assert whole < high < 0.7 * low


def test_a_plan_says_that_a_compiled_model_runs_as_it_was_written():
    def train(trial):
        model = trial.prepare(loops.make_model())
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        model = torch.compile(model)
        trial.attach(model, optimizer)
        for _ in trial.epochs(1):
            model(torch.ones(loops.INPUT)).mean().backward()
            optimizer.step()
        trial.finish(val=0.0)

    planned = plan(train, strategies=("exhaustive",), budget="20x")
    assert any("compiled by torch.compile" in notice for notice in planned.notices)


def test_a_compiled_model_trains_as_it_was_written(tmp_path):
    def trained(compiled: bool):
        def train(trial):
            model = trial.prepare(loops.make_model())
            optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
            if compiled:
                model = torch.compile(model)
            trial.attach(model, optimizer)
            for _ in trial.epochs(2):
                for x, y in loops.loader(16):
                    optimizer.zero_grad()
                    nn.functional.mse_loss(model(x), y).backward()
                    optimizer.step()
            trial.finish(val=loops.scorer(model)())

        return finished(training(plan(train, strategies=("exhaustive",)), Dilated(2), tmp_path / str(compiled)))

    plain, compiled = trained(False), trained(True)
    assert (compiled.status, compiled.val) == ("completed", plain.val)
    assert compiled.cost.flop == pytest.approx(plain.cost.flop, rel=0.01)


def test_a_trial_that_fails_says_where(the_plan, tmp_path):
    def fails_at_six(trial):
        if trial.candidate == Candidate({"2": Dilated(6)}):
            raise ValueError("no room")
        loops.train(trial)

    found = plan(fails_at_six, strategies=("exhaustive",))
    record = finished(training(found, Dilated(6), tmp_path))
    assert record.status == "failed"
    assert record.cause.startswith("ValueError: no room (test_search.py, line")
    assert finished(training(found, Dilated(2), tmp_path / "other")).status == "completed"


def test_trainings_of_different_lengths_are_not_compared(tmp_path):
    def longer_at_six(trial):
        if trial.candidate == Candidate({"2": Dilated(6)}):
            trial.epochs_wanted = 3
        model = trial.prepare(loops.make_model())
        optimizer = torch.optim.SGD(model.parameters(), 0.01)
        trial.attach(model, optimizer)
        for _ in trial.epochs(getattr(trial, "epochs_wanted", 2)):
            model(torch.ones(loops.INPUT)).mean().backward()
            optimizer.step()
        trial.finish(val=0.0)

    record = finished(training(plan(longer_at_six, strategies=("exhaustive",)), Dilated(6), tmp_path))
    assert record.status == "failed"
    assert "different lengths" in record.cause


def test_a_trial_whose_first_epoch_does_not_fit_fails_and_is_not_scored(the_plan, tmp_path):
    one = the_plan.forecaster(Candidate({"2": Dilated(2)})).step.flop
    record = finished(training(the_plan, Dilated(2), tmp_path, limit=0.9 * one))
    assert (record.status, record.val, record.steps) == ("failed", None, 0)
    assert "its first epoch would cost more than what was left" in record.cause
    assert record.cost.flop < 0.2 * one


def test_where_an_arm_has_no_room_for_the_first_epoch_of_a_search_nothing_is_recommended_untrained(tmp_path):
    """Looks make the first epoch of a search dearer than that of the hand default."""
    with pytest.MonkeyPatch.context() as patch:
        train_in_process(patch)
        search = {**SEARCH, "budget": "2.9x", "strategies": ["fractional"]}
        result = rfsearch.search(loops.train, out=tmp_path / "run", **search)
    assert (result.trials.steps > 0).all()
    assert set(result.trials.status) <= {"completed", "cut"}


def test_a_lost_worker_costs_its_way_to_the_next_report_and_no_more(the_plan, tmp_path):
    """Its trial goes on to the end where there is room for the rest and for what was lost."""
    whole = finished(training(the_plan, Dilated(2), tmp_path / "whole"))
    epoch = whole.rungs[1].cost.flop - whole.rungs[0].cost.flop
    work = training(the_plan, Dilated(2), tmp_path / "lost")
    for _ in range(4):
        work.advance()
    work.close()
    candidate = Candidate({"2": Dilated(2)})
    room = Assignment("t", "s", 0, candidate.to_json(), 0, whole.cost.flop + 1.2 * epoch)
    step = the_plan.forecaster(candidate).step
    order = Order(room, "flop", CPU, tmp_path / "lost" / "t", lost=1, lost_s=1.0, step=step)
    record = finished(the_plan.trainings.begin(order))
    assert (record.status, record.val) == ("completed", whole.val)
    assert record.cost.flop == pytest.approx(whole.cost.flop + epoch, rel=0.01)
