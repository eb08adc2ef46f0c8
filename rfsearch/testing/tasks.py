"""What every task keeps to: a loss that trains and can be forecast, and scores that the truth is best in."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from rfsearch.data import IGNORE, ImageSet, Split, eval_batches, rendered_faces
from rfsearch.testing.rules import hold

MakeTask = Callable[..., Any]


def task_loss_can_be_trained_with(make: MakeTask, metric: str) -> None:
    """A finite number whose gradient reaches the logits, of the labels' size or coarser, in every form that networks
    return them in; `rfsearch.outputs.main_output` finds them."""
    data = _faces()
    for class_weights in ("none", "sqrt"):
        task = make(metric, data, class_weights)
        _, labels = next(eval_batches(data.splits["train"], 2, data.ignore_index))
        height, width = labels.shape[-2:]
        for size in ((height, width), (height // 4, width // 4)):
            logits = torch.zeros(2, data.num_classes, *size, requires_grad=True)
            for output in (logits, {"out": logits}, {"logits": logits}, (logits, 0 * logits)):
                loss = task.loss(output, labels)
                hold(
                    loss.ndim == 0 and bool(loss.isfinite()),
                    f"a loss is one finite number. Got {loss.detach()} for logits of {tuple(logits.shape)}",
                )
                (gradient,) = torch.autograd.grad(loss, logits)
                hold(
                    bool(gradient.isfinite().all()) and bool(gradient.abs().max() > 0),
                    "the loss has a finite gradient in the logits, other than zero. Got "
                    f"{gradient.abs().max():g} at most",
                )


def task_loss_can_be_forecast(make: MakeTask, metric: str) -> None:
    """It runs on tensors without values (PyTorch's `meta` device), which is how the FLOP of a training is counted."""
    data = _faces()
    for class_weights in ("none", "sqrt"):
        logits = torch.zeros(2, data.num_classes, 16, 16, device="meta", requires_grad=True)
        labels = torch.zeros(2, *data.image_size, dtype=torch.int64, device="meta")
        try:
            make(metric, data, class_weights).loss(logits, labels).backward()
        except Exception as error:
            raise AssertionError(
                "a loss runs on tensors without values, whose sizes depend on no value: no x[mask], no item(). This "
                f"one raised {error!r}"
            ) from error


def task_loss_is_zero_where_nothing_is_labelled(make: MakeTask, metric: str) -> None:
    """A batch whose pixels are all ignored teaches nothing: a loss of 0 whose gradient is 0, no NaN."""
    data = _faces()
    for class_weights in ("none", "sqrt"):
        logits = torch.zeros(2, data.num_classes, *data.image_size, requires_grad=True)
        loss = make(metric, data, class_weights).loss(logits, torch.full((2, *data.image_size), IGNORE))
        hold(float(loss) == 0, f"the loss of a batch without a labelled pixel is 0. Got {float(loss)}")
        (gradient,) = torch.autograd.grad(loss, logits)
        hold(bool((gradient == 0).all()), f"its gradient is 0. Got {gradient.abs().max():g} at most")


def task_loss_prefers_the_truth(make: MakeTask, metric: str) -> None:
    """True labels cost less than no opinion, and that less than wrong ones; ignored pixels cost nothing."""
    data = _faces()
    task = make(metric, data, "none")
    _, labels = next(eval_batches(data.splits["train"], 2, data.ignore_index))
    truth = _one_hot(labels, data.num_classes)
    costs = [float(task.loss(logits, labels)) for logits in (truth, 0 * truth, truth.roll(1, dims=1))]
    hold(
        costs[0] < costs[1] < costs[2],
        f"the loss of the truth is less than that of no opinion, and that less than that of an error. Got {costs}",
    )
    ignored = labels.clone()
    ignored[:, :8] = IGNORE
    wrong_there = truth.clone()
    wrong_there[:, :, :8] = truth.roll(1, dims=1)[:, :, :8]
    same = [float(task.loss(logits, ignored)) for logits in (truth, wrong_there)]
    hold(math.isclose(*same, rel_tol=1e-5), f"pixels labelled {IGNORE} do not enter the loss. Got {same}")


def task_scores_the_truth_best(make: MakeTask, metric: str) -> None:
    """Scores lie in 0..1, higher is better, the primary one is among them, and they do not depend on the batches."""
    data = _faces()
    task, split = make(metric, data, "none"), data.splits["val"]
    cpu = torch.device("cpu")
    perfect = task.score(_Oracle(split, data, 0), split, 4, cpu)
    wrong = task.score(_Oracle(split, data, 1), split, 4, cpu)
    for scores in (perfect, wrong):
        hold(
            task.primary in scores.all and scores.all[task.primary] == scores.primary,
            f"the primary score, {task.primary}, is one of all scores. Got {scores}",
        )
        outside = {name: value for name, value in scores.all.items() if not 0 <= value <= 1}
        hold(not outside, f"scores lie in 0..1. Got {outside}")
    hold(perfect.primary == max(perfect.all.values()) == 1, f"the truth scores 1. Got {perfect}")
    hold(wrong.primary < perfect.primary, f"the truth scores better than an error. Got {wrong.primary} for the error")
    half = [task.score(_Oracle(split, data, 0, right=2), split, size, cpu).primary for size in (1, 3, len(split))]
    hold(
        max(half) - min(half) < 1e-9,
        f"a split's score does not depend on how it is cut into batches. Got {half} for batches of 1, 3, {len(split)}",
    )


TASK_CHECKS: tuple[Callable[[MakeTask, str], None], ...] = (
    task_loss_can_be_trained_with,
    task_loss_can_be_forecast,
    task_loss_is_zero_where_nothing_is_labelled,
    task_loss_prefers_the_truth,
    task_scores_the_truth_best,
)


class _Oracle(nn.Module):
    """Knows the labels of a split by its images, and gives them, moved by `shift` class ids.

    right: only in the first so many images the truth, and else the next class.
    """

    def __init__(self, split: Split, data: ImageSet, shift: int, right: int | None = None) -> None:
        super().__init__()
        images, labels = next(eval_batches(split, len(split), data.ignore_index))
        self._images = images
        logits = _one_hot(labels, data.num_classes)
        self._logits = logits.roll(shift, dims=1)
        if right is not None:
            self._logits[right:] = logits[right:].roll(1, dims=1)

    def forward(self, images: Tensor) -> Tensor:
        found = [next(i for i, known in enumerate(self._images) if torch.equal(known, image)) for image in images]
        return self._logits[found]


def _faces() -> ImageSet:
    return rendered_faces(6, 5, 2, (64, 64))


def _one_hot(labels: Tensor, num_classes: int) -> Tensor:
    """B x classes x H x W logits, 5 at the true class and 0 elsewhere."""
    return 5 * nn.functional.one_hot(labels.clamp(min=0), num_classes).permute(0, 3, 1, 2).float()
