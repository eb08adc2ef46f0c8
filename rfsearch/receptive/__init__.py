"""Receptive fields, in pixels of the image: theoretical, by arithmetic over whatever a model runs, and effective."""

from rfsearch.receptive.call import Call
from rfsearch.receptive.closed_form import new_receptive_field
from rfsearch.receptive.effective import EffectiveField, effective_receptive_field
from rfsearch.receptive.field import Axis, Field
from rfsearch.receptive.rules import register
from rfsearch.receptive.trace import (
    AxisField,
    ReceptiveField,
    Trace,
    receptive_field,
    receptive_field_at,
    receptive_fields,
    traced,
)

__all__ = [
    "Axis",
    "AxisField",
    "Call",
    "EffectiveField",
    "Field",
    "ReceptiveField",
    "Trace",
    "effective_receptive_field",
    "new_receptive_field",
    "receptive_field",
    "receptive_field_at",
    "receptive_fields",
    "register",
    "traced",
]
