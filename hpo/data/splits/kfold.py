"""K-fold validation: the rows of each fold, and whether every class is in enough of them."""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence

from datasets import Dataset

from hpo.core.format import count, first_few
from hpo.data.columns import FOLD, column_values
from hpo.errors import DataError

FoldIndices = list[tuple[str, list[int]]]  # for each fold: the split that holds its rows, and their indices in it


def fold_indices(splits: Mapping[str, Dataset]) -> FoldIndices:
    """Return for each fold the split that holds its rows, and their indices in it; empty without folds."""
    if FOLD not in splits["train"].column_names:
        return []
    folds = {split: column_values(splits[split], FOLD) for split in ("validation", "train")}
    members: dict[int, tuple[str, list[int]]] = {}
    for split, numbers in folds.items():
        for index, fold in enumerate(numbers):
            members.setdefault(fold, (split, []))[1].append(index)
    return [members[fold] for fold in sorted(members)]


def check_fold_classes(
    splits: Mapping[str, Dataset], names: Sequence[str], classes_of: Callable[[Dataset], Sequence[Sequence[int]]]
) -> list[str]:
    """Check that every class is in at least two folds and has a row for each; return a note on classes some folds lack.

    `classes_of` returns the classes of each row, as indices into `names`. Raises `DataError`.
    """
    folds = fold_indices(splits)
    rows_with, folds_with = _count_classes(folds, {split: classes_of(splits[split]) for split, _ in folds})
    rarest = min(rows_with, key=lambda number: rows_with[number], default=0)
    if rows_with[rarest] < len(folds):
        most = f"at most {rows_with[rarest]} are possible" if rows_with[rarest] > 1 else "none is possible"
        raise DataError(
            f"data.folds: {len(folds)} folds, but class '{names[rarest]}' has {count(rows_with[rarest], 'row')} "
            f"outside test. Each fold needs one, so {most}. Use fewer folds, or add rows."
        )
    alone = [names[number] for number, found in sorted(folds_with.items()) if len(found) == 1]
    if alone:
        raise DataError(
            f"data.folds: all rows of {first_few(alone)} share a fold (duplicates, or one group): while it is "
            "validated on, no other is left to train on. Add other rows, or remove these."
        )
    absent = [names[number] for number, found in sorted(folds_with.items()) if len(found) < len(folds)]
    return [f"{count(len(absent), 'class', 'classes')} absent from some folds: {first_few(absent)}"] if absent else []


def _count_classes(
    folds: FoldIndices, classes: Mapping[str, Sequence[Sequence[int]]]
) -> tuple[Counter[int], dict[int, set[int]]]:
    """Return the number of rows of each class, and the folds that contain it."""
    rows_with: Counter[int] = Counter()
    folds_with: dict[int, set[int]] = defaultdict(set)
    for fold, (split, indices) in enumerate(folds):
        for index in indices:
            rows_with.update(classes[split][index])
            for number in classes[split][index]:
                folds_with[number].add(fold)
    return rows_with, folds_with
