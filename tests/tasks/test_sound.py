"""Sound as people have it: any rate, channels and length; broken files are told; speech is spelled and judged right."""

import json
from pathlib import Path
from typing import Any

import jiwer
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
import torch
from datasets import Dataset

from hpo.config.model_ref import ModelRef
from hpo.config.study import DataConfig
from hpo.data.labels.transcripts import normalize_transcript, vocabulary
from hpo.data.media.audio import read_audio
from hpo.data.media.files import as_item, item_array
from hpo.errors import DataError
from hpo.tasks.audio.speech_recognition import greedy
from hpo.tasks.augmentation.audio import AUGMENTATIONS, augment_audio
from hpo.tasks.registry import get_task, infer_task
from hpo.training.batches.encoding_cache import EncodingCache
from hpo.training.models.processor import load_processor
from tests.contracts.task_data import write_rows
from tests.small_models import RATE, save_feature_extractor

TASK, SPEECH = get_task("audio-classification"), get_task("speech-recognition")


def tone(pitch: float, seconds: float, rate: int) -> Any:
    return 0.5 * np.sin(2 * np.pi * pitch * np.arange(round(seconds * rate)) / rate)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_rows("audio-classification", tmp_path / "rows", train=20, other=8)


def processor_of(folder: Path, architecture: str = "wav2vec2") -> Any:
    save_feature_extractor(folder / architecture, architecture)
    return load_processor(ModelRef(name=str(folder / architecture)), "AutoFeatureExtractor")


@pytest.mark.parametrize("rate", [8_000, 11_025, 44_100])
def test_any_rate_and_channels_become_one_channel_of_the_models(rate: int, tmp_path: Path) -> None:
    sound = tone(200, 0.5, rate)
    soundfile.write(tmp_path / "a.wav", np.stack([sound, 0 * sound], 1), rate)
    read = read_audio(as_item(tmp_path / "a.wav"), 2_000)
    assert read.dtype == np.float32 and len(read) == 1_000
    inner = slice(100, -100)  # a filter rings at the ends
    np.testing.assert_allclose(read[inner], tone(200, 0.5, 2_000)[inner] / 2, atol=0.01)


def test_what_is_broken_is_told_with_its_path(folder: Path) -> None:
    first, second = sorted((folder / "train").rglob("*.wav"))[:2]
    first.write_bytes(first.read_bytes()[:-200])
    second.write_text("no sound")
    with pytest.raises(DataError, match=rf"2 of 20 audio files cannot be read: .*{first.name}.*{second.name}"):
        TASK.prepare(DataConfig(path=str(folder)), 0)
    soundfile.write(second, np.zeros(0), 8_000)
    first.unlink()
    with pytest.raises(DataError, match=r"it contains no audio"):
        TASK.prepare(DataConfig(path=str(folder)), 0)


def test_clips_are_cut_and_kept_in_16_bits(folder: Path, tmp_path: Path) -> None:
    data, processor = TASK.prepare(DataConfig(path=str(folder)), 0), processor_of(tmp_path)
    store = EncodingCache(tmp_path / "kept", TASK, data)
    features, cut = store.get("train", processor, 30 * RATE), store.get("train", processor, round(0.25 * RATE))
    values, offsets = features.columns["input_values"]
    assert offsets is not None and isinstance(values, np.memmap) and values.dtype == np.float16
    assert np.diff(cut.columns["input_values"][1]).max() == 500 < np.diff(offsets).max()
    rows = np.array([3, 1, 7])
    batch = features.collate(rows)
    sounds = [read_audio(data.train[int(row)]["audio"], RATE) for row in rows]
    own = processor(sounds, sampling_rate=RATE, padding=True, return_tensors="pt")
    torch.testing.assert_close(batch["input_values"], own["input_values"], atol=2e-3, rtol=1e-3)
    assert torch.equal(batch["attention_mask"], own["attention_mask"].long())
    assert features.lengths[rows].tolist() == [round(50 * len(sound) / RATE) for sound in sounds]
    both = features.concatenate(store.get("validation", processor, 30 * RATE))
    assert torch.equal(both.collate(rows)["input_values"], batch["input_values"])


def test_how_long_sounds_are_is_said_and_that_long_ones_are_cut(folder: Path) -> None:
    notes = TASK.prepare(DataConfig(path=str(folder)), 0).notes
    assert any(note.startswith("train/: clips of 0.") and "truncated" not in note for note in notes)
    soundfile.write(folder / "train" / "low" / "long.wav", tone(50, 31, 800), 800)
    again = TASK.prepare(DataConfig(path=str(folder)), 0).notes
    assert any("the longest of 31 s; they are truncated to 30 s" in note for note in again)


def test_there_is_no_mask_where_the_extractor_makes_none(tmp_path: Path) -> None:
    processor = processor_of(tmp_path)
    processor.return_attention_mask = False
    batch = {"input_values": torch.zeros(1, 9), "attention_mask": torch.ones(1, 9)}
    assert list(TASK.prepare_batch(batch, processor)) == ["input_values"]


@pytest.mark.parametrize("architecture", ["wav2vec2", "whisper", "audio-spectrogram-transformer"])
@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_augmentation_changes_the_sound_and_not_the_padding(name: str, architecture: str, tmp_path: Path) -> None:
    key = "input_features" if architecture == "whisper" else "input_values"
    shape = {"whisper": (4, 16, 100), "wav2vec2": (4, 800)}.get(architecture, (4, 64, 16))
    torch.manual_seed(1)
    batch = {key: torch.randn(*shape)}
    if architecture == "wav2vec2":
        batch["attention_mask"] = (torch.arange(800)[None] < torch.tensor([800, 600, 400, 200])[:, None]).long()
        batch[key] *= batch["attention_mask"]
    before = batch[key].clone()
    torch.manual_seed(5)
    changed = augment_audio(batch, [name])[key]
    assert torch.equal(batch[key], before) and changed.shape == before.shape
    assert all((one != other).any() for one, other in zip(changed, before, strict=True))
    if architecture == "wav2vec2":
        assert (changed[batch["attention_mask"] == 0] == 0).all()
    torch.manual_seed(5)
    assert torch.equal(changed, augment_audio(batch, [name])[key])


