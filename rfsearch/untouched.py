"""Run a network to measure it, and leave it exactly as it was, together with whatever its code shares.

Networks keep things between calls: cached grids and position biases, features, running statistics, weights that their
own `train` merges. A measurement runs them on empty images or on shapes alone. What they keep of that is worthless
afterwards, or does harm, so all of it is restored, without relying on any method of the network. What the network's
code shares with other networks, such as a cache in a Python module, loses the tensors that the measurement left there;
everything else in it stays.
"""

from __future__ import annotations

import functools
import gc
import operator
import random
import sys
from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils._python_dispatch import _disable_current_modes

# How many levels of nested containers and objects are looked into.
_DEPTH = 4
# Packages that keep no network's tensors.
_APART = {*sys.stdlib_module_names, "torch", "numpy", "scipy", "PIL", "pandas", "pytest", "_pytest", "ray", "optuna"}
_Cache = functools._lru_cache_wrapper
_CODE = (type, ModuleType, FunctionType, BuiltinFunctionType, MethodType, functools.partial, _Cache)
_CLASS: Callable[[Any], Any] = type
_ATOMS = (str, bytes, int, float, complex, type(None))


@contextmanager
def untouched(model: nn.Module, but: Collection[nn.Module] = ()) -> Iterator[None]:
    """Restore a model after a block that runs it.

    Restored are its attributes and what they hold, parameters and buffers with their values, gradients, modes, hooks,
    uninitialised lazy modules, and the states of random numbers. Tensors that the block left in what the model's code
    shares are removed: from attributes of classes, names and containers of Python modules, memories of functions.

    Args:
        model: The model.
        but: Modules that keep what the block makes of them.
    """
    with _hidden_from_modes():
        shared = _Shared(model)
    try:
        with restored(model, but):
            yield
    finally:
        with _hidden_from_modes():
            shared.clean()


@contextmanager
def restored(model: nn.Module, but: Collection[nn.Module] = ()) -> Iterator[None]:
    """Restore a model as `untouched` does, and leave what its code shares alone.

    Enough for passes on real images during the model's own work: what they leave there, every other pass leaves too. It
    takes a fraction of the time, most of it to copy the parameters, which the network's code may write to.

    Args:
        model: The model.
        but: Modules that keep what the block makes of them.
    """
    with _hidden_from_modes():
        kept = [*_all_restorers(model, but), _random_numbers(_gpus(model))]
    try:
        yield
    finally:
        with _hidden_from_modes():
            for put_back in kept:
                put_back()


@contextmanager
def _hidden_from_modes() -> Iterator[None]:
    """Hide from whatever meters or traces the caller."""
    with _disable_current_modes(), torch._C.DisableTorchFunction(), torch.no_grad():
        yield


def _all_restorers(model: nn.Module, but: Collection[nn.Module]) -> list[Callable[[], None]]:
    """Return what restores all that a model holds, directly or in containers and objects."""
    seen: dict[int, Any] = {id(module): module for module in but}  # kept alive, so that no identity is used twice
    kept: list[Callable[[], None]] = []
    modes = [(module, module.training) for module in model.modules()]
    waiting: list[tuple[Any, int]] = [(module, 0) for module, _ in modes]
    while waiting:
        value, depth = waiting.pop()
        if id(value) in seen or depth > _DEPTH or isinstance(value, _CODE):
            continue
        seen[id(value)] = value
        if isinstance(value, Tensor):
            kept.append(_tensor(value))
            continue
        kept += _restorers_of(value)
        inside = [part for part in _parts_of(value) if not _is_atom(_CLASS(part))]
        waiting += [(part, 0 if isinstance(part, nn.Module) else depth + 1) for part in inside]
    # A scripted module keeps its mode outside Python.
    return [*kept, functools.partial(_set_modes, modes)]


def _restorers_of(value: Any) -> list[Callable[[], None]]:
    """Return what restores an object's class, attributes and, for a container, contents."""
    found: list[Callable[[], None]] = []
    if _has_attributes(value):
        found.append(functools.partial(_reset_object, value, type(value), dict(vars(value))))
    if isinstance(value, nn.Module):
        hooks = [part for name, part in vars(value).items() if _is_hooks(name, part)]
        found += [functools.partial(_refill, part, dict(part)) for part in hooks]
    if isinstance(value, dict | list | set | deque):
        found.append(functools.partial(_refill, value, _snapshot(value)))
    return found


