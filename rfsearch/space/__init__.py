"""Choices, candidates and spaces: what may vary in a search. Imports neither torch nor Ray."""

from rfsearch.space.choice import Candidate, Choice
from rfsearch.space.space import DataSpec, Recipe, Space, read_space

__all__ = ["Candidate", "Choice", "DataSpec", "Recipe", "Space", "read_space"]
