"""Tables of a space file whose keys belong to whoever reads them: to layouts in `[data]`, to the task in `[task]`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError


class OwnedTable(BaseModel):
    """Hold the keys of a table's owners, as plain values, beside its own.

    They are no objects of the owners, so a worker can be sent a space without importing what reads its data. The key
    `resize`, say, is `table.resize`.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    @property
    def owned(self) -> dict[str, Any]:
        """Return the values of the owners' keys."""
        extra = self.__pydantic_extra__
        assert extra is not None  # None where extra keys are not allowed
        return extra

    def owned_by(self, owner: type[BaseModel]) -> dict[str, Any]:
        """Return the values of the keys that one owner reads."""
        return {key: value for key, value in self.owned.items() if key in owner.model_fields}

    def settle(self, values: Mapping[str, Any]) -> None:
        """Put what the owners made of their keys in their place, while the table is checked."""
        self.owned.clear()
        self.owned.update(values)


def check_keys(owner: type[BaseModel], keys: Mapping[str, Any]) -> tuple[dict[str, Any], list[InitErrorDetails]]:
    """Let an owner check its keys.

    Returns:
        What it makes of them, with defaults for those that are left out, and the faults that it finds.
    """
    try:
        return owner.model_validate(keys).model_dump(), []
    except ValidationError as error:
        return {}, [make_fault(one["loc"], one["msg"], one["input"], one["type"]) for one in error.errors()]


def make_fault(
    keys: tuple[str | int, ...], message: str, value: Any = None, kind: str = "value_error"
) -> InitErrorDetails:
    """Return a fault of a table as pydantic takes it.

    Args:
        keys: What leads to the faulty value, within the table.
        message: What is wrong with it.
        value: The faulty value.
        kind: Pydantic's name for such a fault, by which a message in plainer words is chosen.
    """
    return {
        "type": PydanticCustomError(kind, message),
        "loc": keys,
        "input": value,
    }


def join_faults(faults: Sequence[InitErrorDetails]) -> ValidationError:
    """Return one error with all faults of a table, which pydantic joins to those of the rest of the file."""
    once = {(fault.get("loc"), str(fault["type"])): fault for fault in faults}  # two owners may read one key
    return ValidationError.from_exception_data("table", list(once.values()))
