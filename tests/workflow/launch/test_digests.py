"""A study is not resumed with another metric file or other weights under the same names."""

import shutil
from pathlib import Path
from typing import Any

import pytest

import hpo
from hpo.errors import StudyError
from hpo.workflow.retrain import retrain
from tests.small_models import save_bert

METRIC = """
import datasets, evaluate

class Right(evaluate.Metric):
    def _info(self):
        features = datasets.Features({"predictions": datasets.Value("int64"), "references": datasets.Value("int64")})
        return evaluate.MetricInfo(description="", citation="", features=features)

    def _compute(self, predictions, references):
        return {"right": sum(p == r for p, r in zip(predictions, references)) / len(references)}
"""


def test_changed_metric_direction_or_weights_are_refused(one_trial: dict[str, Any], tmp_path: Path) -> None:
    metric, model = tmp_path / "right.py", tmp_path / "moved" / "shallow"
    metric.write_text(METRIC)
    shutil.copytree(one_trial["models"][0], model)
    study = one_trial | {"metric": str(metric), "models": [str(model)]}
    result = hpo.run(study)
    metric.write_text(METRIC.replace("return {", "return 100 and {"))
    with pytest.raises(StudyError, match=rf"metric: the content of {metric} has changed"):
        hpo.run(study, trials=2)
    metric.write_text(METRIC + '\ndirection = "minimize"\n')
    with pytest.raises(StudyError, match="direction: maximize before, minimize now"):
        hpo.run(study, trials=2)
    metric.write_text(METRIC)
    save_bert(model, layers=1, seed=9)
    with pytest.raises(StudyError, match=rf"models\.shallow: the content of {model} has changed"):
        hpo.run(study, trials=2)
    with pytest.raises(StudyError, match="other files than those on this machine"):
        retrain(result.name)
    shutil.rmtree(model)
    again = tmp_path / "elsewhere" / "shallow"
    shutil.copytree(one_trial["models"][0], again)
    (again / "README.md").write_text("no weights")
    assert len(hpo.run(study | {"models": [str(again)]}, trials=2).study.trials) == 2
