"""Choices, candidates and spaces: what may vary in a search. Imports neither torch nor Ray."""

from rfsearch.space.choice import Candidate, Choice, Paths, Sampling
from rfsearch.space.space import LSDFN, SINGLE, DataSpec, PathSet, Recipe, SamplingSpec, Space, SpaceFile, read_space

__all__ = [
    "LSDFN",
    "SINGLE",
    "Candidate",
    "Choice",
    "DataSpec",
    "PathSet",
    "Paths",
    "Recipe",
    "Sampling",
    "SamplingSpec",
    "Space",
    "SpaceFile",
    "read_space",
]