def test_transcripts_are_spelled_in_letters_that_can_be_heard() -> None:
    assert normalize_transcript(" It’s\tTIME – go, “now”!") == "it's time go now"
    assert vocabulary(["ba c", "a"]) == ["[PAD]", "[UNK]", "|", "a", "b", "c"]


def write_speech(folder: Path, transcripts: list[str]) -> Path:
    lines = []
    for row, text in enumerate(transcripts):
        soundfile.write(folder / f"{row}.wav", tone(100 + 10 * row, 0.3, RATE), RATE)
        lines.append(json.dumps({"path": f"{row}.wav", "sentence": text}))
    (folder / "train.jsonl").write_text("\n".join(lines))
    return folder / "train.jsonl"


def test_a_table_of_transcripts_is_recognised_and_told_where_nothing_is_said(tmp_path: Path) -> None:
    from hpo.data.sources import load_splits

    config = DataConfig(path=str(write_speech(tmp_path, ["One two", "three!", "two", "one", "four", "five"])))
    assert infer_task(load_splits(config).train, config) is SPEECH
    data = SPEECH.prepare(config, 0)
    assert data.columns == {"audio": "path", "label": "sentence"}
    assert any("2 transcripts of train.jsonl in lower case, without punctuation" in note for note in data.notes)
    with pytest.raises(DataError, match=r"1 transcript without a word \(row 2"):
        SPEECH.prepare(DataConfig(path=str(write_speech(tmp_path, ["one", "...", "two"]))), 0)


def test_folders_of_words_can_be_recognised_as_speech_when_asked(folder: Path) -> None:
    data = SPEECH.prepare(DataConfig(path=str(folder)), 0)
    assert set(data.train["label"]) == {"high", "low"}


def test_letters_come_from_the_training_transcripts_and_unknown_ones_are_said(tmp_path: Path) -> None:
    data = SPEECH.prepare(DataConfig(path=str(write_speech(tmp_path, ["ab", "b a", "a", "bb", "a b", "ba"]))), 0)
    processor = SPEECH.adapt_processor(processor_of(tmp_path), data)
    assert SPEECH.head_config(data)["vocab_size"] == len(processor.tokenizer) == 5
    encoded = SPEECH.encode(data.train, processor, RATE)
    spelled = ["".join(processor.tokenizer.convert_ids_to_tokens(ids)) for ids in encoded["labels"]]
    assert [text.replace("|", " ") for text in spelled] == data.train["label"]
    strange = Dataset.from_dict({"label": ["abc"]})
    notes = SPEECH.check_splits({"train": data.train, "validation": strange}, (), {})
    assert notes == ["letters of validation that no training transcript contains, and cannot be learned: c"]


def test_ctc_is_transformers_own_loss_and_padding_has_no_part_in_it(tmp_path: Path) -> None:
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


def test_greedy_decoding_and_error_rates_are_the_reference_librarys() -> None:
    letters = torch.tensor([[3, 3, 0, 3, 4, 4, 2, 0, 4], [0, 0, 0, 0, 0, 0, 0, 0, 0]])
    found = greedy(torch.nn.functional.one_hot(letters, 5).float())
    assert [ids.tolist() for ids in found] == [[3, 3, 4, 2, 4], []]
    said = np.array(["one two", "", "three four five"], dtype=object)
    right = np.array(["one too", "zero", "three five"], dtype=object)
    scores = SPEECH.scorer("wer")(said, right)
    assert scores == {"wer": jiwer.wer(list(right), list(said)), "cer": jiwer.cer(list(right), list(said))}
    assert scores["wer"] == pytest.approx(3 / 5)
    assert SPEECH.scorer("cer").direction == "minimize"


def test_real_digits_are_read_and_have_a_baseline(shared_datasets: Path) -> None:
    from hpo.data.sources import load_splits

    config = DataConfig(path=str(shared_datasets / "fsdd"))
    assert infer_task(load_splits(config).train, config) is TASK
    data = TASK.prepare(config, 0)
    assert data.sizes == {"train": 360, "validation": 120, "test": 300}
    baseline = TASK.baseline(data, "accuracy")
    assert baseline is not None and baseline[1] > 0.8  # the folder's own note: 0.917


def test_a_hubs_feature_is_read_without_its_decoder(folder: Path, tmp_path: Path) -> None:
    from datasets import Audio, ClassLabel, Features

    kinds = Features({"audio": Audio(), "label": ClassLabel(names=["high", "low"])})
    (tmp_path / "hub").mkdir()
    for split in ("train", "validation", "test"):
        files = sorted(path for path in (folder / split).rglob("*") if path.is_file())
        sounds = item_array([{"bytes": path.read_bytes(), "path": path.name} for path in files])
        table = pa.table({"audio": sounds, "label": pa.array([int(path.parent.name == "low") for path in files])})
        kept = table.replace_schema_metadata(kinds.arrow_schema.metadata)
        pq.write_table(kept, tmp_path / "hub" / f"{split}.parquet")
    of_bytes = TASK.prepare(DataConfig(path=str(tmp_path / "hub")), 0)
    assert of_bytes.fingerprint == TASK.prepare(DataConfig(path=str(folder)), 0).fingerprint
    assert read_audio(of_bytes.train[0]["audio"], RATE).dtype == np.float32
