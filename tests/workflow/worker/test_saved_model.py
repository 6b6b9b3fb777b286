"""A saved model predicts rows as they were evaluated: in a batch, alone, and by transformers alone."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import hpo
import hpo.tasks.inference
from hpo.core.paths import named_folder
from hpo.errors import ModelError
from hpo.storage.records.final_model import FinalModel
from hpo.workflow.worker.saved_model import Sample, same_answer
from tests.small_models import save_model


def settings(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def zero_weights(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    save_file({name: 0 * tensor for name, tensor in weights.items()}, folder / "model.safetensors", {"format": "pt"})


DAMAGES: dict[str, Callable[[Path], None]] = {
    "loaded from the folder": zero_weights,
    "alone, not in a batch|loaded from the folder": lambda folder: settings(folder / "config.json", pad_token_id=5),
    "padded by its tokenizer": lambda folder: settings(folder / "tokenizer_config.json", pad_token="film"),
}


def test_decoder_that_pads_on_the_left(study: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its scores hold for `predict` and pipelines, in a batch and alone; a folder that is damaged is an error."""
    from transformers import pipeline

    save_model(tmp_path / "decoder", "gpt2", pad_token_id=5)  # a word of its tokenizer
    settings(tmp_path / "decoder" / "tokenizer_config.json", padding_side="left")
    study |= {"models": [str(tmp_path / "decoder")], "search_space": {"learning_rate": 1e-2, "epochs": 2}}
    study |= {"first_trials": [], "budget": {"max_trials": 1}, "confirm": {"top": 1, "seeds": 1}}
    check, messages = Sample.check, []

    def damaged(self: Sample, folder: Path) -> None:
        check(self, folder)
        with monkeypatch.context() as patch:
            patch.setattr(FinalModel, "check_files", lambda self: None)
            for expected, damage in DAMAGES.items():
                other = shutil.copytree(folder, tmp_path / "damaged", dirs_exist_ok=True)
                damage(other)
                with pytest.raises(ModelError, match=expected):
                    check(self, other)
            pad = hpo.tasks.inference.pad_batch
            patch.setattr(hpo.tasks.inference, "pad_batch", lambda columns, pads: pad(columns, pads, "left"))
            with pytest.raises(ModelError, match=r"`predict` answers .* rows otherwise in a batch than alone"):
                check(self, folder)
        messages.append("checked")

    monkeypatch.setattr(Sample, "check", damaged)
    result = hpo.run(study)
    assert messages == ["checked"]
    rows = [line.rsplit(",", 1) for line in (Path(study["data"]) / "test.csv").read_text().splitlines()[1:]]
    texts = [text for text, _ in rows]
    served = pipeline("text-classification", model=str(result.model_dir), device="cpu")
    expected = [answer["label"] for answer in result.predict(texts)]
    assert result.metrics["accuracy"] == pytest.approx(
        sum(found == label for found, (_, label) in zip(expected, rows, strict=True)) / len(rows)
    )
    assert [result.predict(text)[0]["label"] for text in texts] == expected
    assert [answer["label"] for answer in served(texts, batch_size=8)] == expected
    assert [answer["label"] for answer in served(texts)] == expected


def test_model_that_differs_is_not_kept(study: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    from hpo.workflow.worker import final_model

    save = final_model.save_model

    def save_wrongly(model: Any, folder: Path) -> None:
        save(model, folder)
        zero_weights(folder)

    monkeypatch.setattr(final_model, "save_model", save_wrongly)
    study |= {"models": study["models"][:1], "budget": {"max_trials": 1}, "confirm": {"top": 1, "seeds": 1}}
    with pytest.raises(hpo.HpoError, match="does not predict rows of test as they were evaluated"):
        hpo.run(study)
    assert not (named_folder("reviews") / "final").exists()


def test_answers_are_compared_up_to_rounding_and_ties() -> None:
    assert same_answer({"label": "a", "score": 0.5}, {"label": "b", "score": 0.50001})
    assert not same_answer({"label": "a", "score": 0.5}, {"label": "a", "score": 0.6})
    assert same_answer({"label": 500.0}, {"label": 500.1}) and not same_answer({"label": 500.0}, {"label": 502.0})
    assert not same_answer({"tags": ["O"], "text": ["a"]}, {"tags": ["B-up"], "text": ["a"]})
