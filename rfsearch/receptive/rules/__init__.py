"""State what each operator does to the fields of the tensors that it reads.

Conventions:
- The field of a unit is the hull of all it depends on: the support of its gradient in a model whose weights are all
  positive. Padding counts as if the image went on.
- Axes are followed apart: a unit that sees nothing along one axis, on the zeros that a transposed convolution with a
  stride longer than its kernel leaves, still counts along the other.
- A unit that mixes every unit of an axis (global pooling, attention over all tokens, a linear layer over a flattened
  map) sees that axis whole, and nothing by itself: what it gates or is added to keeps the field of its own.
- Statistics of normalisation layers are not counted; batch norm is in evaluation mode.
- `Inflation`, `Interpolation`, `LSDFN` and `FractionalConv2d` sample at real positions. Between two units a sample's
  field lies between theirs: (k - 1) d j / f px for a kernel behind an inflation (Wei sec. 3.3 without its rounding),
  although bilinear weights touch both. A resampling without such a learned scale reads every unit that has a weight.
- A deformable convolution is quoted at its regular grid, all offsets zero: where its taps really fall, the image says.
- Whatever else picks units at places that the image says (sampling by a flow, a gather, a sort) may pick any of them:
  it sees the axes it picks along whole, and by itself what says the places. At places known beforehand it reads those.
- A recurrent layer reads all units of its sequence before its own; one that goes both ways sees the sequence whole.
- A max unpooling puts a value back into the window it came from, which is taken to be one of windows side by side.
"""

from rfsearch.receptive.rules.registry import register, rule_of_module, rule_of_operator

__all__ = ["register", "rule_of_module", "rule_of_operator"]
