"""Audio files: any rate and number of channels, corrupt files, and cached features."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from hpo.config.study import DataConfig
from hpo.data.media.audio import read_audio
from hpo.data.media.files import as_item
from hpo.errors import DataError
from hpo.tasks.registry import get_task
from hpo.training.batches.encoding_cache import EncodingCache
from tests.small_models import RATE
from tests.tasks.audio.clips import processor_of, tone

TASK, SPEECH = get_task("audio-classification"), get_task("speech-recognition")


@pytest.mark.parametrize("rate", [8_000, 11_025, 44_100])
def test_any_rate_and_channels_are_resampled_to_one_channel(rate: int, tmp_path: Path) -> None:
    sound = tone(200, 0.5, rate)
    soundfile.write(tmp_path / "a.wav", np.stack([sound, 0 * sound], 1), rate)
    read = read_audio(as_item(tmp_path / "a.wav"), 2_000)
    assert read.dtype == np.float32 and len(read) == 1_000
    inner = slice(100, -100)  # a filter rings at the ends
    np.testing.assert_allclose(read[inner], tone(200, 0.5, 2_000)[inner] / 2, atol=0.01)


def test_corrupt_files_are_reported_by_path(folder: Path) -> None:
    first, second = sorted((folder / "train").rglob("*.wav"))[:2]
    first.write_bytes(first.read_bytes()[:-200])
    second.write_text("no sound")
    with pytest.raises(DataError, match=rf"2 of 20 audio files cannot be read: .*{first.name}.*{second.name}"):
        TASK.prepare(DataConfig(path=str(folder)), 0)
    soundfile.write(second, np.zeros(0), 8_000)
    first.unlink()
    with pytest.raises(DataError, match=r"it contains no audio"):
        TASK.prepare(DataConfig(path=str(folder)), 0)


def test_clips_are_truncated_and_cached_in_16_bits(folder: Path, tmp_path: Path) -> None:
    data, processor = TASK.prepare(DataConfig(path=str(folder)), 0), processor_of(tmp_path)
    store = EncodingCache(tmp_path / "kept", TASK, data)
    features, cut = store.get("train", processor, 30 * RATE), store.get("train", processor, round(0.25 * RATE))
    values, offsets = features.columns["input_values"]
    assert offsets is not None and isinstance(values, np.memmap) and values.dtype == np.float16
    assert np.diff(cut.columns["input_values"][1]).max() == 500 < np.diff(offsets).max()
    rows = np.array([3, 1, 7])
    batch = features.collate(rows)
    clips = [read_audio(data.train[int(row)]["audio"], RATE) for row in rows]
    own = processor(clips, sampling_rate=RATE, padding=True, return_tensors="pt")
    torch.testing.assert_close(batch["input_values"], own["input_values"], atol=2e-3, rtol=1e-3)
    assert torch.equal(batch["attention_mask"], own["attention_mask"].long())
    assert features.lengths[rows].tolist() == [round(50 * len(clip) / RATE) for clip in clips]
    both = features.concatenate(store.get("validation", processor, 30 * RATE))
    assert torch.equal(both.collate(rows)["input_values"], batch["input_values"])


def test_durations_and_truncation_are_noted(folder: Path) -> None:
    notes = TASK.prepare(DataConfig(path=str(folder)), 0).notes
    assert any(note.startswith("train/: clips of 0.") and "truncated" not in note for note in notes)
    soundfile.write(folder / "train" / "low" / "long.wav", tone(50, 31, 800), 800)
    again = TASK.prepare(DataConfig(path=str(folder)), 0).notes
    assert any("the longest of 31 s; they are truncated to 30 s" in note for note in again)


def test_mask_is_dropped_where_the_extractor_returns_none(tmp_path: Path) -> None:
    processor = processor_of(tmp_path)
    processor.return_attention_mask = False
    batch = {"input_values": torch.zeros(1, 9), "attention_mask": torch.ones(1, 9)}
    assert list(TASK.prepare_batch(batch, processor)) == ["input_values"]
