"""Audio classification: a clip → one of several classes."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpo.data.media.audio import read_audio
from hpo.data.media.files import media_values
from hpo.tasks.audio.base import AudioTask
from hpo.tasks.baselines import logistic_baseline
from hpo.tasks.classification import Classification
from hpo.tasks.task_data import TaskData

BASELINE_RATE = 8_000
BASELINE_SHAPE = (32, 24)  # frequency bands and time frames that a clip's spectrogram is averaged to

MODELS = {
    "small": ("openai/whisper-tiny", "ntu-spml/distilhubert"),
    "base": ("facebook/wav2vec2-base", "facebook/hubert-base-ls960", "MIT/ast-finetuned-audioset-10-10-0.4593"),
    "large": ("facebook/wav2vec2-large-xlsr-53", "facebook/hubert-large-ll60k"),
}
USAGE = """\
classify = pipeline("audio-classification", model="path/to/this/folder")
classify("clip.wav")  # ffmpeg reads the file, all of it; the model was trained on the first {max_length} samples"""


class AudioClassification(Classification, AudioTask):
    """An audio clip → a class."""

    name = "audio-classification"
    auto_class = "AutoModelForAudioClassification"
    processor_class = final_processor_class = "AutoFeatureExtractor"
    pipeline_tag = "audio-classification"
    hub_models = MODELS
    usage = USAGE
    limitations = "It knows the classes above only, and assigns one of them to any clip."

    def baseline(self, data: TaskData, metric: str) -> tuple[str, float] | None:
        def vectors(rows: Any) -> NDArray[Any]:
            return np.stack([_log_spectrogram(item) for item in media_values(rows, self.kind)])

        return logistic_baseline("logistic regression on log-spectrograms", vectors, data, self.scorer(metric))


def _log_spectrogram(item: Any) -> NDArray[Any]:
    """Return a clip's log-spectrogram, averaged to `BASELINE_SHAPE` whatever its length, and flattened."""
    from scipy.signal import spectrogram

    clip = read_audio(item, BASELINE_RATE)
    clip = np.pad(clip, (0, max(0, 4 * 256 - len(clip))))
    _, _, power = spectrogram(clip, BASELINE_RATE, nperseg=256, noverlap=192)
    bands, frames = BASELINE_SHAPE
    columns = [part.mean(1) for part in np.array_split(np.log(power + 1e-8), frames, axis=1) if part.size]
    columns += [columns[-1]] * (frames - len(columns))
    rows = [part.mean(0) for part in np.array_split(np.stack(columns, 1), bands, axis=0)]
    return np.concatenate(rows)
