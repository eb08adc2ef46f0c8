"""Search the receptive field of a network as a hyperparameter, on equal, metered budgets.

Importing it imports neither torch nor Ray; what computes does.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from rfsearch.choices import (
    Candidate,
    Choice,
    Dilated,
    Fractional,
    Guest,
    Inflated,
    Sampled,
    Searched,
    SitePath,
)
from rfsearch.errors import (
    BudgetError,
    DataError,
    ModelError,
    RequestError,
    RfsearchError,
    RunDirectoryError,
    SpaceError,
    StrategyError,
    TrialError,
)
from rfsearch.patch import apply
from rfsearch.space import Space

if TYPE_CHECKING:
    from rfsearch.networks import trained
    from rfsearch.own_loop import Learner, Trial, learn, search
    from rfsearch.result import Result, load_run

__version__ = "0.1.0"

__all__ = [
    "BudgetError",
    "Candidate",
    "Choice",
    "DataError",
    "Dilated",
    "Fractional",
    "Guest",
    "Inflated",
    "Learner",
    "ModelError",
    "RequestError",
    "Result",
    "RfsearchError",
    "RunDirectoryError",
    "Sampled",
    "Searched",
    "SitePath",
    "Space",
    "SpaceError",
    "StrategyError",
    "Trial",
    "TrialError",
    "__version__",
    "apply",
    "learn",
    "load_run",
    "search",
    "trained",
]


_WITH_TORCH = {
    "trained": "rfsearch.networks",
    "learn": "rfsearch.own_loop",
    "Learner": "rfsearch.own_loop",
    "search": "rfsearch.own_loop",
    "Trial": "rfsearch.own_loop",
    "load_run": "rfsearch.result",
    "Result": "rfsearch.result",
}


def __getattr__(name: str) -> object:
    """Import what needs torch on its first use: `import rfsearch` does without."""
    if name in _WITH_TORCH:
        return getattr(import_module(_WITH_TORCH[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
