"""What strategies, backbones, tasks, layouts and spaces keep to, as checks that authors of plugins run on their own.

A check is a function that returns nothing, or raises an AssertionError that says the rule and what broke it. It needs
no test framework; with pytest, one test a check:

    @pytest.mark.parametrize("check", rfsearch.testing.STRATEGY_CHECKS, ids=lambda check: check.__name__)
    def test_my_strategy(check):
        check(MyStrategy, space)

A strategy's checks take the class, or anything `(space, seed) -> strategy`, and a space; a backbone's the callable
`(num_classes, in_channels=3) -> nn.Module`; a task's the class, or anything `(metric, data, class_weights) -> task`,
and the name of a metric; a layout's the layout and a sound folder for it; a space's the path of its file.
"""

from __future__ import annotations

import copy
import math
import pickle
import random
import tempfile
import tomllib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rfsearch import plugins
from rfsearch.data import IGNORE, ImageSet, Layout, Split, eval_batches, rendered_faces
from rfsearch.errors import DataError, ModelError, RfsearchError
from rfsearch.ledger import Cost, Record, Rung
from rfsearch.ledger.record import Status
from rfsearch.planning.forecaster import shapes_only
from rfsearch.space import LSDFN, Candidate, Choice, Space, read_space
from rfsearch.strategies import Describing, Description, Exhausted, Heir, Pruning, Relaying, Strategy
from rfsearch.surgery import check_fits, match_sites, measure_sites
from rfsearch.trial.meter import Meter

MakeStrategy = Callable[[Space, int], Strategy]
MakeBackbone = Callable[..., nn.Module]
MakeTask = Callable[..., Any]

_TRIALS = 20
_STATUSES: tuple[Status, ...] = ("completed", "pruned", "cut", "failed")
# H x W, px: one that strides divide, and one of odd sides.
_IMAGE_SIZES = ((96, 128), (97, 131))
_CLASSES = 5
_CHANNELS = 3
# Of a value computed in two ways, in single precision, through a few dozen layers.
_TOLERANCE = 1e-3


# --- strategies ---


def strategy_suggests_candidates_of_the_space(make: MakeStrategy, space: Space) -> None:
    """Each names every site once, with as many paths as the form has, values of the space, and survives JSON."""
    strategy = make(space, 0)
    _hold(isinstance(strategy, Strategy), f"a strategy has suggest(pending) and observe(record). Got {strategy!r}")
    for candidate in _played(strategy, _TRIALS):
        _check_candidate(candidate, space)


def strategy_describes_what_it_tries_first(make: MakeStrategy, space: Space) -> None:
    """For one that describes itself: candidates of the space, the first suggestion among them, and no state changed."""
    described, other = make(space, 0), make(space, 0)
    if not isinstance(described, Describing):
        return
    description = described.describe()
    _hold(isinstance(description, Description), f"describe gives a Description. Got {description!r}")
    for candidate in description.candidates:
        _hold(isinstance(candidate, Candidate), f"described candidates are Candidates. Got {candidate!r}")
        _check_candidate(candidate, space)
    first = _suggested(described, [])
    _hold(first in description.candidates, f"the first suggestion is described. Got {first}, which is not")
    _same(first, _suggested(other, []), "describe changes no state: the suggestions stay the same")
    _hold(described.describe() == description, "describe gives the same description when it is asked again")


def strategy_repeats_itself(make: MakeStrategy, space: Space) -> None:
    """The same seed and the same observed records give the same suggestions, whatever else draws random numbers."""
    seen = []
    for other in (1, 2):
        random.seed(other)
        np.random.seed(other)  # noqa: NPY002 (a strategy must not lean on the global generator)
        torch.manual_seed(other)
        seen.append(_played(make(space, 3), _TRIALS))
    _same(seen[0], seen[1], "the same seed and the same records give the same suggestions")


def strategy_suggests_without_changing_its_state(make: MakeStrategy, space: Space) -> None:
    """Asking more often, or with other trials pending, does not change what comes later."""
    often, once = make(space, 0), make(space, 0)
    for number in range(_TRIALS):
        often.suggest([])
        often.suggest([space.default_candidate])
        _same(often.suggest([]), once.suggest([]), "suggest changes no state: asking more often changes no suggestion")
        _told_next((once, often), number, _usual(once))


