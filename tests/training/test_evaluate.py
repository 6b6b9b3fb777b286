"""Evaluation: predictions in the order of rows, batches that fit in memory, and stop requests."""

import threading
from collections.abc import Callable

import numpy as np
import pytest
import torch

from hpo.errors import OutOfMemory
from hpo.training.evaluate import evaluate
from hpo.training.execution import Execution
from hpo.training.fine_tune import FineTuning
from hpo.training.plan import TrainingPlan
from tests.training.conftest import make_features
from tests.training.memory.test_accumulation import raise_out_of_memory

Plan = Callable[..., TrainingPlan]


def test_predictions_do_not_depend_on_batches_and_keep_the_order(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    made = plan()
    model = made.candidate.build(0).eval()
    features = make_features(20, longest=30)
    found = evaluate(model, features, made.task, made.scorer, Execution())
    logits_of_rows = []
    for row in range(20):
        batch = features.collate(np.array([row]))
        with torch.inference_mode():
            logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        logits_of_rows.append(logits)
    expected = torch.nn.functional.cross_entropy(torch.cat(logits_of_rows), torch.from_numpy(features.labels))
    assert found.metrics["loss"] == pytest.approx(float(expected), rel=1e-5)
    assert np.array_equal(found.predictions, torch.cat(logits_of_rows).argmax(-1).numpy())
    assert np.array_equal(found.references, features.labels)
    assert found.metrics["accuracy"] == (found.predictions == features.labels).mean()


def test_evaluation_retries_with_smaller_batches(plan: Plan) -> None:
    made = plan()
    run = FineTuning(made)
    assert made.validation is not None
    expected = evaluate(run.model, made.validation, made.task, made.scorer, made.execution)
    sizes = raise_out_of_memory(run, lambda model, rows: rows > 5)
    found = evaluate(run.model, made.validation, made.task, made.scorer, made.execution)
    assert found.metrics == pytest.approx(expected.metrics, abs=1e-6)
    assert found.predictions.tolist() == expected.predictions.tolist()
    assert sizes[0] == len(made.validation)
    assert len(sizes) < 20
    raise_out_of_memory(run, lambda model, rows: True)
    with pytest.raises(OutOfMemory, match="does not fit in memory"):
        evaluate(run.model, made.validation, made.task, made.scorer, made.execution)


def test_stop_request_raises_before_the_first_batch(plan: Plan) -> None:
    made, stop = plan(), threading.Event()
    assert made.validation is not None
    stop.set()
    model = made.candidate.build(0)
    model.register_forward_hook(lambda *_: pytest.fail("evaluated"))
    with pytest.raises(InterruptedError):
        evaluate(model, made.validation, made.task, made.scorer, made.execution, stop=stop)
