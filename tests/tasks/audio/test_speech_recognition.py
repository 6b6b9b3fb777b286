"""Speech recognition: transcripts, the CTC loss, and error rates."""

import json
from pathlib import Path
from typing import Any

import jiwer
import numpy as np
import pytest
import soundfile
import torch
from datasets import Dataset

from hpo.config.study import DataConfig
from hpo.errors import DataError
from hpo.tasks.audio.speech_recognition import greedy
from hpo.tasks.registry import get_task, infer_task
from tests.contracts.task_data import write_rows
from tests.small_models import RATE
from tests.tasks.audio.clips import processor_of, tone

TASK, SPEECH = get_task("audio-classification"), get_task("speech-recognition")


def write_speech(folder: Path, transcripts: list[str]) -> Path:
    lines = []
    for row, text in enumerate(transcripts):
        soundfile.write(folder / f"{row}.wav", tone(100 + 10 * row, 0.3, RATE), RATE)
        lines.append(json.dumps({"path": f"{row}.wav", "sentence": text}))
    (folder / "train.jsonl").write_text("\n".join(lines))
    return folder / "train.jsonl"


def test_transcripts_are_recognized_and_empty_ones_raise(tmp_path: Path) -> None:
    from hpo.data.sources import load_splits

    config = DataConfig(path=str(write_speech(tmp_path, ["One two", "three!", "two", "one", "four", "five"])))
    assert infer_task(load_splits(config).train, config) is SPEECH
    data = SPEECH.prepare(config, 0)
    assert data.columns == {"audio": "path", "label": "sentence"}
    assert any("2 transcripts of train.jsonl in lower case, without punctuation" in note for note in data.notes)
    with pytest.raises(DataError, match=r"1 transcript without a word \(row 2"):
        SPEECH.prepare(DataConfig(path=str(write_speech(tmp_path, ["one", "...", "two"]))), 0)


def test_class_folders_can_be_read_as_transcripts(folder: Path) -> None:
    data = SPEECH.prepare(DataConfig(path=str(folder)), 0)
    assert set(data.train["label"]) == {"high", "low"}


def test_vocabulary_comes_from_training_and_unknown_letters_are_noted(tmp_path: Path) -> None:
    data = SPEECH.prepare(DataConfig(path=str(write_speech(tmp_path, ["ab", "b a", "a", "bb", "a b", "ba"]))), 0)
    processor = SPEECH.adapt_processor(processor_of(tmp_path), data)
    assert SPEECH.head_config(data)["vocab_size"] == len(processor.tokenizer) == 5
    encoded = SPEECH.encode(data.train, processor, RATE)
    spelled = ["".join(processor.tokenizer.convert_ids_to_tokens(ids)) for ids in encoded["labels"]]
    assert [text.replace("|", " ") for text in spelled] == data.train["label"]
    strange = Dataset.from_dict({"label": ["abc"]})
    notes = SPEECH.check_splits({"train": data.train, "validation": strange}, (), {})
    assert notes == ["letters of validation that no training transcript contains, and cannot be learned: c"]


def test_ctc_loss_equals_transformers_and_ignores_padding(tmp_path: Path) -> None:
    from tests.contracts.test_tasks import make_plan

    data = SPEECH.prepare(DataConfig(path=str(write_rows("speech-recognition", tmp_path / "rows", 12, 6))), 0)
    plan = make_plan("speech-recognition", "wav2vec2", data, tmp_path)
    model: Any = plan.candidate.build(0, 0.0).eval()
    model.config.ctc_loss_reduction = "sum"
    batch = plan.train.collate(np.arange(6))
    labels = batch.pop("labels")
    with torch.no_grad():
        ours = SPEECH.loss(SPEECH.logits(model, batch), labels, 0.0)
        assert ours.item() == pytest.approx(model(**batch, labels=labels).loss.item(), rel=1e-5)
        padded = {name: torch.nn.functional.pad(tensor, (0, 500)) for name, tensor in batch.items()}
        longer = SPEECH.logits(model, padded)
        assert SPEECH.loss(longer, labels, 0.0).item() == pytest.approx(ours.item(), rel=1e-5)
        texts = [greedy(logits)[0].tolist() for logits in SPEECH.logits(model, batch).split(1)]
    assert texts == [letters.tolist() for letters in greedy(longer)]


def test_greedy_decoding_and_error_rates() -> None:
    letters = torch.tensor([[3, 3, 0, 3, 4, 4, 2, 0, 4], [0, 0, 0, 0, 0, 0, 0, 0, 0]])
    found = greedy(torch.nn.functional.one_hot(letters, 5).float())
    assert [ids.tolist() for ids in found] == [[3, 3, 4, 2, 4], []]
    predictions = np.array(["one two", "", "three four five"], dtype=object)
    references = np.array(["one too", "zero", "three five"], dtype=object)
    scores = SPEECH.scorer("wer")(predictions, references)
    assert scores == {
        "wer": jiwer.wer(list(references), list(predictions)),
        "cer": jiwer.cer(list(references), list(predictions)),
    }
    assert scores["wer"] == pytest.approx(3 / 5)
    assert SPEECH.scorer("cer").direction == "minimize"
