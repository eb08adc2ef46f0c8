"""rfsearch: the receptive field of a network as a searchable hyperparameter, on equal, metered budgets.

Importing it does not import Ray; only running a search does.
"""

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
from rfsearch.space import Candidate, Choice, Space

__version__ = "0.1.0"

__all__ = [
    "BudgetError",
    "Candidate",
    "Choice",
    "DataError",
    "ModelError",
    "RequestError",
    "RfsearchError",
    "RunDirectoryError",
    "Space",
    "SpaceError",
    "StrategyError",
    "TrialError",
    "__version__",
    "apply",
]