def strategy_resumes_by_replaying_records(make: MakeStrategy, space: Space) -> None:
    """One that is only told the records of another goes on as that one does: nothing else is kept of a run."""
    first, again = make(space, 0), make(space, 0)
    records = [_record(c, number, _usual(first)) for number, c in enumerate(_played(first, _TRIALS))]
    for record in records:
        again.observe(Record.from_json(record.to_json()))
    for number in range(len(records), len(records) + 3):
        answers = first.suggest([]), again.suggest([])
        _same(*answers, "a strategy that is told the records of a run goes on as the run would have")
        _told_next((first, again), number, _usual(first))


def strategy_survives_every_outcome(make: MakeStrategy, space: Space) -> None:
    """Completed, pruned, cut and failed trials, in any order; looks at a diverged training; nothing but failures."""
    for order in (_STATUSES, _STATUSES[::-1], ("failed",)):
        _played(make(space, 0), _TRIALS, order)
    for status in _STATUSES[1:]:
        strategy = make(space, 0)
        _played(strategy, 3, (status,), val=math.nan)
        _suggested(strategy, [])


def strategy_takes_pending_trials_into_account(make: MakeStrategy, space: Space) -> None:
    """It answers while others are in training, repeatably, leaves the list alone, and takes results in any order."""
    strategy, pending = make(space, 0), list[Candidate]()
    for _ in range(4):
        before = list(pending)
        candidate = _suggested(strategy, pending)
        _same(pending, before, "suggest leaves the list of pending candidates as it was")
        _same(_suggested(strategy, tuple(pending)), candidate, "the same pending candidates give the same suggestion")
        if candidate is None:
            break
        pending.append(candidate)
    _hold(bool(pending), "a strategy that was told nothing yet has something to try. Got Exhausted")
    for number, candidate in enumerate(reversed(pending)):
        strategy.observe(_record(candidate, number))
        _suggested(strategy, pending[: len(pending) - number - 1])


def strategy_prunes_without_changing_its_state(make: MakeStrategy, space: Space) -> None:
    """For one that prunes: a plain answer, and none of the later suggestions depends on having been asked."""
    asked, unasked = make(space, 0), make(space, 0)
    if not isinstance(asked, Pruning):
        return
    for number in range(_TRIALS):
        candidate = _suggested(unasked, [])
        if candidate is None:
            return
        for rungs in ((), (_rung(0.1),), (_rung(math.nan),)):
            answer = asked.prune(candidate, rungs)
            _hold(answer in (True, False), f"prune answers True or False. Got {answer!r}")
        _same(_suggested(asked, []), candidate, "prune changes no state: the suggestions stay the same")
        _told_next((unasked, asked), number, _usual(asked))


STRATEGY_CHECKS: tuple[Callable[[MakeStrategy, Space], None], ...] = (
    strategy_suggests_candidates_of_the_space,
    strategy_describes_what_it_tries_first,
    strategy_repeats_itself,
    strategy_suggests_without_changing_its_state,
    strategy_resumes_by_replaying_records,
    strategy_survives_every_outcome,
    strategy_takes_pending_trials_into_account,
    strategy_prunes_without_changing_its_state,
)


def _check_candidate(candidate: Candidate, space: Space) -> None:
    _hold(
        Candidate.from_json(candidate.to_json()) == candidate,
        f"a candidate survives JSON unchanged. Got {candidate}, read back as "
        f"{Candidate.from_json(candidate.to_json())}",
    )
    sites = tuple(site for site, _ in candidate.choices)
    _hold(
        sites == tuple(sorted(space.sites)),
        f"a candidate names every site of the space once, {sorted(space.sites)}. Got {list(sites)}",
    )
    count = len(space.path_set.manual) if space.path_set else 1
    for site, given in candidate.choices:
        paths = (given,) if isinstance(given, Choice) else given
        _hold(
            len(paths) == count,
            f"a site has {count} path(s) in the form {space.form!r}. {site} has {len(paths)}",
        )
        for path in paths:
            _check_choice(site, path, space)


