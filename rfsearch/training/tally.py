"""What every step and every pass really costs, at little more than the cost of running it.

Sending each operator through a `Meter` costs a small network a fifth of its time. A `Tally` watches one level higher:
the calls of torch that a network, its task and its layers make from Python. The same call with the same shapes costs
the same, so each kind of call is metered once and looked up from then on. Control flow decides which calls are made, so
whatever it decides is counted: a layer that is skipped at random, a branch that begins late, a recomputed block.

The backward pass runs operators of its own, which the graph of the forward pass determines. Each kind of graph is
metered once, without the calls that it makes from Python (layers of our own, recomputed blocks): those count by
themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MethodWrapperType
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import BackwardCFunction
from torch.overrides import TorchFunctionMode, _get_current_function_mode

from rfsearch.layers.one_call import Working
from rfsearch.training.forks import Origin
from rfsearch.training.meter import Meter

# Calls that describe a tensor or move its data: no arithmetic (see the formulas of `Meter`), whatever their arguments.
_FREE = frozenset(
    {
        Tensor.view,
        Tensor.reshape,
        Tensor.permute,
        Tensor.transpose,
        Tensor.flatten,
        Tensor.unflatten,
        Tensor.narrow,
        Tensor.squeeze,
        Tensor.unsqueeze,
        Tensor.movedim,
        Tensor.expand,
        Tensor.detach,
        Tensor.contiguous,
        Tensor.to,
        Tensor.__getitem__,
        Tensor.__len__,
        Tensor.size,
        Tensor.dim,
        Tensor.numel,
        Tensor.is_floating_point,
        Tensor.data_ptr,
        torch._assert,
    }
)
# Calls whose work lies in the graph behind their arguments, so that shapes do not say what they cost.
_BY_GRAPH = frozenset({torch.autograd.grad, torch.autograd.backward, Tensor.backward})
_MOST_KNOWN = 20_000
_ROUNDING = 1e-9
_LEAF = type(torch.autograd.graph.get_gradient_edge(torch.zeros((), requires_grad=True)).node)


class Tally:
    """Count the FLOP of all that runs inside `with tally.counting(...)`, calls of torch and `backward`.

    Attributes:
        flop: So far, of what was begun and then failed too.
        aborted: What of it was charged for calls that failed, each as if it had gone through.
        calls: Adds the cost of every call from Python, wherever it is entered as a context.
        after_backward: Called behind each backward pass with its graph of gradients, None where that does not say what
            runs, and what the pass has cost without the calls from Python in it.
    """

    def __init__(self) -> None:
        """Begin at zero."""
        self.flop = self.aborted = 0.0
        self.calls = Calls(self)
        self.after_backward: Callable[[Hashable | None, float], None] = lambda *_: None
        self._graphs: dict[Hashable, float] = {}
        self._works: dict[Hashable, float] = {}
        self._seen_through: dict[str, bool] = {}

    @contextmanager
    def counting(self, what: str) -> Iterator[None]:
        """Count what runs inside.

        The first time of each `what`, every operator is metered beside it: where more runs than calls from Python say,
        as in TorchScript, operators are metered ever after.
        """
        if self._seen_through.get(what):
            with self.calls:
                yield
            return
        before = self.flop
        meter = Meter(memory=False)
        try:
            with meter, self.calls:
                yield
            self._seen_through.setdefault(what, meter.flop <= (self.flop - before) * (1 + _ROUNDING))
        finally:
            self.flop = max(self.flop, before + meter.flop)

    def backward(self, loss: Tensor, gradient: Tensor | None = None, **options: Any) -> None:
        """Run the backward pass of a loss, inside `counting`; for the arguments see `Tensor.backward`."""
        graph = None if any(options.values()) else _graph(loss)
        before, known = self.flop - self.aborted, self._graphs.get(graph) if graph is not None else None
        if known is not None:
            self.flop += known
            _run_backward(loss, gradient, options)
            self.after_backward(graph, known)
            return
        meter = Meter(memory=False)
        own = 0.0
        try:
            with meter:
                _run_backward(loss, gradient, options)
            own = meter.flop - (self.flop - self.aborted - before)
            if graph is not None:
                remember(self._graphs, graph, own)
        finally:
            self.flop = before + self.aborted + meter.flop
        self.after_backward(graph, own)

    def repeated(self, kind: Hashable, work: Callable[[], object]) -> None:
        """Do work that costs the same whenever it is of the same kind, outside `counting`."""
        if kind in self._works:
            self.flop += self._works[kind]
            work()
            return
        meter = Meter(memory=False)
        try:
            with meter:
                work()
            remember(self._works, kind, meter.flop)
        finally:
            self.flop += meter.flop

    @contextmanager
    def passes(self, model: nn.Module, watch: Callable[[Any], None]) -> Iterator[list[float]]:
        """Count the forward passes of a model in whatever runs inside, and nothing else of that.

        Args:
            model: The model.
            watch: Is shown each output.

        Yields:
            What each pass has cost, FLOP.
        """
        forward, own = model.forward, "forward" in vars(model)
        costs: list[float] = []

        def counted(*args: Any, **kwargs: Any) -> Any:
            before = self.flop
            with self.counting("pass"):
                output = forward(*args, **kwargs)
            costs.append(self.flop - before)
            watch(output)
            return output

        model.forward = counted
        try:
            yield costs
        finally:
            if own:
                model.forward = forward
            else:
                del model.forward


class Calls(TorchFunctionMode):
    """Add the cost of every call from Python to a tally: metered when it is the first of its kind.

    Attributes:
        off: Whether calls are passed on uncounted for now.
    """

    def __init__(self, tally: Tally) -> None:
        super().__init__()
        self._tally = tally
        self._known: dict[Hashable, float] = {}
        self._origin = Origin()
        self.off = False

    @contextmanager
    def unwatched(self) -> Iterator[None]:
        """Spare what runs inside the detour that every call takes while calls are watched."""
        if _get_current_function_mode() is not self:
            yield
            return
        self.__exit__(None, None, None)
        try:
            yield
        finally:
            self.__enter__()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        # The first: a property of a tensor, such as its shape. A process that is forked off has a copy of this mode.
        if type(func) is MethodWrapperType or func in _FREE or self.off or self._origin.elsewhere:
            return func(*args, **kwargs) if kwargs else func(*args)
        kwargs = kwargs or {}
        if func is Tensor.backward:
            with self:
                return self._tally.backward(*args, **kwargs)
        kind = None
        # Inside vmap shapes lack the axis that it maps over.
        if func not in _BY_GRAPH and torch._C._functorch.peek_interpreter_stack() is None:
            try:
                kind = _kind(func, args, kwargs)
                known = self._known.get(kind)
            except TypeError:  # an argument that nothing is known of
                kind = None
            else:
                if known is not None:
                    self._tally.flop += known
                    try:
                        return func(*args, **kwargs)
                    except BaseException:
                        self._tally.aborted += known
                        raise
        meter = Meter(memory=False)
        try:
            with meter:
                output = func(*args, **kwargs)
            if kind is not None:
                remember(self._known, kind, meter.flop)
            return output
        finally:
            self._tally.flop += meter.flop


def _run_backward(loss: Tensor, gradient: Tensor | None, options: Mapping[str, Any]) -> None:
    """Run `loss.backward(...)` as no call of its own, so that the calls that are made in it are seen one by one."""
    if loss.grad_fn is None or (gradient is None and loss.numel() != 1):  # which torch refuses
        with torch._C.DisableTorchFunction():
            loss.backward(gradient, **options)
        return
    gradient = torch.ones_like(loss) if gradient is None else gradient
    torch.autograd.backward(torch.autograd.graph.get_gradient_edge(loss), gradient, **options)


def _kind(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Hashable:
    """Return what the cost of a call can depend on. Raises TypeError if that is not known.

    Flat, and what arguments mostly are comes first: this runs at every call.
    """
    parts = [func, torch.is_grad_enabled()]
    for value in args:
        kind = type(value)
        if kind in _TENSORS:
            parts += value.shape, value.dtype, value.requires_grad
        elif kind in _USUAL:
            parts.append(value)
        else:
            parts.append(described(value))
    if kwargs:
        parts.append(described(kwargs))
    return tuple(parts)


def described(value: Any) -> Hashable:
    """Return what the cost of a call can depend on in one of its arguments. Raises TypeError if that is not known."""
    if isinstance(value, Tensor):
        return value.shape, value.dtype, value.requires_grad
    if type(value) in _USUAL:
        result: Hashable = value
        return result
    if isinstance(value, (list, tuple)):
        if type(value) is tuple and len(value) == 2 and type(value[0]) is type(value[1]) is int:
            return value
        return tuple([item if type(item) in _USUAL else described(item) for item in value])
    if isinstance(value, dict):
        return tuple([(name, described(item)) for name, item in value.items()])
    if isinstance(value, slice):
        return described((value.start, value.stop, value.step))
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, Working):
        return type(value), value.work
    raise TypeError(type(value))


_TENSORS = {Tensor, nn.Parameter}
_USUAL = {type(None), type(Ellipsis), bool, int, float, str}
_PLAIN = (bool, int, float, str, torch.dtype, torch.device, torch.layout, torch.memory_format, torch.Generator)


def remember(costs: dict[Hashable, float], kind: Hashable, flop: float) -> None:
    """Keep what a kind of work costs. A kind may come once only, as where a number in it differs from step to step."""
    if len(costs) >= _MOST_KNOWN:
        costs.clear()
    costs[kind] = flop


def _graph(loss: Tensor) -> Hashable | None:
    """Return a hash of a graph of gradients: its nodes with the shapes of their gradients, and its edges.

    Returns None where somebody else's Python function runs in it: such a one may start a backward pass of its own, as
    reentrant checkpointing does.
    """
    with torch._C.DisableTorchFunction():  # to describe tensors is no call to whoever watches those
        return _described_graph(loss)


def _described_graph(loss: Tensor) -> Hashable | None:
    if loss.grad_fn is None:
        return None
    nodes, places = [loss.grad_fn], {loss.grad_fn: 0}
    parts: list[Hashable] = []
    for node in nodes:
        parts.append(node.name())
        if type(node) is _LEAF:
            parts.append(node.variable.shape)  # type: ignore[attr-defined]
            continue
        if isinstance(node, BackwardCFunction) and not node._forward_cls.__module__.startswith("rfsearch."):
            return None
        for behind, number in node.next_functions:
            place = -1
            if behind is not None:
                place = places.setdefault(behind, len(nodes))
                if place == len(nodes):
                    nodes.append(behind)
            parts += place, number
        for metadata in node._input_metadata:
            parts.append(tuple(metadata.shape))
    return hash(tuple(parts))
