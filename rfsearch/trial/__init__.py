"""Train one candidate, score it, and meter what it costs."""

from rfsearch.trial.formulas import register_flop
from rfsearch.trial.learner import build_model, settings_of
from rfsearch.trial.meter import Meter, Metered
from rfsearch.trial.training import Training

__all__ = ["Meter", "Metered", "Training", "build_model", "register_flop", "settings_of"]
