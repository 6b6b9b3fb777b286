"""Parameters, memory and latency of a model."""

from collections.abc import Callable

import torch

from hpo.config.model_ref import ModelRef
from hpo.training.models.footprint import allocated_bytes, footprint_from_config, measure_footprint
from hpo.training.plan import TrainingPlan


def test_config_and_measurement_agree_on_parameters(plan: Callable[..., TrainingPlan]) -> None:
    made = plan()
    candidate = made.candidate
    expected = footprint_from_config(candidate.ref, "AutoModelForSequenceClassification", {"num_labels": 2})
    measured = measure_footprint(candidate.build(0), made.train, made.task, "cpu")
    assert expected is not None and expected.latency_ms is None
    assert expected.params == measured.params == candidate.parameters
    assert measured.latency_ms is not None and measured.latency_ms > 0
    assert expected.memory_mb <= measured.memory_mb  # the activations of a prediction come on top


def test_unknown_model_has_no_footprint() -> None:
    ref = ModelRef(name="no/such-model", label="m")
    assert footprint_from_config(ref, "AutoModelForSequenceClassification", {}) is None


def test_allocated_bytes_is_the_peak() -> None:
    def run() -> None:
        first = torch.empty(1_000_000)
        del first
        torch.empty(500_000)

    assert 4_000_000 <= allocated_bytes(run) < 5_000_000
