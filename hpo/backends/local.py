"""Worker processes on this machine: one per slot, each with its output in a log file."""

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
    specified: bool = False  # whether it has its specification
    since: float = field(default_factory=time.monotonic)


class LocalBackend:
    """Starts `python -m MODULE` processes and sends each a line of JSON on its standard input.

    `prestart` starts a process before its specification is known, so that its imports run while the parent checks the
    data. It starts at most `max_prestarted` processes: with more imports than free cores the parent, and with it the
    first trial, would be late. Specifications are sent by pipe, because they may contain a password, which a process
    listing would show.
    """

    pending = 0

    def __init__(self, module: str, logs: Path, threads: int, capacity: int = 1, max_prestarted: int = 1) -> None:
        self.capacity = capacity
        self._max_prestarted = max_prestarted
        self._module = module
        self._logs = logs
        self._threads = threads  # of each worker
        self._children: dict[int, _Child] = {}

    def prestart(self, slot: int) -> None:
        """Start the process of `slot`, unless enough are started; it waits for its specification."""
        if self.running < self._max_prestarted:
            self._start_process(slot)

    def _start_process(self, slot: int) -> None:
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
        # In a new session: Ctrl-C reaches the parent only, which then stops its workers.
        return subprocess.Popen(
            [sys.executable, "-m", self._module],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )

    def start(self, specifications: Mapping[int, Specification]) -> None:
        """Send the process of each slot its specification; start those that are not running."""
        for slot, specification in specifications.items():
            self._start(slot, specification)

    def _start(self, slot: int, specification: Specification) -> None:
        child = self._children.get(slot)
        if child is None or child.specified or child.process.poll() is not None:
            self._start_process(slot)
            child = self._children[slot]
        assert child.process.stdin is not None
        try:
            child.process.stdin.write(json.dumps(dict(specification)).encode() + b"\n")
            child.process.stdin.flush()  # and kept open: the child stops when the parent's end is closed
        except BrokenPipeError:
            pass  # it died in its imports; `exits` reports it
        child.specified = True

    def pid(self, slot: int) -> int:
        """Return the process id of the worker in `slot`."""
        return self._children[slot].process.pid

    def exits(self) -> list[WorkerExit]:
        """Return the processes that ended since the last call."""
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
        """Number of running processes."""
        return sum(child.process.poll() is None for child in self._children.values())

    def stop(self, grace_seconds: float = 10.0) -> list[WorkerExit]:
        """Send all processes SIGTERM; kill those that still run after `grace_seconds`."""
        for child in self._children.values():
            if child.specified:
                child.process.send_signal(signal.SIGTERM)
            else:
                child.process.kill()
        until = time.monotonic() + grace_seconds
        while self.running and time.monotonic() < until:
            time.sleep(0.05)
        return self.kill()

    def kill(self) -> list[WorkerExit]:
        """Kill all processes."""
        for child in self._children.values():
            child.process.kill()
        for child in self._children.values():
            child.process.wait()
        return self.exits()


def _exit(slot: int, child: _Child, code: int) -> WorkerExit:
    seconds = time.monotonic() - child.since
    return WorkerExit(slot, machine(), child.process.pid, code, seconds, last_line(child.log), str(child.log))


def _close(pipe: IO[bytes] | None) -> None:
    """Close the pipe to a process that ended, with what it did not read."""
    if pipe is not None:
        with contextlib.suppress(BrokenPipeError):
            pipe.close()
