"""Candidates: loaded once, copied with the head that `from_pretrained` would initialize, and errors of loading."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, set_seed

from hpo.config.model_ref import ModelRef
from hpo.errors import ModelError
from hpo.training.models.candidate import Candidate, load_candidate, resolve_max_length, save_model
from tests.small_models import ARCHITECTURES
from tests.small_models import save_model as save_small
from tests.training.conftest import CLASSES

QUICK = ("bert", "gpt2")  # a pooled head; one without bias that needs a padding token
MATRIX = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in ARCHITECTURES]
TEXTS = {"input_ids": torch.tensor([[2, 6, 7, 8, 3]]), "attention_mask": torch.ones(1, 5, dtype=torch.long)}


def load(folder: Path, **settings: Any) -> Candidate:
    ref = ModelRef(name=str(folder), label="small", **settings)
    return load_candidate(ref, "AutoModelForSequenceClassification", CLASSES)


@pytest.mark.parametrize("name", MATRIX)
def test_head_is_initialized_as_by_from_pretrained(name: str, candidate: Callable[..., Candidate]) -> None:
    found = candidate(name)
    set_seed(11)
    expected = AutoModelForSequenceClassification.from_pretrained(found.ref.name, **CLASSES).state_dict()
    model = found.build(11)
    other = found.build(12).state_dict()
    assert found.new_weights
    for key, tensor in model.state_dict().items():
        assert torch.equal(tensor, expected[key]), key
    changed = {key for key, tensor in other.items() if not torch.equal(tensor, expected[key])}
    assert changed
    assert changed <= found.new_weights
    assert model(**TEXTS.copy()).logits.shape == (1, 2)


@pytest.mark.parametrize("name", MATRIX)
def test_dropout_is_set_everywhere(name: str, candidate: Callable[..., Candidate]) -> None:
    model = candidate(name).build(0, dropout=0.0).train()
    assert torch.equal(model(**TEXTS).logits, model(**TEXTS).logits)
    attention = [
        module for path, module in model.named_modules() if path.endswith(("attention.self", "attn", "attention"))
    ]
    model = candidate(name).build(0, dropout=0.5).train()
    assert not torch.equal(model(**TEXTS).logits, model(**TEXTS).logits)
    assert all(module.p == 0.5 for module in model.modules() if isinstance(module, torch.nn.Dropout))
    assert not [m for m in attention if getattr(m, "dropout_prob", 0.5) not in (0.0, 0.5)]


def test_functional_attention_dropout_acts(candidate: Callable[..., Candidate]) -> None:
    model = candidate("llama").build(0, dropout=0.5).train()  # has no Dropout module
    assert not any(isinstance(module, torch.nn.Dropout) for module in model.modules())
    assert not torch.equal(model(**TEXTS).logits, model(**TEXTS).logits)


def test_candidate_is_not_changed_by_training_a_copy(candidate: Callable[..., Candidate]) -> None:
    found = candidate()
    before = {key: tensor.clone() for key, tensor in found.model.state_dict().items()}
    model = found.build(0, dropout=0.3).train()
    model(**TEXTS, labels=torch.tensor([1])).loss.backward()
    torch.optim.SGD(model.parameters(), lr=1.0).step()
    assert not torch.equal(
        model.bert.encoder.layer[0].output.dense.weight, found.model.bert.encoder.layer[0].output.dense.weight
    )
    assert all(torch.equal(before[key], tensor) for key, tensor in found.model.state_dict().items())
    assert found.model.config.hidden_dropout_prob == 0.1
    assert all(parameter.grad is None for parameter in found.model.parameters())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_weights_are_loaded_as_float32(dtype: torch.dtype, tmp_path: Path) -> None:
    folder = save_small(tmp_path, "bert")
    AutoModelForSequenceClassification.from_pretrained(folder).to(dtype).save_pretrained(folder)
    found = load(folder)
    assert {parameter.dtype for parameter in found.model.parameters()} == {torch.float32}
    save_model(found.build(0), tmp_path / "final")
    assert json.loads((tmp_path / "final/config.json").read_text())["dtype"] == "float32"


def test_head_for_other_classes_is_initialized(tmp_path: Path) -> None:
    folder = save_small(tmp_path, "bert")
    AutoModelForSequenceClassification.from_pretrained(folder, num_labels=7).save_pretrained(folder)
    found = load(folder)
    assert found.new_weights == {"classifier.weight", "classifier.bias"}
    assert not torch.equal(found.build(1).classifier.weight, found.build(2).classifier.weight)


def test_pickled_weights_are_loaded_only_where_allowed(tmp_path: Path) -> None:
    folder = save_small(tmp_path / "gated" / "401", "bert")  # words of the hub's errors, here in a path
    weights = AutoModelForSequenceClassification.from_pretrained(folder).state_dict()
    torch.save(weights, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"pickled .*allow_pickle: true"):
        load(folder)
    assert load(folder, allow_pickle=True).stack.count == 2


class Gate(BaseHTTPRequestHandler):
    """Responds as the hub does for a gated model without access."""

    def do_GET(self) -> None:
        self.send_response(403)
        self.send_header("X-Error-Code", "GatedRepo")
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_GET

    def log_message(self, *_: Any) -> None:
        pass


@pytest.mark.slow  # the hub's address is read at import, which needs a new process
def test_gated_model_raises_model_error(tmp_path: Path) -> None:
    script = """
        from hpo.config.study import ModelRef
        from hpo.training.models.candidate import load_candidate
        load_candidate(ModelRef(name="owner/model", label="model"), "AutoModelForSequenceClassification", {})
    """
    with ThreadingHTTPServer(("127.0.0.1", 0), Gate) as hub:
        threading.Thread(target=hub.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{hub.server_port}"
        environment = {**os.environ, "HF_HUB_OFFLINE": "0", "HF_ENDPOINT": address, "HF_HOME": str(tmp_path)}
        command = [sys.executable, "-c", dedent(script)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        hub.shutdown()
    assert "ModelError: model: this model is gated. Ask for access on its page" in done.stderr, done.stderr


def test_model_that_cannot_be_loaded_raises_model_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = save_small(tmp_path / "small-bert", "bert")
    with pytest.raises(ModelError, match=r"unreachable \(offline\). Nearest here: small-bert"):
        load(Path("smal-bert"))
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(ModelError, match=r"weights cannot be read: .* damaged"):
        load(folder)
    (folder / "model.safetensors").write_bytes(weights)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    with pytest.raises(ModelError, match=r"no tokenizer that can be loaded. Name one in the study file"):
        load(folder)
    (folder / "config.json").unlink()
    with pytest.raises(ModelError, match=r"holds no config.json; is it a Hugging Face model folder\?"):
        load(folder)


def test_architecture_without_the_head_raises_model_error(tmp_path: Path) -> None:
    folder = save_small(tmp_path, "bert")
    ref = ModelRef(name=str(folder), label="small")
    with pytest.raises(ModelError, match=r"no head for this task .AutoModelForImageClassification is needed"):
        load_candidate(ref, "AutoModelForImageClassification", CLASSES)


def test_max_length_is_at_most_the_positions(candidate: Callable[..., Candidate]) -> None:
    found = candidate("roberta")  # 66 positions, 2 of them for padding
    assert resolve_max_length(found, None) == resolve_max_length(found, 64) == 64
    with pytest.raises(
        ModelError, match=r"max_length: 65 is more than the 64 positions of roberta. Set max_length to 64"
    ):
        resolve_max_length(found, 65)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("bert", ["dropout"]),
        ("roberta", ["classifier.dropout"]),
        ("deberta-v2", ["pooler.dropout", "dropout"]),
        ("bart", ["classification_head.dropout"]),
        ("gpt2", []),
    ],
)
def test_head_dropout_is_set_in_the_head_only(
    name: str, expected: list[str], candidate: Callable[..., Candidate]
) -> None:
    model = candidate(name).build(0, dropout=0.25, head_dropout=0.5)
    found = {name: module.p for name, module in model.named_modules() if isinstance(module, torch.nn.Dropout)}
    assert [name for name, p in found.items() if p == 0.5] == expected
    assert {p for name, p in found.items() if name not in expected} <= {0.25}


def test_missing_folder_is_named_in_full_with_those_beside_it(tmp_path: Path) -> None:
    (tmp_path / "bert-base").mkdir()
    with pytest.raises(ModelError, match=rf"the folder {tmp_path}/bert-bose does not exist. Beside it: bert-base"):
        load_candidate(ModelRef(name=str(tmp_path / "bert-bose"), label="m"), "AutoModelForSequenceClassification", {})
