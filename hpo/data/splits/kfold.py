"""The folds of k-fold validation: which rows are in each, and whether all that is to be learnt is in enough of them."""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence

from datasets import Dataset

from hpo.core.format import count, first_few
from hpo.data.columns import FOLD, column_values
from hpo.errors import DataError

FoldIndices = list[tuple[str, list[int]]]  # a split, and rows of it by their place


def fold_indices(splits: Mapping[str, Dataset]) -> FoldIndices:
    """For each fold, the split that its rows are in, and their places there; empty where there are no folds."""
    if FOLD not in splits["train"].column_names:
        return []
    folds = {split: column_values(splits[split], FOLD) for split in ("validation", "train")}
    members: dict[int, tuple[str, list[int]]] = {}
    for split, numbers in folds.items():
        for place, fold in enumerate(numbers):
            members.setdefault(fold, (split, []))[1].append(place)
    return [members[fold] for fold in sorted(members)]


def check_fold_classes(
    splits: Mapping[str, Dataset], names: Sequence[str], classes_of: Callable[[Dataset], Sequence[Sequence[int]]]
) -> list[str]:
    """Refuse folds that some class is too rare for; returns a note on classes that some folds lack.

    `classes_of` tells the classes of each row, by their place in `names`.
    """
    folds = fold_indices(splits)
    known = {split: classes_of(splits[split]) for split in {split for split, _ in folds}}
    rows_with: Counter[int] = Counter()
    folds_with: dict[int, set[int]] = defaultdict(set)
    for fold, (split, places) in enumerate(folds):
        for place in places:
            rows_with.update(known[split][place])
            for number in known[split][place]:
                folds_with[number].add(fold)
    rarest = min(rows_with, key=lambda number: rows_with[number], default=0)
    if rows_with[rarest] < len(folds):
        most = f"at most {rows_with[rarest]}" if rows_with[rarest] > 1 else "none"
        raise DataError(
            f"data.folds: {len(folds)} folds, and of '{names[rarest]}' there are {count(rows_with[rarest], 'row')} "
            f"outside test: each fold needs one, so that {most} can be made. Fewer folds, or more rows."
        )
    alone = [names[number] for number, found in sorted(folds_with.items()) if len(found) == 1]
    if alone:
        raise DataError(
            f"data.folds: all rows of {first_few(alone)} stay together (copies, or one group), so that none is left to "
            "train on when they are validated on. Add other rows, or take these out."
        )
    absent = [names[number] for number, found in sorted(folds_with.items()) if len(found) < len(folds)]
    return [f"{count(len(absent), 'class', 'classes')} absent from some folds: {first_few(absent)}"] if absent else []
