"""The task of a space, made for a data set."""

from __future__ import annotations

from pydantic import ValidationError

from rfsearch import plugins
from rfsearch.data.image_set import ImageSet
from rfsearch.errors import SpaceError, nearest
from rfsearch.space import Space
from rfsearch.tasks.base import Task, TaskKeys


def task_of(space: Space, data: ImageSet) -> Task[object]:
    """Make a space's task for a data set.

    Raises:
        SpaceError: The task is unknown, or does not take what the space says to it.
        DataError: The data's targets are not what it needs.
    """
    kind = plugins.task(space.task)
    return kind(_keys(kind, space), data)


def _keys(kind: type[Task[object]], space: Space) -> TaskKeys:
    given = {} if space.metric is None else {"metric": space.metric}
    if space.recipe.class_weights != "none":
        given["class_weights"] = space.recipe.class_weights
    try:
        return kind.Keys(**given)
    except ValidationError as error:
        fault = error.errors()[0]
        key = ".".join(map(str, fault["loc"]))
        if fault["type"] == "extra_forbidden":
            raise SpaceError(
                f"{space.source}: the task {space.task!r} takes no {key}.{nearest(key, kind.Keys.model_fields)}"
            ) from error
        why = fault["msg"].removeprefix("Value error, ")
        raise SpaceError(f"{space.source}: {key} of the task {space.task!r}: {why}") from error
