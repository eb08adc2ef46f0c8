"""Start the processes that train one trial together, and speak with the first of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from contextlib import ExitStack, suppress
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path
from typing import Any

import torch
from ray import cloudpickle

from rfsearch.errors import LostProcessError
from rfsearch.own_loop.member import Abandon, Post, Said, Work
from rfsearch.sources import sent

_UNTIL_MISSED_S = 5.0
_UNTIL_KILLED_S = 5.0


class Members:
    """Be the process that has started all others of a trial, each with a GPU of its own where there are any.

    Args:
        work: What each of them does.
        size: How many there are.
        device: Kind of device that they train on.
    """

    def __init__(self, work: Work, size: int, device: torch.device) -> None:
        """Start them."""
        self._size = size
        self._context = ExitStack()
        self._processes: list[subprocess.Popen[bytes]] = []
        self._connections: list[Connection] = []
        folder = self._context.enter_context(tempfile.TemporaryDirectory(prefix="rfsearch-"))
        packed = cloudpickle.dumps(work)
        threads = max(1, torch.get_num_threads() // size)
        meeting = str(Path(folder) / "meeting")
        try:
            for rank in range(size):
                self._start(Post(rank, size, meeting, device.type == "cuda", threads, sys.path, sent()))
            for connection in self._connections:
                connection.send_bytes(packed)
        except BaseException:
            self.close()
            raise

    def tell(self, what: object) -> None:
        """Send something to the first of them."""
        self._connections[0].send(what)

    def answer(self) -> Any:
        """Wait for what the first of them says.

        Returns:
            That; what failed says why, by the one that failed first.

        Raises:
            LostProcessError: One of them has died.
        """
        watched = dict(zip(self._connections, range(self._size), strict=True))
        while True:
            ready = [connection for connection in wait(list(watched)) if isinstance(connection, Connection)]
            for connection in sorted(ready, key=lambda one: -watched[one]):  # the first process comes last
                rank, said = watched[connection], self._received(connection, watched[connection])
                if rank == 0:
                    if said.failed:
                        self._look_for_dead(watched)
                    return said
                if said.failed:
                    del watched[connection]
                    self.tell(Abandon(f"in process {rank} of {self._size}: {said.what}"))

    def close(self) -> None:
        """End them all."""
        for connection in self._connections:
            connection.close()
        for process in self._processes:
            with suppress(subprocess.TimeoutExpired):
                process.wait(_UNTIL_KILLED_S)
            process.kill()
            process.wait()
        self._context.close()

    def _start(self, post: Post) -> None:
        ours, theirs = Pipe()
        with theirs:
            program = f"from rfsearch.own_loop.member import serve; serve({theirs.fileno()})"
            # Its own session: an interrupt from the keyboard is for the process that decides what becomes of it.
            self._processes.append(
                subprocess.Popen(
                    [sys.executable, "-c", program],
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,
                    env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                )
            )
        self._connections.append(ours)
        ours.send(post)

    def _received(self, connection: Connection, rank: int) -> Said:
        try:
            said = connection.recv()
        except (EOFError, ConnectionError):
            raise LostProcessError(f"process {rank} of the {self._size} that train it {self._end_of(rank)}") from None
        assert isinstance(said, Said)
        return said

    def _look_for_dead(self, watched: dict[Connection, int]) -> None:
        """Raise LostProcessError if another one has died, which the first may have noticed first."""
        others = {connection: rank for connection, rank in watched.items() if rank}
        for connection in wait(list(others), _UNTIL_MISSED_S):
            assert isinstance(connection, Connection)
            self._received(connection, others[connection])

    def _end_of(self, rank: int) -> str:
        with suppress(subprocess.TimeoutExpired):
            code = self._processes[rank].wait(_UNTIL_MISSED_S)
            return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"left with exit code {code}"
        return "is not heard of"
