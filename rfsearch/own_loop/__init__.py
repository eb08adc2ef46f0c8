"""Receptive fields in trainings that are their users' own."""

from rfsearch.own_loop.learner import Learner, Report, learn

__all__ = ["Learner", "Report", "learn"]
