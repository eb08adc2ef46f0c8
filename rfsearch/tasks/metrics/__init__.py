"""How well predicted class maps agree with true ones: one metric or small family a file, named or by SPEC.

A metric counts over the batches of a data set. A score's name carries its averaging: `pooled` is one F-measure from
counts summed over the data set, `classmean` the mean of the classes' pooled scores, `dataset` a score of the whole data
set, and `imagemean` the mean of the images' scores.
"""

from rfsearch.tasks.metrics.base import Metric
from rfsearch.tasks.metrics.named import METRICS, make_metric, metric_spec

__all__ = ["METRICS", "Metric", "make_metric", "metric_spec"]