def _check_choice(site: str, choice: Choice, space: Space) -> None:
    if choice.layer:
        try:
            plugins.named(choice.layer, "layer")
        except RfsearchError as error:
            raise AssertionError(f"a layer is to be had by its SPEC. {error}") from error
    sampling = choice.sampling
    _hold(
        (sampling is not None) == (space.form == LSDFN),
        f"a site gets an LS-DFN block in the form {LSDFN!r} and in no other. Got {choice} at {site} in {space.form!r}",
    )
    if sampling is None:
        allowed = sorted({*space.dilations, *(space.path_set.manual if space.path_set else ())})
        _hold(
            choice.dilation in allowed,
            f"a dilation is one of the space's, {allowed}. {site} got {choice.dilation}",
        )
        low, high = space.f_bounds if choice.learned else space.f_search
        _hold(
            low <= choice.f <= high,
            f"f is within the space's {'f_bounds' if choice.learned else 'f_search'}, [{low:g}, {high:g}]. "
            f"{site} got {choice.f:g}",
        )
        return
    regions = space.sampling.regions
    _hold(sampling.s in regions, f"s is one of the space's regions, {list(regions)}. {site} got {sampling.s}")
    low, high = space.sampling.bounds
    _hold(
        low <= sampling.gamma <= high,
        f"gamma is within the space's bounds, [{low:g}, {high:g}]. {site} got {sampling.gamma:g}",
    )


def _played(strategy: Strategy, trials: int, order: Sequence[Status] = (), val: float | None = None) -> list[Candidate]:
    """The candidates of that many trials in a row, fewer if the strategy ends. order: of how they come back."""
    seen: list[Candidate] = []
    while len(seen) < trials:
        status = order[len(seen) % len(order)] if order else _usual(strategy)
        if (candidate := _told_next([strategy], len(seen), status, val)) is None:
            break
        seen.append(candidate)
    _hold(bool(seen), "a strategy that was told nothing yet has something to try. Got Exhausted")
    return seen


def _told_next(alike: Sequence[Strategy], number: int, status: Status, val: float | None = None) -> Candidate | None:
    """What the first of these suggests, told to all of them as a finished trial."""
    candidate = _suggested(alike[0], [])
    if candidate is not None:
        for strategy in alike:
            strategy.observe(_record(candidate, number, status, val))
    return candidate


def _usual(strategy: Strategy) -> Status:
    """How a strategy's trials come back where nothing is wrong."""
    return "pruned" if isinstance(strategy, Relaying) else "completed"


def _suggested(strategy: Strategy, pending: Sequence[Candidate]) -> Candidate | None:
    """What a strategy suggests, None where it is exhausted; anything else breaks the contract."""
    answer = strategy.suggest(pending)
    if isinstance(answer, Exhausted):
        _hold(bool(answer.why.strip()), "Exhausted says why in a sentence. Got an empty one")
        return None
    if isinstance(answer, Heir):
        awaited = strategy.awaited if isinstance(strategy, Relaying) else ()
        _hold(answer.of in awaited, f"an heir is of a trial that the strategy awaits one of, {awaited}. Got {answer!r}")
        answer = answer.candidate
    _hold(isinstance(answer, Candidate), f"suggest gives a Candidate, an Heir or Exhausted. Got {answer!r}")
    return answer


def _record(candidate: Candidate, number: int, status: Status = "completed", val: float | None = None) -> Record:
    """A finished trial. val: its score, else that of a smooth landscape, highest at a field of 5 px of the map."""
    fields = [c.sampling.gamma * c.sampling.s if c.sampling else c.dilation / c.f for _, c in candidate]
    val = math.exp(-sum((math.log(field) - math.log(5)) ** 2 for field in fields)) if val is None else val
    return Record(
        trial=f"trial-{number:03d}",
        strategy="strategy",
        seed=0,
        status=status,
        candidate=candidate.to_json(),
        rf_px=1,
        rf_init_px=1,
        cost=Cost(1.0, 1.0, 1.0),
        val=None if status == "failed" else val,
        cause="the loss became nan" if status == "failed" else "",
        rungs=(_rung(val),),
    )


def _rung(val: float) -> Rung:
    return Rung(75, val, {}, Cost())


# --- backbones ---


