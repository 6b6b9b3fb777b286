"""Worker processes on this machine: spawned, one per slot, their output in a log file each."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from hpo.backends.base import Specification, WorkerExit, last_line
from hpo.core.process import machine


@dataclass
class _Child:
    process: "subprocess.Popen[bytes]"
    log: Path
    given: bool = False  # whether it has its specification
    since: float = field(default_factory=time.monotonic)


class LocalBackend:
    """Starts `python -m MODULE` processes, hands each a line of JSON on its standard input, watches them.

    A process can be started before its specification is known (`warm_up`): its imports then run while the parent
    still checks the data. No more than `early` of them are: the imports of more than there are cores to spare hold up
    the parent, and with it the first trial. Specifications travel by pipe, never in a process listing: they may hold a
    password.
    """

    pending = 0

    def __init__(self, module: str, logs: Path, threads: int, capacity: int = 1, early: int = 1) -> None:
        self.capacity = capacity
        self._early = early
        self._module = module
        self._logs = logs
        self._threads = threads  # of each worker
        self._children: dict[int, _Child] = {}

    def prestart(self, slot: int) -> None:
        """Start the process of `slot`, if it is among the early ones; it waits for its specification."""
        if self.running < self._early:
            self._begin(slot)

    def _begin(self, slot: int) -> None:
        self._logs.mkdir(parents=True, exist_ok=True)
        log = self._logs / f"worker-{slot}.log"
        with log.open("ab") as output:
            process = self._spawn(output)
        self._children[slot] = _Child(process, log)

    def _spawn(self, output: IO[bytes]) -> "subprocess.Popen[bytes]":
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": str(self._threads),
            "TOKENIZERS_PARALLELISM": "false",
            "PYTHONUNBUFFERED": "1",
        }
        # A session of its own: Ctrl-C reaches the parent alone, which then asks its workers to stop.
        return subprocess.Popen(
            [sys.executable, "-m", self._module],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )

    def start(self, specifications: Mapping[int, Specification]) -> None:
        """Give the process of each slot (started now if need be) its specification."""
        for slot, specification in specifications.items():
            self._start(slot, specification)

    def _start(self, slot: int, specification: Specification) -> None:
        child = self._children.get(slot)
        if child is None or child.given or child.process.poll() is not None:
            self._begin(slot)
            child = self._children[slot]
        assert child.process.stdin is not None
        try:
            child.process.stdin.write(json.dumps(dict(specification)).encode() + b"\n")
            child.process.stdin.flush()  # and left open: its end tells the child that the parent is gone
        except BrokenPipeError:
            pass  # it died in its imports; `exits` tells
        child.given = True

    def pid(self, slot: int) -> int:
        """The process id of a slot's worker."""
        return self._children[slot].process.pid

    def exits(self) -> list[WorkerExit]:
        """The processes that ended since the last call."""
        ended = [
            _exit(slot, child, code)
            for slot, child in self._children.items()
            if (code := child.process.poll()) is not None
        ]
        for done in ended:
            _close(self._children.pop(done.slot).process.stdin)
        return ended

    @property
    def running(self) -> int:
        """How many processes are alive."""
        return sum(child.process.poll() is None for child in self._children.values())

    def stop(self, grace_seconds: float = 10.0) -> list[WorkerExit]:
        """Ask all processes to save and leave; kill what is still there after `grace_seconds`."""
        for child in self._children.values():
            if child.given:
                child.process.send_signal(signal.SIGTERM)
            else:
                child.process.kill()
        until = time.monotonic() + grace_seconds
        while self.running and time.monotonic() < until:
            time.sleep(0.05)
        return self.kill()

    def kill(self) -> list[WorkerExit]:
        """End all processes at once."""
        for child in self._children.values():
            child.process.kill()
        for child in self._children.values():
            child.process.wait()
        return self.exits()


def _exit(slot: int, child: _Child, code: int) -> WorkerExit:
    seconds = time.monotonic() - child.since
    return WorkerExit(slot, machine(), child.process.pid, code, seconds, last_line(child.log), str(child.log))


def _close(pipe: IO[bytes] | None) -> None:
    """Close the pipe to a process that ended; what it did not read is lost with it."""
    if pipe is not None:
        with contextlib.suppress(BrokenPipeError):
            pipe.close()
