"""Summarization and translation: recognized columns, encoding, and generation at rungs and at the end."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset

from hpo.config.load import load_config
from hpo.config.model_ref import ModelRef
from hpo.config.study import DataConfig, Generation
from hpo.config.trial_params import TrialParams
from hpo.errors import DataError
from hpo.tasks.generation.translation import Translation
from hpo.tasks.registry import get_task, infer_task
from hpo.training.batches.encoding_cache import EncodingCache
from hpo.training.evaluate import evaluate
from hpo.training.execution import Execution
from hpo.training.fine_tune import FineTuning
from hpo.training.models.candidate import load_candidate
from hpo.training.plan import TrainingPlan
from tests.contracts.task_data import write_rows
from tests.small_models import save_model


def write(path: Path, rows: list[dict[str, Any]]) -> DataConfig:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return DataConfig(path=str(path))


def test_columns_recognized_named_or_nested(tmp_path: Path) -> None:
    texts = [f"some text number {row}" for row in range(20)]
    summaries = [{"id": str(row), "article": text, "highlights": f"number {row}"} for row, text in enumerate(texts)]
    data = get_task("summarization").prepare(write(tmp_path / "news.jsonl", summaries), 0)
    assert data.columns == {"text": "article", "label": "highlights"}
    assert data.test is not None and set(data.test["text"]) | set(data.train["text"]) | set(
        data.validation["text"]
    ) == set(texts)

    nested = [{"translation": {"fr": f"texte {row}", "en": text}} for row, text in enumerate(texts)]
    config = write(tmp_path / "pairs.jsonl", nested)
    translation = get_task("translation")
    assert translation.prepare(config, 0).columns == {"text": "en", "label": "fr"}
    named = translation.prepare(config.model_copy(update={"text": "fr", "label": "en"}), 0)
    assert named.columns == {"text": "fr", "label": "en"} and named.train["text"][0].startswith("texte")


@pytest.mark.parametrize(
    ("row", "task"),
    [
        ({"text": "text {}", "summary": "some {}"}, "summarization"),
        ({"text": "text {}", "summary": "some {}", "category": "news"}, "text-classification"),
        ({"source": "text {}", "target": "ein text {}"}, "translation"),
        ({"source": "web", "text": "text {}", "target": "positive"}, "text-classification"),
    ],
)
def test_summary_or_source_column_is_not_always_a_target(row: dict[str, str], task: str, tmp_path: Path) -> None:
    from hpo.data.sources import load_splits

    rows = [{name: text.format(number) for name, text in row.items()} for number in range(9)]
    config = write(tmp_path / "rows.jsonl", rows)
    assert infer_task(load_splits(config).train, config).name == task


def test_several_references_and_invalid_rows(tmp_path: Path) -> None:
    rows = [{"text": f"text {row}", "summary": [f"one {row}", f"other {row}"]} for row in range(10)]
    task = get_task("summarization")
    data = task.prepare(write(tmp_path / "two.jsonl", rows), 0)
    assert all(len(right) == 2 for right in data.train["label"])
    with pytest.raises(DataError, match=r"two.jsonl.*1 of 10 rows with an empty text \(row 4 below"):
        task.prepare(write(tmp_path / "two.jsonl", [*rows[:3], {"text": "a", "summary": []}, *rows[4:]]), 0)
    with pytest.raises(DataError, match="lists of other values than texts in 1 row"):
        task.prepare(write(tmp_path / "two.jsonl", [{"text": "a", "summary": [1]}]), 0)
    with pytest.raises(DataError, match=r"which column is read.*Columns: a, b, c\. Name them in `data.text`"):
        task.prepare(write(tmp_path / "three.jsonl", [{"a": "x", "b": "y", "c": "z"}]), 0)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> FineTuning:
    """A tiny BART, trained to translate word by word."""
    folder = tmp_path_factory.mktemp("words")
    task = Translation(Generation(rows=10, num_beams=2, max_target_length=20))
    data = task.prepare(DataConfig(path=str(write_rows("translation", folder / "rows", train=256))), 0)
    ref = ModelRef(
        name=str(save_model(folder / "bart", "bart", d_model=32, init_std=0.1)), label="b", source_prefix="not "
    )
    candidate = load_candidate(ref, task.auto_class, {})
    store = EncodingCache(folder / "tokens", task, data)
    plan = TrainingPlan(
        params=TrialParams(
            model="b", batch_size=16, learning_rate=3e-3, epochs=9, dropout=0.0, lr_scheduler="constant"
        ),
        task=task,
        candidate=candidate,
        train=store.get("train", candidate.processor, 32),
        validation=store.get("validation", candidate.processor, 32),
        scorer=task.scorer("chrf", data),
        rungs_per_epoch=1,
        seed=1,
        folder=folder / "checkpoints",
        execution=Execution(),
    )
    run = FineTuning(plan)
    run.values = [report.value for report in run.reports()]  # type: ignore[attr-defined]
    return run


def test_learns_to_translate(trained: FineTuning) -> None:
    values = trained.values  # type: ignore[attr-defined]
    assert values[-1] > 90 > 30 > values[0]
    assert trained.plan.validation is not None
    found = evaluate(trained.model, trained.plan.validation, trained.plan.task, trained.plan.scorer, Execution())
    references = [texts[0] for texts in found.references]
    assert sum(prediction == text for prediction, text in zip(found.predictions, references, strict=True)) > 12


def test_rungs_generate_some_rows_greedily_and_the_end_all_with_beams(
    trained: FineTuning, monkeypatch: pytest.MonkeyPatch
) -> None:
    validation, task, calls = trained.plan.validation, trained.plan.task, []
    assert validation is not None
    monkeypatch.setattr(trained.model, "generate", _counting(trained.model.generate, calls))  # type: ignore[operator]
    quick = evaluate(trained.model, validation, task, trained.plan.scorer, Execution(), quick=True)
    assert (
        len(quick.predictions) == 10 and sum(rows for rows, _ in calls) == 10 and {beams for _, beams in calls} == {1}
    )
    spread = [tuple(validation.rows["label"][row]) for row in np.linspace(0, 23, 10).astype(int)]
    assert list(quick.references) == spread
    calls.clear()
    whole = evaluate(trained.model, validation, task, trained.plan.scorer, Execution())
    assert (
        len(whole.predictions) == 24 and sum(rows for rows, _ in calls) == 24 and {beams for _, beams in calls} == {2}
    )
    assert whole.metrics["loss"] == quick.metrics["loss"]  # of all rows, each time
    calls.clear()
    cheap = evaluate(
        trained.model, validation, task, replace(trained.plan.scorer, name="loss"), Execution(), quick=True
    )
    assert cheap.metrics == {"loss": whole.metrics["loss"]} and not calls


def _counting(generate: Any, calls: list[tuple[int, int]]) -> Any:
    def counted(**inputs: Any) -> Any:
        calls.append((len(inputs["input_ids"]), inputs.get("num_beams", 2)))
        return generate(**inputs)

    return counted


def test_source_prefix_and_target_length(trained: FineTuning, tmp_path: Path) -> None:
    task, tokenizer = trained.plan.task, trained.plan.candidate.processor
    rows = Dataset.from_dict({"text": ["good film"], "label": [["bad a " * 20]]})
    encoded = task.encode(rows, tokenizer, 16)
    assert tokenizer.decode(encoded["input_ids"][0], skip_special_tokens=True) == "not good film"
    assert len(encoded["labels"][0]) == 20 and encoded["labels"][0][-1] == tokenizer.sep_token_id
    tokenizer.save_pretrained(tmp_path)
    from transformers import AutoTokenizer

    assert AutoTokenizer.from_pretrained(tmp_path).init_kwargs["source_prefix"] == "not "
    assert trained.model.generation_config.max_new_tokens <= 14  # type: ignore[union-attr, operator]


def test_generation_settings_are_part_of_the_study() -> None:
    written = {"name": "n", "data": "d.csv", "models": ["org/a"], "task": "summarization"}
    plain, other = (load_config({**written, **more}) for more in ({}, {"generation": {"rows": 5}}))
    assert plain.identity() != other.identity()
    assert get_task("summarization").configure(other).generation == Generation(rows=5)
    assert get_task("summarization").generation == Generation()
