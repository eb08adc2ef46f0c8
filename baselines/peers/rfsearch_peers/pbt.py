"""Population-based training over dilations: networks in training, of which the worst take over from the best.

Jaderberg et al., "Population based training of neural networks", arXiv 1711.09846, 2017. Called:
`ray.tune.schedulers.PopulationBasedTraining` (Apache-2.0), in rounds that all members end together.

    python -m rfsearch_peers.pbt --space helen --out DIR

A dilation changes the shape of no weight. So after each round the last quarter of the population, by a look at
held-out images, goes on from weights and momentum of one of the first quarter, each site at a neighbouring dilation of
the space (or, one time in four, at any). A member cannot be told from the others' trainings, which a strategy's trials
are: hence a command of its own, which writes an ordinary run directory for `rfsearch report` and `rfsearch compare`.

Every member trains as many steps as one full training, and is charged every step and look of its own. Their number is
what the budget has room for. At more than one worker at a time, which member takes over from which is up to the order
in which they come in.
"""

from __future__ import annotations

import argparse
import json
import random
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from rfsearch.errors import BudgetError, RequestError, SpaceError, TrialError
from rfsearch.ledger import Assignment, Cost, Journal, Record, Rung, read_run
from rfsearch.ledger.run_directory import read_manifest, write_manifest
from rfsearch.orchestration.tune import CHECKPOINTS, Engine, Resources  # sets what Ray reads when it is imported

# isort: split

import torch
from ray import tune
from ray.tune.schedulers import PopulationBasedTraining

from rfsearch import run
from rfsearch.data import ImageSet
from rfsearch.report import summarise, write
from rfsearch.space import Candidate, Choice, Space
from rfsearch.surgery import set_dilation
from rfsearch.surgery.places import lone_convolution
from rfsearch.trial.learner import Learner, fields_of
from rfsearch.trial.meter import held_bytes

NAME = "pbt"
ROUNDS = 6
_QUARTER = 0.25
_SMALLEST = 4  # members, so that a quarter is one


@dataclass
class _Member:
    """What the driver knows of one: where it started, what it has cost, how it has scored."""

    assignment: Assignment
    cost: Cost = field(default_factory=Cost)
    rungs: list[Rung] = field(default_factory=list)
    trace: list[tuple[int, str, float]] = field(default_factory=list)
    outcome: dict[str, Any] = field(default_factory=dict)


