"""One thread a test process, and faces drawn once a process: the tensors here are far too small to share out."""

import functools
import os

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True, scope="session")
def faces_are_drawn_once():
    """Keep what a plan draws: the same arguments give the same faces, and 896 of them take seconds."""
    from rfsearch.planning import plan

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "rendered_faces", functools.lru_cache(maxsize=2)(plan.rendered_faces))
        yield
