"""Audio files: mixed down, resampled, and refused where they are empty or truncated."""

from pathlib import Path

import numpy as np
import pytest

from hpo.data.media.audio import decode_audio, read_audio, resample
from hpo.data.media.files import as_item

soundfile = pytest.importorskip("soundfile")


@pytest.fixture
def stereo(tmp_path: Path) -> Path:
    path = tmp_path / "stereo.wav"
    wave = np.sin(np.linspace(0, 20 * np.pi, 8000, endpoint=False))
    soundfile.write(path, np.stack([0.5 * wave, 0.25 * wave], axis=1), 8000, subtype="FLOAT")
    return path


def test_channels_are_averaged_and_resampled(stereo: Path) -> None:
    samples, rate = decode_audio(as_item(stereo))
    assert rate == 8000 and samples.shape == (8000,) and np.abs(samples).max() == pytest.approx(0.375, abs=1e-3)
    halved = read_audio(as_item(stereo), 4000)
    assert halved.shape == (4000,) and np.abs(halved).max() == pytest.approx(0.375, abs=1e-2)
    assert resample(samples, 8000, 8000) is samples


def test_empty_and_truncated_files_raise_value_error(stereo: Path, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "empty.wav", np.zeros(0), 8000)
    with pytest.raises(ValueError, match="contains no audio"):
        decode_audio(as_item(tmp_path / "empty.wav"))
    with pytest.raises(ValueError, match=r"truncated: it has 1,000 of [\d,]+ bytes"):
        decode_audio(as_item(stereo.read_bytes()[:1000]))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_samples_that_are_no_numbers_raise_before_training(value: float, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.array([0.1, value, 0.2], np.float32), 8000, subtype="FLOAT")
    with pytest.raises(ValueError, match="1 of its 3 samples are not numbers"):
        decode_audio({"path": str(tmp_path / "a.wav"), "bytes": None})