def backbone_builds_for_any_classes_and_channels(make: MakeBackbone) -> None:
    """`(num_classes, in_channels=3)`: as many logits as classes, from images of that many channels."""
    for arguments in ((2,), (11, 3), (_CLASSES, 1), (_CLASSES, 4)):
        try:
            net = make(*arguments)
        except Exception as error:
            raise AssertionError(
                f"a backbone builds for (num_classes, in_channels=3). {arguments} gave {error!r}"
            ) from error
        _hold(isinstance(net, nn.Module), f"a backbone is a torch.nn.Module. Got {type(net).__name__}")
        channels = arguments[1] if len(arguments) > 1 else 3
        _logits(net.eval(), _images(2, _IMAGE_SIZES[0], channels), arguments[0])


def backbone_takes_images_of_any_size(make: MakeBackbone) -> None:
    """Logits no larger than the image, finite, for sides that its strides divide and odd ones, one image or several."""
    net = make(_CLASSES, _CHANNELS).eval()
    for size in _IMAGE_SIZES:
        for batch in (1, 2):
            logits = _logits(net, _images(batch, size), _CLASSES)
            height, width = logits.shape[-2:]
            _hold(
                height <= size[0] and width <= size[1],
                f"logits are no larger than the image, {size[0]} x {size[1]} px. Got {height} x {width}",
            )
            _hold(bool(logits.isfinite().all()), "the logits of a new network are finite. Got inf or nan")


def backbone_is_the_same_for_the_same_seed(make: MakeBackbone) -> None:
    """torch.manual_seed decides every weight, so that a trial can be repeated."""
    states = []
    for _ in range(2):
        torch.manual_seed(0)
        states.append(make(_CLASSES, _CHANNELS).state_dict())
    _same(list(states[0]), list(states[1]), "two networks have the same parameters and buffers")
    for name, value in states[0].items():
        _hold(torch.equal(value, states[1][name]), f"torch.manual_seed decides every weight. It does not decide {name}")


def backbone_is_deterministic_in_evaluation(make: MakeBackbone) -> None:
    """The same image gives the same logits, and leaves parameters and buffers as they were."""
    net = make(_CLASSES, _CHANNELS).eval()
    before = copy.deepcopy(net.state_dict())
    images = _images(2, _IMAGE_SIZES[0])
    first, second = (_logits(net, images, _CLASSES) for _ in range(2))
    _hold(torch.equal(first, second), "in evaluation the same images give the same logits. Got two answers")
    changed = [name for name, value in net.state_dict().items() if not torch.equal(value, before[name])]
    _hold(not changed, f"evaluation changes no parameter and no buffer. It changed {changed}")


def backbone_takes_each_image_for_itself(make: MakeBackbone) -> None:
    """In evaluation an image's logits do not depend on the others of its batch."""
    net = make(_CLASSES, _CHANNELS).eval()
    images = _images(3, _IMAGE_SIZES[0])
    together = _logits(net, images, _CLASSES)
    for i in range(len(images)):
        alone = _logits(net, images[i : i + 1], _CLASSES)
        _hold(
            _close(alone[0], together[i]),
            "in evaluation an image's logits do not depend on the others of its batch. They differ by "
            f"{(alone[0] - together[i]).abs().max():.3g}",
        )


def backbone_lets_gradients_reach_every_parameter(make: MakeBackbone) -> None:
    """In training; a parameter that no gradient reaches has no `requires_grad`, or should not be there."""
    net = make(_CLASSES, _CHANNELS).train()
    output = net(_images(2, _IMAGE_SIZES[0]))
    plugins.check_logits(output, _CLASSES, 2, "under test").square().mean().backward()
    missed = [name for name, p in net.named_parameters() if p.requires_grad and p.grad is None]
    _hold(not missed, f"a gradient reaches every parameter that requires one. None reaches {missed}")
    wild = [name for name, p in net.named_parameters() if p.grad is not None and not p.grad.isfinite().all()]
    _hold(not wild, f"the gradients of a new network are finite. Those of {wild} are not")


