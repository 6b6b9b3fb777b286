"""On real data bfloat16 ends where float32 does: the difference over several seeds is no more than the seeds' own."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hpo.config.load import load_config
from hpo.config.trial_params import TrialParams
from hpo.tasks.registry import get_task
from hpo.tasks.task_data import TaskData, fingerprint
from hpo.training.execution import Execution
from hpo.training.fine_tune import FineTuning
from hpo.workflow.context import StudyContext

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SEEDS = range(5)
ROWS = 800


def build_docstrings() -> Path:
    """The demo's data, built from the installed packages where that was not done yet."""
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
def test_bfloat16_and_float32_end_within_seed_noise(tmp_path: Path) -> None:
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

    whole, rounded = (np.array([final(seed, execution) for seed in SEEDS]) for execution in (single, half))
    error = np.sqrt(whole.var(ddof=1) / len(SEEDS) + rounded.var(ddof=1) / len(SEEDS))
    told = f"float32 {whole.round(4)}, bfloat16 {rounded.round(4)}, standard error of the difference {error:.4f}"
    assert whole.mean() > 0.4, told  # of eight classes: it learned
    assert not np.array_equal(whole, rounded), told  # two kinds of arithmetic indeed
    assert error < 0.03, told  # else the next line would let anything pass
    assert abs(whole.mean() - rounded.mean()) <= 2 * error, told
