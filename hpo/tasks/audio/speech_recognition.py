"""Speech recognition by CTC: an audio clip → its transcript, letter by letter (Graves et al., 2006)."""

import json
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from datasets import Dataset
from numpy.typing import NDArray

from hpo.config.study import DataConfig
from hpo.data.columns import column_values
from hpo.data.labels.transcripts import (
    COLUMNS,
    PAD,
    SPACE,
    UNKNOWN,
    read_transcripts,
    unknown_letters,
    vocabulary,
)
from hpo.errors import DataError
from hpo.tasks.audio.base import AudioTask
from hpo.tasks.metrics.scorer import object_array
from hpo.tasks.objective import Predictions
from hpo.tasks.task_data import Encoded, Labels, TaskData

if TYPE_CHECKING:
    import evaluate
    import torch

IGNORED = -100
BLANK = 0  # the index of PAD in the vocabulary
NEVER = -1e7  # the logit of all but the blank in a frame of padding: its loss is above that of any real clip

MODELS = {
    "small": ("facebook/wav2vec2-base", "ntu-spml/distilhubert"),
    "base": ("facebook/wav2vec2-base", "facebook/hubert-base-ls960", "microsoft/wavlm-base-plus"),
    "large": ("facebook/wav2vec2-large-xlsr-53", "facebook/hubert-large-ll60k", "facebook/wav2vec2-xls-r-300m"),
}
USAGE = """\
transcribe = pipeline("automatic-speech-recognition", model="path/to/this/folder")
transcribe("clip.wav")  # ffmpeg reads the file, all of it; the model was trained on the first {max_length} samples"""