def _parts_of(value: Any) -> list[Any]:
    """List what an object or a container holds. Hooks are not looked into: they belong to whoever registered them."""
    attributes = vars(value).items() if _has_attributes(value) else ()
    parts = [part for name, part in attributes if not (isinstance(value, nn.Module) and _is_hooks(name, part))]
    return [*parts, *_elements(value)]


def _has_attributes(value: Any) -> bool:
    return type(value).__dictoffset__ != 0  # unlike hasattr, runs no code of the object


def _is_hooks(name: str, part: Any) -> bool:
    return name.endswith("_hooks") and isinstance(part, dict)


def _elements(value: Any) -> Collection[Any]:
    if isinstance(value, dict):
        return _base(value).values(value)
    return value if isinstance(value, list | tuple | set | frozenset | deque) else ()


def _base(container: dict[Any, Any]) -> type[dict[Any, Any]]:
    """Return the class whose methods tell what a dict holds: those of a subclass may import what it stands for."""
    return OrderedDict if isinstance(container, OrderedDict) else dict


def _snapshot(container: Any) -> Any:
    return dict(_base(container).items(container)) if isinstance(container, dict) else list(container)


def _refill(container: Any, before: Any) -> None:
    """Let a container hold again what it held."""
    if _is_unchanged(container, before):
        return
    container.clear()
    if isinstance(container, list | deque):
        container.extend(before)
    else:
        container.update(before)


def _is_unchanged(container: Any, before: Any) -> bool:
    """Check whether a container holds the very objects that a copy of it does, in their order."""
    if isinstance(container, dict):
        keys, values = (part(container) for part in (_base(container).keys, _base(container).values))
        if len(values) != len(before) or not all(map(operator.is_, keys, before)):
            return False
        return all(map(operator.is_, values, before.values()))
    return len(container) == len(before) and all(map(operator.is_, container, before))


def _reset_object(value: Any, kind: type, before: dict[str, Any]) -> None:
    if type(value) is not kind:  # a lazy module becomes another one when it runs
        value.__class__ = kind
    _refill(vars(value), before)


def _set_modes(modes: Iterable[tuple[nn.Module, bool]]) -> None:
    for module, training in modes:
        if module.training != training:
            module.training = training


def _tensor(tensor: Tensor) -> Callable[[], None]:
    """Return what restores a tensor: its memory and the values there, its gradient, and its class if it was lazy."""
    kind, memory, needs_grad = type(tensor), tensor.data, tensor.requires_grad
    lazy = is_lazy(tensor)
    grad = tensor.grad if tensor.is_leaf else None
    # Has its own values: not a tensor of shapes alone, nor one of another memory layout.
    plain = type(memory) is Tensor and memory.layout is torch.strided
    plain = plain and not (lazy or tensor.is_meta or tensor.is_inference())
    values = memory.clone() if plain else None

    def put_back() -> None:
        if lazy:
            tensor.__class__ = kind
        if lazy or (plain and not tensor.is_set_to(memory)):
            tensor.data = memory
        if values is not None and not torch.equal(memory, values):
            memory.copy_(values)
        if tensor.is_leaf:
            tensor.requires_grad = needs_grad
            if tensor.grad is not grad:
                tensor.grad = grad

    return put_back


def _gpus(model: nn.Module) -> list[torch.device]:
    return [device for device in {p.device for p in model.parameters()} if device.type == "cuda"]


def _random_numbers(gpus: Sequence[torch.device]) -> Callable[[], None]:
    """Return what restores the states of random numbers."""
    python, cpu = random.getstate(), torch.get_rng_state()
    numpy = np.random.get_state()  # noqa: NPY002  (the state that a network's code may draw from)
    others = [(device, torch.cuda.get_rng_state(device)) for device in gpus]

    def put_back() -> None:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
        torch.set_rng_state(cpu)
        for device, state in others:
            torch.cuda.set_rng_state(state, device)

    return put_back


