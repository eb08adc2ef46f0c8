"""Hold the contest of a plan: set it up as its ledger left it, train, and keep the checkpoints that matter."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from rfsearch.errors import RfsearchError, RunDirectoryError
from rfsearch.ledger import Journal, Record, read_history
from rfsearch.ledger.journal import require_replayable
from rfsearch.planning.contest import Arm, Contest
from rfsearch.planning.search_plan import SearchPlan
from rfsearch.storage import Storage, storage_of
from rfsearch.training import Trainings


class Engine(Protocol):
    """Run the trials of a contest: in this process, on a cluster, or wherever a training can run.

    An engine owns processes and devices, and decides nothing: the contest says what is trained next, whether it goes
    on, and when all is done. These are the rules:

    - All calls of the contest, `watch` and `check` come from the thread that called `run`.
    - While fewer than `workers` trials run, ask `contest.next()`. None means that nothing can be handed out for now:
      ask again once a trial has come back, and stop when `contest.done`. Never ask ahead of a free worker, or a
      strategy chooses before it knows the scores of what is in training.
    - A worker trains an assignment with `trainings.begin(Order(assignment, ...))`, its checkpoints in
      `run_dir / "checkpoints" / assignment.trial`, and its `step` from `contest.first_step(assignment)`. That folder
      and those of other trials must be there for every worker, and writable: an heir reads its parent's. A training
      that does not go on, ended or not, is closed.
    - `RunningTraining.advance()` trains to the next rung or to the end, and never raises for what the user's model or
      data does. A record with status `pruned` is provisional: show it to `watch`, then ask `contest.keep(record)`. If
      that is true, advance again; if not, hand in this record as it is.
    - Every assignment is handed in once, by `contest.finish(record)`, with its final record or with the provisional one
      that was not kept. `watch` gets what `finish` returns.
    - If a worker dies, or `advance` raises LostProcessError, begin a training of the same assignment with `lost` and
      `lost_s`: how many workers have died since the trial's last rung, and how long they held their devices. So lost
      work is charged. It goes on from its last checkpoint and reports that rung again, which is judged again. If it
      keeps dying, hand in its last record with status `failed`, a `cause` and no `val`; add to its cost those seconds,
      and per try the FLOP and epochs of `contest.stretch(assignment)`.
    - An exception of the contest, of `watch` or of `check`, and a RunDirectoryError of a training, end the run: stop
      the workers and raise it. Trials that have not ended are left as they are, neither finished nor failed; a resumed
      run is given them again by `contest.next()`.

    Attributes:
        workers: Number of trials at a time.

    The smallest one is `rfsearch.replay.OneAtATime`.
    """

    @property
    def workers(self) -> int:
        """Number of trials at a time."""

    def run(
        self,
        contest: Contest,
        trainings: Trainings,
        run_dir: Path,
        currency: str,
        watch: Callable[[Record], None],
        check: Callable[[], None],
    ) -> None:
        """Train until the contest is done.

        Args:
            contest: Says what to train, and takes the records. It may hold trials that an interrupted run left.
            trainings: Begins the training of each assignment. It can be pickled; send it to a worker once.
            run_dir: The run's directory. The engine writes nothing there but what trainings write.
            currency: Which field of `Cost` the limits of assignments count.
            watch: Shows progress, and deletes checkpoints that are needed no more. Call it with every record: each
                rung's before `contest.keep`, and what `contest.finish` returned.
            check: Raises what is to end the run, such as an interrupt by the user. Call it often, many times a second
                while workers train if the engine has a loop of its own, since signals raise nowhere else.

        Raises:
            RfsearchError: What ended the run; everything that had been handed in is in the ledger.
        """


def contest_of(the_plan: SearchPlan, run_dir: Path) -> Contest:
    """Set up the contest of a plan as its ledger left it, or a new one.

    Raises:
        RunDirectoryError: The ledger is damaged, or is of another run.
        StrategyError: A strategy fails.
    """
    journal = Journal(run_dir)
    arms = [Arm(entrant.enter(the_plan.space, seed), seed, the_plan.budget) for entrant, seed in the_plan.arms]
    history = read_history(run_dir)
    require_replayable(history, {(arm.name, arm.seed) for arm in arms}, journal.path)
    try:
        space = the_plan.space
        forecast, reference = the_plan.forecaster, space.reference_candidate
        return Contest(arms, journal, history, forecast, reference, space.direction, space.default_candidate)
    except RfsearchError:
        raise
    except Exception as error:  # what a strategy raises for records that it can never have asked for
        raise RunDirectoryError(
            f"{journal.path}: its trials cannot be replayed, so one is damaged: {type(error).__name__}: {error}."
        ) from error


def keep_leaders(run_dir: Path, contest: Contest, storage: Storage | None = None) -> None:
    """Delete the checkpoints of finished trials that nobody shows and that no other trial goes on from.

    Args:
        run_dir: The run's directory.
        contest: Its contest.
        storage: The storage of which the directory is the local copy, if it is one.
    """
    needed = contest.shown | set(contest.running) | contest.parents
    for folder in (run_dir / "checkpoints").glob("*"):
        if folder.name not in needed:
            shutil.rmtree(folder, ignore_errors=True)
    if storage is not None:
        storage.keep_checkpoints(needed)


def compete(
    the_plan: SearchPlan,
    contest: Contest,
    run_dir: Path,
    engine: Engine,
    watch: Callable[[Record, Contest], None],
    check: Callable[[], None],
) -> None:
    """Train until every arm has spent its budget.

    Args:
        the_plan: The plan of the run.
        contest: Its contest.
        run_dir: Its directory.
        engine: What runs the trials.
        watch: Called with every record, those of rungs included, and the contest.
        check: Called many times a second; what it raises ends the contest.
    """
    storage = storage_of(run_dir)

    def take(record: Record) -> None:
        if record.trial not in contest.running:
            keep_leaders(run_dir, contest, storage)
        watch(record, contest)
        if storage is not None:
            storage.push_ledger()

    engine.run(contest, the_plan.trainings, run_dir, the_plan.budget.currency, take, check)
