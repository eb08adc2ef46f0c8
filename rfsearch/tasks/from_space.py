"""The task of a space, made for a data set."""

from __future__ import annotations

from rfsearch.data.image_set import ImageSet
from rfsearch.space import Space
from rfsearch.tasks.base import Task


def task_of(space: Space, data: ImageSet) -> Task[object]:
    """Make a space's task for a data set.

    Raises:
        DataError: The data's targets are not what it needs.
    """
    return space.task.kind(space.task.keys, data)
