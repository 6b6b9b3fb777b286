"""Parameters, memory and latency of a model."""

from collections.abc import Callable

from hpo.config.model_ref import ModelRef
from hpo.training.models.footprint import footprint_from_config, measure_footprint
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
