"""`hpo check`: the plan of a good study, and every mistake with the models before anything is trained."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from hpo.config.load import load_config
from hpo.core.paths import home
from hpo.errors import ConfigError, HpoError, ModelError
from hpo.training.execution import Execution
from hpo.workflow.checks.study import ModelPlan, check, forecast, inspect_models, study_warnings, too_little_time
from hpo.workflow.context import StudyContext


def context_of(study: dict[str, Any]) -> StudyContext:
    return StudyContext.create(load_config(study), Execution())


def test_check_returns_plan_and_forecast(study: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    found = check(study, ["budget.max_trials=2", "search_space.batch_size=[8, 512]"])
    assert capsys.readouterr().out == ""
    assert found.sizes == {"train": 240, "validation": 32, "test": 32}
    assert [plan.layers for plan in found.models] == [1, 3] and found.seconds > 0
    assert all(line in repr(found) for line in ("shallow", "rows     240 train", "forecast: about"))
    found.show()
    out, err = capsys.readouterr()
    lines = {line.split()[0]: line.split() for line in out.splitlines() if line.strip()}
    assert lines["rows"] == "rows 240 train, 32 validation, 32 test".split()
    assert lines["classes"] == "classes 2: negative, positive".split()
    assert "text: recognized in column 'text'" in out
    for model, layers in {"shallow": "1", "deep": "3"}.items():
        assert lines[model][1] == "BertForSequenceClassification"
        assert lines[model][4:6] == [layers, "64"]
        assert lines[model][-1] == "s"  # seconds per epoch: it was timed
    assert lines["forecast:"][1] == "about"
    assert "search" in out and "confirm" in out and "final model" in out
    assert "batch_size: up to 512, more than the 240 training rows" in err
    assert "the 2 first trials use up 2: nothing is sampled" in err
    assert not (home() / "hpo.db").exists() and not (home() / "runs").exists()  # nothing of a study is left


def test_forecast_follows_the_budget(study: dict[str, Any]) -> None:
    plans = [ModelPlan("shallow", "", 0, 1, 64, 10.0), ModelPlan("deep", "", 0, 3, 64, 30.0)]
    context = context_of({**study, "budget": {"max_trials": 10}, "confirm": {"top": 2, "seeds": 2}})
    one, two = forecast(context, plans, workers=1), forecast(context, plans, workers=2)
    full = 20 * 2 * 1.15  # mean seconds per epoch × mean epochs, with evaluation
    assert one == pytest.approx({"search": 10 * full / 2, "confirm": 4 * full, "final model": full})
    assert two == pytest.approx({"search": 10 * full / 4, "confirm": 2 * full, "final model": full})
    few = context_of({**study, "budget": {"max_trials": 1}, "confirm": {"top": 2, "seeds": 2}})
    assert forecast(few, plans, workers=1)["confirm"] == pytest.approx(2 * full)
    short = context_of({**study, "budget": {"max_trials": 10, "max_hours": 0.09}, "confirm": {"top": 2, "seeds": 2}})
    times = forecast(short, plans, workers=1)
    assert sum(times.values()) == pytest.approx(324)
    assert times["confirm"] == pytest.approx(324 / 5)
    assert too_little_time(short, plans, times) == too_little_time(context, plans, one) == []
    none = context_of({**study, "budget": {"max_trials": 10, "max_hours": 0.03}, "confirm": {"top": 2, "seeds": 2}})
    (warning,) = too_little_time(none, plans, forecast(none, plans, workers=1))
    assert warning.startswith("budget.max_hours: of 1 m 48 s confirming and the final model take about 1 m 32 s")
    assert "leaves the search 16 s; a trial of the quickest model takes about 23 s." in warning


def test_first_trials_beyond_the_budget_are_counted(study: dict[str, Any]) -> None:
    study |= {"first_trials": [{"epochs": 1}, {"epochs": 2}], "budget": {"max_trials": 3}}
    (warning,) = study_warnings(context_of(study))
    assert warning == "budget.max_trials: the 4 first trials use up 3: nothing is sampled, and 1 of them is not tried."
    assert study_warnings(context_of({**study, "budget": {"max_trials": 5}})) == []


def broken(kind: str, workshop: Path, folder: Path) -> Path:
    """A copy of the shallow model that something is wrong with."""
    model = Path(shutil.copytree(workshop / "shallow", folder / kind))
    match kind:
        case "no-tokenizer":
            for file in model.glob("*token*"):
                file.unlink()
        case "not-for-text":
            (model / "config.json").write_text(json.dumps({"model_type": "vit", "architectures": ["ViTModel"]}))
        case "no-config":
            (model / "config.json").unlink()
        case "torn":
            weights = model / "model.safetensors"
            weights.write_bytes(weights.read_bytes()[:900])
        case "torn-tokenizer" | "torn-config":
            file = model / ("tokenizer.json" if kind == "torn-tokenizer" else "config.json")
            file.write_bytes(file.read_bytes()[:200])
        case "pickled":
            (model / "model.safetensors").rename(model / "pytorch_model.bin")
    return model


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("no-tokenizer", r"no-tokenizer: it has no tokenizer .*\{name: .*, processor: "),
        ("not-for-text", r"not-for-text: .*no head for this task \(AutoModelForSequenceClassification is needed\)"),
        ("no-config", r"no-config: .* holds no config\.json"),
        ("torn", r"torn: .*damaged"),
        ("torn-tokenizer", r"torn-tokenizer: .*tokenizer"),
        ("torn-config", r"torn-config: cannot be loaded from .*config"),
        ("pickled", r"pickled: .*pickled .*allow_pickle: true"),
    ],
)
def test_unusable_model_raises_before_training(
    kind: str, message: str, study: dict[str, Any], workshop: Path, tmp_path: Path
) -> None:
    study["models"] = [str(workshop / "deep"), str(broken(kind, workshop, tmp_path))]
    with pytest.raises(ModelError, match=message):
        check(study)


def test_missing_model_raises_with_the_most_similar_name(
    study: dict[str, Any], workshop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(workshop)
    with pytest.raises(ModelError, match=r"shalow: no such folder.*offline\)\. Nearest here: shallow"):
        check({**study, "models": ["shalow"]})


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"max_length": 65}, r"max_length: 65 is more than the 64 positions of shallow"),
        (
            {"search_space": {"frozen_layers": {"low": 0, "high": 2}}, "first_trials": []},
            r"search_space\.frozen_layers: up to 2 layers, but shallow has 1",
        ),
        (
            {"first_trials": [{"frozen_layers": 3}]},
            r"first_trials\[0\]\.frozen_layers: 3 is more than the 1 layers of s",
        ),
        ({"sampler": "TPSampler"}, r"Did you mean 'TPESampler'"),
        ({"pruner": {"patience": 3}}, r"pruner\.patience: HalvingPruner takes no such argument"),
        ({"devices": "cuda:99"}, r"devices: 'cuda:99' is not on this machine"),
        ({"direction": "minimize"}, r"direction"),
        ({"metric": "acuracy"}, r"accuracy"),
        ({"task": "text-clasification"}, r"Did you mean 'text-classification'"),
    ],
)
def test_settings_that_do_not_suit_the_models_raise(
    changed: dict[str, Any], message: str, study: dict[str, Any]
) -> None:
    with pytest.raises(HpoError, match=message) as caught:
        check({**study, **changed})
    assert caught.value.exit_code == 2


def test_models_are_loaded_once(study: dict[str, Any]) -> None:
    context = context_of(study)
    plans = inspect_models(context)
    assert [(plan.model, plan.layers, plan.max_length) for plan in plans] == [("shallow", 1, 64), ("deep", 3, 64)]
    assert plans[0].parameters < plans[1].parameters
    assert context.candidates["deep"] is context.candidates["deep"]
    study["search_space"]["frozen_layers"] = [0, 1]
    inspect_models(context_of(study))
    study["search_space"]["frozen_layers"] = [0, 4]
    with pytest.raises(ConfigError, match=r"up to 4 layers, but shallow has 1, deep has 3\. Write"):
        inspect_models(context_of(study))
