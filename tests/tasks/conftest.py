"""Fixtures that write and prepare small data files, and a small model that reads them."""

import json
from pathlib import Path
from typing import Any

import pytest

from hpo.config.study import DataConfig
from hpo.tasks.registry import get_task
from hpo.tasks.task_data import TaskData
from tests.tasks.small_data import Prepare, Read


@pytest.fixture
def prepare(tmp_path: Path) -> Prepare:
    """Write files (name → content) and prepare text classification on their folder, or on `path` in it."""

    def write_and_prepare(files: dict[str, str | bytes], path: str = "", seed: int = 0, **config: Any) -> TaskData:
        for name, content in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        task = get_task("text-classification")
        return task.prepare(DataConfig(path=str(tmp_path / path), **config), seed)

    return write_and_prepare


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Prepare `task` on rows (lists of objects, or a text) in a file of their own."""

    def prepare(task: str, rows: list[dict[str, Any]] | str, name: str = "d.jsonl", **config: Any) -> TaskData:
        text = rows if isinstance(rows, str) else "\n".join(map(json.dumps, rows))
        (tmp_path / name).write_text(text)
        return get_task(task).prepare(DataConfig(path=str(tmp_path / name), **config), 0)

    return prepare


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    """A BERT word tokenizer of sixteen words."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"]]
    made = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        **{f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep")},
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )


@pytest.fixture(scope="session")
def model() -> Any:
    """A BERT of two layers of 16, three classes, without dropout in the way."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(1)
    config = BertConfig(
        vocab_size=16,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
        id2label={0: "red", 1: "green", 2: "blue"},
        initializer_range=1.0,
    )
    return BertForSequenceClassification(config).eval()
