"""Receptive field arithmetic, in pixels of the image."""

from rfsearch.receptive.closed_form import new_receptive_field
from rfsearch.receptive.rules import Axis, Call, Field, register
from rfsearch.receptive.trace import ReceptiveField, receptive_field, receptive_field_at, receptive_fields

__all__ = [
    "Axis",
    "Call",
    "Field",
    "ReceptiveField",
    "new_receptive_field",
    "receptive_field",
    "receptive_field_at",
    "receptive_fields",
    "register",
]
