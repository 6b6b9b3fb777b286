"""Text classification: one or two texts → one class of several."""

from collections.abc import Mapping, Sequence, Sized
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from datasets import Dataset

from hpo.core.config import DataConfig
from hpo.core.errors import DataError, did_you_mean
from hpo.data.checks import check_classes, count_conflicts, find_empty, read_texts
from hpo.data.columns import Columns, column_values, find_columns, find_text_columns, missing_column
from hpo.data.labels import is_unlabelled, read_classes
from hpo.data.readers import decode, read_file
from hpo.data.sources import RawSplits, load_splits
from hpo.data.splits import TEXT_ROLES, make_splits, take
from hpo.data.wording import counted
from hpo.tasks.baseline import tfidf_baseline
from hpo.tasks.metrics import Direction, Scorer, load_metric
from hpo.tasks.task import TaskData, TextInput, fingerprint

if TYPE_CHECKING:
    import evaluate
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

DIRECTIONS: dict[str, Direction] = {
    "accuracy": "maximize",
    "f1_macro": "maximize",
    "f1_micro": "maximize",
    "f1_weighted": "maximize",
    "precision_macro": "maximize",
    "recall_macro": "maximize",
    "mcc": "maximize",
    "loss": "minimize",
}
ALIASES = {
    "f1": "f1_macro",
    "precision": "precision_macro",
    "recall": "recall_macro",
    "balanced_accuracy": "recall_macro",
    "matthews_correlation": "mcc",
}


