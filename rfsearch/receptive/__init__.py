"""Measure receptive fields in pixels of the image.

The theoretical field follows from arithmetic over whatever a model runs, the effective one from gradients.
"""

from rfsearch.receptive.axis import Axis
from rfsearch.receptive.call import Call
from rfsearch.receptive.closed_form import new_receptive_field
from rfsearch.receptive.effective import EffectiveField, effective_receptive_field
from rfsearch.receptive.field import Field
from rfsearch.receptive.quoting import AxisField, ReceptiveField
from rfsearch.receptive.rules import register
from rfsearch.receptive.trace import Trace, receptive_field, receptive_field_at, receptive_fields, trace_model

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
    "trace_model",
]
