"""What is done to Ray Tune's own controller, of the version that is installed."""

from types import SimpleNamespace

import pytest
import ray
from ray import cloudpickle
from ray._private import worker
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial
from ray.tune.search.basic_variant import BasicVariantGenerator

from rfsearch.orchestration.ray_insides import error_of, forget_ended, keep_idle_workers, muted
from rfsearch.orchestration.searcher import RungScheduler


@pytest.fixture
def controller(monkeypatch) -> TuneController:
    monkeypatch.setenv("TUNE_MAX_PENDING_TRIALS_PG", "3")  # otherwise it asks a cluster
    monkeypatch.setattr(Trial, "init_local_path", lambda trial: None)
    return TuneController(search_alg=BasicVariantGenerator(), scheduler=RungScheduler(SimpleNamespace(room=lambda: 3)))


def added(controller: TuneController) -> Trial:
    """Return a trial that the controller has taken in as it would, and told the scheduler of."""
    trial = Trial("nothing", stub=True)
    controller._trials.append(trial)
    controller._trial_metadata[trial.trial_id] = "what Tune writes down of it"
    controller._scheduler_alg.on_trial_add(controller._wrapped(), trial)
    return trial


def test_as_many_idle_workers_are_kept_as_trials_run_at_once(controller):
    resources = added(controller).placement_group_factory
    kept = [controller._actor_cache.cache_object(resources, worker) for worker in "abcd"]
    assert kept == [True, True, True, False]
    assert list(controller._actor_cache.flush_cached_objects()) == []


@pytest.mark.parametrize(("status", "remembered"), [(Trial.TERMINATED, 2), (Trial.ERROR, 2), (Trial.RUNNING, 3)])
def test_a_trial_that_has_ended_is_forgotten_once_another_is_added(controller, status, remembered):
    for _ in range(2):
        trial = added(controller)
    trial.set_status(status)
    added(controller)
    assert len(controller._trials) == len(controller._trial_metadata) == remembered


def test_a_controller_that_has_none_of_it_is_left_alone():
    assert not keep_idle_workers(object(), None, 3)
    forget_ended(object())


def test_the_error_of_a_trial_is_read_where_tune_writes_it(controller, tmp_path, monkeypatch):
    trial = added(controller)
    assert error_of(trial) is None
    monkeypatch.setattr(Trial, "local_path", str(tmp_path))
    trial.handle_error(ray.exceptions.RayActorError(error_msg="its node has died"))
    assert "its node has died" in str(error_of(trial))
    (tmp_path / "error.pkl").write_bytes(cloudpickle.dumps("no error"))
    assert error_of(trial) is None


def test_ray_prints_nothing_meanwhile(capsys):
    said = {"lines": ["a page of state"], "pid": "raylet", "is_err": False}
    worker.print_to_stdstream(said, ignore_prefix=False)
    assert "a page of state" in capsys.readouterr().out
    with muted():
        worker.print_to_stdstream({**said, "lines": ["another page"]}, ignore_prefix=False)
    assert capsys.readouterr() == ("", "")
    worker.print_to_stdstream({**said, "lines": ["a third one"]}, ignore_prefix=False)
    assert "a third one" in capsys.readouterr().out
