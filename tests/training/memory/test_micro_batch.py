"""Micro-batches that fit in memory: limits, bounds, measurements, and a process that really runs out of memory."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from hpo.config.model_ref import ModelRef
from hpo.config.study import DataConfig
from hpo.config.trial_params import TrialParams
from hpo.tasks.registry import get_task
from hpo.training.batches.encoding_cache import EncodingCache
from hpo.training.execution import Execution
from hpo.training.fine_tune import FineTuning
from hpo.training.memory import micro_batch as memory
from hpo.training.memory.micro_batch import MicroBatchCache, activation_bound, memory_limit
from hpo.training.models.candidate import load_candidate
from hpo.training.plan import TrainingPlan
from tests.contracts.task_data import write_rows
from tests.small_models import ARCHITECTURES, save_model
from tests.training.conftest import make_features

Plan = Callable[..., TrainingPlan]
QUICK = ("bert",)
MATRIX = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in ARCHITECTURES]


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_memory_limit_is_the_lowest_of_the_control_groups(tmp_path: Path) -> None:
    machine = memory_limit(tmp_path)
    assert machine > 2**28
    write(tmp_path / "proc/self/cgroup", "0::/user/job\n")
    groups = tmp_path / "sys/fs/cgroup"
    write(groups / "user/job/memory.max", "max\n")
    assert memory_limit(tmp_path) == machine
    write(groups / "user/memory.max", "3000\n")
    assert memory_limit(tmp_path) == 3000
    write(groups / "memory.max", "2000\n")  # as seen in a container
    assert memory_limit(tmp_path) == 2000
    write(tmp_path / "proc/self/cgroup", "5:cpu:/\n4:memory,hugetlb:/of/the/host\n0::/\n")
    write(groups / "memory/memory.limit_in_bytes", "1000\n")
    assert memory_limit(tmp_path) == 1000


@pytest.mark.parametrize("name", MATRIX)
def test_activation_bound_is_above_a_steps_allocations(name: str, plan: Plan) -> None:
    features = make_features(8, longest=60, pad=1)
    words, offsets = features.columns["input_ids"]
    words[offsets[1:] - 1] = 3  # T5 and BART read the end-of-text token
    made = plan(name, 1 if name == "albert" else 2, of={"train": features})
    run = FineTuning(made)
    rows = np.argsort(made.train.lengths)[::-1]
    peaks = {size: memory._allocated(run._accumulation, made.train, rows[:size]) for size in (4, 8)}
    used = float(peaks[8] or 0) - float(peaks[4] or 0)
    bound = activation_bound(run.model, made.candidate.stack.count, 4, int(made.train.lengths.max()))
    assert 0.05 * bound < used < bound


@pytest.mark.parametrize("task", ["causal-lm", "summarization"])
def test_logits_of_a_large_vocabulary_are_within_the_bound(task: str, tmp_path: Path) -> None:
    """With a vocabulary of 5,000 and a width of 16, nearly all memory is for logits."""
    kind = get_task(task)
    data = kind.prepare(DataConfig(path=str(write_rows(task, tmp_path / "rows"))), 0)
    architecture = {"causal-lm": "gpt2", "summarization": "bart"}[task]
    ref = ModelRef(name=str(save_model(tmp_path / "model", architecture)), label="m")
    candidate = load_candidate(ref, kind.auto_class, {})
    candidate.model.resize_token_embeddings(5000)  # type: ignore[operator]
    features = EncodingCache(tmp_path / "tokens", kind, data).get("train", candidate.processor, 32)
    made = TrainingPlan(
        params=TrialParams(model="m"),
        task=kind,
        candidate=candidate,
        train=features,
        validation=None,
        scorer=kind.scorer("loss", data),
        rungs_per_epoch=1,
        seed=0,
        folder=tmp_path / "checkpoints",
        execution=Execution(),
    )
    run = FineTuning(made)
    rows = np.argsort(features.lengths)[::-1]
    peaks = {size: memory._allocated(run._accumulation, features, rows[:size]) for size in (4, 8)}
    used = float(peaks[8] or 0) - float(peaks[4] or 0)
    bound = activation_bound(run.model, candidate.stack.count, 4, features.longest)
    assert 0.05 * bound < used < bound


def test_model_without_config_has_no_bound() -> None:
    assert activation_bound(torch.nn.Linear(2, 2), 1, 1, 1) == float("inf")


def test_model_far_below_the_limit_is_not_measured(plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_allocated", lambda *_: pytest.fail("measured"))
    run = FineTuning(plan(of={"micro_batches": MicroBatchCache(tmp_path / "memory")}))
    next(run.steps())
    assert run.execution.micro_batch is None
    assert not (tmp_path / "memory").exists()


def test_measurement_is_stored_and_does_not_change_results(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = plan(epochs=2, dropout=0.0)
    expected = list(FineTuning(made).reports())
    store = MicroBatchCache(tmp_path / "memory")
    # Memory for the optimizer state and about 3 of the longest inputs.
    states = 12 * sum(p.numel() for p in FineTuning(made).model.parameters())
    rows = np.argsort(made.train.lengths)[::-1]
    run = FineTuning(made)
    two, four = (float(memory._allocated(run._accumulation, made.train, rows[:size]) or 0) for size in (2, 4))
    row = (four - two) / 2
    monkeypatch.setattr(memory, "free_bytes", lambda workers: states + max(0.0, four - 4 * row) + 3.5 * row)
    run = FineTuning(replace(made, micro_batches=store))
    found = list(run.reports())
    assert run.execution.micro_batch == 3
    assert [r.train_loss for r in found] == pytest.approx([r.train_loss for r in expected], rel=1e-5)
    assert [r.metrics["loss"] for r in found] == pytest.approx([r.metrics["loss"] for r in expected], rel=1e-5)
    (stored,) = (tmp_path / "memory").iterdir()
    assert set(json.loads(stored.read_text())) == {"base_bytes", "row_bytes"}

    measure = memory._allocated
    monkeypatch.setattr(memory, "_allocated", lambda *_: pytest.fail("measured again"))
    later = FineTuning(replace(made, micro_batches=MicroBatchCache(tmp_path / "memory")))
    next(later.steps())
    assert later.execution.micro_batch == 3
    monkeypatch.setattr(memory, "free_bytes", lambda workers: states)
    later = FineTuning(replace(made, micro_batches=MicroBatchCache(tmp_path / "memory")))
    next(later.steps())
    assert (later.execution.micro_batch, later.execution.checkpoint_activations) == (1, True)
    stored.write_text("{torn")
    monkeypatch.setattr(memory, "_allocated", measure)
    later = FineTuning(replace(made, micro_batches=MicroBatchCache(tmp_path / "memory")))
    next(later.steps())
    assert set(json.loads(stored.read_text())) == {"base_bytes", "row_bytes"}


def test_measuring_does_not_change_the_random_state(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = plan(epochs=1, dropout=0.3)
    expected = [report.train_loss for report in FineTuning(made).reports()]
    monkeypatch.setattr(memory, "activation_bound", lambda *_: float("inf"))
    run = FineTuning(replace(made, micro_batches=MicroBatchCache(tmp_path / "memory")))
    assert [report.train_loss for report in run.reports()] == expected
    assert run.execution.micro_batch is None  # the full batch fits
    assert list((tmp_path / "memory").iterdir())


# Wide layers: a step of four 500-token texts takes about 400 MB, of two half as much.
LIMITED_MEMORY = """
import json, resource, sys
import numpy as np, torch
from pathlib import Path
torch.set_num_threads(1)
from hpo.config.model_ref import ModelRef
from hpo.config.trial_params import TrialParams
from hpo.tasks.text.text_classification import TextClassification
from hpo.training.fine_tune import FineTuning
from hpo.training.plan import TrainingPlan
from hpo.training.models.candidate import load_candidate
from hpo.training.execution import Execution
from hpo.training.batches.features import Features
from hpo.training.models.candidate import load_candidate
from hpo.training.execution import Execution
from tests.contracts.task_data import write_rows
from tests.small_models import WORDS
from tests.training.conftest import CLASSES, FIRST_WORD

