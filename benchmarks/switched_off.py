"""`hpo` with parts of it switched off that no study file switches off: for `time_to_target.py`, which names them.

SWITCHED_OFF=cache,batching python -m switched_off run study.yaml     # with this folder on PYTHONPATH

The command's own process and each worker that it starts (`python -m switched_off`, without arguments) are hpo's, but
for the methods replaced here.
"""

import os
import sys
from collections.abc import Callable
from typing import Any

import numpy as np


def cache() -> None:
    """Frozen layers are computed in every epoch of every trial."""
    from hpo.training.frozen.cache import PrefixCache

    def attach(self: Any, start: Any, model: Any, splits: Any, epochs: Any, stop: Any) -> Any:
        return splits, "not used: switched off"

    PrefixCache.attach = attach  # type: ignore[method-assign]


def batching() -> None:
    """Batches are cut from shuffled rows and computed whole, evaluation takes rows as they come."""
    from hpo.training import accumulation, evaluate, fine_tune

    def shuffled(lengths: Any, batch_size: int, seed: int, epoch: int) -> Any:
        order = np.random.default_rng([seed, epoch]).permutation(len(lengths))
        return np.split(order, range(batch_size, len(order), batch_size))

    def whole(rows: Any, lengths: Any, size: int, tokens: int | None = None) -> Any:
        return [rows[start : start + size] for start in range(0, len(rows), size)]

    def as_they_come(lengths: Any, tokens: int) -> Any:
        return np.split(np.arange(len(lengths)), range(64, len(lengths), 64))

    fine_tune.epoch_batches = shuffled  # type: ignore[assignment]
    accumulation.micro_batches = whole  # type: ignore[assignment]
    evaluate.evaluation_batches = as_they_come  # type: ignore[assignment]


def portfolio() -> None:
    """No configuration goes first: all are sampled."""
    import optuna

    def enqueue_trial(self: Any, *given: Any, **keywords: Any) -> None:
        pass

    optuna.Study.enqueue_trial = enqueue_trial  # type: ignore[method-assign]


PARTS: dict[str, Callable[[], None]] = {"cache": cache, "batching": batching, "portfolio": portfolio}


def main() -> None:
    for part in filter(None, os.environ["SWITCHED_OFF"].split(",")):
        PARTS[part]()
    if len(sys.argv) == 1:
        from hpo.workflow.worker import process

        process.main()
    else:
        from hpo import cli
        from hpo.workflow.launch import placement

        placement.WORKER = "switched_off"
        cli.main()


if __name__ == "__main__":
    main()
