"""A worker process that does what its specification says: a stand-in for `hpo.workflow.worker.process`."""

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
    told = threading.Event()
    signal.signal(signal.SIGTERM, thread_handler(lambda _: told.set(), then=signal.SIG_IGN))
    for number in (signal.SIGINT, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    line = sys.stdin.readline()
    if not line:
        return
    given = json.loads(line)
    folder = Path(given["folder"])
    given["storage"] = given["storage"] or os.environ["HPO_STORAGE"]
    seen = {"pid": os.getpid(), "given": given, "threads": os.environ["OMP_NUM_THREADS"]}
    scratch = folder / f".{os.getpid()}"
    scratch.write_text(json.dumps(seen | {"gpu": os.environ.get("CUDA_VISIBLE_DEVICES")}))
    scratch.rename(folder / f"{given['name']}.json")
    if "code" in given:
        print("the last line\n")  # noqa: T201
        raise SystemExit(given["code"])
    threading.Thread(target=lambda: (os.read(0, 1), told.set()), daemon=True).start()
    while given.get("stubborn") or not told.is_set():
        time.sleep(0.02)
    raise SystemExit(given.get("leaves", STOPPED))


if __name__ == "__main__":
    main()
