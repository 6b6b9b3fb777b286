"""The contract of every task: from rows to a saved model that transformers loads and that predicts the same.

The quick tests run one architecture per task, the slow ones every architecture that has its head.
"""

import gc
import json
import re
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset

import hpo
from hpo.config.model_ref import ModelRef
from hpo.config.study import DataConfig
from hpo.config.trial_params import TrialParams
from hpo.data.media.audio import read_audio
from hpo.data.media.files import as_item
from hpo.errors import DataError
from hpo.tasks.registry import TASKS, get_task, infer_task
from hpo.tasks.task_data import TaskData
from hpo.training.batches.encoding_cache import EncodingCache
from hpo.training.batches.features import pop_labels
from hpo.training.evaluate import evaluate
from hpo.training.execution import Execution
from hpo.training.fine_tune import FineTuning, Stopped
from hpo.training.frozen.cache import USED, PrefixCache
from hpo.training.models.candidate import Candidate, Candidates, resolve_max_length, save_model
from hpo.training.models.layers import find_heads
from hpo.training.models.processor import load_processor
from hpo.training.plan import TrainingPlan
from tests.contracts.task_data import CASES, ENCODERS, write_rows
from tests.small_models import save_model as save_small

# Architectures whose frozen layers are skipped.
CACHED = (*ENCODERS, "vit", "convnext", "resnet", "mobilenet_v2", "whisper", "audio-spectrogram-transformer")
ADAPTED = [
    pytest.param(task, name, marks=() if (task, name) == ("causal-lm", "gpt2") else pytest.mark.slow)
    for task in TASKS
    for name in CASES[task].adapted
]
MATRIX = [
    pytest.param(task, name, marks=() if name == CASES[task].quick else pytest.mark.slow)
    for task in TASKS
    for name in CASES[task].models
]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], TaskData]:
    """Return a function that prepares the data of a task once."""
    made: dict[str, TaskData] = {}

    def prepare(task: str) -> TaskData:
        if task not in made:
            folder = write_rows(task, tmp_path_factory.mktemp(task))
            made[task] = get_task(task).prepare(DataConfig(path=str(folder)), 0)
        return made[task]

    return prepare


def make_plan(task: str, architecture: str, data: TaskData, folder: Path, **changes: Any) -> TrainingPlan:
    """Return a plan of three epochs on the task's data with a tiny model; `changes` are trial parameters."""
    kind = get_task(task)
    if not (folder / "model").is_dir():
        save_small(folder / "model", architecture)
    ref = ModelRef(name=str(folder / "model"), label=architecture)
    candidate = Candidates({architecture: ref}, kind, data)[architecture]
    assert kind.check_model(candidate.model, candidate.processor) == ""
    store = EncodingCache(folder / "tokens", kind, data)
    length = length_for(candidate)
    return TrainingPlan(
        params=TrialParams(
            model=architecture, **{"batch_size": 8, "learning_rate": 3e-3, "epochs": 3, "dropout": 0.1, **changes}
        ),
        task=kind,
        candidate=candidate,
        train=store.get("train", candidate.processor, length),
        validation=store.get("validation", candidate.processor, length),
        scorer=kind.scorer(kind.default_metric, data),
        rungs_per_epoch=1,
        seed=3,
        folder=folder / "checkpoints",
        execution=Execution(),
    )


def length_for(candidate: Candidate) -> int:
    """Return the maximum length of an input: 32 tokens of text, or 2 seconds of audio."""
    length = resolve_max_length(candidate, None, 2.0)
    return min(32, length) if hasattr(candidate.processor, "model_max_length") else length


def curve(reports: list[Any]) -> list[Any]:
    return [(report.step, report.value, report.train_loss, sorted(report.metrics.items())) for report in reports]


