"""Ray Tune runs the trials of a contest, on one machine or a cluster. The only package that imports Ray."""

from rfsearch.orchestration.tune import Engine, Resources

__all__ = ["Engine", "Resources"]
