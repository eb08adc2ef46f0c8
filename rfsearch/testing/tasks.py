"""What every task keeps to: a loss to be trained with and forecast, targets that move, scores, and pictures.

The checks make outputs of noise and of what the loss makes of it. Those of most tasks are maps; `Outputs` says
what else.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar, get_args

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from rfsearch.data import ImageSet, Split, eval_batches, rendered_faces
from rfsearch.data.batches import Motion
from rfsearch.direction import Direction, merit
from rfsearch.errors import ModelError
from rfsearch.tasks.base import Task
from rfsearch.testing.rules import hold, same

Target = TypeVar("Target")

_SCORES_ALIKE = 1e-9  # relative: of a split's score, cut into batches in different ways


def _maps_in_every_form(maps: Tensor) -> list[object]:
    """Return maps in every form that networks return them in, where `rfsearch.outputs.main_output` finds them."""
    return [maps, {"out": maps}, {"logits": maps}, (maps, 0 * maps)]


@dataclass(frozen=True)
class Outputs:
    """Say how the output of a network is made of maps, B x channels x h x w.

    Args:
        channels: Returns how many channels a task's maps have. None: its `out_channels`.
        forms: Returns outputs made of maps, each in another form that networks may give it.
        absence_says: Whether a target without anything labelled says that there is nothing, as boxes do. If not, it
            says nothing, and teaches nothing.

    Example:
        >>> check(make, data, Outputs(forms=lambda maps: [MyOutput(maps)]))
    """

    channels: Callable[[Task[object]], int] | None = None
    forms: Callable[[Tensor], list[object]] = _maps_in_every_form
    absence_says: bool = False


MAPS = Outputs()


class TaskCheck(Protocol):
    """Check one rule of the contract of tasks.

    Args:
        make: Makes the task for a data set.
        data: A small set with a train and a val split.
        outputs: How outputs are made.
    """

    __name__: str

    def __call__(self, make: Callable[[ImageSet], Task[Target]], data: ImageSet, outputs: Outputs = MAPS, /) -> None:
        """Raise an AssertionError where the rule is broken."""


def labelled_faces() -> ImageSet:
    """Draw a few faces with a class for each pixel, for the checks of tasks that take such."""
    return rendered_faces(6, 5, 2, (64, 64))


def task_loss_can_be_trained_with(
    make: Callable[[ImageSet], Task[Target]], data: ImageSet, outputs: Outputs = MAPS
) -> None:
    """Check that the loss is a finite number whose gradient reaches the output.

    The output is of the images' size or coarser, in every form that networks return it in, where
    `rfsearch.outputs.main_output` finds it.
    """
    task = make(data)
    _, target = _batch(task, data)
    height, width = data.image_size
    for size in ((height, width), (height // 4, width // 4)):
        maps = _noise(task, outputs, size).requires_grad_()
        for output in outputs.forms(maps):
            loss = task.loss(output, target)
            hold(
                loss.ndim == 0 and bool(loss.isfinite()),
                f"a loss is one finite number. Got {loss.detach()} for an output of {tuple(maps.shape)}",
            )
            (gradient,) = torch.autograd.grad(loss, maps)
            hold(
                bool(gradient.isfinite().all()) and bool(gradient.abs().max() > 0),
                f"the loss has a finite gradient in the output, other than zero. Got {gradient.abs().max():g} at most",
            )


def task_loss_can_be_forecast(
    make: Callable[[ImageSet], Task[Target]], data: ImageSet, outputs: Outputs = MAPS
) -> None:
    """Check that the loss runs on tensors without values (PyTorch's `meta` device).

    That is how the FLOP of a training is counted. The empty target that it runs on is like a real one.
    """
    task = make(data)
    _, target = _batch(task, data)
    empty = task.empty_target(2, torch.device("meta"))
    kinds = [[(tuple(leaf.shape), leaf.dtype) for leaf in _tensors(value)] for value in (target, empty)]
    same(kinds[1], kinds[0], "an empty target has the shapes and dtypes of a real one")
    if not task.by_shapes:
        return  # it is forecast from real steps
    maps = _noise(task, outputs, (16, 16)).to("meta").requires_grad_()
    try:
        task.loss(outputs.forms(maps)[0], empty).backward()
    except Exception as error:
        raise AssertionError(
            "a loss runs on tensors without values, whose sizes depend on no value: no x[mask], no item(). This "
            f"one raised {error!r}"
        ) from error


def task_loss_is_zero_where_nothing_is_labelled(
    make: Callable[[ImageSet], Task[Target]], data: ImageSet, outputs: Outputs = MAPS
) -> None:
    """Check that a batch that says nothing teaches nothing: a loss of 0 whose gradient is 0, no NaN.

    Such a batch arises where augmentation has moved the images away. Where absence says that there is nothing, its loss
    is a finite number.
    """
    task = make(data)
    _, target = _batch(task, data)
    nothing = task.moved(target, _motion(data, outside_rows=data.image_size[0]))
    maps = _noise(task, outputs, data.image_size).requires_grad_()
    loss = task.loss(outputs.forms(maps)[0], nothing)
    if outputs.absence_says:
        hold(bool(loss.isfinite()), f"the loss of a batch without anything labelled is finite. Got {loss.item()}")
        return
    hold(loss.item() == 0, f"the loss of a batch without a labelled pixel is 0. Got {loss.item()}")
    (gradient,) = torch.autograd.grad(loss, maps)
    hold(bool((gradient == 0).all()), f"its gradient is 0. Got {gradient.abs().max():g} at most")


def task_loss_prefers_the_truth(
    make: Callable[[ImageSet], Task[Target]], data: ImageSet, outputs: Outputs = MAPS
) -> None:
    """Check that what has been fitted to the loss costs less than noise.

    True classes cost less than no opinion, and that less than wrong ones. What comes from outside the image costs
    nothing.
    """
    task = make(data)
    _, target = _batch(task, data)
    noise = _noise(task, outputs, data.image_size)
    fitted = _fitted(task, outputs, noise, target)
    costs = [float(task.loss(outputs.forms(maps)[0], target)) for maps in (fitted, noise)]
    hold(costs[0] < costs[1], f"the loss falls along its gradient. Got {costs[1]}, and {costs[0]} after 60 steps")
    if (ids := task.class_ids(target)) is not None:
        truth = _one_hot(ids, task.out_channels)
        costs = [float(task.loss(logits, target)) for logits in (truth, 0 * truth, truth.roll(1, dims=1))]
        hold(
            costs[0] < costs[1] < costs[2],
            f"the loss of the truth is less than that of no opinion, and that less than that of an error. Got {costs}",
        )
    if outputs.absence_says:
        return
    partly = task.moved(target, _motion(data, outside_rows=8))
    other = fitted.clone()
    other[:, :, :8] = noise[:, :, :8] - 3
    same = [float(task.loss(maps, partly)) for maps in (fitted, other)]
    hold(math.isclose(*same, rel_tol=1e-5), f"pixels that say nothing do not enter the loss. Got {same}")


def task_moves_its_targets(make: Callable[[ImageSet], Task[Target]], data: ImageSet, outputs: Outputs = MAPS) -> None:
    """Check that a target that is not moved stays equal, and how it is mirrored and cut to a window."""
    task = make(data)
    _, target = _batch(task, data)
    still, mirror = _motion(data), _motion(data, mirrored=True)
    hold(_alike(task.moved(target, still), target), "a target that is not moved stays as it is. Got another one")
    once = task.moved(target, mirror)
    hold(not _alike(once, target), "a mirrored target is mirrored. Got the same one")
    hold(_alike(task.moved(once, mirror), target), "a target mirrored twice is as before. Got another one")
    height, width = data.image_size
    window = replace(still, grid=still.grid[:, : height // 2, : width // 2])
    parts = [leaf[..., : height // 2, : width // 2] for leaf in _tensors(target) if leaf.shape[-2:] == data.image_size]
    moved = [leaf for leaf in _tensors(task.moved(target, window)) if leaf.shape[-2:] == (height // 2, width // 2)]
    hold(_alike(moved, parts), "a target moved into a window is that part of it. Got another one")


def task_refuses_other_outputs(
    make: Callable[[ImageSet], Task[Target]], data: ImageSet, outputs: Outputs = MAPS
) -> None:
    """Check that `check_output` accepts what the loss takes, without values too, and raises a ModelError otherwise."""
    task = make(data)
    good = _noise(task, outputs, data.image_size)
    taken = [*outputs.forms(good), *outputs.forms(good.to("meta"))]
    for output in taken:
        try:
            task.check_output(output, len(good), "under test")
        except ModelError as error:
            raise AssertionError(f"check_output takes what the loss takes. Got {error!r}") from error
    broken = [good[:1]] if outputs.channels else [good[:1], good.repeat(1, 2, 1, 1), good[0], good[..., :0]]
    refused = [None, {}, *(outputs.forms(maps)[0] for maps in broken)]
    for output in refused:
        try:
            task.check_output(output, len(good), "under test")
        except ModelError:
            continue
        except Exception as error:
            raise AssertionError(f"check_output refuses with a ModelError. Got {error!r}") from error
        what = type(output).__name__ if not isinstance(output, Tensor) else f"a tensor of {tuple(output.shape)}"
        raise AssertionError(f"check_output refuses what is no output of a network for 2 images. It took {what}.")


def task_scores_the_truth_best(
    make: Callable[[ImageSet], Task[Target]], data: ImageSet, outputs: Outputs = MAPS
) -> None:
    """Check that what has been fitted to the loss scores better than noise, in the task's direction.

    The primary score is among all scores, and they do not depend on the batches. The truth of classes scores 1, the
    best there is.
    """
    task, split = make(data), data.splits["val"]
    cpu = torch.device("cpu")
    images, target = next(eval_batches(split, len(split), task))
    noise = _noise(task, outputs, data.image_size, len(split))
    fitted = _fitted(task, outputs, noise, target)
    found = [task.evaluate(_Oracle(images, maps, outputs), split, 4, cpu) for maps in (fitted, noise)]
    for scores in found:
        hold(
            task.primary in scores.all and scores.all[task.primary] == scores.primary,
            f"the primary score, {task.primary}, is one of all scores. Got {scores}",
        )
    hold(task.direction in get_args(Direction), f"a direction is one of {get_args(Direction)}. Got {task.direction!r}")
    better, worse = (merit(scores.primary, task.direction) for scores in found)
    hold(
        better > worse,
        f"what fits the loss scores better than noise: {task.primary} is to {task.direction}. Got "
        f"{found[0].primary} for what fits, {found[1].primary} for noise",
    )
    mixed = torch.cat([fitted[:2], noise[2:]])
    half = [task.evaluate(_Oracle(images, mixed, outputs), split, size, cpu).primary for size in (1, 3, len(split))]
    hold(
        max(half) - min(half) <= _SCORES_ALIKE * max(map(abs, half)),
        f"a split's score does not depend on how it is cut into batches. Got {half} for batches of 1, 3, {len(split)}",
    )
    if (ids := task.class_ids(target)) is not None:
        _check_class_scores(task, split, images, _one_hot(ids, task.out_channels))


def _check_class_scores(task: Task[Target], split: Split, images: Tensor, truth: Tensor) -> None:
    """Check that scores of classes lie in 0..1, and that the truth scores 1."""
    cpu = torch.device("cpu")
    perfect, wrong = (task.evaluate(_Oracle(images, maps), split, 4, cpu) for maps in (truth, truth.roll(1, dims=1)))
    for scores in (perfect, wrong):
        outside = {name: value for name, value in scores.all.items() if not 0 <= value <= 1}
        hold(not outside, f"scores lie in 0..1. Got {outside}")
    hold(perfect.primary == max(perfect.all.values()) == 1, f"the truth scores 1. Got {perfect}")
    hold(wrong.primary < perfect.primary, f"the truth scores better than an error. Got {wrong.primary} for the error")
    mixed = torch.cat([truth[:2], truth[2:].roll(1, dims=1)])
    half = [task.evaluate(_Oracle(images, mixed), split, size, cpu).primary for size in (1, 3, len(split))]
    hold(
        max(half) - min(half) < _SCORES_ALIKE,
        f"a split's score does not depend on how it is cut into batches. Got {half} for batches of 1, 3, {len(split)}",
    )


def task_shows_its_predictions(
    make: Callable[[ImageSet], Task[Target]], data: ImageSet, outputs: Outputs = MAPS
) -> None:
    """Check that every image is shown with its truth and its prediction, in its own size, and with a legend."""
    task, split = make(data), data.splits["val"]
    images, _ = next(eval_batches(split, len(split), task))
    oracle = _Oracle(images, _noise(task, outputs, data.image_size, len(split)), outputs)
    pictures = task.pictures(oracle, split, torch.device("cpu"))
    expected = (len(split), *data.image_size, 3)
    hold(
        pictures.images.shape == pictures.truths.shape == pictures.predictions.shape == expected,
        f"every image, its truth and its prediction are shown: {expected}. Got {pictures.images.shape}",
    )
    hold(bool(pictures.legend), "the legend says what the colours mean. Got an empty one")


TASK_CHECKS: tuple[TaskCheck, ...] = (
    task_loss_can_be_trained_with,
    task_loss_can_be_forecast,
    task_loss_is_zero_where_nothing_is_labelled,
    task_loss_prefers_the_truth,
    task_moves_its_targets,
    task_refuses_other_outputs,
    task_scores_the_truth_best,
    task_shows_its_predictions,
)


class _Oracle(nn.Module):
    """Return what was set for each of some known images."""

    def __init__(self, images: Tensor, maps: Tensor, outputs: Outputs = MAPS) -> None:
        super().__init__()
        self._images, self._maps, self._outputs = images, maps, outputs

    def forward(self, images: Tensor) -> object:
        found = [next(i for i, known in enumerate(self._images) if torch.equal(known, image)) for image in images]
        return self._outputs.forms(self._maps[found])[0]


def _batch(task: Task[Target], data: ImageSet) -> tuple[Tensor, Target]:
    """Return two images of the training split, and their target."""
    return next(eval_batches(data.splits["train"], 2, task))


def _noise(task: Task[Target], outputs: Outputs, size: Sequence[int], count: int = 2) -> Tensor:
    """Return the same noise each time, count x channels x H x W."""
    channels = outputs.channels(task) if outputs.channels else task.out_channels  # type: ignore[arg-type]
    return 0.1 * torch.randn(count, channels, *size, generator=torch.Generator().manual_seed(0))


def _fitted(task: Task[Target], outputs: Outputs, maps: Tensor, target: Target) -> Tensor:
    """Return what 60 steps along the gradient of the loss make of an output."""
    maps = maps.clone().requires_grad_()
    optimizer = torch.optim.Adam([maps], lr=0.1)
    for _ in range(60):
        optimizer.zero_grad()
        task.loss(outputs.forms(maps)[0], target).backward()
        optimizer.step()
    return maps.detach()


def _motion(data: ImageSet, mirrored: bool = False, outside_rows: int = 0) -> Motion:
    """Return how two images are moved: mirrored or not, and with so many upper rows from outside the image."""
    height, width = data.image_size
    down, across = ((2 * torch.arange(side) + 1) / side - 1 for side in (height, width))
    grid = torch.stack(torch.meshgrid(across, down, indexing="xy"), dim=-1).repeat(2, 1, 1, 1)
    grid[..., 0] *= -1 if mirrored else 1
    grid[:, :outside_rows] = 3.0
    return Motion(grid, torch.tensor([mirrored] * 2), torch.ones(2))


def _tensors(value: object) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]


def _alike(a: object, b: object) -> bool:
    """Return whether two targets hold the same values, but for rounding."""
    pairs = zip(_tensors(a), _tensors(b), strict=True)
    return all(x.shape == y.shape and torch.allclose(x.double(), y.double(), atol=1e-4) for x, y in pairs)


def _one_hot(labels: Tensor, num_classes: int) -> Tensor:
    """Return logits, B x classes x H x W: 5 at the true class and 0 elsewhere."""
    return 5 * nn.functional.one_hot(labels.clamp(min=0), num_classes).permute(0, 3, 1, 2).float()
