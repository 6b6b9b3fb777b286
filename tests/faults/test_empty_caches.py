"""Processes that fill an empty cache at once, some of which are killed meanwhile: one valid entry is written.

There are no loader processes that could be killed: a worker builds its batches itself, from memory-mapped files.
Filling these caches is all that processes do for each other.
"""

import hashlib
import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hpo.config.load import load_config
from hpo.config.trial_params import TrialParams
from hpo.training.batches import encoding_cache
from hpo.training.batches.features import Features
from hpo.training.execution import Execution
from hpo.training.fine_tune import FineTuning
from hpo.training.frozen import cache
from hpo.training.frozen.cache import PrefixedFeatures
from hpo.workflow.context import StudyContext
from tests.faults.search import TIMEOUT

pytestmark = pytest.mark.slow

SPLITS = 2
# Forked from one process that has imported everything: eight imports take more than a minute.
processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["tests.faults.test_empty_caches", "transformers.models.bert.modeling_bert"])


def digest(split: Features | None) -> str:
    assert isinstance(split, PrefixedFeatures) and split.prefix is not None
    values = [np.asarray(part) for column in split.columns.values() for part in column if part is not None]
    values.append(split.prefix.values.numpy())
    return hashlib.sha256(b"".join(np.ascontiguousarray(part).tobytes() for part in values)).hexdigest()


def once(marks: Path, name: str) -> bool:
    """Return true once over all processes."""
    try:
        os.close(os.open(marks / name, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


def start_run(study: dict[str, Any], home: Path, marks: Path, killed: bool, barrier: Any, results: Any) -> None:
    """Prepare a run as a worker does. With `killed`, the first process that fills a cache is killed meanwhile."""
    os.environ["HPO_HOME"] = str(home)  # the fork server has the one of another test
    encode, fill = encoding_cache.EncodingCache._encode, cache._fill

    def encode_or_die(self: Any, rows: Any, processor: Any, max_length: int, folder: Path) -> None:
        if killed and once(marks, "tokens"):
            (folder / "data-00000-of-00001.arrow").write_bytes(b"the first half")
            os.kill(os.getpid(), signal.SIGKILL)
        encode(self, rows, processor, max_length, folder)
        (marks / f"encoded-{folder.name}").touch()

    def fill_or_die(values: Any, *arguments: Any) -> None:
        if killed and once(marks, "prefix"):
            values[: len(values) // 2] = 1.0
            os.kill(os.getpid(), signal.SIGKILL)
        fill(values, *arguments)
        (marks / f"filled-{len(values)}").touch(exist_ok=False)

    encoding_cache.EncodingCache._encode, cache._fill = encode_or_die, fill_or_die  # type: ignore[method-assign]
    context = StudyContext.create(load_config(study), Execution(prefix_cache=cache.USED))
    assert context.candidates["bert"].stack.count == 2
    barrier.wait(TIMEOUT)
    params = TrialParams(model="bert", frozen_layers=1, epochs=2, batch_size=32)
    run = FineTuning(context.plan(params, 0, marks / f"run-{os.getpid()}"))
    next(run.steps())
    results.put((run.execution.prefix_cache, digest(run._train), digest(run._validation)))


@pytest.mark.parametrize("killed", [False, True], ids=["none killed", "killed"])
def test_eight_processes_fill_empty_caches(
    killed: bool, study_file: dict[str, Any], home: Path, tmp_path: Path
) -> None:
    count = 8
    barrier, results = processes.Barrier(count), processes.Queue()
    arguments = (study_file, home, tmp_path, killed, barrier, results)
    started = [processes.Process(target=start_run, args=arguments) for _ in range(count)]
    for process in started:
        process.start()
    for process in started:
        process.join(TIMEOUT)
    codes = sorted(process.exitcode or 0 for process in started)
    deaths = 2 if killed else 0
    assert codes == [-signal.SIGKILL] * deaths + [0] * (count - deaths)
    found = [results.get(timeout=TIMEOUT) for _ in range(count - deaths)]
    assert len(set(found)) == 1 and found[0][0] == cache.USED
    assert len(list(tmp_path.glob("filled-*"))) == SPLITS  # each once: a second `touch` would have raised
    assert len(list(tmp_path.glob("encoded-*"))) == SPLITS
    for kind in ("tokens", "prefixes"):
        entries = [path.name for path in (home / "cache" / kind).iterdir() if path.is_dir()]
        assert len([name for name in entries if "." not in name]) == SPLITS
        # What the killed process left is never read, and the next one that writes may have removed it.
        assert len([name for name in entries if "." in name]) <= killed
