"""Tell others of a run as it goes on: trackers of experiments, and whatever else follows its records.

An observer is one class, an entry point of the group `rfsearch.observers` or a SPEC. It sees records and decides
nothing: one that raises is named once and not asked again.
"""

from rfsearch.observers.base import Observer, Watched
from rfsearch.observers.watching import Observers, callbacks_of, check_tracks, observing

__all__ = ["Observer", "Observers", "Watched", "callbacks_of", "check_tracks", "observing"]
