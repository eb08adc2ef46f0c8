"""What a user's training function is given: one trial of a search."""

from __future__ import annotations

import operator
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

import torch
from torch import distributed, nn
from torch.utils.hooks import RemovableHandle

from rfsearch.choices import Candidate
from rfsearch.compiled import behind_compilation, check_not_compiled, is_compiled, name_as_written, put_back_compiled
from rfsearch.errors import RequestError, TrialError
from rfsearch.layers import FractionalConv2d
from rfsearch.layers.host import on_host
from rfsearch.own_loop.attaching import Strangers, check_moved, innermost, refuse_loading
from rfsearch.own_loop.group import Group
from rfsearch.own_loop.kept import Drawing, KeptObjects, Stateful, packed, unpacked
from rfsearch.own_loop.learner import Learner
from rfsearch.own_loop.learning import learner_of
from rfsearch.own_loop.metering import LoopMeter
from rfsearch.own_loop.scored import Scored, checked_scores
from rfsearch.own_loop.spent import Spent
from rfsearch.space import OwnSpace
from rfsearch.surgery import Advancing, Learnable, Settings, Undecayed, found_dilation, install
from rfsearch.training.optimisation import Scalar, value_of
from rfsearch.training.random_states import random_state, seed_all, set_random_state


class _Meeting(NamedTuple):
    """Hold what all processes had run when they met, FLOP, and what of it in evaluations."""

    flop: float
    score_flop: float


class Conduct(Protocol):
    """Decide how far a training goes: what runs the trial, behind the user's function."""

    def before_installing(self, model: nn.Module) -> None:
        """Look at the model that the function has made, as it comes.

        Raises:
            RequestError: It is not the one that the search was planned for.
        """

    def take_up(self, trial: Trial) -> int:
        """Load what an earlier start of this trial has left; returns the number of epochs that are done."""

    def goes_on(self, trial: Trial, epoch: int) -> bool:
        """Return whether another epoch fits; `epoch` are done. Called between two epochs, after scores were reported.

        Raises:
            Stopped: The trial ends here.
        """


