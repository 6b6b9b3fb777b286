"""Processors: padding tokens, a processor of another model, and missing files."""

from pathlib import Path

import pytest

from hpo.config.model_ref import ModelRef
from hpo.errors import ModelError
from hpo.training.models.processor import load_processor, load_tokenizer
from tests.small_models import save_model, save_tokenizer


def test_tokenizer_without_padding_token_pads_with_the_unknown_token(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    save_tokenizer(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    tokenizer.pad_token = None
    tokenizer.save_pretrained(tmp_path)
    loaded = load_tokenizer(ModelRef(name=str(tmp_path), label="m", source_prefix="summarize: "))
    assert loaded.pad_token == "[UNK]"
    assert loaded.init_kwargs["source_prefix"] == "summarize: "


def test_processor_of_another_folder(tmp_path: Path) -> None:
    save_model(tmp_path / "vit", "vit")
    save_tokenizer(tmp_path / "tokenizer")
    ref = ModelRef(name=str(tmp_path / "vit"), label="m", processor=str(tmp_path / "tokenizer"))
    assert load_processor(ref, "AutoTokenizer").model_max_length == 64


def test_missing_processor_raises_model_error(tmp_path: Path) -> None:
    ref = ModelRef(name=str(save_model(tmp_path, "bert")), label="m")
    with pytest.raises(ModelError, match=r"no image processor .*processor: HUB_ID_OR_FOLDER"):
        load_processor(ref, "AutoImageProcessor")