def backbone_can_be_copied_and_restored(make: MakeBackbone) -> None:
    """copy.deepcopy gives a network of its own, and the state dict holds all that a training changes."""
    net = make(_CLASSES, _CHANNELS)
    net.train()(_images(2, _IMAGE_SIZES[0]))
    images = _images(1, _IMAGE_SIZES[0])
    expected = _logits(net.eval(), images, _CLASSES)
    twin, fresh = copy.deepcopy(net), make(_CLASSES, _CHANNELS)
    fresh.load_state_dict(net.state_dict())
    for other, how in ((twin, "copied with copy.deepcopy"), (fresh.eval(), "restored from its state dict")):
        _hold(
            _close(_logits(other, images, _CLASSES), expected),
            f"a network {how} gives the logits of the original. Got others",
        )
        with torch.no_grad():
            for parameter in other.parameters():
                if parameter.ndim > 1:  # scalars may have bounds that zero is beyond
                    parameter.zero_()
        _hold(
            not _close(_logits(other, images, _CLASSES), expected) and _close(_logits(net, images, _CLASSES), expected),
            f"a network {how} has parameters of its own: changing them changes it, and the original not",
        )


def backbone_can_be_forecast(make: MakeBackbone) -> None:
    """Its training step runs on tensors without values (PyTorch's `meta` device), where every operator is counted."""
    net = shapes_only(make(_CLASSES, _CHANNELS)).train()
    try:
        with Meter() as meter:
            output = net(_images(2, _IMAGE_SIZES[0]).to("meta"))
            plugins.check_logits(output, _CLASSES, 2, "under test").square().mean().backward()
    except Exception as error:
        raise AssertionError(
            "a backbone runs on tensors without values, whose sizes depend on no value, and every operator of it has a "
            f"FLOP count. This one raised {error!r}"
        ) from error
    _hold(meter.metered.flop > 0, "a training step costs some FLOP. Got 0")


BACKBONE_CHECKS: tuple[Callable[[MakeBackbone], None], ...] = (
    backbone_builds_for_any_classes_and_channels,
    backbone_takes_images_of_any_size,
    backbone_is_the_same_for_the_same_seed,
    backbone_is_deterministic_in_evaluation,
    backbone_takes_each_image_for_itself,
    backbone_lets_gradients_reach_every_parameter,
    backbone_can_be_copied_and_restored,
    backbone_can_be_forecast,
)


def _images(count: int, size: tuple[int, int], channels: int = _CHANNELS) -> Tensor:
    """count x channels x H x W, normalised noise, always the same."""
    return torch.randn(count, channels, *size, generator=torch.Generator().manual_seed(0))


def _logits(net: nn.Module, images: Tensor, num_classes: int) -> Tensor:
    """Of a network in evaluation; whatever else it gives breaks the contract."""
    try:
        with torch.no_grad():
            output = net(images)
    except Exception as error:
        raise AssertionError(f"a backbone takes images of {tuple(images.shape)}. This one raised {error!r}") from error
    try:
        return plugins.check_logits(output, num_classes, len(images), "under test")
    except ModelError as error:
        raise AssertionError(str(error)) from error


