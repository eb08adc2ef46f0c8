"""Search the receptive field of a network as a hyperparameter, on equal, metered budgets.

Importing it imports neither torch nor Ray; what computes does.
"""

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
    "ModelError",
    "RequestError",
    "RfsearchError",
    "RunDirectoryError",
    "Sampled",
    "Searched",
    "SitePath",
    "Space",
    "SpaceError",
    "StrategyError",
    "TrialError",
    "__version__",
    "apply",
    "trained",
]


def __getattr__(name: str) -> object:
    """Import `trained` on its first use: it needs torch, which `import rfsearch` does without."""
    if name == "trained":
        from rfsearch.networks import trained

        return trained
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
