"""The objective of the search: sampled parameters, and the means over folds."""

from typing import Any

import pytest

import hpo
from hpo.core.format import score
from hpo.core.paths import named_folder
from hpo.errors import StudyError
from hpo.storage.records.study import StudyRecord
from hpo.storage.records.trial import TrialRecord
from hpo.storage.status import read_status
from hpo.storage.storage import open_storage
from hpo.training import fine_tune
from hpo.workflow.replay import replay
from hpo.workflow.worker.stages import confirm_jobs


def test_conditions_and_fixed_values_are_sampled_as_configured(study: dict[str, Any]) -> None:
    study["search_space"] |= {
        "lr_scheduler": ["linear", "constant_with_warmup"],
        "warmup_ratio": {"low": 0.1, "high": 0.4, "when": {"lr_scheduler": ["constant_with_warmup"]}},
        "weight_decay": 0.05,
    }
    result = hpo.run({**study, "budget": {"max_trials": 6}, "pruner": "none"})
    for trial in result.study.trials:
        assert ("warmup_ratio" in trial.params) == (trial.params["lr_scheduler"] == "constant_with_warmup")
        assert TrialRecord.of(trial).params["weight_decay"] == 0.05
    jobs = confirm_jobs(result.study, StudyRecord.of(result.study).study_config)
    assert len({job.trial for job in jobs}) == 2


def test_search_with_folds_is_resumed_and_reports_means(
    folded: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    train = fine_tune.FineTuning._train_step
    seen: set[str] = set()

    def interrupted(self: Any, *given: Any) -> None:
        train(self, *given)
        if self.progress.rung == 1 and self.plan.folder.name == "fold-2":
            self.plan.stop.set()

    folded |= {"budget": {"max_trials": 2}, "confirm": {"top": 1, "seeds": 1}, "pruner": "none"}
    with monkeypatch.context() as patched:
        patched.setattr(fine_tune.FineTuning, "_train_step", interrupted)
        with pytest.raises(StudyError, match="stopped before its end"):
            hpo.run(folded)
    folders = list(named_folder("reviews").glob("checkpoints/*"))
    assert {path.name for folder in folders for path in folder.glob("fold-*")} == {"fold-1", "fold-2", "fold-3"}
    result = hpo.run(folded)
    trials = result.study.trials
    first = trials[0]
    assert first.user_attrs["attempt"] == 2 and "restarted" not in first.user_attrs
    assert [point.step for point in TrialRecord.of(first).curve] == [1, 2, 3] == sorted(first.intermediate_values)
    for trial in trials:
        assert trial.value == trial.user_attrs["metrics"]["accuracy"]
        assert set(trial.user_attrs["spread"]) == set(trial.user_attrs["metrics"])
        seen.add(str(trial.user_attrs["spread"]["loss"]))
    assert len(seen) == 2
    spread = result.study.best_trial.user_attrs["spread"]["accuracy"]
    assert read_status(open_storage(), "reviews").best_spread == pytest.approx(spread)
    said, folder = capsys.readouterr().out, named_folder("reviews")
    assert f"± {score(spread)} between folds in trial {result.study.best_trial.number}" in said
    assert "reviews: searching" in said and "2 of 2 trials (2 complete)" in said  # inline as anywhere
    assert f"± {score(spread)}</span>" in (folder / "report.html").read_text()
    assert "spread.accuracy" in (folder / "trials.csv").read_text().splitlines()[0]
    assert not list(named_folder("reviews").glob("checkpoints/*/fold-*"))
    recorded = StudyRecord.of(result.study).data
    assert recorded.sizes == {"in 3 folds": 90, "test": 32}
    assert any(note.startswith("3 folds of the 90 training rows") and "seed 0" in note for note in recorded.notes)
    assert (result.model_dir / "model.safetensors").is_file() and 0 <= result.metrics["accuracy"] <= 1
    again = replay(result.study, 0)
    assert again.replayed == again.recorded
