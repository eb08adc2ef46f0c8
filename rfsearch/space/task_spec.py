"""The `[task]` table of a space file: what its networks are trained and scored for, and the keys of that task.

    [task]
    name = "segmentation"
    metric = "dice"

`task = "segmentation"` and `metric = "dice"`, outside of any table, are short for it. A preset changes keys of it in a
table of its own, `[presets.mini.task]`, for which `class_weights` in its recipe is short.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import field_validator, model_validator

from rfsearch import plugins
from rfsearch.errors import RequestError, nearest
from rfsearch.sources import absolute
from rfsearch.space.owned import OwnedTable, check_keys, join_faults, make_fault

if TYPE_CHECKING:
    from rfsearch.tasks.base import Task, TaskKeys


class TaskSpec(OwnedTable):
    """Name a space's task, and hold the other keys of the table for it.

    Args:
        name: Name or SPEC of the task.

    Example:
        >>> TaskSpec(name="segmentation", metric="dice").keys.metric
        'dice'
    """

    name: str = "segmentation"

    @property
    def kind(self) -> type[Task[object]]:
        """Return the class of the task."""
        return plugins.task(self.name)

    @property
    def keys(self) -> TaskKeys:
        """Return the keys that the task is made with."""
        return self.kind.Keys.model_validate(self.owned)

    @field_validator("name")
    @classmethod
    def _means_the_same_everywhere(cls, spec: str) -> str:
        return absolute(spec)  # workers and resumed runs have other working directories

    @model_validator(mode="after")
    def _is_checked_by_its_task(self) -> TaskSpec:
        """Put what the task makes of its keys in their place, or raise all faults, each with its key."""
        try:
            owner = self.kind.Keys
        except RequestError as error:
            raise join_faults([make_fault(("name",), str(error))]) from error  # whose keys they are is not known
        values, faults = check_keys(owner, self.owned_by(owner))
        known = {*type(self).model_fields, *owner.model_fields}
        faults += [
            make_fault((key,), f"no key of the task {self.name}.{nearest(key, known)}")
            for key in self.owned
            if key not in known
        ]
        if faults:
            raise join_faults(faults)
        self.settle(values)
        return self


def with_task_table(body: Any, recorded: bool = False) -> Any:
    """Gather what is said to a task in one table. What is in the table and in short is left in both places, a fault.

    Args:
        body: A space file, one of its presets, or a space that a run has recorded.
        recorded: Earlier versions recorded in short also what was left to the task: a metric of None, and weights of
            "none" for tasks that know no classes.
    """
    table = body.get("task", {}) if isinstance(body, Mapping) else None
    table = {"name": table} if isinstance(table, str) else table
    if not isinstance(table, Mapping):
        return body
    body, table = {**body}, {**table}
    recipe = body.get("recipe")
    if isinstance(recipe, Mapping):
        body["recipe"] = recipe = {**recipe}
    for key, holder in (("metric", body), ("class_weights", recipe)):
        if isinstance(holder, dict) and key in holder and key not in table:
            value = holder.pop(key)
            if not (recorded and value in (None, "none")):
                table[key] = value
    return {**body, "task": table}


def where_written(keys: tuple[str | int, ...], file: Mapping[str, Any]) -> tuple[str | int, ...]:
    """Return the keys under which a space file says something, which may be in short.

    Args:
        keys: Those under which it is once all is gathered in task tables.
        file: The file as it was written.
    """
    match keys:
        case ("task", key, *rest):
            above, body = keys[:0], file
        case ("presets", str(preset), "task", key, *rest):
            above, body = keys[:2], file["presets"][preset]
        case _:
            return keys
    table, recipe = body.get("task"), body.get("recipe")
    if isinstance(table, Mapping) and key in table:
        return keys
    if key == "name" and isinstance(table, str):
        return (*above, "task")
    if key == "metric" and key in body:
        return (*above, key, *rest)
    if key == "class_weights" and isinstance(recipe, Mapping) and key in recipe:
        return (*above, "recipe", key, *rest)
    return keys
