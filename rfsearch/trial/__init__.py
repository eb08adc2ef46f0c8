"""Train one candidate, score it, and meter what it costs."""

from rfsearch.trial.meter import Meter, Metered
from rfsearch.trial.network import build_network, settings_of
from rfsearch.trial.operators import register_flop
from rfsearch.trial.training import Training

__all__ = ["Meter", "Metered", "Training", "build_network", "register_flop", "settings_of"]
