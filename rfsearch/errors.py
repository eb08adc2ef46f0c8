"""Define every error that rfsearch raises on purpose.

    RfsearchError
    |-- RequestError            the request was wrong: one message, exit code 2
    |   |-- SpaceError          an unknown or faulty space, preset, site, choice or strategy
    |   |-- DataError           a data set that is missing, incomplete or inconsistent
    |   |-- BudgetError         a budget that cannot be read or spent
    |   |-- StrategyError       a strategy whose own code fails or breaks its contract
    |   |-- ModelError          a model that cannot be built, traced, cut open or weighed
    |   |   `-- DerivativeError a layer that is differentiated twice and has a first derivative only
    |   |-- NotInstalledError   a package that an extra of rfsearch's own brings is not installed
    |   |-- RunDirectoryError   a run directory that cannot be written, read or resumed
    |   `-- UntrustedError      code that is not installed, named by a directory that nobody here has begun or trusts
    |-- TrialError              one trial failed; the run goes on and the ledger holds the cause
    `-- LostProcessError        one of several processes of a trial has died; the trial is tried again

A message says the rule, then the value that broke it, then the nearest thing that works.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class RfsearchError(Exception):
    """Mark an error that rfsearch raises on purpose: catch it to catch them all.

    Example:
        >>> try:
        ...     space = read_space("helen.toml", "mini")
        ... except RfsearchError as error:
        ...     print(error)
    """


class RequestError(RfsearchError):
    """Report a request that cannot be fulfilled."""


class SpaceError(RequestError):
    """Report an unknown or faulty space, preset, site, choice or strategy."""


class DataError(RequestError):
    """Report a data set that is missing, incomplete or inconsistent."""


class BudgetError(RequestError):
    """Report a budget that cannot be read or spent."""


class StrategyError(RequestError):
    """Report a strategy whose own code fails or breaks its contract."""


class ModelError(RequestError):
    """Report a model that cannot be built, traced, cut open or weighed."""


class DerivativeError(ModelError, RuntimeError):
    """Report a layer that is differentiated twice and has a first derivative only.

    A RuntimeError too, as torch's own is.
    """


class NotInstalledError(RequestError):
    """Report that a package is not installed which an extra of rfsearch's own brings: no fault, where nobody asked."""


class RunDirectoryError(RequestError):
    """Report a run directory that cannot be written, read or resumed."""


class UntrustedError(RequestError):
    """Report code that a directory names, and that runs only where the user says so."""


class TrialError(RfsearchError):
    """Report one failed trial: NaN loss, out of memory, or an exception in the model or the data."""


class LostProcessError(RfsearchError):
    """Report that one of the processes has died that train a trial together: it is tried again, as a lost worker is."""


def nearest(wanted: str, known: Iterable[str]) -> str:
    """Return the end of a message about an unknown name: the closest known one, and all of them."""
    known = sorted(known)
    close = closest(wanted, known)
    hint = f" Did you mean {close!r}?" if close else ""
    return f"{hint} Known: {', '.join(known) if known else 'none'}."


def closest(wanted: str, known: Iterable[str]) -> str:
    """Return the known name that is closest to an unknown one; empty where none is like it."""
    return next(iter(difflib.get_close_matches(wanted, sorted(known), n=1, cutoff=0.4)), "")


def described(value: object) -> str:
    """Describe a value in a message: its type and shape, and those of its parts for a list or tuple."""
    if isinstance(value, list | tuple):
        parts = ", ".join(described(part) for part in value[:3])
        return f"a {type(value).__name__} of {len(value)} ({parts}{', ...' if len(value) > 3 else ''})"
    shape = getattr(value, "shape", None)
    said = f" of shape {' x '.join(map(str, shape)) or 'scalar'}" if isinstance(shape, tuple) else ""
    return f"{type(value).__name__}{said}"
