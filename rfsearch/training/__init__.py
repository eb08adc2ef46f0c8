"""Train one candidate, score it, and meter what it costs."""

from rfsearch.training.meter import Meter, Metered
from rfsearch.training.network import build_network, settings_of
from rfsearch.training.operators import register_flop
from rfsearch.training.order import Order
from rfsearch.training.training import Training
from rfsearch.training.trainings import ImageTrainings, RunningTraining, Trainings

__all__ = [
    "ImageTrainings",
    "Meter",
    "Metered",
    "Order",
    "RunningTraining",
    "Training",
    "Trainings",
    "build_network",
    "register_flop",
    "settings_of",
]
