"""Audio classification: a sound → one class of several."""

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
BASELINE_SHAPE = (32, 24)  # bands and stretches of time that a clip's spectrogram is averaged to

MODELS = {
    "small": ("openai/whisper-tiny", "ntu-spml/distilhubert"),
    "base": ("facebook/wav2vec2-base", "facebook/hubert-base-ls960", "MIT/ast-finetuned-audioset-10-10-0.4593"),
    "large": ("facebook/wav2vec2-large-xlsr-53", "facebook/hubert-large-ll60k"),
}
USAGE = """\
classify = pipeline("audio-classification", model="path/to/this/folder")
classify("a-sound.wav")  # ffmpeg reads the file"""


class AudioClassification(Classification, AudioTask):
    """A sound → a class. See `Task` for what each method promises."""

    name = "audio-classification"
    auto_class = "AutoModelForAudioClassification"
    processor_class = final_processor_class = "AutoFeatureExtractor"
    pipeline_tag = "audio-classification"
    hub_models = MODELS
    usage = USAGE
    limitations = "It knows the classes above only, and gives one of them to any sound."

    def baseline(self, data: TaskData, metric: str) -> tuple[str, float] | None:
        def vectors(rows: Any) -> NDArray[Any]:
            return np.stack([_log_spectrogram(item) for item in media_values(rows, self.kind)])

        return logistic_baseline("logistic regression on log-spectrograms", vectors, data, self.scorer(metric))


def _log_spectrogram(item: Any) -> NDArray[Any]:
    """A clip's spectrogram, averaged to so many bands and stretches of time whatever its length."""
    from scipy.signal import spectrogram

    sound = read_audio(item, BASELINE_RATE)
    sound = np.pad(sound, (0, max(0, 4 * 256 - len(sound))))
    _, _, power = spectrogram(sound, BASELINE_RATE, nperseg=256, noverlap=192)
    bands, stretches = BASELINE_SHAPE
    columns = [part.mean(1) for part in np.array_split(np.log(power + 1e-8), stretches, axis=1) if part.size]
    columns += [columns[-1]] * (stretches - len(columns))
    rows = [part.mean(0) for part in np.array_split(np.stack(columns, 1), bands, axis=0)]
    return np.concatenate(rows)