class SpeechRecognition(AudioTask):
    """An audio clip → its transcript.

    The vocabulary is the letters of the training transcripts. Prepared labels are texts, encoded ones letter numbers.
    """

    name = "speech-recognition"
    auto_class = "AutoModelForCTC"
    processor_class = "AutoFeatureExtractor"
    final_processor_class = "AutoProcessor"
    pipeline_tag = "automatic-speech-recognition"
    default_metric = "wer"
    metric_directions = MappingProxyType({"wer": "minimize", "cer": "minimize", "loss": "minimize"})
    metric_sample = (["one two", "three"], ["one two", "tree"])
    augmentations = ("noise", "specaugment")  # a shifted clip loses letters at one end
    label_columns = (*COLUMNS, "label")
    search_space = "speech"
    hub_models = MODELS
    usage = USAGE
    limitations = "It writes the letters of its training transcripts, without punctuation or a vocabulary of words."

    def matches(self, rows: Dataset, config: DataConfig) -> bool:
        named = config.label is not None or any(name.lower() in COLUMNS for name in rows.column_names)
        return named and config.label not in ("label", "labels") and super().matches(rows, config)

    def read_labels(
        self, splits: Mapping[str, Dataset], column: str, origins: Mapping[str, str], config: DataConfig
    ) -> Labels:
        transcripts, notes = read_transcripts(splits, column, origins)
        return Labels(transcripts, (), tuple(notes))

    def check_splits(
        self, splits: Mapping[str, Dataset], label_names: Sequence[str], origins: Mapping[str, str]
    ) -> list[str]:
        if len(splits["train"]) < 2:
            raise DataError(f"{origins['train']}: 1 row is too few to train on.")
        known = vocabulary(column_values(splits["train"], "label"))
        notes = []
        for split in ("validation", "test"):
            unknown = unknown_letters(column_values(splits[split], "label"), known) if split in splits else ""
            if unknown:
                notes.append(
                    f"letters of {split} that no training transcript contains, and cannot be learned: {unknown}"
                )
        return notes

    def describe(self, data: TaskData) -> str:
        texts = column_values(data.train, "label")
        words = float(np.mean([len(text.split()) for text in texts]))
        return f"Transcripts of {words:.1f} words, of {len(vocabulary(texts)) - 3} letters"

    def head_config(self, data: TaskData) -> dict[str, Any]:
        known = vocabulary(column_values(data.train, "label"))
        return {"vocab_size": len(known), "pad_token_id": BLANK, "ctc_zero_infinity": True}

    def adapt_processor(self, processor: Any, data: TaskData) -> Any:
        """Return the model's feature extractor with a tokenizer of the training transcripts' letters."""
        from transformers import Wav2Vec2CTCTokenizer, Wav2Vec2Processor

        known = vocabulary(column_values(data.train, "label"))
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "vocab.json"
            file.write_text(json.dumps({letter: number for number, letter in enumerate(known)}), encoding="utf-8")
            tokenizer = Wav2Vec2CTCTokenizer(
                str(file), bos_token=None, eos_token=None, unk_token=UNKNOWN, pad_token=PAD, word_delimiter_token=SPACE
            )
        return Wav2Vec2Processor(feature_extractor=processor, tokenizer=tokenizer)

    def encode_labels(self, rows: Dataset, processor: Any) -> pa.Array:
        texts = column_values(rows, "label")
        return pa.array([processor.tokenizer(text).input_ids for text in texts], pa.list_(pa.int64()))

    def logits(self, model: Any, batch: "Mapping[str, torch.Tensor]") -> "torch.Tensor":
        """Return logits [clips, frames, letters]; a frame of padding is certainly CTC's blank.

        So the loss and decoding may read every clip as if it had the length of the longest.
        """
        import torch

        logits = super().logits(model, batch)
        if "attention_mask" not in batch:
            return logits
        frames = model._get_feat_extract_output_lengths(batch["attention_mask"].sum(1))
        padding = torch.arange(logits.shape[1], device=logits.device)[None, :] >= frames[:, None]
        silence = logits.new_full((logits.shape[-1],), NEVER)
        silence[BLANK] = 0
        return torch.where(padding[..., None], silence, logits)

    def loss(self, logits: "torch.Tensor", labels: "torch.Tensor", label_smoothing: float) -> "torch.Tensor":
        """Return the CTC loss, 0 for a clip with fewer frames than letters; label smoothing has no effect."""
        import torch
        from torch.nn.functional import ctc_loss

        letters = labels != IGNORED
        frames = torch.full((len(labels),), logits.shape[1], dtype=torch.int64)
        losses = ctc_loss(
            logits.float().log_softmax(-1).transpose(0, 1),
            labels.where(letters, BLANK),
            frames,
            letters.sum(1),
            BLANK,
            reduction="none",
            zero_infinity=True,
        )
        return losses.where(losses < -NEVER / 2, 0.0).sum()

    def target_count(self, labels: Any) -> int:
        """Return the number of letters."""
        return max(1, int((labels != IGNORED).sum()))

    def reduce_logits(self, logits: "torch.Tensor", labels: "torch.Tensor") -> Predictions:
        return greedy(logits)

    def align_predictions(self, predictions: Predictions, split: Encoded) -> tuple[NDArray[Any], NDArray[Any]]:
        transcripts = [_text(letters, split.processor) for letters in predictions]
        return object_array(transcripts), object_array(column_values(split.rows, "label"))

    def postprocess(self, logits: "torch.Tensor", config: Any, processor: Any) -> list[dict[str, Any]]:
        return [{"label": _text(letters, processor)} for letters in greedy(logits)]

    def build_metric(self, data: TaskData | None) -> "evaluate.Metric":
        from hpo.tasks.metrics.speech import SpeechMetrics

        return SpeechMetrics()

    def metric_inputs(self, values: NDArray[Any], data: TaskData | None) -> list[Any]:
        return list(values)

    def baseline(self, data: TaskData, metric: str) -> tuple[str, float] | None:
        scorer = self.scorer(metric, data)
        if data.test is None or scorer.name == "loss":
            return None
        most_frequent = Counter(column_values(data.train, "label")).most_common(1)[0][0]
        references = object_array(column_values(data.test, "label"))
        scores = scorer(object_array([most_frequent] * len(references)), references)
        return "the most frequent transcript", scores[scorer.name]


def greedy(logits: "torch.Tensor") -> list[NDArray[Any]]:
    """Return each clip's letters by greedy decoding: the best of each frame, repetitions merged, blanks removed."""
    found = []
    for frames in logits.argmax(-1).cpu().numpy():
        changes = np.flatnonzero(np.diff(frames, prepend=-1))
        found.append(frames[changes][frames[changes] != BLANK])
    return found


def _text(letters: NDArray[Any], processor: Any) -> str:
    text = "".join(processor.tokenizer.convert_ids_to_tokens(letters.tolist()))
    return " ".join(text.replace(SPACE, " ").split())
