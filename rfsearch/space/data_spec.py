"""The `[data]` table of a space file: which layouts its images come from, and the keys of these.

Each key belongs to the layouts that read it, and they check it: a new layout brings its keys without a change here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from rfsearch import plugins
from rfsearch.errors import RequestError, nearest
from rfsearch.sources import absolute

if TYPE_CHECKING:
    from rfsearch.data.base import DataSource, Embedded, Layout


class DataSpec(BaseModel):
    """Name where a space's images come from, and hold the other keys of the table for the layouts that read them.

    These are plain values, not objects of the layouts: a worker that trains can be sent a space without importing what
    reads its data. The key `resize`, say, is `data_spec.resize`.

    Args:
        layout: Name or SPEC of the layout in which a `--data` folder lies.
        default: Name or SPEC of the layout that makes images without `--data`. None: `--data` is needed.

    Example:
        >>> DataSpec(layout="folder", classes=["sky", "ground"]).folder_layout.classes
        ('sky', 'ground')
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    layout: str = "folder"
    default: str | None = None

    @property
    def folder_layout(self) -> Layout:
        """Return the layout that reads a `--data` folder."""
        kind = plugins.layout(self.layout)
        return kind.model_validate(self._keys_of(kind))

    @property
    def embedded(self) -> Embedded | None:
        """Return the layout that makes images without `--data`, None where there is none."""
        if self.default is None:
            return None
        kind = plugins.embedded(self.default)
        return kind.model_validate(self._keys_of(kind))

    @field_validator("layout", "default")
    @classmethod
    def _means_the_same_everywhere(cls, spec: str | None) -> str | None:
        return None if spec is None else absolute(spec)  # workers and resumed runs have other working directories

    @model_validator(mode="after")
    def _is_checked_by_its_layouts(self) -> DataSpec:
        """Put what the layouts make of their keys in their place, or raise all faults, each with its key."""
        kinds, faults = self._kinds()
        if faults:
            raise _all(faults)  # whose keys they are is not known
        values: dict[str, Any] = {}
        for kind in kinds:
            try:
                values |= kind.model_validate(self._keys_of(kind)).model_dump()
            except ValidationError as error:
                faults += [
                    _fault(fault["loc"], fault["msg"], fault["input"], fault["type"]) for fault in error.errors()
                ]
        faults += [_fault((key,), why) for key in self._keys if (why := self._why_misplaced(key, kinds))]
        if faults:
            raise _all(faults)
        self._keys.clear()
        self._keys.update(values)
        return self

    @property
    def _keys(self) -> dict[str, Any]:
        extra = self.__pydantic_extra__
        assert extra is not None  # None where extra keys are not allowed
        return extra

    def _keys_of(self, kind: type[DataSource]) -> dict[str, Any]:
        return {key: value for key, value in self._keys.items() if key in kind.model_fields}

    def _kinds(self) -> tuple[list[type[DataSource]], list[InitErrorDetails]]:
        """Return the layouts of this table, and what is wrong with their names."""
        kinds: list[type[DataSource]] = []
        faults: list[InitErrorDetails] = []
        try:
            kinds.append(plugins.layout(self.layout))
        except RequestError as error:
            faults.append(_fault(("layout",), str(error)))
        try:
            kinds += [plugins.embedded(self.default)] if self.default is not None else []
        except RequestError as error:
            faults.append(_fault(("default",), str(error)))
        return kinds, faults

    def _why_misplaced(self, key: str, kinds: Sequence[type[DataSource]]) -> str:
        """Say why none of these layouts may be given a key, nothing where one reads it or it does no harm.

        A key of another layout does none that says what that layout would do anyway, which runs of earlier versions
        have recorded, or that belongs to embedded images, which a space may have switched off.
        """
        from rfsearch.data.base import Layout

        if any(key in kind.model_fields for kind in kinds):
            return ""
        owners = {name: kind for name, kind in plugins.sources() if key in kind.model_fields}
        if not owners:
            known = {*type(self).model_fields, *(name for kind in kinds for name in kind.model_fields)}
            return f"no key of the layout {self.layout}.{nearest(key, known)}"
        said_by_default = any(self._keys[key] == kind.model_fields[key].default for kind in owners.values())
        if said_by_default or not all(issubclass(kind, Layout) for kind in owners.values()):
            return ""
        only = f"only the layout{'s' if len(owners) > 1 else ''} {' and '.join(owners)}"
        return f"{only} read{'' if len(owners) > 1 else 's'} this, and the layout here is {self.layout}"


def _fault(keys: tuple[str | int, ...], message: str, value: Any = None, kind: str = "value_error") -> InitErrorDetails:
    """Return a fault of the table as pydantic takes it.

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


def _all(faults: Sequence[InitErrorDetails]) -> ValidationError:
    """Return one error with all faults, which pydantic joins to those of the rest of the file."""
    once = {(fault.get("loc"), str(fault["type"])): fault for fault in faults}  # both layouts may read a key
    return ValidationError.from_exception_data("data", list(once.values()))