def _close(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and bool((a - b).abs().max() <= _TOLERANCE * (b.abs().max() + 1e-6))


# --- tasks ---


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
                _hold(
                    loss.ndim == 0 and bool(loss.isfinite()),
                    f"a loss is one finite number. Got {loss.detach()} for logits of {tuple(logits.shape)}",
                )
                (gradient,) = torch.autograd.grad(loss, logits)
                _hold(
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
        _hold(float(loss) == 0, f"the loss of a batch without a labelled pixel is 0. Got {float(loss)}")
        (gradient,) = torch.autograd.grad(loss, logits)
        _hold(bool((gradient == 0).all()), f"its gradient is 0. Got {gradient.abs().max():g} at most")


def task_loss_prefers_the_truth(make: MakeTask, metric: str) -> None:
    """True labels cost less than no opinion, and that less than wrong ones; ignored pixels cost nothing."""
    data = _faces()
    task = make(metric, data, "none")
    _, labels = next(eval_batches(data.splits["train"], 2, data.ignore_index))
    truth = _one_hot(labels, data.num_classes)
    costs = [float(task.loss(logits, labels)) for logits in (truth, 0 * truth, truth.roll(1, dims=1))]
    _hold(
        costs[0] < costs[1] < costs[2],
        f"the loss of the truth is less than that of no opinion, and that less than that of an error. Got {costs}",
    )
    ignored = labels.clone()
    ignored[:, :8] = IGNORE
    wrong_there = truth.clone()
    wrong_there[:, :, :8] = truth.roll(1, dims=1)[:, :, :8]
    same = [float(task.loss(logits, ignored)) for logits in (truth, wrong_there)]
    _hold(math.isclose(*same, rel_tol=1e-5), f"pixels labelled {IGNORE} do not enter the loss. Got {same}")


def task_scores_the_truth_best(make: MakeTask, metric: str) -> None:
    """Scores lie in 0..1, higher is better, the primary one is among them, and they do not depend on the batches."""
    data = _faces()
    task, split = make(metric, data, "none"), data.splits["val"]
    cpu = torch.device("cpu")
    perfect = task.score(_Oracle(split, data, 0), split, 4, cpu)
    wrong = task.score(_Oracle(split, data, 1), split, 4, cpu)
    for scores in (perfect, wrong):
        _hold(
            task.primary in scores.all and scores.all[task.primary] == scores.primary,
            f"the primary score, {task.primary}, is one of all scores. Got {scores}",
        )
        outside = {name: value for name, value in scores.all.items() if not 0 <= value <= 1}
        _hold(not outside, f"scores lie in 0..1. Got {outside}")
    _hold(perfect.primary == max(perfect.all.values()) == 1, f"the truth scores 1. Got {perfect}")
    _hold(wrong.primary < perfect.primary, f"the truth scores better than an error. Got {wrong.primary} for the error")
    half = [task.score(_Oracle(split, data, 0, right=2), split, size, cpu).primary for size in (1, 3, len(split))]
    _hold(
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


# --- layouts ---


def layout_is_a_table_of_keys(layout: Layout, root: Path) -> None:
    """It survives the manifest of a run unchanged, and no key that it does not know is passed over."""
    body = layout.model_dump_json()
    again = type(layout).model_validate_json(body)
    _hold(again == layout, f"a layout survives JSON unchanged. Got {layout!r}, read back as {again!r}")
    try:
        type(layout).model_validate({**layout.model_dump(), "no such key": 1})
    except ValueError:
        return
    raise AssertionError("a layout refuses a key that is none of its fields. It took 'no such key'.")


def layout_reads_images_that_can_be_trained_on(layout: Layout, root: Path) -> None:
    """Train and val splits of different images, whose labels are ids of classes or the ignored one."""
    data = _read(layout, root)
    names = [name for split in data.splits.values() for name in split.names]
    _hold(len(set(names)) == len(names), "no image is in two splits, or twice in one. Names repeat")
    known = {*range(data.num_classes)} | ({data.ignore_index} if data.ignore_index is not None else set())
    for title, split in data.splits.items():
        unknown = sorted({*np.unique(split.labels).tolist()} - known)
        _hold(
            not unknown,
            f"labels hold ids of the {data.num_classes} classes, or the ignored one, {data.ignore_index}. The split "
            f"{title} also holds {unknown[:5]}",
        )


def layout_repeats_itself(layout: Layout, root: Path) -> None:
    """The same folder gives the same images in the same order, so that a run can be resumed."""
    first, second = (_read(layout, root).fingerprint() for _ in range(2))
    _same(first, second, "reading a folder twice gives the same images, labels and names")


def layout_gives_the_size_that_is_asked_for(layout: Layout, root: Path) -> None:
    """Every image has the (H, W) of the space, whatever its own."""
    for size in ((40, 56), (49, 35)):
        got = _read(layout, root, size).image_size
        _hold(got == size, f"images get the size (H, W) that is asked for, {size}. Got {got}")


def layout_reads_alike_within_any_memory(layout: Layout, root: Path) -> None:
    """What is mapped from a cache, where the memory is too small, equals what is held in memory."""
    held = _read(layout, root)
    with tempfile.TemporaryDirectory() as cache:
        mapped = layout.read(root, None, cache=cache, memory_limit_bytes=0)
        _same(mapped.fingerprint(), held.fingerprint(), "the memory limit changes no image, label or name")
        for title, split in held.splits.items():
            sent = pickle.loads(pickle.dumps(mapped.splits[title]))
            _hold(
                np.array_equal(sent.labels, split.labels),
                f"a split can be sent to another process. The labels of {title} changed on the way",
            )


def layout_leaves_the_folder_alone(layout: Layout, root: Path) -> None:
    """Reading writes nothing into the user's folder."""
    before = _files(root)
    _read(layout, root)
    _same(sorted(_files(root).items()), sorted(before.items()), "reading changes no file of the folder")


def layout_reports_a_folder_that_is_none_of_its_own(layout: Layout, root: Path) -> None:
    """A missing folder and an empty one are a DataError, which names the folder."""
    with tempfile.TemporaryDirectory() as empty:
        for folder in (Path(empty), Path(empty) / "missing"):
            try:
                layout.read(folder, None)
            except DataError as error:
                _hold(str(empty) in str(error), f"a message about a folder names it, {folder}. Got {error}")
            except Exception as error:
                raise AssertionError(f"a folder that is no such data set is a DataError. Got {error!r}.") from error
            else:
                raise AssertionError("a folder without any image is a DataError. It was read.")


LAYOUT_CHECKS: tuple[Callable[[Layout, Path], None], ...] = (
    layout_is_a_table_of_keys,
    layout_reads_images_that_can_be_trained_on,
    layout_repeats_itself,
    layout_gives_the_size_that_is_asked_for,
    layout_reads_alike_within_any_memory,
    layout_leaves_the_folder_alone,
    layout_reports_a_folder_that_is_none_of_its_own,
)


def _read(layout: Layout, root: Path, size: tuple[int, int] | None = None) -> ImageSet:
    """Read a sound folder, which must succeed."""
    try:
        data = layout.read(root, size)
    except Exception as error:
        raise AssertionError(f"a layout reads a sound folder at size {size}. This one raised {error!r}.") from error
    _hold(isinstance(data, ImageSet), f"read gives an ImageSet. Got {type(data).__name__}")
    return data


def _files(root: Path) -> dict[str, tuple[int, int]]:
    """The size and time of every file below a folder, by its path."""
    return {str(p): (p.stat().st_size, p.stat().st_mtime_ns) for p in root.rglob("*") if p.is_file()}


# --- spaces ---


def space_file_can_be_read(file: Path) -> None:
    """Every preset, the default one among them, and the task and the backbone that each names are there."""
    for space in _presets(file):
        try:
            plugins.load("tasks", space.task)
            plugins.backbone(space.backbone)
        except RfsearchError as error:
            raise AssertionError(f"{file}: preset {space.preset!r} names a task and a backbone. {error}") from error


def space_has_sites_in_its_backbones(file: Path) -> None:
    """The sites of every preset are convolutions of its backbone."""
    for space in _presets(file):
        try:
            match_sites(_network(space), space.sites)
        except RfsearchError as error:
            raise AssertionError(f"{file}: preset {space.preset!r} names sites of its backbone. {error}") from error


def space_dilations_fit_its_embedded_images(file: Path) -> None:
    """Every dilation, and the hand default, in images of a preset's size; where its data is embedded."""
    for space in _presets(file):
        if space.data.default is None:
            continue
        net = _network(space)
        space = space.with_(sites=match_sites(net, space.sites))
        sites = measure_sites(net, space.sites, space.image_size or (96, 96), _CHANNELS)
        candidates = [*(space.uniform(Choice(d)) for d in space.dilations), space.default_candidate]
        try:
            check_fits(sites, candidates, f"{file}, preset {space.preset}", space.sampling.kernel)
        except RfsearchError as error:
            raise AssertionError(str(error)) from error


SPACE_CHECKS: tuple[Callable[[Path], None], ...] = (
    space_file_can_be_read,
    space_has_sites_in_its_backbones,
    space_dilations_fit_its_embedded_images,
)


def _presets(file: Path) -> Iterator[Space]:
    """Every preset of a space file, the default one first."""
    try:
        yield read_space(file, None)
        yield from (read_space(file, name) for name in tomllib.loads(file.read_text(encoding="utf-8-sig"))["presets"])
    except RfsearchError as error:
        raise AssertionError(str(error)) from error


def _network(space: Space) -> nn.Module:
    return plugins.make_backbone(space.backbone, _CLASSES, _CHANNELS)


def _hold(condition: bool, message: str) -> None:
    """As `assert`, which python -O leaves out, and which only pytest's own files explain."""
    if not condition:
        raise AssertionError(f"{message}.")


def _same(a: object, b: object, rule: str) -> None:
    _hold(a == b, f"{rule}. Got {a} and {b}")