@pytest.mark.parametrize(("task", "architecture"), ADAPTED)
def test_adapters_train_with_a_frozen_body(
    task: str, architecture: str, prepared: Callable[[str], TaskData], tmp_path: Path
) -> None:
    import transformers

    settings = {"peft": "lora", "lora_r": 4, "frozen_layers": 1, "dropout": 0.0, "learning_rate": 3e-2}
    plan = make_plan(task, architecture, prepared(task), tmp_path, **settings)
    run = FineTuning(plan)
    before = {name: tensor.clone() for name, tensor in run.model.state_dict().items()}
    for _ in run.steps():
        pass
    changed = [name for name, tensor in run.model.state_dict().items() if not torch.equal(tensor, before[name])]
    heads = tuple(f"{name}." for name in find_heads(run.model) if not CASES[task].generates)
    new = plan.candidate.new_weights  # such as the head of a decoder without one
    assert {".lora_" in name or name.startswith(heads) or name in new for name in changed} == {True}
    # Resumed from here, and saved and loaded, it is the same.
    run.save()
    later = FineTuning(plan)
    assert later.progress.step == run.progress.step
    now = later.model.state_dict()
    assert all(torch.equal(now[name], tensor) for name, tensor in run.model.state_dict().items())
    run._finalize_model()
    assert run.model.state_dict().keys() == plan.candidate.model.state_dict().keys()
    batch = plan.train.collate(np.arange(4))
    pop_labels(run.model, batch)
    save_model(run.model, tmp_path / "final")
    loaded = getattr(transformers, plan.task.auto_class).from_pretrained(tmp_path / "final").eval()
    with torch.inference_mode():
        expected, found = (plan.task.logits(model, batch) for model in (run.model.eval(), loaded))
    assert torch.equal(expected, found)


@pytest.mark.parametrize(("task", "architecture"), MATRIX)
def test_saved_model_predicts_as_in_evaluation(
    task: str, architecture: str, prepared: Callable[[str], TaskData], tmp_path: Path
) -> None:
    import transformers

    data = prepared(task)
    plan = make_plan(task, architecture, data, tmp_path)
    run = FineTuning(replace(plan, folder=tmp_path / "uninterrupted"))  # on a busy machine it saves checkpoints too
    reports = list(run.reports())
    assert reports[-1].train_loss < reports[0].train_loss
    assert all(np.isfinite([*report.metrics.values(), report.train_loss]).all() for report in reports)

    stopped = FineTuning(plan)
    stopped.model.register_forward_hook(
        lambda *_: plan.stop.set() if stopped.progress.step == 11 and stopped.model.training else None
    )
    with pytest.raises(Stopped):
        list(stopped.reports())
    torch.manual_seed(99)
    later = FineTuning(replace(plan, stop=type(plan.stop)()))
    assert 0 < later.progress.step < run.progress.step
    assert curve(reports)[later.progress.rung :] == curve(list(later.reports()))

    kind = get_task(task)
    found = evaluate(run.model, plan.validation, kind, plan.scorer, plan.execution)  # type: ignore[arg-type]
    assert len(found.predictions) == len(found.references) == len(data.validation)
    kind.finalize_model(run.model, data)
    rows, expected = inputs_of(data), expected_of(task, found.predictions, data)
    if task == "causal-lm":  # the metric does not measure the generated text
        expected = [answer["label"] for answer in kind.predict(run.model, plan.candidate.processor, rows, 32)]
    save_model(run.model, tmp_path / "final")
    plan.candidate.processor.save_pretrained(tmp_path / "final")
    model = getattr(transformers, kind.auto_class).from_pretrained(tmp_path / "final").eval()
    processor = load_processor(ModelRef(name=str(tmp_path / "final"), label="final"), kind.final_processor_class)
    for batch_size in (1, 64):
        answers = kind.predict(model, processor, rows, length_for(plan.candidate), batch_size)
        assert [CASES[task].as_prediction(answer, data) for answer in answers] == expected


