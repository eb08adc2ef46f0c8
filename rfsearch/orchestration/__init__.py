"""Run the trials of a contest by Ray Tune, on one machine or a cluster. The only package that imports Ray."""

import os

from rfsearch import account

# Read by Ray when it is imported: no second progress display, no loggers, no statistics sent, no signal handling,
# and a machine that its owner takes back is lost like any other.
os.environ.update(
    RAY_AIR_NEW_OUTPUT="0",
    TUNE_DISABLE_AUTO_CALLBACK_LOGGERS="1",
    RAY_USAGE_STATS_ENABLED="0",
    TUNE_DISABLE_SIGINT_HANDLER="1",
    TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S="0",
    RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="0",
    RAY_TRAIN_COUNT_PREEMPTION_AS_FAILURE="1",
)
# Workers inherit it: threads that spin while they wait take the cores from everyone else on a busy machine.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.update(account.stand_ins())

from rfsearch.orchestration.engine import Engine, Resources

__all__ = ["Engine", "Resources"]