folder, room = Path(sys.argv[1]), int(sys.argv[2])
task = TextClassification()
candidate = load_candidate(ModelRef(name=str(folder), label="m"), "AutoModelForSequenceClassification", CLASSES)
params = TrialParams(model="m", batch_size=4, epochs=1, learning_rate=1e-3, dropout=0.0)
rows, length = 8, 500
words = np.random.default_rng(0).integers(FIRST_WORD, len(WORDS), rows * length)
columns = {"input_ids": (words, np.arange(rows + 1) * length)}
features = Features(columns, np.arange(rows) % 2, np.full(rows, length), {"input_ids": 0})
plan = TrainingPlan(params, task, candidate, features, None, task.scorer("accuracy"), 2, 0, folder, Execution())
run = FineTuning(plan)
if room:
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + room, resource.RLIM_INFINITY))
losses = [report.train_loss for report in run.reports()]
print(json.dumps([losses, run.execution.micro_batch]))
"""


@pytest.mark.slow
def test_process_with_little_memory_has_the_same_results(tmp_path: Path) -> None:
    settings = {"intermediate_size": 8192, "max_position_embeddings": 512}
    folder = save_model(tmp_path / "model", "bert", 2, **settings)

    def train(room: int) -> tuple[list[float], int | None]:
        command = [sys.executable, "-c", LIMITED_MEMORY, str(folder), str(room)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        losses, micro_batch = json.loads(done.stdout.splitlines()[-1])
        return losses, micro_batch

    expected, unlimited = train(0)
    found, micro_batch = train(250 * 2**20)
    assert unlimited is None
    assert micro_batch in (1, 2)
    assert found == pytest.approx(expected, rel=1e-5)