@pytest.mark.parametrize("task", [task for task in TASKS if CASES[task].files is None])
def test_predictions_do_not_depend_on_the_padding_of_the_tokenizer(
    task: str, prepared: Callable[[str], TaskData], tmp_path: Path
) -> None:
    """A tokenizer that pads on the left, as those of Llama, Gemma and Qwen: in a batch as one by one."""
    from transformers import AutoTokenizer

    save_small(tmp_path / "model", CASES[task].quick)
    file = tmp_path / "model" / "tokenizer_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "padding_side": "left"}))
    given = AutoTokenizer.from_pretrained(tmp_path / "model")
    assert given.padding_side == "left"

    data = prepared(task)
    plan = make_plan(task, CASES[task].quick, data, tmp_path)
    kind, model = plan.task, plan.candidate.build(0).eval()
    kind.configure_model(model, plan.train)
    kind.finalize_model(model, data)
    plan.candidate.processor.save_pretrained(tmp_path / "final")
    saved = AutoTokenizer.from_pretrained(tmp_path / "final")
    assert saved.padding_side == ("left" if task == "causal-lm" else "right")
    rows = inputs_of(data)[:12]
    for tokenizer in (given, saved):
        together, alone = (kind.predict(model, tokenizer, rows, 32, size) for size in (12, 1))
        assert [CASES[task].as_prediction(answer, data) for answer in together] == [
            CASES[task].as_prediction(answer, data) for answer in alone
        ]
        assert [answer.get("score") for answer in together] == [
            pytest.approx(answer["score"], abs=1e-4) if "score" in answer else None for answer in alone
        ]


def inputs_of(data: TaskData) -> list[Any]:
    media = [role for role in ("image", "audio") if role in data.columns]
    if media:
        return data.validation.with_format(None)[media[0]][:]
    columns = [data.validation[role][:] for role in ("text", "text_pair") if role in data.validation.column_names]
    return list(zip(*columns, strict=True)) if len(columns) > 1 else columns[0]


def expected_of(task: str, predictions: Any, data: TaskData) -> list[Any]:
    if task == "text-regression":
        return [data.scale[0] + data.scale[1] * float(number) for number in predictions]
    return predictions.tolist()


@pytest.mark.parametrize(("task", "architecture"), MATRIX)
def test_prefix_cache_does_not_change_results(
    task: str, architecture: str, prepared: Callable[[str], TaskData], tmp_path: Path
) -> None:
    plan = make_plan(task, architecture, prepared(task), tmp_path, frozen_layers=1, epochs=2, dropout=0.0)
    expected = list(FineTuning(plan).reports())
    run = FineTuning(replace(plan, prefixes=PrefixCache(tmp_path / "prefixes"), folder=tmp_path / "other"))
    run.plan.prefixes._objection = lambda *_: ""  # type: ignore[method-assign, union-attr]
    found = list(run.reports())
    if CASES[task].generates and architecture == "t5":  # its first layer's position bias is used by all
        assert run.execution.prefix_cache == "not used: its layers return more than a hidden state"
    elif architecture in CACHED or CASES[task].generates:
        assert run.execution.prefix_cache == USED
    for one, other in zip(found, expected, strict=True):
        assert one.train_loss == pytest.approx(other.train_loss, rel=1e-3)
        assert one.metrics["loss"] == pytest.approx(other.metrics["loss"], rel=1e-3)
    gc.collect()  # memory-mapped files


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # peft reads it
@pytest.mark.parametrize(
    ("task", "architecture"),
    [
        pytest.param(task, name, marks=() if (task, name) == ("causal-lm", "gpt2") else pytest.mark.slow)
        for task, case in CASES.items()
        for name in case.models
        if case.generates
    ],
)
def test_adapters_and_layer_decay_of_generating_models(
    task: str, architecture: str, prepared: Callable[[str], TaskData], tmp_path: Path
) -> None:
    """With LoRA, and with `layer_decay` and Adafactor, the merged and saved model generates the same texts."""
    import transformers

    data, kind = prepared(task), get_task(task)
    for changes in (
        {"peft": "lora", "lora_r": 2, "frozen_layers": 1, "learning_rate": 2e-2},
        {"layer_decay": 0.8, "optimizer": "adafactor"},
    ):
        plan = make_plan(task, architecture, data, tmp_path, **changes)
        run = FineTuning(replace(plan, folder=tmp_path / str(changes.get("peft"))))
        reports = list(run.reports())
        assert reports[-1].metrics["loss"] != reports[0].metrics["loss"]
        kind.finalize_model(run.model, data)
        expected = kind.predict(run.model, plan.candidate.processor, inputs_of(data), 32)
        save_model(run.model, tmp_path / "final")
        model = getattr(transformers, kind.auto_class).from_pretrained(tmp_path / "final").eval()
        assert kind.predict(model, plan.candidate.processor, inputs_of(data), 32) == expected


