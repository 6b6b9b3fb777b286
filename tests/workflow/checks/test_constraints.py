"""Constraints: models that exceed them are dropped before training, and confirmed models are checked."""

import shutil
from pathlib import Path
from typing import Any

import optuna
import pytest

import hpo
from hpo.config.constraints import Constraints, Footprint, smallest_footprint
from hpo.config.load import load_config
from hpo.errors import ConfigError, ModelError, StudyError
from hpo.storage.records.trial import TrialRecord
from hpo.training.execution import Execution
from hpo.training.models.footprint import footprint_from_config, measure_footprint
from hpo.workflow.checks.constraints import apply_constraints
from hpo.workflow.checks.study import check
from hpo.workflow.context import StudyContext
from hpo.workflow.worker.stages import ConfirmJob, rank_confirmed


def parameters(study: dict[str, Any]) -> dict[str, int]:
    context = StudyContext.create(load_config(study), Execution())
    return {label: context.candidates[label].parameters for label in context.config.labels}


def test_footprint_from_a_config_has_parameters_and_weights(study: dict[str, Any]) -> None:
    context = StudyContext.create(load_config(study), Execution())
    for label in context.config.labels:
        candidate = context.candidates[label]
        expected = footprint_from_config(candidate.ref, context.task.auto_class, context.task.head_config(context.data))
        assert expected is not None and expected.params == candidate.parameters
        measured = measure_footprint(
            candidate.build(0), context.features("validation", label), context.task, context.execution.device
        )
        assert measured.params == expected.params and (measured.latency_ms or 0) > 0
        assert (
            expected.memory_mb < measured.memory_mb < expected.memory_mb + 5
        )  # activations of a tiny model's one example


def test_too_large_model_is_dropped_without_reading_its_weights(
    study: dict[str, Any], workshop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = parameters(study)
    unread = Path(shutil.copytree(workshop / "deep", tmp_path / "unread"))
    (unread / "model.safetensors").write_bytes(b"no weights")  # reading them would fail
    study |= {"models": [str(workshop / "shallow"), str(unread)], "budget": {"max_trials": 2}}
    study |= {"constraints": {"max_params": sizes["shallow"]}, "confirm": {"top": 1, "seeds": 1}}
    study["first_trials"] = [{"model": "unread"}, {"learning_rate": 1e-2, "epochs": 3}]
    assert any(f"unread is dropped: it has {sizes['deep']:,} parameters" in line for line in check(study).warnings)
    result = hpo.run(study)
    assert {trial.params["model"] for trial in result.study.trials} == {"shallow"}
    assert result.record.footprint is not None and result.record.footprint.params == sizes["shallow"]
    assert (result.record.footprint.latency_ms or 0) > 0 and not result.record.violations
    shutil.rmtree(unread)  # resuming does not load it
    assert len(hpo.run({**study, "budget": {"max_trials": 3}}).study.trials) == 3
    with pytest.raises(StudyError, match=r"constraints\.max_params"):
        hpo.run({**study, "constraints": {"max_params": 10**9}})


@pytest.mark.parametrize(
    ("constraints", "message"),
    [
        ({"max_params": 10}, r"shallow: it has [\d,]+ parameters, constraints\.max_params is 10\n"),
        ({"max_latency_ms": 1e-6}, r"deep: .* takes [\d.]+ ms, constraints\.max_latency_ms is 1e-06"),
        ({"max_memory_mb": 0.001}, r"deep: it needs [\d.]+ MB, constraints\.max_memory_mb is 0\.001"),
    ],
)
def test_no_model_left_raises_with_each_reason(
    constraints: dict[str, Any], message: str, study: dict[str, Any]
) -> None:
    context = StudyContext.create(load_config({**study, "constraints": constraints}), Execution())
    with pytest.raises(ModelError, match=message) as caught:
        apply_constraints(context)
    assert "no model is left" in str(caught.value) and "name smaller models" in str(caught.value)


def test_invalid_constraints_raise(study: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"constraints\.max_parms: no such key\. Did you mean 'max_params'"):
        load_config({**study, "constraints": {"max_parms": 3}})
    with pytest.raises(ConfigError, match=r"constraints\.max_latency_ms: must be greater than 0"):
        load_config({**study, "constraints": {"max_latency_ms": 0}})
    assert load_config({**study, "constraints": {"max_params": 30e6}}).constraints.max_params == 30_000_000


def test_confirmed_model_that_exceeds_them_is_not_the_winner() -> None:
    """The better of two exceeds them; the least of its runs counts, since the machine was busy during the other."""
    search, confirm = (optuna.create_study(direction="maximize") for _ in range(2))
    jobs = [ConfirmJob(0, 1), ConfirmJob(1, 1), ConfirmJob(0, 2), ConfirmJob(1, 2)]
    for value in (0.9, 0.8):
        search.add_trial(
            optuna.trial.create_trial(value=value, **TrialRecord(params={"model": f"m{value}"}).attributes())
        )
    for value, latency in ((0.9, 9.0), (0.8, 30.0), (0.9, 8.0), (0.8, 4.0)):
        record = TrialRecord(footprint=Footprint(params=5, memory_mb=1, latency_ms=latency))
        confirm.add_trial(optuna.trial.create_trial(value=value, **record.attributes()))
    ranking = rank_confirmed(search, confirm, jobs, Constraints(max_latency_ms=5))
    assert [c.trial for c in ranking] == [1, 0]
    assert ranking[0].violations == "" and ranking[0].footprint == Footprint(params=5, memory_mb=1, latency_ms=4)
    assert ranking[1].violations == "inference takes 8 ms, constraints.max_latency_ms is 5.0"
    assert [c.trial for c in rank_confirmed(search, confirm, jobs, Constraints())] == [0, 1]
    with pytest.raises(StudyError, match=r"every confirmed model exceeds them\.\n  trial 0 \(m0\.9\)"):
        rank_confirmed(search, confirm, jobs, Constraints(max_latency_ms=1))
    assert smallest_footprint([]) is None