class _Training(tune.Trainable):
    """A member in training on a worker; one step of it is a round."""

    def setup(
        self,
        config: dict[str, Any],
        space: Space | None = None,
        data: ImageSet | None = None,
        run_dir: str = "",
        seed: int = 0,
        resources: tuple[float, float] = (1, 0),
    ) -> None:
        assert space is not None
        assert data is not None
        cpus, gpus = resources
        torch.set_num_threads(max(1, int(cpus)))
        self._space, self._data, self._run_dir, self._seed = space, data, Path(run_dir), seed
        self._device = torch.device("cuda" if gpus else "cpu")
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._since = time.perf_counter()  # the worker is held from here on
        self._dilations = {site: new_config[site] for site in self._space.sites}
        self._member = _number(self.trial_id)
        seed = 1000 * self._seed + self._member
        torch.manual_seed(seed)
        candidate = Candidate.of({site: Choice(d) for site, d in self._dilations.items()})
        self._learner = Learner(self._space, self._data, candidate, seed, self._device)
        self._step = 0
        return True

    def step(self) -> dict[str, Any]:
        """Train to the end of the round and look; at the last one, score and keep the network."""
        first = self._step
        learner, recipe, splits = self._learner, self._space.recipe, self._data.splits
        flop, outcome = 0.0, dict[str, Any]()
        try:
            for step in range(first, min(step for step in recipe.rung_steps() if step > first)):
                flop += learner.train_step(step)
                self._step = step + 1
            ended = self._step == recipe.steps
            scores, more = learner.score(splits["val"] if ended else splits["val"].some(recipe.rung_images))
            flop += more
            if ended:
                outcome["val"], more = scores.primary, 0.0
                if "test" in splits:
                    scores, more = learner.score(splits["test"])
                    outcome["test"] = scores.primary
                flop += more
                outcome |= {"status": "completed", "scores": dict(scores.all), **self._weighed()}
            score = float(scores.primary)
        except TrialError as error:
            score, outcome = -1.0, {"status": "failed", "cause": str(error)}
        since, self._since = self._since, time.perf_counter()
        return {
            "score": score,
            "steps": self._step,
            "dilations": self._dilations,
            "cost": asdict(Cost(flop, self._since - since, learner.epochs(self._step - first))),
            "outcome": json.dumps(outcome),
            "done": bool(outcome),
        }

    def _weighed(self) -> dict[str, Any]:
        """What inference costs, and the network and some of its images kept for the report."""
        model, splits = self._learner.model, self._data.splits
        inference, latency_ms = self._learner.weigh_inference()
        directory = self._run_dir / CHECKPOINTS / _trial(self._seed, self._member)
        directory.mkdir(parents=True, exist_ok=True)
        self._learner.save_examples(splits.get("test", splits["val"]).some(4), directory / "examples.npz")
        final = Candidate.of({site: Choice(d) for site, d in self._dilations.items()})
        torch.save({"model": model.state_dict(), "candidate": final.to_json()}, directory / "model.pt")
        return {
            "infer_mac": inference.flop / 2,
            "infer_latency_ms": latency_ms,
            "infer_peak_bytes": inference.peak_bytes + held_bytes(model),
            "params": sum(parameter.numel() for parameter in model.parameters()),
            "rf_px": fields_of(model, self._learner.learnable, final, self._data.image_size).rf_px,
        }

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        state = {"learner": self._learner.state(), "step": self._step, "flop": self._learner.step_cost().flop}
        torch.save(state, Path(checkpoint_dir) / "member.pt")

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Go on from a checkpoint, another member's too: its weights and momentum, at this one's dilations."""
        state = torch.load(Path(checkpoint) / "member.pt", map_location=self._device, weights_only=True)
        self._learner.load_state(state["learner"], state["flop"])
        self._step = state["step"]
        for site, dilation in self._dilations.items():
            conv = lone_convolution(self._learner.model, site)
            assert conv is not None
            set_dilation(conv, dilation)


class _Watch(tune.Callback):
    """Charges each member what it reports."""

    def __init__(self, members: Sequence[_Member]) -> None:
        self._members = members

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any) -> None:
        member = self._members[_number(trial.trial_id)]
        member.cost = member.cost + Cost(**result["cost"])
        starts = dict(Candidate.from_json(member.assignment.candidate))
        f = {site: starts[site].dilation / dilation for site, dilation in result["dilations"].items()}
        member.trace += [(result["steps"], site, value) for site, value in f.items()]
        member.outcome = {"f": f, "steps": result["steps"], **json.loads(result["outcome"])}
        if not result["done"]:
            member.rungs.append(Rung(result["steps"], result["score"], f, member.cost))


def search(request: run.Request, run_dir: Path, seed: int, rounds: int = ROUNDS, command: str = "") -> None:
    """Train a population and write its run directory.

    request: as of `rfsearch run`; its strategies and seeds mean nothing here. Raises RequestError for what cannot be
    done: a site that is no single convolution, parallel paths, a budget with room for less than four members.
    """
    with run.new_directory(run_dir):
        cpus = request.cpus_per_trial or 1
        with Engine(request.address, Resources(cpus, request.gpus_per_trial)) as engine:
            gpus = engine.resources[1]
            device = torch.device("cuda" if gpus else "cpu")
            torch.set_num_threads(max(1, int(cpus)))
            the_plan = run.plan(replace(request, strategies=("exhaustive",), seeds=1), device, run_dir / "cache")
            space = the_plan.space
            recipe = space.recipe.model_copy(update={"rungs": rounds - 1})
            the_plan = replace(the_plan, space=space.with_(recipe=recipe))
            the_plan.forecaster = run.Forecaster(the_plan.space, the_plan.data, device, the_plan.forecaster.flop_per_s)
            members = _population(the_plan, seed)
            run.start(the_plan, run_dir, command, engine.workers, device.type)
            write_manifest(run_dir, read_manifest(run_dir) | {"arms": [{"strategy": NAME, "seed": seed}]})
            journal = Journal(run_dir)
            for member in members:
                journal.start(member.assignment)
            _train(the_plan, members, run_dir, seed, (cpus, gpus))
            # The best last: what a population answers is known when all of it has been paid for.
            for member in sorted(members, key=lambda member: member.outcome.get("val", -1.0)):
                journal.finish(_record(the_plan, member))


def _population(the_plan: run.Plan, seed: int) -> list[_Member]:
    """As many members as the budget has room for, spread over the space's dilations, the hand default first."""
    space, budget = the_plan.space, the_plan.budget
    if space.path_set is not None or space.default_candidate != space.reference_candidate:
        raise SpaceError(f"{NAME} searches one path a site. Got the form {space.form!r}.")
    network = run.plugins.make_backbone(space.backbone, the_plan.data.num_classes)
    for site in space.sites:
        if lone_convolution(network, site) is None:
            raise SpaceError(f"{NAME} searches single convolutions. Got the container or span {site!r}.")
    expected = the_plan.forecaster(space.reference_candidate)
    count = int(budget.limit / budget.spent(expected.cost))
    if count < _SMALLEST:
        raise BudgetError(
            f"{NAME} needs room for {_SMALLEST} members at least, {budget.spent(expected.cost):.3g} {budget.currency} "
            f"each with their looks. {budget.text} has room for {count}."
        )
    others = [d for d in space.dilations if d != space.reference]
    random.Random(seed).shuffle(others)
    starts = [space.reference, *others]
    return [
        _Member(
            Assignment(
                _trial(seed, number),
                NAME,
                seed,
                space.uniform(Choice(starts[number % len(starts)], fractional=True)).to_json(),
                1000 * seed,  # one for all: members share weights, so none repeats another's training
                budget.limit / count,
            )
        )
        for number in range(count)
    ]


