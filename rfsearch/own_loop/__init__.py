"""Receptive fields in trainings that are their users' own."""

from rfsearch.own_loop.learner import Learner, Report, learn
from rfsearch.own_loop.own_search import search
from rfsearch.own_loop.trial import Trial

__all__ = ["Learner", "Report", "Trial", "learn", "search"]
