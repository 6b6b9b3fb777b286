"""Causal language modeling: recognized columns, the tokens that are learned, and exact likelihoods."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset

from hpo.config.model_ref import ModelRef
from hpo.config.study import DataConfig
from hpo.errors import DataError
from hpo.tasks.generation.causal_lm import CausalLM
from hpo.tasks.generation.chat import PLAIN_TEMPLATE
from hpo.tasks.registry import infer_task
from hpo.training.batches.features import Features
from hpo.training.evaluate import evaluate
from hpo.training.execution import Execution
from hpo.training.models.candidate import Candidate, load_candidate
from tests.small_models import save_model

TASK = CausalLM()


PAIRS = Dataset.from_dict({"text": ["good film", "the film was"], "label": ["bad a film", "poor"]})


CHAT = [
    {"role": "user", "content": "good"},
    {"role": "assistant", "content": "bad film"},
    {"role": "user", "content": "the film"},
    {"role": "assistant", "content": "poor"},
]


@pytest.fixture(scope="module")
def candidate(tmp_path_factory: pytest.TempPathFactory) -> Candidate:
    folder = save_model(tmp_path_factory.mktemp("gpt2"), "gpt2")
    return load_candidate(ref=ModelRef(name=str(folder), label="g"), auto_class=TASK.auto_class, head={})


def shown(tokenizer: Any, tokens: list[int], labels: list[int]) -> tuple[str, str]:
    """The text of an input, and of the tokens learned of it."""
    return tokenizer.decode(tokens), tokenizer.decode([label for label in labels if label >= 0])


def test_only_the_completion_is_learned(candidate: Candidate) -> None:
    encoded = TASK.encode(PAIRS, candidate.processor, 16)
    found = [shown(candidate.processor, *row) for row in zip(encoded["input_ids"], encoded["labels"], strict=True)]
    assert found == [
        ("[CLS] good film bad a film [SEP]", "bad a film [SEP]"),
        ("[CLS] the film was poor [SEP]", "poor [SEP]"),
    ]
    # A label is at the token before the one it predicts.
    index = encoded["labels"][1].index(encoded["input_ids"][1][4])
    assert index == 3


def test_metrics_equal_the_loss_of_transformers(candidate: Candidate) -> None:
    encoded = TASK.encode(PAIRS, candidate.processor, 16)
    features = Features.from_dataset(encoded, candidate.processor.pad_token_id, rows=PAIRS)
    found = evaluate(candidate.build(0), features, TASK, TASK.scorer("perplexity"), Execution())
    nats, tokens = 0.0, 0
    for ids, prompt in zip(encoded["input_ids"], (3, 4), strict=True):
        labels = torch.tensor([ids])
        labels[:, :prompt] = -100
        with torch.no_grad():
            loss = candidate.model(input_ids=torch.tensor([ids]), labels=labels).loss
        nats, tokens = nats + float(loss) * (len(ids) - prompt), tokens + len(ids) - prompt
    assert tokens == 6
    size = len("bad a film") + len("poor")
    assert found.metrics == pytest.approx(
        {"loss": nats / tokens, "perplexity": np.exp(nats / tokens), "bits_per_byte": nats / np.log(2) / size}, rel=1e-4
    )


def test_long_text_continues_in_the_next_input_and_each_token_is_predicted_once(candidate: Candidate) -> None:
    words = "the film was very good not bad a fine film poor great awful"
    rows = Dataset.from_dict({"text": ["good film", words]})
    encoded = TASK.encode(rows, candidate.processor, 6)
    assert encoded["_example"][:] == [0, 1, 1, 1]
    learned = [shown(candidate.processor, *row)[1] for row in zip(encoded["input_ids"], encoded["labels"], strict=True)]
    assert learned[0] == "good film [SEP]"
    assert " ".join(learned[1:]) == f"{words} [SEP]"
    assert sum(encoded["_bytes"]) == pytest.approx(len("good film") + len(words))
    features = Features.from_dataset(encoded, candidate.processor.pad_token_id, rows=rows)
    found = evaluate(candidate.build(0), features, TASK, TASK.scorer("loss"), Execution())
    assert found.references.tolist() == [[3, 9], [14, len(words)]]


def test_prompt_is_truncated_for_its_completion(candidate: Candidate) -> None:
    rows = Dataset.from_dict(
        {"text": ["the film " * 10, "the film " * 10], "label": ["very good", "very good bad poor " * 4]}
    )
    encoded = TASK.encode(rows, candidate.processor, 8)
    found = [shown(candidate.processor, *row) for row in zip(encoded["input_ids"], encoded["labels"], strict=True)]
    assert found[0] == ("film the film the film very good [SEP]", "very good [SEP]")
    assert found[1] == ("the film very good bad poor very good", "very good bad poor very good")
    assert encoded["_bytes"][1] == pytest.approx(len(rows["label"][1].strip()) * 6 / 17)


def write(path: Path, rows: list[dict[str, Any]]) -> DataConfig:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return DataConfig(path=str(path))


@pytest.mark.parametrize(
    ("row", "columns"),
    [
        ({"prompt": "p {}", "completion": "c"}, {"text": "prompt", "label": "completion"}),
        (
            {"instruction": "i {}", "input": "", "output": "o"},
            {"text": "instruction", "text_pair": "input", "label": "output"},
        ),
        (
            {"messages": [{"role": "user", "content": "u {}"}, {"role": "assistant", "content": "a"}]},
            {"messages": "messages"},
        ),
        (
            {"conversations": [{"from": "human", "value": "u {}"}, {"from": "gpt", "value": "a"}]},
            {"messages": "conversations"},
        ),
        ({"text": "t {}"}, {"text": "text"}),
    ],
)
def test_columns_are_recognized(row: dict[str, Any], columns: dict[str, str], tmp_path: Path) -> None:
    from hpo.data.sources import load_splits

    rows = [json.loads(json.dumps(row).replace("{}", str(index))) for index in range(12)]
    config = write(tmp_path / "rows.jsonl", rows)
    assert infer_task(load_splits(config).train, config).name == "causal-lm"
    data = TASK.prepare(config, 0)
    assert data.columns == columns and sum(data.sizes.values()) == 12
    if "messages" in columns:
        assert [message["role"] for message in data.train["messages"][0]] == ["user", "assistant"]
    inputs = TASK.read_inputs(tmp_path / "rows.jsonl", columns)
    assert len(inputs) == 12 and (
        inputs[0] in ("p 0", "i 0", "t 0") or inputs[0] == [{"role": "user", "content": "u 0"}]
    )


def test_invalid_rows_raise(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"rows.jsonl, row 1: the conversation has no message of the role 'assistant'"):
        TASK.prepare(write(tmp_path / "rows.jsonl", [{"messages": CHAT[:1]}]), 0)
    with pytest.raises(DataError, match=r"rows.jsonl, row 1: a message needs a `role` and a `content`"):
        TASK.prepare(write(tmp_path / "rows.jsonl", [{"messages": [{"speaker": "x", "content": "y"}]}]), 0)
    with pytest.raises(DataError, match=r"1 of 2 rows with an empty text \(row 2 below"):
        TASK.prepare(
            write(tmp_path / "rows.jsonl", [{"prompt": "a", "completion": "b"}, {"prompt": "a", "completion": " "}]), 0
        )
    with pytest.raises(DataError, match="which column holds the prompt"):
        TASK.prepare(write(tmp_path / "rows.jsonl", [{"a": "x", "b": "y"}]), 0)


def test_user_metric_receives_likelihoods(tmp_path: Path) -> None:
    file = tmp_path / "worst.py"
    file.write_text(
        "import datasets\nimport evaluate\n\ndirection = 'minimize'\n\n\nclass Worst(evaluate.Metric):\n"
        "    def _info(self):\n        return evaluate.MetricInfo(description='', citation='', inputs_description='',\n"
        "            features=datasets.Features({'predictions': datasets.Value('float64'),\n"
        "                                        'references': datasets.Sequence(datasets.Value('float64'))}))\n\n"
        "    def _compute(self, predictions, references):\n"
        "        return {'worst': max(nats / tokens for nats, (tokens, _) in zip(predictions, references))}\n"
    )
    scorer = TASK.scorer(str(file))
    found = scorer(np.array([2.0, 9.0]), np.array([[4, 10], [3, 12]]))
    assert found["worst"] == 3.0 and found["perplexity"] == pytest.approx(np.exp(11 / 7))


def test_chat_model_is_prompted_as_in_training(candidate: Candidate) -> None:
    """A plain text is the message of a user, and the template is saved with the tokenizer."""
    from hpo.tasks.task_data import TaskData

    rows = Dataset.from_dict({"text": ["user: good"], "messages": [CHAT]})
    data = TaskData(rows, rows, None, (), {"messages": "messages"}, (), "")
    tokenizer, model = candidate.processor, candidate.build(0)
    try:
        assert TASK.adapt_processor(tokenizer, data).chat_template == PLAIN_TEMPLATE
        encoded = TASK.encode(rows, tokenizer, 32)
        features = Features.from_dataset(encoded, tokenizer.pad_token_id, rows=rows)
        from dataclasses import replace

        TASK.configure_model(model, replace(features, processor=tokenizer))
        TASK.finalize_model(model, data)
        plain, chat = TASK.predict(model, tokenizer, ["good", [CHAT[0]]], 32)
    finally:
        tokenizer.chat_template = None
    assert plain["label"] == chat["label"] and plain["text"] == chat["text"] == "good"
