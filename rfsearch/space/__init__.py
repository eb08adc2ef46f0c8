"""Spaces: what may vary in a search, and what must not. Imports neither torch nor Ray."""

from rfsearch.space.data_spec import DataSpec
from rfsearch.space.file import SpaceFile, read_space
from rfsearch.space.forms import LSDFN, SINGLE, PathSet, SamplingSpec
from rfsearch.space.own import Length, OwnSpace
from rfsearch.space.recipe import Recipe
from rfsearch.space.space import SearchSpace, Space
from rfsearch.space.task_spec import TaskSpec

__all__ = [
    "LSDFN",
    "SINGLE",
    "DataSpec",
    "Length",
    "OwnSpace",
    "PathSet",
    "Recipe",
    "SamplingSpec",
    "SearchSpace",
    "Space",
    "SpaceFile",
    "TaskSpec",
    "read_space",
]
