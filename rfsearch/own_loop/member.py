"""One of the processes that train a trial together.

It is given its work by the process that started it, through an inherited connection, and ends when that is closed, so
that nothing outlives a worker that is killed.
"""

from __future__ import annotations

import os
import pickle
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any

import torch
from torch import distributed

from rfsearch.own_loop.group import Group
from rfsearch.own_loop.loop_training import cause_of
from rfsearch.sources import find_at

Work = Callable[[Group, "Line", torch.device], None]


@dataclass(frozen=True)
class Post:
    """Say which member a process is.

    Attributes:
        rank: Its number, from 0.
        size: Number of members.
        meeting: File in which they find each other.
        cuda: Whether it trains on the GPU of its number.
        threads: Of torch.
        path: Where it finds modules.
        files: Where it finds files of another machine, by their paths there.
    """

    rank: int
    size: int
    meeting: str
    cuda: bool
    threads: int
    path: list[str]
    files: dict[str, str]


@dataclass(frozen=True)
class Said:
    """Hold what a member says.

    Attributes:
        what: Anything that can be pickled.
        failed: Whether it is the end of something that failed.
    """

    what: Any
    failed: bool = False


@dataclass(frozen=True)
class Abandon:
    """Tell the first member that it waits in vain.

    Attributes:
        cause: Why.
    """

    cause: str


class Line:
    """Speak with the process that has started this one."""

    def __init__(self, connection: Connection) -> None:
        """Listen from here on, to the end of this process."""
        self._connection = connection
        self._heard: SimpleQueue[object] = SimpleQueue()
        self.abandon: Callable[[str], None] = lambda cause: None
        """Called, in a thread of its own, when another member has failed."""
        threading.Thread(target=self._listen, daemon=True).start()

    def say(self, what: object, failed: bool = False) -> None:
        """Send something."""
        self._connection.send(Said(what, failed))

    def hear(self) -> object:
        """Wait for what comes next."""
        return self._heard.get()

    def _listen(self) -> None:
        while True:
            try:
                heard = self._connection.recv()
            except (EOFError, OSError):
                os._exit(1)  # wherever it trains
            if isinstance(heard, Abandon):
                self.abandon(heard.cause)
            else:
                self._heard.put(heard)


def _do_nothing(*_: object, **__: object) -> None:
    """Stand in for what has been done, or is done at the end."""


def serve(descriptor: int) -> None:
    """Do the work that comes, and stay until the connection is closed: others may still wait for this process.

    Args:
        descriptor: Of the connection, as this process has inherited it.
    """
    connection = Connection(descriptor)
    post: Post = connection.recv()
    sys.path[:] = post.path
    find_at(post.files)
    os.environ |= {
        "RANK": str(post.rank),
        "LOCAL_RANK": str(post.rank),
        "WORLD_SIZE": str(post.size),
        "LOCAL_WORLD_SIZE": str(post.size),
    }
    packed = connection.recv_bytes()
    line = Line(connection)
    try:
        torch.set_num_threads(post.threads)
        device = torch.device("cuda", post.rank) if post.cuda else torch.device("cpu")
        if post.cuda:
            torch.cuda.set_device(device)
        distributed.init_process_group(
            "cpu:gloo,cuda:nccl" if post.cuda else "gloo",
            init_method=f"file://{post.meeting}",
            rank=post.rank,
            world_size=post.size,
        )
        # A loop that is written for torchrun makes its group, and destroys it: this one is there, and is still needed.
        vars(distributed).update(init_process_group=_do_nothing, destroy_process_group=_do_nothing)
        work: Work = pickle.loads(packed)
        work(Group(post.rank, post.size), line, device)
    except BaseException as error:
        line.say(cause_of(error), failed=True)
    threading.Event().wait()
