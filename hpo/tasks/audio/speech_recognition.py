"""Speech recognition by CTC: a sound → what is said, letter by letter (Graves et al., 2006)."""

import json
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from datasets import Dataset
from numpy.typing import NDArray

from hpo.config.study import DataConfig
from hpo.core.direction import Direction
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
from hpo.tasks.base import Predictions
from hpo.tasks.metrics.scorer import Scorer, load_metric, one_each
from hpo.tasks.task_data import Encoded, Labels, TaskData

if TYPE_CHECKING:
    import evaluate
    import torch

DIRECTIONS: dict[str, Direction] = {"wer": "minimize", "cer": "minimize", "loss": "minimize"}
SAMPLE = (["one two", "three"], ["one two", "tree"])
IGNORED = -100
BLANK = 0  # the place of PAD in the vocabulary
NEVER = -1e7  # the logit of what a frame of padding does not say: what it costs is above any real clip's loss

MODELS = {
    "small": ("facebook/wav2vec2-base", "ntu-spml/distilhubert"),
    "base": ("facebook/wav2vec2-base", "facebook/hubert-base-ls960", "microsoft/wavlm-base-plus"),
    "large": ("facebook/wav2vec2-large-xlsr-53", "facebook/hubert-large-ll60k", "facebook/wav2vec2-xls-r-300m"),
}
USAGE = """\
recognise = pipeline("automatic-speech-recognition", model="path/to/this/folder")
recognise("a-sound.wav")  # ffmpeg reads the file"""


class SpeechRecognition(AudioTask):
    """A sound → its transcript. See `Task` for what each method promises.

    The letters are those of the training transcripts. Prepared labels are texts; encoded ones the letters' numbers.
    """

    name = "speech-recognition"
    auto_class = "AutoModelForCTC"
    processor_class = "AutoFeatureExtractor"
    final_processor_class = "AutoProcessor"
    pipeline_tag = "automatic-speech-recognition"
    default_metric = "wer"
    metric_names = tuple(DIRECTIONS)
    augmentations = ("noise", "specaugment")  # a shifted clip loses what is said at one end
    label_columns = (*COLUMNS, "label")
    search_space = "speech"
    hub_models = MODELS
    usage = USAGE
    limitations = "It writes the letters of its training transcripts, without punctuation, and knows no words."

    def matches(self, rows: Dataset, config: DataConfig) -> bool:
        named = config.label is not None or any(name.lower() in COLUMNS for name in rows.column_names)
        return named and config.label not in ("label", "labels") and super().matches(rows, config)

    def read_labels(
        self, splits: Mapping[str, Dataset], column: str, origins: Mapping[str, str], config: DataConfig
    ) -> Labels:
        transcripts, notes = read_transcripts(splits, column, origins)
        return Labels(transcripts, (), tuple(notes))

    def check_labels(
        self, splits: Mapping[str, Dataset], names: Sequence[str], origins: Mapping[str, str]
    ) -> list[str]:
        if len(splits["train"]) < 2:
            raise DataError(f"{origins['train']}: 1 row is too few to train on.")
        known = vocabulary(column_values(splits["train"], "label"))
        notes = []
        for split in ("validation", "test"):
            unknown = unknown_letters(column_values(splits[split], "label"), known) if split in splits else ""
            if unknown:
                notes.append(f"letters of {split} that no training transcript holds, and nothing can learn: {unknown}")
        return notes

    def strata(self, rows: Dataset) -> list[int]:
        return [0] * len(rows)

    def describe(self, data: TaskData) -> str:
        texts = column_values(data.train, "label")
        words = float(np.mean([len(text.split()) for text in texts]))
        return f"Transcripts of {words:.1f} words, of {len(vocabulary(texts)) - 3} letters"

    def head_config(self, data: TaskData) -> dict[str, Any]:
        known = vocabulary(column_values(data.train, "label"))
        return {"vocab_size": len(known), "pad_token_id": BLANK, "ctc_zero_infinity": True}

    def adapt_processor(self, processor: Any, data: TaskData) -> Any:
        """The model's feature extractor with a tokenizer of the training transcripts' letters."""
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
        """[clips, frames, letters]; a frame of padding says nothing (CTC's blank) for certain.

        So every clip is as long as the longest, to the loss and to decoding, and neither changes by it.
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
        """The CTC loss; a clip with fewer frames than letters gives none. Label smoothing has no part in it."""
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
        """The letters: the loss is one a letter."""
        return max(1, int((labels != IGNORED).sum()))

    def reduce_logits(self, logits: "torch.Tensor", labels: "torch.Tensor") -> Predictions:
        return greedy(logits)

    def align_predictions(self, predictions: Predictions, split: Encoded) -> tuple[NDArray[Any], NDArray[Any]]:
        said = [_text(letters, split.processor) for letters in predictions]
        return one_each(said), one_each(column_values(split.rows, "label"))

    def postprocess(self, logits: "torch.Tensor", config: Any, processor: Any) -> list[dict[str, Any]]:
        return [{"label": _text(letters, processor)} for letters in greedy(logits)]

    def scorer(self, metric: str, data: TaskData | None = None) -> Scorer:
        return load_metric(metric, _own_metric, DIRECTIONS, spell=list, sample=SAMPLE)

    def baseline(self, data: TaskData, metric: str) -> tuple[str, float] | None:
        scorer = self.scorer(metric, data)
        if data.test is None or scorer.name == "loss":
            return None
        usual = Counter(column_values(data.train, "label")).most_common(1)[0][0]
        right = one_each(column_values(data.test, "label"))
        return "the most frequent transcript", scorer(one_each([usual] * len(right)), right)[scorer.name]


def greedy(logits: "torch.Tensor") -> list[NDArray[Any]]:
    """Each clip's letters: the likeliest of each frame, the same one after another taken as one, without blanks."""
    found = []
    for frames in logits.argmax(-1).cpu().numpy():
        changes = np.flatnonzero(np.diff(frames, prepend=-1))
        found.append(frames[changes][frames[changes] != BLANK])
    return found


def _text(letters: NDArray[Any], processor: Any) -> str:
    written = "".join(processor.tokenizer.convert_ids_to_tokens(letters.tolist()))
    return " ".join(written.replace(SPACE, " ").split())


def _own_metric() -> "evaluate.Metric":
    from hpo.tasks.metrics.speech import SpeechMetrics

    return SpeechMetrics()
