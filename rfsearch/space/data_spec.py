"""The `[data]` table of a space file: which layouts its images come from, and the keys of these.

Each key belongs to the layouts that read it, and they check it: a new layout brings its keys without a change here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pydantic import field_validator, model_validator
from pydantic_core import InitErrorDetails

from rfsearch import plugins
from rfsearch.errors import RequestError, nearest
from rfsearch.sources import absolute
from rfsearch.space.owned import OwnedTable, check_keys, join_faults, make_fault

if TYPE_CHECKING:
    from rfsearch.data.base import DataSource, Embedded, Layout


class DataSpec(OwnedTable):
    """Name where a space's images come from, and hold the other keys of the table for the layouts that read them.

    Args:
        layout: Name or SPEC of the layout in which a `--data` folder lies.
        default: Name or SPEC of the layout that makes images without `--data`. None: `--data` is needed.

    Example:
        >>> DataSpec(layout="folder", classes=["sky", "ground"]).folder_layout.classes
        ('sky', 'ground')
    """

    layout: str = "folder"
    default: str | None = None

    @property
    def folder_layout(self) -> Layout:
        """Return the layout that reads a `--data` folder."""
        kind = plugins.layout(self.layout)
        return kind.model_validate(self.owned_by(kind))

    @property
    def embedded(self) -> Embedded | None:
        """Return the layout that makes images without `--data`, None where there is none."""
        if self.default is None:
            return None
        kind = plugins.embedded(self.default)
        return kind.model_validate(self.owned_by(kind))

    @property
    def channels(self) -> int:
        """Return the channels of its images, before any of them is read."""
        return (self.embedded or self.folder_layout).channels

    @field_validator("layout", "default")
    @classmethod
    def _means_the_same_everywhere(cls, spec: str | None) -> str | None:
        return None if spec is None else absolute(spec)  # workers and resumed runs have other working directories

    @model_validator(mode="after")
    def _is_checked_by_its_layouts(self) -> DataSpec:
        """Put what the layouts make of their keys in their place, or raise all faults, each with its key."""
        kinds, faults = self._kinds()
        if faults:
            raise join_faults(faults)  # whose keys they are is not known
        values: dict[str, Any] = {}
        for kind in kinds:
            made, found = check_keys(kind, self.owned_by(kind))
            values |= made
            faults += found
        faults += [make_fault((key,), why) for key in self.owned if (why := self._why_misplaced(key, kinds))]
        if faults:
            raise join_faults(faults)
        self.settle(values)
        return self

    def _kinds(self) -> tuple[list[type[DataSource]], list[InitErrorDetails]]:
        """Return the layouts of this table, and what is wrong with their names."""
        kinds: list[type[DataSource]] = []
        faults: list[InitErrorDetails] = []
        try:
            kinds.append(plugins.layout(self.layout))
        except RequestError as error:
            faults.append(make_fault(("layout",), str(error)))
        try:
            kinds += [plugins.embedded(self.default)] if self.default is not None else []
        except RequestError as error:
            faults.append(make_fault(("default",), str(error)))
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
        said_by_default = any(self.owned[key] == kind.model_fields[key].default for kind in owners.values())
        if said_by_default or not all(issubclass(kind, Layout) for kind in owners.values()):
            return ""
        only = f"only the layout{'s' if len(owners) > 1 else ''} {' and '.join(owners)}"
        return f"{only} read{'' if len(owners) > 1 else 's'} this, and the layout here is {self.layout}"