class _Shared:
    """Remember what the code of a network shares.

    That is names and containers of its Python modules and of those that they import, attributes of its classes,
    memories of its functions.
    """

    def __init__(self, model: nn.Module) -> None:
        self._places: list[tuple[Any, Any]] = []
        self._caches: list[tuple[_Cache[Any], set[int]]] = []
        self._seen: dict[int, Any] = {}
        kinds = {kind for module in model.modules() for kind in type(module).__mro__ if not _is_apart(kind.__module__)}
        homes = {kind.__module__ for kind in kinds}
        for name in list(homes):
            values = list(vars(sys.modules[name]).values()) if name in sys.modules else []
            homes |= {found for value in values if not _is_apart(found := _module_name_of(value))}
        for value in (*kinds, *(sys.modules[name] for name in homes if name in sys.modules)):
            self._look_into(value, 0)

    def clean(self) -> None:
        """Remove the tensors that were not there."""
        for cache, before in self._caches:
            if _tensors_in(cache) - before:
                cache.cache_clear()
        for place, before in self._places:
            _remove_new_tensors(place, before)

    def _look_into(self, value: Any, depth: int) -> None:
        if id(value) in self._seen:
            return
        self._seen[id(value)] = value
        inside: Iterable[Any] = ()
        if isinstance(value, _Cache):
            self._caches.append((value, _tensors_in(value)))
        elif isinstance(value, dict | list | set | deque):
            self._places.append((value, _snapshot(value)))
            inside = _elements(value)
        elif isinstance(value, ModuleType | type):
            if not (isinstance(value, ModuleType) and depth) and not _is_apart(_module_name_of(value)):
                self._places.append((value, dict(vars(value))))
                inside = vars(value).values()
        elif isinstance(value, FunctionType):
            if not _is_apart(value.__module__):
                self._places.append((vars(value), dict(vars(value))))
                cells = [cell.cell_contents for cell in value.__closure__ or () if _is_filled(cell)]
                inside = (*vars(value).values(), *cells, *(value.__defaults__ or ()))
        elif isinstance(value, staticmethod | classmethod):
            inside = (value.__func__,)
        elif depth == 1 and not _is_apart(_module_name_of(type(value))):  # an object of a Python module
            self._places.append((vars(value), dict(vars(value))))
            inside = vars(value).values()
        if depth < _DEPTH:
            for part in [part for part in inside if _is_worth_a_look(_CLASS(part), depth)]:
                self._look_into(part, depth + 1)


@functools.lru_cache(maxsize=4096)
def _is_worth_a_look(kind: type, depth: int) -> bool:
    """Check whether an object of a class, found that deep in what is shared, may keep tensors."""
    if issubclass(kind, (dict, list, set, deque, type, ModuleType, FunctionType, staticmethod, classmethod, _Cache)):
        return True
    plain = depth == 0 and kind.__dictoffset__ != 0 and not issubclass(kind, (nn.Module, Tensor))
    return plain and not _is_apart(kind.__module__)


@functools.lru_cache(maxsize=4096)
def _is_atom(kind: type) -> bool:
    return issubclass(kind, _ATOMS)


@functools.lru_cache(maxsize=4096)
def _is_apart(module: object) -> bool:
    return not isinstance(module, str) or module.partition(".")[0] in _APART


def _module_name_of(value: Any) -> Any:
    """Return the name of the Python module that an object is, or was defined in."""
    return value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None)


def _is_filled(cell: Any) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:
        return False


def _tensors_in(cache: _Cache[Any]) -> set[int]:
    """Return the identities of what a function remembers, if that holds tensors."""
    return {id(part) for part in gc.get_referents(cache) if _holds_tensor(part)}


def _holds_tensor(value: Any, depth: int = 0) -> bool:
    if isinstance(value, Tensor):
        return True
    if isinstance(value, (*_CODE, *_ATOMS, nn.Module)) or depth > _DEPTH:
        return False
    return any(_holds_tensor(part, depth + 1) for part in _parts_of(value))


def _remove_new_tensors(place: Any, before: Any) -> None:
    """Remove tensors that were not there from a container, a class or a Python module."""
    if _is_unchanged(place if isinstance(place, dict | list | set | deque) else vars(place), before):
        return
    if isinstance(place, list | set | deque):
        known = {id(part) for part in before}
        if any(id(part) not in known and _holds_tensor(part) for part in place):
            _refill(place, before)
        return
    for name, value in list((place if isinstance(place, dict) else vars(place)).items()):
        if (name in before and before[name] is value) or not _holds_tensor(value):
            continue
        if isinstance(place, dict):
            place.pop(name)
            if name in before:
                place[name] = before[name]
        elif name in before:
            setattr(place, name, before[name])
        else:
            delattr(place, name)
