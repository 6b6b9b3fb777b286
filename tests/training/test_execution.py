"""Threads of a process, and number formats: bfloat16 is as good as float32 on real data."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from hpo.config.load import load_config
from hpo.config.trial_params import TrialParams
from hpo.tasks.registry import get_task
from hpo.tasks.task_data import TaskData, fingerprint
from hpo.training import execution
from hpo.training.execution import Execution, all_cores
from hpo.training.fine_tune import FineTuning
from hpo.workflow.context import StudyContext

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SEEDS = range(5)
ROWS = 800


def test_all_cores_are_used_inside_the_context(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    monkeypatch.setattr(execution, "cores", lambda: 3)
    try:
        with all_cores(Execution(threads=2)):
            assert torch.get_num_threads() == 3
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def build_docstrings() -> Path:
    """Build the demo's data from the installed packages where it does not exist, and return its folder."""
    spec = importlib.util.spec_from_file_location("docstrings", EXAMPLES / "docstrings.py")
    assert spec and spec.loader
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    folder: Path = script.build(script.DATA).folder
    return folder


def first_rows(data: TaskData, name: str) -> TaskData:
    train = data.train.shuffle(seed=0).select(range(ROWS))
    splits = {"train": train, "validation": data.validation}
    return replace(data, train=train, test=None, fingerprint=fingerprint(name, splits, data.label_names))


@pytest.mark.slow
def test_bfloat16_and_float32_agree_within_seed_noise(tmp_path: Path) -> None:
    """On real data, the difference of the means over seeds is at most two standard errors."""
    config = load_config(
        {
            "name": "precision",
            "data": str(build_docstrings()),
            "models": [str(EXAMPLES / "models" / "bert-3x128")],
            "search_space": {"learning_rate": 2e-3},
            "max_length": 128,
        }
    )
    task = get_task(config.task)
    single, half = Execution(dtype="float32"), Execution(dtype="bfloat16")
    context = StudyContext.create(config, single, first_rows(task.prepare(config.data, 0), task.name))
    params = TrialParams(model=config.labels[0], learning_rate=2e-3, batch_size=32, epochs=2)

    def final(seed: int, execution: Execution) -> float:
        folder = tmp_path / f"{execution.dtype}-{seed}"
        *_, last = FineTuning(context.plan(params, seed, folder, execution)).reports()
        return last.value

    full, half_precision = (np.array([final(seed, execution) for seed in SEEDS]) for execution in (single, half))
    error = np.sqrt(full.var(ddof=1) / len(SEEDS) + half_precision.var(ddof=1) / len(SEEDS))
    summary = (
        f"float32 {full.round(4)}, bfloat16 {half_precision.round(4)}, standard error of the difference {error:.4f}"
    )
    assert full.mean() > 0.4, summary  # eight classes: above chance
    assert not np.array_equal(full, half_precision), summary  # the arithmetic differs
    assert error < 0.03, summary  # otherwise the next line would pass always
    assert abs(full.mean() - half_precision.mean()) <= 2 * error, summary
