"""Many processes that find an empty cache at once, some of which are killed as they fill it: one good copy is made.

There are no loader processes to be killed: a worker makes its batches itself, from memory-mapped files. What processes
do for each other is filling these caches.
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
from tests.faults.search import PATIENCE

pytestmark = pytest.mark.slow

SPLITS = 2
# Processes of their own, forked from one that has imported all: eight imports take a minute and more.
processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["tests.faults.test_first_users", "transformers.models.bert.modeling_bert"])


def digest(split: Features | None) -> str:
    assert isinstance(split, PrefixedFeatures) and split.prefix is not None
    values = [np.asarray(part) for column in split.columns.values() for part in column if part is not None]
    values.append(split.prefix.values.numpy())
    return hashlib.sha256(b"".join(np.ascontiguousarray(part).tobytes() for part in values)).hexdigest()


def strike(marks: Path, name: str) -> bool:
    """True once, in whatever process."""
    try:
        os.close(os.open(marks / name, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


def first_user(study: dict[str, Any], home: Path, marks: Path, killed: bool, barrier: Any, answers: Any) -> None:
    """Make a run ready as a worker does; whoever fills a cache first is killed in the middle of it."""
    os.environ["HPO_HOME"] = str(home)  # the process that this one was forked from has that of another test
    make, fill = encoding_cache.EncodingCache._encode, cache._fill

    def making(self: Any, rows: Any, processor: Any, max_length: int, folder: Path) -> None:
        if killed and strike(marks, "tokens"):
            (folder / "data-00000-of-00001.arrow").write_bytes(b"half of it")
            os.kill(os.getpid(), signal.SIGKILL)
        make(self, rows, processor, max_length, folder)
        (marks / f"made-{folder.name}").touch()

    def filling(values: Any, *given: Any) -> None:
        if killed and strike(marks, "prefix"):
            values[: len(values) // 2] = 1.0
            os.kill(os.getpid(), signal.SIGKILL)
        fill(values, *given)
        (marks / f"filled-{len(values)}").touch(exist_ok=False)

    encoding_cache.EncodingCache._encode, cache._fill = making, filling  # type: ignore[method-assign]
    context = StudyContext.create(load_config(study), Execution(prefix_cache=cache.USED))
    assert context.candidates["bert"].stack.count == 2
    barrier.wait(PATIENCE)
    params = TrialParams(model="bert", frozen_layers=1, epochs=2, batch_size=32)
    run = FineTuning(context.plan(params, 0, marks / f"run-{os.getpid()}"))
    next(run.steps())
    answers.put((run.execution.prefix_cache, digest(run._train), digest(run._validation)))


@pytest.mark.parametrize("killed", [False, True], ids=["all live", "killed in the middle"])
def test_eight_first_users_of_empty_caches(
    killed: bool, study_file: dict[str, Any], home: Path, tmp_path: Path
) -> None:
    users = 8
    barrier, answers = processes.Barrier(users), processes.Queue()
    given = (study_file, home, tmp_path, killed, barrier, answers)
    started = [processes.Process(target=first_user, args=given) for _ in range(users)]
    for process in started:
        process.start()
    for process in started:
        process.join(PATIENCE)
    ended = sorted(process.exitcode or 0 for process in started)
    deaths = 2 if killed else 0
    assert ended == [-signal.SIGKILL] * deaths + [0] * (users - deaths)
    told = [answers.get(timeout=PATIENCE) for _ in range(users - deaths)]
    assert len(set(told)) == 1 and told[0][0] == cache.USED
    assert len(list(tmp_path.glob("filled-*"))) == SPLITS  # each once: a second time would have failed
    assert len(list(tmp_path.glob("made-*"))) == SPLITS
    for kind in ("tokens", "prefixes"):
        entries = [path.name for path in (home / "cache" / kind).iterdir() if path.is_dir()]
        assert len([name for name in entries if "." not in name]) == SPLITS
        assert len([name for name in entries if "." in name]) == killed  # left by the dead one, and read by nobody
