"""The ranking of models before a search: `hpo rank`, its use in `hpo run`, and tasks without one."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hpo
from hpo.config.load import load_config
from hpo.core.paths import home, named_folder
from hpo.errors import ConfigError
from hpo.storage.records.study import RankedModel, Ranking, StudyRecord
from hpo.training.execution import Execution
from hpo.workflow import rank
from hpo.workflow.context import StudyContext
from hpo.workflow.rank import rank_models
from hpo.workflow.run import write_reports
from tests.contracts.task_data import write_rows
from tests.small_models import save_model


@pytest.fixture
def blind(workshop: Path, tmp_path: Path) -> str:
    """A model with the same output for every text: all of its tokens have one embedding."""
    from transformers import AutoModel

    folder = tmp_path / "blind"
    model = AutoModel.from_pretrained(workshop / "deep")
    model.embeddings.word_embeddings.weight.data[:] = 1.0
    model.embeddings.position_embeddings.weight.data[:] = 0.0
    model.save_pretrained(folder)
    for file in (workshop / "deep").glob("token*"):
        (folder / file.name).write_bytes(file.read_bytes())
    return str(folder)


def test_models_are_ranked_by_their_features(study: dict[str, Any], blind: str) -> None:
    study["models"] = [blind, *study["models"]]
    found = hpo.rank(study)
    assert found.order[-1] == "blind" and found.rows == 240
    by_name = {m.model: m for m in found.models}
    assert (by_name["shallow"].score or 0) > 0.3 > 0.1 > (by_name["blind"].score or 0)  # one word decides
    assert by_name["deep"].layers == 3 and by_name["deep"].parameters > by_name["shallow"].parameters
    assert all(m.seconds >= 0 and not m.reason for m in found.models)
    assert not (home() / "hpo.db").exists() and not (home() / "runs").exists()  # no study was created


def test_search_tries_models_in_ranked_order_and_reports_the_agreement(
    study: dict[str, Any], blind: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    study |= {"models": [blind, *study["models"]], "budget": {"max_trials": 4}, "confirm": {"top": 1, "seeds": 1}}
    result = hpo.run(study)
    output = capsys.readouterr().out
    ranking = StudyRecord.of(result.study).ranking
    assert ranking is not None and ranking.order[-1] == "blind"
    assert [trial.params["model"] for trial in result.study.trials[:3]] == ranking.order
    assert f"tried in this order: {ranking.order[0]}" in output
    agreed = result.record.ranking
    assert agreed is not None and (agreed.tau is None or -1 <= agreed.tau <= 1)
    assert {m.model for m in agreed.models if m.best is not None} >= {result.params["model"]}
    page = (named_folder("reviews") / "report.html").read_text()
    assert "Ranking before the search" in page
    monkeypatch.setattr(rank, "rank_models", lambda context: pytest.fail("ranked again"))
    more = hpo.run({**study, "budget": {"max_trials": 5}})
    assert StudyRecord.of(more.study).ranking == ranking and len(more.study.trials) == 5


def test_ranking_is_optional_and_needs_two_models(study: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rank, "rank_models", lambda context: pytest.fail("ranked"))
    off = StudyContext.create(load_config({**study, "rank": False}), Execution())
    assert rank.rank_if_wanted(off) is None
    alone = StudyContext.create(load_config({**study, "models": study["models"][:1]}), Execution())
    assert alone.why_no_ranking() == "there is one model" and rank.rank_if_wanted(alone) is None


@pytest.mark.parametrize(
    ("task", "architectures"),
    [
        ("multi-label-classification", ("bert", "electra")),
        ("text-regression", ("bert", "distilbert")),
        ("token-classification", ("bert", "roberta")),
        pytest.param("image-classification", ("vit", "convnext"), marks=pytest.mark.slow),
        pytest.param("audio-classification", ("wav2vec2", "whisper"), marks=pytest.mark.slow),
    ],
)
def test_each_kind_of_label_is_ranked(task: str, architectures: tuple[str, ...], tmp_path: Path) -> None:
    models = [str(save_model(tmp_path / name, name)) for name in architectures]
    data = str(write_rows(task, tmp_path / "rows"))
    found = hpo.rank({"name": "n", "task": task, "data": data, "models": models, "devices": "cpu"})
    assert {m.model for m in found.models} == set(architectures)
    assert all(m.score is not None and np.isfinite(m.score) and m.score <= 1 for m in found.models)


def test_task_without_ranking_raises(tmp_path: Path) -> None:
    models = [str(save_model(tmp_path / name, "distilbert", seed=number)) for number, name in enumerate("ab")]
    data = str(write_rows("question-answering", tmp_path / "rows"))
    study = {"name": "n", "task": "question-answering", "data": data, "models": models, "devices": "cpu"}
    with pytest.raises(ConfigError, match="nothing to rank: question-answering has no ranking"):
        hpo.rank(study)
    assert rank.rank_if_wanted(StudyContext.create(load_config(study), Execution())) is None


def test_number_and_cost_of_rows_are_limited(study: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    context = StudyContext.create(load_config(study), Execution())
    monkeypatch.setattr(rank, "ROWS", 100)
    assert 95 <= rank_models(context).rows <= 100
    monkeypatch.setattr(rank, "MIN_ROWS", 10)
    monkeypatch.setattr(rank, "WORK", {"cpu": 1.0})
    assert rank_models(context).rows == 10


def test_report_of_an_unfinished_study_shows_the_ranking(study: dict[str, Any]) -> None:
    import optuna

    search = optuna.create_study(study_name="unfinished")
    models = (
        RankedModel(model="<b>", parameters=1, layers=1, score=0.5, seconds=0.1),
        RankedModel(model="c", parameters=1, layers=1, score=None, seconds=0.1, reason="it does not fit"),
    )
    StudyRecord(ranking=Ranking(rows=10, models=models)).save(search)
    page = write_reports(search).read_text()
    assert "&lt;b&gt;" in page and "it does not fit" in page
