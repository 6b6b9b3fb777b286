"""Tasks on audio: clips as waveforms or spectrograms, with a mask where the model takes one."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpo.data.media.audio import MAX_SECONDS, decode_audio, read_audio
from hpo.data.media.files import Item
from hpo.errors import DataError
from hpo.tasks.media import MediaTask, pad_arrays
from hpo.tasks.objective import Batch

TOKENS_PER_SECOND = 50  # models compute a vector for each 20 ms
SHORTEST = 0.05  # seconds: wav2vec2's convolutions need 25 ms, and its layers more than one vector
AUGMENTATIONS = ("shift", "noise", "specaugment")


class AudioTask(MediaTask):
    """An audio file → a label.

    Any sampling rate and number of channels is read; clips are truncated to `max_seconds`, and the feature extractor's
    output is cached in 16 bits.
    """

    kind = input_key = "audio"
    encode_batch_size = 64
    search_space = "audio"
    augmentations: tuple[str, ...] = AUGMENTATIONS

    def measure(self, item: Item) -> float:
        samples, rate = decode_audio(item)
        return len(samples) / rate

    def describe_files(self, measures: Sequence[float], origin: str) -> list[str]:
        longest = max(measures)
        note = f"{origin}: clips of {float(np.median(measures)):.2g} s (median), the longest of {longest:.3g} s"
        truncated = f"; they are truncated to {MAX_SECONDS:.0f} s, unless `max_seconds` is set"
        return [note + (truncated if longest > MAX_SECONDS else "")]

    def check_model(self, model: Any, processor: Any) -> str:
        """Try the model on its feature extractor's output for two clips of different lengths."""
        import torch

        rate = extractor_of(processor).sampling_rate
        clips = [np.sin(np.arange(round(seconds * rate)) / 20).astype(np.float32) for seconds in (0.5, 0.3)]
        name, arrays = self._features(clips, processor)
        batch = pad_arrays(name, arrays)
        try:
            with torch.inference_mode():
                self.logits(model, self.prepare_batch(batch, processor))
        except (RuntimeError, ValueError, TypeError, AttributeError) as error:
            reason = str(error).splitlines()[0]
            return f"it cannot read the output of its {type(extractor_of(processor)).__name__}: {reason}"
        return ""

    def extract_features(
        self, items: Sequence[Item], processor: Any, max_length: int
    ) -> tuple[str, list[NDArray[Any]]]:
        rate = extractor_of(processor).sampling_rate
        clips = [read_audio(item, rate)[: max_length or None] for item in items]
        shortest = round(SHORTEST * rate)
        clips = [clip if len(clip) >= shortest else np.pad(clip, (0, shortest - len(clip))) for clip in clips]
        return self._features(clips, processor)

    def _features(self, clips: Sequence[NDArray[Any]], processor: Any) -> tuple[str, list[NDArray[Any]]]:
        extractor = extractor_of(processor)
        name = extractor.model_input_names[0]
        unpadded = {} if is_spectrogram(extractor) else {"padding": False}
        output = extractor(list(clips), sampling_rate=extractor.sampling_rate, return_attention_mask=False, **unpadded)
        arrays = [np.asarray(values, np.float16) for values in output[name]]
        if len({array.shape for array in arrays}) > 1 and arrays[0].ndim > 1:
            raise DataError(
                f"{type(extractor).__name__} returns spectrograms of different lengths, which are not supported."
            )
        return name, arrays

    def compute_costs(self, features: Sequence[NDArray[Any]], processor: Any) -> list[int]:
        rate = extractor_of(processor).sampling_rate
        # A spectrogram has a frame each 10 ms, on either axis.
        seconds = [len(array) / rate if array.ndim == 1 else max(array.shape) / 100 for array in features]
        return [max(1, round(TOKENS_PER_SECOND * duration)) for duration in seconds]

    def augment(self, batch: Batch, names: Sequence[str]) -> Batch:
        from hpo.tasks.augmentation.audio import augment_audio

        return augment_audio(batch, names)

    def prepare_batch(self, batch: Batch, processor: Any) -> Batch:
        """Drop the padding mask, unless the extractor is configured to return one to the model."""
        if "attention_mask" in batch and not extractor_of(processor).return_attention_mask:
            return {name: tensor for name, tensor in batch.items() if name != "attention_mask"}
        return batch


def extractor_of(processor: Any) -> Any:
    """Return the feature extractor that a processor is or contains."""
    return getattr(processor, "feature_extractor", processor)


def is_spectrogram(extractor: Any) -> bool:
    """Return whether it returns spectrograms, padded to one length, rather than waveforms."""
    return hasattr(extractor, "num_mel_bins") or hasattr(extractor, "hop_length")
