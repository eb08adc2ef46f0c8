"""COCO's averages of detections, by `torchmetrics` and `pycocotools`, which are COCO's own arithmetic.

Lin et al., "Microsoft COCO: common objects in context", ECCV 2014. Difficult objects are handled as COCO's crowds: what
lies on them counts neither as right nor as wrong.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

import torch

from rfsearch.errors import DataError
from rfsearch.tasks.metrics.average_precision import Found, Truth

_NAMES = {
    "map": "map_coco",
    "map_50": "map50_coco",
    "map_75": "map75_coco",
    "map_small": "map_small_coco",
    "map_medium": "map_medium_coco",
    "map_large": "map_large_coco",
    "mar_100": "mar100_coco",
}


def require_coco() -> None:
    """Check that what COCO's averages need is installed.

    Raises:
        DataError: Says what to install.
    """
    missing = [name for name in ("torchmetrics", "pycocotools") if importlib.util.find_spec(name) is None]
    if missing:
        raise DataError(
            f"COCO's averages need {' and '.join(missing)}: pip install 'rfsearch[detection]'. Without them, score by "
            'metric = "voc-map" and leave coco out of [task].'
        )


def coco_scores(found: Sequence[Found], truths: Sequence[Truth]) -> dict[str, float]:
    """Return COCO's averages over intersections of 0.5 to 0.95, classes and, where named, sizes.

    Those that are undefined are left out.
    """
    from torchmetrics.detection import MeanAveragePrecision

    metric = MeanAveragePrecision(backend="pycocotools")
    metric.update(
        [
            {
                "boxes": torch.from_numpy(seen.boxes).float(),
                "scores": torch.from_numpy(seen.scores).float(),
                "labels": torch.from_numpy(seen.labels),
            }
            for seen in found
        ],
        [
            {
                "boxes": torch.from_numpy(truth.boxes).float(),
                "labels": torch.from_numpy(truth.labels),
                "iscrowd": torch.from_numpy(truth.difficult).long(),
            }
            for truth in truths
        ],
    )
    values = metric.compute()
    return {ours: float(values[theirs]) for theirs, ours in _NAMES.items() if float(values[theirs]) >= 0}
