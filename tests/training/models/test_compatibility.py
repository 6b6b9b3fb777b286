"""A model, its checkpoint and its tokenizer that do not belong together: aligned, or a clear error."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer, PreTrainedTokenizerFast

from hpo.config.model_ref import ModelRef
from hpo.errors import ModelError
from hpo.training.models.candidate import Candidate, load_candidate, resolve_max_length
from hpo.training.models.compatibility import check_finite
from tests.small_models import WORDS, save_model
from tests.training.conftest import CLASSES


def load(folder: Path, **settings: Any) -> Candidate:
    ref = ModelRef(name=str(folder), label="small", **settings)
    return load_candidate(ref, "AutoModelForSequenceClassification", CLASSES)


def change_config(folder: Path, **values: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def change_weights(folder: Path, change: Any) -> None:
    file = folder / "model.safetensors"
    save_file({k: v for k, v in map(change, *zip(*load_file(file).items(), strict=True)) if k}, file, {"format": "pt"})


def change_tokenizer(folder: Path, **special: str) -> PreTrainedTokenizerFast:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens(special)
    tokenizer.save_pretrained(folder)
    return tokenizer


def test_body_that_the_checkpoint_lacks_raises(tmp_path: Path) -> None:
    folder = save_model(tmp_path, "bert")
    change_config(folder, num_hidden_layers=3)
    with pytest.raises(ModelError, match=r"small: 16 tensors of the 55 of its body would be random.*encoder.layer.2"):
        load(folder)
    change_config(folder, num_hidden_layers=2, hidden_size=24)
    with pytest.raises(ModelError, match=r"of its body would be random: .*another shape"):
        load(folder)
    change_config(folder, hidden_size=16)
    assert not any(name.startswith("bert.") for name in load(folder).new_weights)
    change_weights(folder, lambda name, tensor: (f"other.{name}", tensor))
    with pytest.raises(ModelError, match="37 tensors of the 39"):
        load(folder)


def test_pooler_that_the_checkpoint_lacks_is_a_part_of_the_head(tmp_path: Path) -> None:
    folder = save_model(tmp_path, "bert")
    change_weights(folder, lambda name, tensor: ("" if "pooler" in name else name, tensor))
    assert {name for name in load(folder).new_weights if "pooler" in name}


def test_config_of_wrong_types_and_torn_pickles_raise_model_error(tmp_path: Path) -> None:
    folder = save_model(tmp_path, "bert")
    change_config(folder, hidden_size="big")
    with pytest.raises(ModelError, match=r"small: cannot be loaded from .*hidden_size"):
        load(folder)
    change_config(folder, hidden_size=16)
    (folder / "model.safetensors").unlink()
    for torn in (b"\x80\x02nonsense", b"PK\x03\x04" + b"0" * 90, b""):
        (folder / "pytorch_model.bin").write_bytes(torn)
        with pytest.raises(ModelError, match=r"small: its pickled weights in .* cannot be read"):
            load(folder, allow_pickle=True)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_raise_model_error(value: float, tmp_path: Path) -> None:
    found = load(save_model(tmp_path, "bert"))
    check_finite(found.ref, found.model)
    with torch.no_grad():
        found.model.bert.encoder.layer[1].output.dense.weight[3, 3] = value
    with pytest.raises(ModelError, match=re.escape("in bert.encoder.layer.1.output.dense.weight")):
        check_finite(found.ref, found.model)


def test_padding_token_without_an_embedding_is_replaced(tmp_path: Path) -> None:
    folder = save_model(tmp_path, "gpt2")
    assert change_tokenizer(folder, pad_token="<new pad>").pad_token_id == len(WORDS)
    found = load(folder)
    assert found.processor.pad_token_id == found.model.config.pad_token_id == 1  # the unknown token
    batch = found.processor(["good film", "bad"], padding=True, return_tensors="pt")
    assert found.model(**batch).logits.shape == (2, 2)


def test_tokens_without_an_embedding_raise_model_error(tmp_path: Path) -> None:
    folder = save_model(tmp_path, "bert")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["superb", "dull"])
    tokenizer.save_pretrained(folder)
    with pytest.raises(ModelError, match=r"2 tokens beyond the 17 rows of the model's embedding \('superb', 'dull'\)"):
        load(folder)


@pytest.mark.parametrize("architecture", ["roberta", "distilbert"])
def test_token_types_are_left_out_where_a_model_has_one_or_none(architecture: str, tmp_path: Path) -> None:
    folder = save_model(tmp_path, architecture, **({"type_vocab_size": 1} if architecture == "roberta" else {}))
    file = folder / "tokenizer_config.json"
    names = ["input_ids", "token_type_ids", "attention_mask"]
    file.write_text(json.dumps({**json.loads(file.read_text()), "model_input_names": names}))
    found = load(folder)
    assert 1 in AutoTokenizer.from_pretrained(folder)("good", "bad")["token_type_ids"]
    batch = found.processor("good", "bad", return_tensors="pt")
    assert "token_type_ids" not in batch and found.model(**batch).logits.shape == (1, 2)
    found.processor.save_pretrained(tmp_path / "final")
    assert "token_type_ids" not in AutoTokenizer.from_pretrained(tmp_path / "final")("good", "bad")


@pytest.mark.parametrize("architecture", ["bart", "t5"])
def test_end_of_text_token_in_a_text_is_plain_text_where_the_head_reads_it(architecture: str, tmp_path: Path) -> None:
    found = load(save_model(tmp_path, architecture))
    batch = found.processor(["good [SEP] film", "bad"], padding=True, return_tensors="pt")
    assert (batch["input_ids"] == found.model.config.eos_token_id).sum(1).tolist() == [1, 1]
    assert found.model(**batch).logits.shape == (2, 2)
    assert load(save_model(tmp_path / "bert", "bert")).processor("a [SEP] film")["input_ids"].count(3) == 2


def test_config_without_a_padding_token_gets_the_tokenizers(tmp_path: Path) -> None:
    text = {
        "vocab_size": len(WORDS),
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "head_dim": 8,
    }
    text |= {"num_key_value_heads": 1, "intermediate_size": 16, "pad_token_id": None}
    vision = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    vision |= {"image_size": 28, "patch_size": 14}
    config = AutoConfig.for_model("gemma3", text_config=text, vision_config=vision, mm_tokens_per_image=4)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(tmp_path)
    save_model(tmp_path / "bert", "bert")
    found = load(tmp_path, processor=str(tmp_path / "bert"))
    assert found.model.config.get_text_config().pad_token_id == found.processor.pad_token_id == 0


def test_xlnet_has_no_limit_of_positions_and_no_head_that_reads_padding(tmp_path: Path) -> None:
    settings = {"vocab_size": len(WORDS), "d_model": 16, "n_layer": 2, "n_head": 2, "d_inner": 32}
    AutoModelForSequenceClassification.from_config(AutoConfig.for_model("xlnet", **settings)).save_pretrained(tmp_path)
    save_model(tmp_path / "bert", "bert")
    ref = ModelRef(name=str(tmp_path), label="small", processor=str(tmp_path / "bert"))
    tags = load_candidate(ref, "AutoModelForTokenClassification", CLASSES)
    assert resolve_max_length(tags, None) == 64  # the tokenizer's; the config says -1
    with pytest.raises(ModelError, match="classifies from the last position of a batch"):
        load(tmp_path, processor=ref.processor)
