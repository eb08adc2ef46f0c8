"""Check whether this installation can do its work, and with what."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rfsearch.errors import RequestError
from rfsearch.numbers import byte_size, duration, prefixed

_ROOM_BYTES = 2 * 2**30


@dataclass(frozen=True)
class Check:
    """Report one finding.

    Attributes:
        name: What was checked.
        ok: Whether it is as needed.
        found: What there is, or what is wrong and what helps.

    Example:
        >>> [check.name for check in run_checks() if not check.ok]
    """

    name: str
    ok: bool
    found: str


def run_checks() -> list[Check]:
    """Run every check, in the order in which a run would need it."""
    named: list[tuple[str, Callable[[], str]]] = [
        ("packages", _packages),
        ("spaces", _spaces),
        ("plugins", _plugins),
        ("devices", _devices),
        ("memory", _memory),
        ("room for runs", _room),
        ("embedded data", _embedded_data),
        ("a training step", _training_step),
    ]
    return [_checked(name, find) for name, find in named]


def _checked(name: str, find: Callable[[], str]) -> Check:
    try:
        return Check(name, True, find())
    except Exception as error:
        return Check(name, False, f"{type(error).__name__}: {error}")


def _packages() -> str:
    import optuna
    import ray
    import torchvision  # noqa: F401  (a build that does not match torch fails here)

    from rfsearch.provenance import versions

    assert optuna.__version__
    assert ray.__version__
    return ", ".join(f"{name} {number}" for name, number in versions().items())


def _spaces() -> str:
    from rfsearch import plugins
    from rfsearch.space import read_space

    shipped = [path.stem for path in sorted(plugins.shipped("search_spaces").glob("*.toml"))]
    return ", ".join(read_space(plugins.space_file(name), None).name for name in shipped)


def _plugins() -> str:
    from rfsearch import plugins

    if faults := plugins.faults():
        raise RequestError(" ".join(faults))
    return "all load"


def _devices() -> str:
    import torch

    from rfsearch.provenance import machine

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    here = machine("cpu")
    return f"{here.cores} cores ({here.cpu}), {', '.join(gpus) if gpus else 'no GPU: trials run on the CPU'}"


def _memory() -> str:
    from rfsearch.provenance import machine

    total = machine("cpu").memory_bytes
    if total is not None and total < _ROOM_BYTES:
        raise MemoryError(f"{byte_size(total)}; a run with two workers needs about {byte_size(_ROOM_BYTES)}")
    return byte_size(total) if total else "unknown"


def _room() -> str:
    here = Path.cwd()
    if not os.access(here, os.W_OK):
        raise PermissionError(f"{here} cannot be written; use --out")
    free = shutil.disk_usage(here).free
    shared = Path("/dev/shm")
    said = (
        f"{byte_size(free)} free here, {byte_size(shutil.disk_usage(tempfile.gettempdir()).free)} for temporary files"
    )
    return f"{said}, {byte_size(shutil.disk_usage(shared).free)} shared memory" if shared.is_dir() else said


def _embedded_data() -> str:
    from rfsearch.data import rendered_faces

    return rendered_faces(train=8, val=2, test=2).summary()


def _training_step() -> str:
    import torch

    from rfsearch import plugins
    from rfsearch.data import rendered_faces
    from rfsearch.planning.forecaster import Forecaster
    from rfsearch.space import read_space
    from rfsearch.tasks.from_space import task_of

    torch.set_num_threads(1)  # as in a worker of the default run
    space = read_space(plugins.space_file("helen"), None)
    data = rendered_faces(train=16, val=2, test=2)
    forecaster = Forecaster(space, task_of(space, data), data, torch.device("cpu"))
    rate = forecaster.flop_per_s
    training = duration(forecaster.reference_flop() / rate)
    return f"{prefixed(rate, 'FLOP/s')} on one core: a full training of helen takes about {training}"