def _train(
    the_plan: run.Plan, members: Sequence[_Member], run_dir: Path, seed: int, resources: tuple[float, float]
) -> None:
    space = the_plan.space
    starts = [{site: c.dilation for site, c in Candidate.from_json(m.assignment.candidate)} for m in members]
    random.seed(seed)  # the scheduler draws from it
    trainable = tune.with_parameters(
        _Training, space=space, data=the_plan.data, run_dir=str(run_dir.resolve()), seed=seed, resources=resources
    )
    population = PopulationBasedTraining(
        time_attr="training_iteration",
        metric="score",
        mode="max",
        perturbation_interval=1,
        hyperparam_mutations={site: sorted(space.dilations) for site in space.sites},
        quantile_fraction=_QUARTER,
        log_config=False,
        synch=True,
    )
    start = {site: tune.sample_from(partial(_start_of, starts, site)) for site in space.sites}
    tuner = tune.Tuner(
        tune.with_resources(trainable, dict(zip(("cpu", "gpu"), resources, strict=True))),
        param_space={"member": tune.grid_search(list(range(len(members)))), **start},
        tune_config=tune.TuneConfig(scheduler=population, reuse_actors=True),
        run_config=tune.RunConfig(
            name="ray", storage_path=str(run_dir.resolve()), verbose=0, callbacks=[_Watch(members)]
        ),
    )
    tuner.fit()


def _start_of(starts: Sequence[dict[str, int]], site: str, spec: Any) -> int:
    return starts[spec.config.member][site]


def _record(the_plan: run.Plan, member: _Member) -> Record:
    candidate = Candidate.from_json(member.assignment.candidate)
    expected = the_plan.forecaster(candidate.found({}))
    assignment = member.assignment
    told: dict[str, Any] = {"status": "failed", "cause": "its worker was lost", "rf_px": expected.rf_px}
    return Record(
        trial=assignment.trial,
        strategy=assignment.strategy,
        seed=assignment.seed,
        candidate=assignment.candidate,
        rf_init_px=expected.rf_px,
        cost=member.cost,
        train_seed=assignment.train_seed,
        rungs=tuple(member.rungs),
        trace=tuple(member.trace),
        forecast=expected.cost,
        forecast_peak_bytes=expected.peak_bytes,
        **told | ({"cause": ""} if "val" in member.outcome else {}) | member.outcome,
    )


def _number(trial_id: str) -> int:
    """Of a member, by the name that Tune gives its trial: the order in which they began."""
    return int(trial_id.rpartition("_")[2])


def _trial(seed: int, number: int) -> str:
    return f"{NAME}-{seed}-{number:03d}"


def main(words: Sequence[str] | None = None) -> int:
    """The command; returns its exit code, as `rfsearch run` does."""
    parser = argparse.ArgumentParser(
        prog="python -m rfsearch_peers.pbt", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--space", required=True, help="name of a space, or a space file")
    parser.add_argument("--out", required=True, type=Path, help="run directory")
    parser.add_argument("--preset", help="size of the space")
    parser.add_argument("--data", help="folder of images; default: the space's embedded set")
    parser.add_argument("--budget", help="of the whole population, as of rfsearch run; default: the space's")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="how often members are compared, the end included")
    parser.add_argument("--cpus-per-trial", type=float)
    parser.add_argument("--gpus-per-trial", type=float)
    given = parser.parse_args(words)
    request = run.Request(
        given.space,
        preset=given.preset,
        data=given.data,
        budget=given.budget,
        cpus_per_trial=given.cpus_per_trial,
        gpus_per_trial=given.gpus_per_trial,
    )
    try:
        search(
            request,
            given.out,
            given.seed,
            given.rounds,
            f"python -m rfsearch_peers.pbt {shlex.join(words or sys.argv[1:])}",
        )
    except RequestError as error:
        print(error, file=sys.stderr)
        return 2
    write(given.out)
    verdict = summarise(read_run(given.out))
    print(verdict)
    return 0 if verdict.best else 1


if __name__ == "__main__":
    sys.exit(main())
