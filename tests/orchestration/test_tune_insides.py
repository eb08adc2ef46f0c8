"""What is done to Ray Tune's own controller, of the version that is installed."""

import pytest
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial
from ray.tune.search.basic_variant import BasicVariantGenerator

from rfsearch.orchestration.searcher import RungScheduler
from rfsearch.orchestration.tune_insides import forget_ended, keep_idle_workers


@pytest.fixture
def controller(monkeypatch) -> TuneController:
    monkeypatch.setenv("TUNE_MAX_PENDING_TRIALS_PG", "3")  # otherwise it asks a cluster
    monkeypatch.setattr(Trial, "init_local_path", lambda trial: None)
    return TuneController(search_alg=BasicVariantGenerator(), scheduler=RungScheduler(None, workers=3))


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