@pytest.mark.parametrize("task", TASKS)
def test_accumulation_equals_the_full_batch(task: str, prepared: Callable[[str], TaskData], tmp_path: Path) -> None:
    plan = make_plan(task, CASES[task].quick, prepared(task), tmp_path, dropout=0.0, label_smoothing=0.1)
    kind, model = plan.task, plan.candidate.build(0, 0.0).eval()

    def summed(rows: Any) -> tuple[float, int]:
        batch = plan.train.collate(np.asarray(rows))
        labels = pop_labels(model, batch)
        with torch.no_grad():
            loss = kind.loss(kind.logits(model, batch), labels, 0.1)
        assert loss.dtype == torch.float32
        return float(loss), kind.target_count(labels)

    full, parts = summed(range(12)), [summed([row]) for row in range(12)]
    assert full[0] == pytest.approx(sum(loss for loss, _ in parts), rel=1e-4)
    assert full[1] == sum(count for _, count in parts)


@pytest.mark.parametrize("task", TASKS)
def test_data_is_recognized_and_described(task: str, tmp_path: Path) -> None:
    from hpo.data.sources import load_splits

    config = DataConfig(path=str(write_rows(task, tmp_path)))
    assert infer_task(load_splits(config).train, config).name == task
    kind = get_task(task)
    data = kind.prepare(config, 0)
    assert data.sizes == {"train": 64, "validation": 24, "test": 24}
    assert kind.describe(data)
    metric, _ = kind.suggest_metric(data)
    assert metric in kind.metric_names and kind.default_metric in kind.metric_names
    baseline = kind.baseline(data, metric)
    assert not CASES[task].baseline if baseline is None else np.isfinite(baseline[1])
    # Without the other files, the splits are created, with the same rows on each call.
    alone = DataConfig(path=str(next(tmp_path.glob("train*"))))
    made = kind.prepare(alone, 0)
    assert sum(made.sizes.values()) == 64 and min(made.sizes.values()) > 0
    assert made.fingerprint == kind.prepare(alone, 0).fingerprint


def check_inputs(result: hpo.Result, test: Path, predictions: list[dict[str, Any]]) -> None:
    """Rows of a table, and their dictionaries, are predicted as the same rows in a file; so are probabilities."""
    if test.suffix == ".jsonl":
        rows = Dataset.from_list([json.loads(line) for line in test.read_text().splitlines()])
        for kind in {"image", "audio"} & set(rows.column_names):  # paths that start from the file's folder
            paths = [str(next(test.parent.rglob(Path(path).name))) for path in rows[kind]]
            rows = rows.remove_columns(kind).add_column(kind, paths)
        data: Any = [rows[index] for index in range(4)]
        assert result.predict(rows) == result.predict(rows.to_pandas()) == predictions
        assert result.predict(data) == result.predict(rows.select(range(4)))
        assert result.predict(data[0]) == result.predict(rows.select([0]))
    else:
        data = sorted(str(path) for path in test.rglob("*") if path.suffix in (".png", ".wav"))[:4]
        assert len(result.predict(data)) == len(data)
        assert len(result.predict(data[0])) == 1
    with pytest.raises(DataError, match="reads"):
        result.predict(5)
    labeled = rows if test.suffix == ".jsonl" else test
    found, regression = result.evaluate(labeled), result.record.task == "text-regression"
    assert found.keys() == result.metrics.keys()
    for name in {"mse", "mae"} if regression else result.metrics:  # the others are of numbers that hardly differ
        assert found[name] == pytest.approx(result.metrics[name], rel=0.05, abs=0.1), name
    if result.record.data.labels and "tags" not in predictions[0]:
        shares = result.predict_proba(data)
        assert tuple(shares.columns) == result.record.data.labels and len(shares) == len(data)
        assert shares.to_numpy().min() >= 0 and shares.to_numpy().max() <= 1
        if not isinstance(predictions[0]["label"], list):
            best = [answer["label"] for answer in result.predict(data)]
            assert shares.idxmax(axis="columns").tolist() == best and shares.sum(axis="columns").round(4).eq(1).all()
    else:
        with pytest.raises(DataError, match="no classes with a probability"):
            result.predict_proba(data)


