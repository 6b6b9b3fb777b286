"""A worker process that does what its specification requests: a stub of `hpo.workflow.worker.process`."""

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

from hpo.backends.base import STOPPED
from hpo.core.process import thread_handler


def main() -> None:
    stop = threading.Event()
    signal.signal(signal.SIGTERM, thread_handler(lambda _: stop.set(), then=signal.SIG_IGN))
    for number in (signal.SIGINT, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    line = sys.stdin.readline()
    if not line:
        return
    specification = json.loads(line)
    folder = Path(specification["folder"])
    specification["storage"] = specification["storage"] or os.environ["HPO_STORAGE"]
    received = {"pid": os.getpid(), "specification": specification, "threads": os.environ["OMP_NUM_THREADS"]}
    scratch = folder / f".{os.getpid()}"
    scratch.write_text(json.dumps(received | {"gpu": os.environ.get("CUDA_VISIBLE_DEVICES")}))
    scratch.rename(folder / f"{specification['name']}.json")
    if "code" in specification:
        print("the last line\n")  # noqa: T201
        raise SystemExit(specification["code"])
    threading.Thread(target=lambda: (os.read(0, 1), stop.set()), daemon=True).start()
    while specification.get("stubborn") or not stop.is_set():
        time.sleep(0.02)
    raise SystemExit(specification.get("exit_code", STOPPED))


if __name__ == "__main__":
    main()