class TextClassification:
    """One or two texts → a class, by a sequence-classification head. See `Task` for what each method promises."""

    name = "text-classification"
    auto_class = "AutoModelForSequenceClassification"
    pipeline = "text-classification"
    default_metric = "accuracy"

    def prepare(self, config: DataConfig, seed: int) -> TaskData:
        raw = load_splits(config)
        columns = find_columns(raw.train, raw.origins["train"], config.text, config.label)
        labelled, unlabelled = _labelled(raw, columns)
        given, names, changed = _canonical(labelled, columns, raw.origins, config.drop_empty)
        origins = {split: raw.origins[split] for split in given}
        check_classes(given, names, origins)
        splits, made = make_splits(given, config, seed)
        doubtful = check_classes(splits, names, origins)
        notes = [*columns.notes, *unlabelled, *changed, *made, *doubtful, *count_conflicts(splits)]
        return TaskData(
            splits["train"],
            splits["validation"],
            splits.get("test"),
            names,
            columns.by_role(),
            tuple(notes),
            fingerprint(self.name, splits, names),
        )

    def head(self, data: TaskData) -> dict[str, Any]:
        names = dict(enumerate(data.label_names))
        return {
            "num_labels": len(names),
            "id2label": names,
            "label2id": {name: number for number, name in names.items()},
            "problem_type": "single_label_classification",
        }

    def encode(self, rows: Dataset, tokenizer: "PreTrainedTokenizerBase", max_length: int) -> Dataset:
        texts = [column_values(rows, role) for role in TEXT_ROLES if role in rows.column_names]
        batches = [
            _encode_batch([column[start : start + 1000] for column in texts], tokenizer, max_length)
            for start in range(0, len(rows), 1000)
        ]
        table = pa.concat_tables(batches)
        if "label" in rows.column_names:
            table = table.append_column("labels", pa.array(column_values(rows, "label"), pa.int64()))
        return Dataset(table)

    def loss(self, logits: "torch.Tensor", labels: "torch.Tensor", label_smoothing: float) -> "torch.Tensor":
        from torch.nn.functional import cross_entropy

        return cross_entropy(logits.float(), labels, reduction="sum", label_smoothing=label_smoothing)

    def count(self, labels: Sized) -> int:
        return len(labels)

    def predictions(self, logits: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
        return logits.argmax(axis=-1)

    def metrics(self, metric: str) -> Scorer:
        return load_metric(metric, _own_metric, DIRECTIONS, ALIASES)

    def predict(
        self,
        model: "PreTrainedModel",
        tokenizer: "PreTrainedTokenizerBase",
        rows: Sequence[TextInput],
        max_length: int,
        batch_size: int = 64,
    ) -> list[dict[str, Any]]:
        import torch
        from transformers import DataCollatorWithPadding

        if not rows:
            return []
        pairs = [(row,) if isinstance(row, str) else tuple(row) for row in rows]
        columns = dict(zip(TEXT_ROLES, map(list, zip(*pairs, strict=True)), strict=False))
        encoded = self.encode(Dataset.from_dict(columns), tokenizer, max_length).to_list()
        for row in encoded:
            del row["length"]
        # Longest first: batches of like lengths hold little padding, and too large a batch shows at once.
        order = sorted(range(len(rows)), key=lambda place: -len(encoded[place]["input_ids"]))
        # Without a padding token only single rows can be read (a causal model that hpo did not train).
        size = batch_size if tokenizer.pad_token_id is not None else 1
        collate = DataCollatorWithPadding(tokenizer, padding=size > 1)
        answers: list[dict[str, Any]] = [{} for _ in rows]
        model.eval()
        with torch.inference_mode():
            for start in range(0, len(order), size):
                places = order[start : start + size]
                batch = {key: value.to(model.device) for key, value in collate([encoded[p] for p in places]).items()}
                scores = model(**batch).logits.float().softmax(-1)
                best, classes = scores.max(-1)
                for place, score, number in zip(places, best.tolist(), classes.tolist(), strict=True):
                    texts = dict(zip(TEXT_ROLES, pairs[place], strict=False))
                    answers[place] = {**texts, "label": model.config.id2label[number], "score": score}
        return answers

    def read_inputs(self, path: Path, columns: Mapping[str, str], encoding: str = "utf-8") -> list[TextInput]:
        trained = [columns[role] for role in TEXT_ROLES if role in columns]
        if not path.is_file():
            near = did_you_mean(path.name, [p.name for p in path.absolute().parent.glob("*")])
            raise DataError(f"There is no file {path.absolute()}.{near}")
        if path.suffix.lower() == ".txt":
            if len(trained) > 1:
                raise DataError(
                    f"{path}: the model reads pairs of texts: give a csv or jsonl file with the columns "
                    f"{' and '.join(trained)}."
                )
            return [line for line in decode(path, encoding).splitlines() if line.strip()]
        rows = read_file(path, encoding)
        missing = next((name for name in trained if name not in rows.column_names), None)
        if missing is not None:
            unlike = missing_column(str(path), missing, rows.column_names, "the file")
            try:
                trained = list(find_text_columns(rows, path.name, None, besides=columns.get("label")))
            except DataError:
                raise unlike from None
            if len(trained) != len([role for role in TEXT_ROLES if role in columns]):
                raise unlike
        texts = [read_texts(rows, name, path.name) for name in trained]
        return list(texts[0]) if len(texts) == 1 else list(zip(texts[0], texts[1], strict=True))

    def baseline(self, data: TaskData, metric: str) -> tuple[str, float] | None:
        return tfidf_baseline(data, self.metrics(metric))


def _own_metric() -> "evaluate.Metric":
    from hpo.tasks.classification_metric import ClassificationMetrics

    return ClassificationMetrics()


def _labelled(raw: RawSplits, columns: Columns) -> tuple[dict[str, Dataset], list[str]]:
    """The splits whose columns are all there. A test split without labels is left out, and said so."""
    splits = {}
    notes = []
    for split, rows in raw.present().items():
        origin, known = raw.origins[split], rows.column_names
        for name in columns.text:
            if name not in known:
                raise missing_column("data.text", name, known, origin)
        mistyped = did_you_mean(columns.label, [name for name in known if name not in columns.text])
        if columns.label not in known and (split != "test" or mistyped):
            raise missing_column("data.label", columns.label, known, origin)
        if split == "test" and (columns.label not in known or is_unlabelled(rows, columns.label)):
            notes.append(f"{origin} holds no labels and is not used")
        else:
            splits[split] = rows
    return splits, notes


def _canonical(
    raw: Mapping[str, Dataset], columns: Columns, origins: Mapping[str, str], drop_empty: bool
) -> tuple[dict[str, Dataset], tuple[str, ...], list[str]]:
    """Rows as text (and text_pair) and class number, the names of the classes, and notes."""
    splits, where, notes = dict(raw), dict(origins), []
    texts: dict[str, list[list[str]]] = {}
    for split, rows in raw.items():
        texts[split] = [read_texts(rows, name, origins[split]) for name in columns.text]
        empty, said = find_empty(texts[split], origins[split], drop_empty)
        notes += said
        if empty:
            kept = [place for place in range(len(rows)) if place not in empty]
            if not kept:
                raise DataError(f"{origins[split]}: the text of every row is empty.")
            splits[split] = take(rows, kept)
            where[split] += f" (without its {counted(len(empty), 'empty row')})"
            texts[split] = [[column[place] for place in kept] for column in texts[split]]
    classes = read_classes(splits, columns.label, where)
    canonical = {
        split: Dataset.from_dict({**dict(zip(TEXT_ROLES, texts[split], strict=False)), "label": classes.ids[split]})
        for split in splits
    }
    return canonical, classes.names, [*notes, *classes.notes]


def _encode_batch(texts: list[list[str]], tokenizer: "PreTrainedTokenizerBase", max_length: int) -> pa.Table:
    """Token ids of up to 1,000 rows as Arrow lists, made from one flat array: half a million lists cost seconds."""
    encoded = tokenizer(*texts, truncation=True, max_length=max_length, return_attention_mask=False)
    lengths = np.fromiter(map(len, encoded["input_ids"]), np.int32)
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
    columns = {}
    for name in ("input_ids", "token_type_ids"):
        if name in encoded:
            flat = np.fromiter((token for row in encoded[name] for token in row), np.int32, count=int(lengths.sum()))
            columns[name] = pa.ListArray.from_arrays(offsets, pa.array(flat))
    return pa.table({**columns, "length": pa.array(lengths)})