@pytest.mark.parametrize("task", TASKS)
def test_study_from_init_to_prediction(task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hpo.workflow.init import write_study_file

    monkeypatch.chdir(tmp_path)
    write_rows(task, tmp_path / "rows")
    save_small(tmp_path / "tiny", CASES[task].quick)
    path = write_study_file(str(tmp_path / "rows"), [str(tmp_path / "tiny")])
    small = ["backend=inline", "devices=cpu", "first_trials=[]", "confirm={top: 1, seeds: 1}", "search_space.epochs=1"]
    if task == "text-regression":
        small.append("refit=none")  # the validated checkpoint predicts in the user's units too
    result = hpo.run(path, trials=2, overrides=small)
    kind = get_task(task)
    assert result.record.task == task
    assert set(result.metrics) == set(kind.metric_names)
    assert result.record.test is not None and result.record.test.interval is not None
    bounds = result.record.test.interval
    assert bounds[0] <= result.metrics[result.record.metric] <= bounds[1]
    card = (result.model_dir / "README.md").read_text()
    usage = kind.usage.replace("{max_length}", str(result.record.max_length))
    assert usage in card and ("max_length" in kind.usage) == (task != "image-classification")
    if CASES[task].files is None:  # it truncates: the models have 64 positions
        import transformers

        long = re.sub(r'"a (text|context|prompt)', lambda found: f'"{"the film " * 50}', usage)
        names = {name: getattr(transformers, name) for name in re.findall(r"\b(?:pipeline|Auto\w+)\b", usage)}
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Tokenizer does not support real words")
            exec(long.replace("path/to/this/folder", str(result.model_dir)), names)
    assert f"pipeline_tag: {kind.pipeline_tag}" in card
    assert "text-classification" in card or "text-classification" not in (task, kind.pipeline_tag)
    answers = result._predictor.predict_file(next((tmp_path / "rows").glob("test*")))
    assert len(answers) == 24
    check_inputs(result, next((tmp_path / "rows").glob("test*")), answers)
    if task == "question-answering":  # two texts are one input
        given = ["was the film good", "the film was great"]
        assert [answer["text"] for answer in result._predictor.predict_arguments(given * 2)] == given[:1] * 2
        for ask in (result._predictor.predict_arguments, result.predict):
            with pytest.raises(DataError, match="reads pairs of 'question' and 'context'"):
                ask(given[:1])
    assert task != "text-regression" or all(450 < answer["label"] < 650 for answer in answers)
    if CASES[task].pipeline:
        from transformers import pipeline

        served = pipeline(kind.pipeline_tag, model=str(result.model_dir), device="cpu")
        files = sorted(path for path in (tmp_path / "rows").rglob("*") if path.suffix in (".png", ".wav"))
        if kind.pipeline_tag in ("audio-classification", "automatic-speech-recognition"):  # without ffmpeg
            clip = {"raw": read_audio(as_item(files[0]), served.feature_extractor.sampling_rate)}
            assert served({**clip, "sampling_rate": served.feature_extractor.sampling_rate})
        else:
            assert served(str(files[0]) if files else "the film was good")