class Trial:
    """Be one trial of a search, for the function that trains it.

    Attributes:
        candidate: The receptive field that it tries.
        seed: Of this trial; random, numpy and torch have been seeded with it, in each of its processes.
        device: Where to train: this process's device, where there are several.
        rank: Number of this process among those that train this trial together, from 0.
        world_size: Number of those processes.

    Example::

        def train(trial: rfsearch.Trial) -> None:
            model = trial.prepare(make_model()).to(trial.device)
            optimizer = torch.optim.AdamW(trial.parameter_groups(model, lr=3e-4, weight_decay=0.05))
            trial.attach(model, optimizer)
            for epoch in trial.epochs(20):
                for images, targets in loader:
                    ...  # a step
                with trial.evaluating():
                    score = validate(model)
                trial.report(val=score)
            with trial.evaluating():
                trial.finish(val=validate(model), test=test(model))
    """

    def __init__(
        self,
        candidate: Candidate,
        space: OwnSpace,
        settings: Settings,
        seed: int,
        device: torch.device,
        conduct: Conduct,
        group: Group | None = None,
    ) -> None:
        """Begin with nothing prepared."""
        self.candidate, self.seed, self.device = candidate, seed, device
        self._space, self._settings, self._conduct = space, settings, conduct
        self._group = group or Group()
        self.rank, self.world_size = self._group.rank, self._group.size
        self.meter, self.spent = LoopMeter(), Spent()
        self.model: nn.Module | None = None
        """The model that `prepare` has changed."""
        self.learnable = Learnable({}, {}, {}, {}, {})
        self.learner: Learner | None = None
        self.scored: Scored | None = None
        self.finished: Scored | None = None
        self.epochs_asked = 0
        self._attached: nn.Module | None = None
        self._optimizers: tuple[torch.optim.Optimizer, ...] = ()
        self._kept = KeptObjects()
        self._made: list[str] = []
        self._closed: list[RemovableHandle] = []
        self._strangers: Strangers | None = None
        self.compiled = self._eager = False
        """Whether the training has compiled its model, which runs as it was written instead."""
        self._step = self._score_depth = 0
        self._flop_of_others = 0.0
        self._random_of_others: list[Any] = []
        self._look: Callable[[], float] | None = None
        self.finished_model: nn.Module | None = None
        """The model that was scored in the end, where it is not the attached one."""

    def prepare(self, model: nn.Module) -> nn.Module:
        """Install the candidate in a model.

        Call it after trained weights were loaded, and before the model is moved to its device, wrapped, compiled or
        given to an optimiser. Until `attach`, the model refuses to load weights.

        Returns:
            The model itself, changed.

        Raises:
            ModelError: The model lacks a site, or is compiled already.
            RequestError: It is no model, or another than the search was planned for.
        """
        if self.model is not None:
            raise RequestError(
                "trial.prepare has changed a model already. Call it once, with the model that is searched."
            )
        if not isinstance(model, nn.Module):
            raise RequestError(f"trial.prepare takes a torch.nn.Module, such as make_model(). Got {model!r}.")
        check_not_compiled(model)
        self._conduct.before_installing(model)
        before = list(model.parameters())  # held, so that no identity is used twice
        self.learnable = install(model, self.candidate, self._settings)
        self.model = model
        if self._steps:
            # Here, and not once it is attached: copies that are made in between, to be averaged, have the same layers.
            self.learner = learner_of(
                model, self.candidate, self.learnable, self._space, self._steps, self._looking, self.seed
            )
        known = {id(parameter) for parameter in before}
        self._made = [name for name, parameter in model.named_parameters() if id(parameter) not in known]
        self._closed = refuse_loading(model, self.learnable.modules.values())
        return model

    def parameter_groups(
        self, model: nn.Module, lr: float, weight_decay: float = 0.0, **options: Any
    ) -> list[dict[str, Any]]:
        """Return groups for an optimiser: without what a search moves itself, and undecayed what no decay may pull.

        Passing `model.parameters()` instead is as good, where no layer of a search has undecayed parameters.

        Args:
            model: What `prepare` has returned, or what wraps it.
            lr: Of all groups.
            weight_decay: Of all weights but those.
            options: Others of all groups.
        """
        if not isinstance(model, nn.Module):
            raise RequestError(
                f"trial.parameter_groups takes the model, not its parameters. Got {type(model).__name__}."
            )
        own = {id(parameter) for parameter in self._own_parameters()}
        layers = self.learnable.layers.values()
        bare = {id(p) for layer in layers if isinstance(layer, Undecayed) for p in layer.undecayed()}
        free = [p for p in model.parameters() if id(p) not in own]
        groups = [
            {"params": [p for p in free if id(p) not in bare], "lr": lr, "weight_decay": weight_decay, **options},
            {"params": [p for p in free if id(p) in bare], "lr": lr, **options, "weight_decay": 0.0},
        ]
        return [group for group in groups if group["params"]]

    def attach(
        self, model: nn.Module, *optimizers: torch.optim.Optimizer, look: Callable[[], float] | None = None
    ) -> None:
        """Meter from here on what runs, and let what the candidate learns follow the optimiser.

        Args:
            model: What is trained: what `prepare` has returned, or what wraps it.
            optimizers: All that move it; what is learned follows the first.
            look: How good the model is as it stands, higher is better, on some images that it is not trained on, the
                same ones each time. With it, `fractional` finds dilations from no start; without, it moves them from
                several.
        """
        if self.model is None:
            raise RequestError("trial.attach needs a model with the candidate installed: model = trial.prepare(model).")
        if self._attached is not None:
            raise RequestError(
                "trial.attach has been called already. Make the optimiser once, before trial.epochs, and attach it "
                "once: what is learned follows its steps, and a resumed trial loads its state."
            )
        given, optimizers = optimizers, tuple(map(innermost, optimizers))
        if not optimizers or not all(isinstance(one, torch.optim.Optimizer) for one in optimizers):
            got = ", ".join(type(one).__name__ for one in given) or "none"
            raise RequestError(f"trial.attach(model, optimizer) follows torch.optim.Optimizer. Got {got}.")
        together = distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1
        if together != self.world_size:
            raise RequestError(
                f"this trial has {_processes(self.world_size)}, and belongs to a group of {together}. Start none in "
                f"the training function: processes_per_trial={together} starts them, and makes their process group."
            )
        # What compiled code runs cannot be counted, be it a model's or a loss's, and a dilation that changes would
        # compile it anew.
        torch.compiler.set_stance("force_eager")
        self._eager, self.compiled = True, is_compiled(model)
        put_back_compiled(self.model)
        if not {id(p) for p in self.model.parameters()} <= {id(p) for p in model.parameters()}:
            raise RequestError(
                "trial.attach got another model than trial.prepare, whose candidate would train nothing. Attach what "
                "prepare returned, or what wraps it."
            )
        check_moved(self.model, self._made, self._own_parameters(), optimizers)
        if self.candidate.searched and look is None:
            raise TrialError(
                "its dilations are found by looks at how good the network is: trial.attach(..., look=LOOK)."
            )
        for handle in self._closed:
            handle.remove()
        self._strangers = Strangers(self.model, optimizers)
        self._attached, self._optimizers, self._look = model, given, look
        changing = self.candidate.learned or self.learner is not None or self.learnable.layers
        self.meter.begin(optimizers, None if changing else self.model)
        optimizers[0].register_step_post_hook(self._after_step)
        if self.learner:
            with self.meter.paused():
                self.learner.attach(optimizers[0], others=optimizers[1:])
        if not self._steps and look is not None:
            self._looking()
        self._advance()

    def keep(self, **objects: Stateful | Drawing) -> None:
        """Keep the state of more objects where the trial can be resumed: schedulers, scalers, averaged weights, ...

        Model and optimisers are kept as they are attached, and the random states of random, numpy and torch. A
        generator of the training's own, such as that of a sampler or a loader, is to be kept here.

        Args:
            objects: Each with `state_dict` and `load_state_dict`, or `get_state` and `set_state`, by a name of its own.
        """
        if self.epochs_asked:
            raise RequestError("keep everything before trial.epochs: what is resumed is loaded where the loop begins.")
        self._kept.add(objects)

    def epochs(self, count: int) -> Iterator[int]:
        """Yield the number of each epoch, from 0 or from where an interrupted trial had stopped.

        It ends early where the next epoch would not fit into the budget: score the model and finish, as at the end.

        Args:
            count: Number of epochs of a full training, the same for every trial of a search.
        """
        asked: object = count
        if self._attached is None:
            raise RequestError("trial.epochs comes after trial.attach(model, optimizer), which meters the training.")
        try:
            count = operator.index(count)
        except TypeError:
            count = 0
        if count < 1:
            raise RequestError(f"trial.epochs takes the number of epochs, at least 1. Got {asked!r}.")
        if self.epochs_asked:
            raise TrialError("trial.epochs has been iterated over already: a training has one loop over its epochs.")
        self.epochs_asked = count
        if self._space.length and self._space.length.epochs != count:
            raise TrialError(
                f"trial.epochs({count}): the first training of this search had {self._space.length.epochs} epochs. "
                "Trainings of different lengths cannot be compared."
            )
        with self.meter.paused():
            done = self._take_up()
        before = self._met("its first epoch")
        for epoch in range(done, count):
            with self.meter.paused():
                if not self._group.first_says(lambda: self._conduct.goes_on(self, epoch)):  # noqa: B023 (called here)
                    return
            self.scored = None  # of other weights than those that this epoch makes
            tried, began, factors = self._tried, time.perf_counter(), self._factors()
            yield epoch
            seconds, now = time.perf_counter() - began, self._met(f"the end of epoch {epoch}")
            self.spent.end_epoch(
                now.flop - before.flop,
                now.score_flop - before.score_flop,
                seconds,
                self._tried - tried,
                self._growth_since(factors),
            )
            before = now
            if self._tried == tried:
                raise TrialError(
                    "an epoch has passed without a step of the attached optimiser. Attach the one whose step() runs"
                    f"{', and make it once: this one took steps before' if self._step else ''}."
                )

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Charge what runs inside as evaluation, which a budget's 1x is without."""
        before, inside = self.meter.flop, self._score_depth
        self._score_depth += 1
        try:
            yield
        finally:
            self._score_depth = inside
            if not inside:
                self.spent.score_flop += self.meter.flop - before

    def report(self, val: float, **scores: float) -> None:
        """Say how good the model is at the end of an epoch: a rung of the trial, at which it may be stopped.

        What is needed to go on is kept once the epoch's last line has run.

        Args:
            val: The score that the search goes by.
            scores: Others, by name; the report shows `loss`, the training's since the last report.
        """
        self.scored = checked_scores(val, None, scores)

    def finish(self, val: float, test: float | None = None, model: nn.Module | None = None, **scores: float) -> None:
        """Say how good the trained model is.

        Args:
            val: The score that the search goes by.
            test: The same score on images that nothing is chosen on.
            model: What was scored, where it is not the attached model but a copy of it, such as averaged weights: its
                weights are kept. The copy itself, or a module that holds it, whatever averages, wraps or compiles it.
            scores: Others, by name, of the test images if there are any.

        Raises:
            RequestError: No part of `model` has the parameters of the model that was prepared.
        """
        if self.model is None:
            raise RequestError("trial.finish has nothing to finish: no model was prepared.")
        self.finished_model = None if model is None else self._copy_in(model)
        self.finished = checked_scores(val, test, scores)

    def _copy_in(self, model: nn.Module) -> nn.Module:
        """Return the part of what was scored that has the parameters of the prepared model, by the same names."""
        assert self.model is not None
        if not isinstance(model, nn.Module):
            raise RequestError(
                f"trial.finish(model=...) takes a torch.nn.Module. Got {type(model).__name__}. Pass the module whose "
                "weights it averages."
            )
        own = _shapes(self.model)
        copies = {id(part): part for part in map(behind_compilation, model.modules()) if _shapes(part) == own}
        if len(copies) == 1:
            return next(iter(copies.values()))
        shapes = _shapes(model)
        found = (
            f"This {type(model).__name__} holds {len(copies)}: pass the one that was scored."
            if copies
            else f"No part of this {type(model).__name__} has the same parameters: it has "
            f"{', '.join(list(shapes)[:3]) or 'none'}; the prepared model has {', '.join(list(own)[:3])}."
        )
        raise RequestError(
            "trial.finish(model=...) takes a copy of what trial.prepare returned, or a module that holds one, such as "
            f"AveragedModel. {found}"
        )

    def run(self, train: Callable[[Trial], None]) -> None:
        """Call the user's function, in the thread that trains."""
        seed_all(self.seed)
        try:
            train(self)
            self._met("its end")
        finally:
            if self._strangers:
                self._strangers.release()
            if self._eager:
                torch.compiler.set_stance("default")

    @property
    def flop(self) -> float:
        """What all processes have run so far; of the others, when they last met."""
        return self.meter.flop + self._flop_of_others

    def _take_up(self) -> int:
        """Go on, in every process, from where the first one finds the trial."""
        assert self.model is not None
        put_back_compiled(self.model)  # it may have been compiled since it was attached
        done = self._group.first_says(lambda: self._conduct.take_up(self))
        if done and self.world_size > 1:
            state = self._group.first_says(lambda: packed(self.state()))
            if self.rank:
                self.load_state(unpacked(state, self.device))
        return done

    def _met(self, moment: str) -> _Meeting:
        """Learn what all processes have run so far, and keep what the first one's checkpoint needs of the others."""
        with self.meter.paused():
            random = random_state(self.device) if self.world_size > 1 else None
            all_of_them = self._group.everybody((self.meter.flop, self.spent.score_flop, random), moment)
        flops, score_flops, states = zip(*all_of_them, strict=True)
        self._flop_of_others = sum(flops) - flops[self.rank]
        self._random_of_others = list(states[1:])
        return _Meeting(sum(flops), sum(score_flops))

    def state(self) -> dict[str, Any]:
        """Return what to go on from between two epochs: of all processes, as the first one has it."""
        assert self._attached is not None
        return {
            "model": self._attached.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self._optimizers],
            "kept": self._kept.states(),
            "learner": self.learner.state_dict() if self.learner else None,
            "random": random_state(self.device),
            "random_of_others": self._random_of_others,
            "step": self._step,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave."""
        assert self._attached is not None
        self._kept.check(state["kept"])
        self._attached.load_state_dict(state["model"])
        for optimizer, saved in zip(self._optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self._kept.load(state["kept"], self.device)
        if self.learner and state["learner"] is not None:
            self.learner.load_state_dict(state["learner"])
        self._random_of_others = state.get("random_of_others", [])
        set_random_state([state["random"], *self._random_of_others][self.rank], self.device)
        self._step = state["step"]
        self._advance()

    @property
    def step(self) -> int:
        """Steps that the first optimiser has taken."""
        return self._step

    @property
    def _tried(self) -> int:
        """Steps of the first optimiser since it was attached, with those that a scaler of gradients has left out."""
        return self.meter.steps + self.meter.left_out

    @property
    def searching(self) -> bool:
        """Whether dilations are still to be found."""
        return self.learner is not None and self.learner.searching

    @property
    def looked(self) -> bool:
        """Whether the training has a look at how good its model is."""
        return self._look is not None

    def learned_values(self) -> dict[str, float]:
        """Return the f, gamma or dilation of every path whose training moves it."""
        values = dict(self.learner.report().dilations) if self.learner else {}
        for path, layer in self.learnable.layers.items():
            if (dilation := found_dilation(layer)) is not None:
                values[path] = dilation
        if self.finished_model is not None:  # whose averaged dilation is its own
            parts = {name_as_written(name): part for name, part in self.finished_model.named_modules()}
            for path in self.learnable.dilations:
                scored = parts[self.learnable.modules[path]]
                if isinstance(scored, FractionalConv2d):
                    values[path] = scored.value
        return values

    def settle(self) -> nn.Module:
        """Return the model with plain convolutions wherever a dilation has become a whole number."""
        assert self.model is not None
        put_back_compiled(self.model)
        if self.finished_model is not None:
            put_back_compiled(self.finished_model)  # weights are kept by the names that they were written with
        if self.learner:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # a budget may have no room for a step
                self.learner.settle(whole=False)
                if self.finished_model is not None:
                    self.learner.settle(self.finished_model, whole=False, keep=True)
        return self.model if self.finished_model is None else self.finished_model

    def _own_parameters(self) -> list[nn.Parameter]:
        """Return what a search moves itself."""
        scalars: list[Scalar] = [*self.learnable.factors.values(), *self.learnable.strides.values()]
        return [*map(value_of, scalars), *(self.learner.parameters if self.learner else ())]

    def _factors(self) -> list[float]:
        return [on_host(value_of(factor))[0] for factor in self.learnable.factors.values()]

    def _growth_since(self, before: list[float]) -> float:
        """Return how much dearer an epoch gets if each f, which scales a map, grows as it did in the last one."""
        axes = len(self._space.input_shape) - 2
        return max((now / then for then, now in zip(before, self._factors(), strict=True)), default=1.0) ** axes

    @property
    def _steps(self) -> int:
        """Steps of a full training; 0 in the pilot, which finds them."""
        return self._space.length.all_steps if self._space.length else 0

    def _looking(self) -> float:
        """Look how good the model is, and note what that costs."""
        assert self._look is not None
        before = self.meter.flop
        with torch.no_grad():
            merit = float(self._look())
        self.spent.look_flop = sum(self._group.everybody(self.meter.flop - before, "a look"))
        return merit

    def _after_step(self, *_: Any) -> None:
        self._step += 1
        self._advance()

    def _advance(self) -> None:
        """Let the layers in the place of convolutions change before the next step."""
        if self._steps and self.learnable.layers:
            with torch.no_grad():
                for layer in self.learnable.layers.values():
                    if isinstance(layer, Advancing):
                        layer.advance(min(self._step, self._steps - 1), self._steps)


def _processes(count: int) -> str:
    return "one process" if count == 1 else f"{count} processes"


def _shapes(model: nn.Module) -> dict[str, torch.Size]:
    """Return the shape of every parameter, by the name that it was written with."""
    return {name_as_written(name): parameter.shape for name, parameter in model.named_parameters()}
