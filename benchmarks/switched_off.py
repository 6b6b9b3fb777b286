"""Runs `hpo` without parts of it that no study file can switch off, for `time_to_target.py`.

SWITCHED_OFF=cache,batching python -m switched_off run study.yaml     # with this folder on PYTHONPATH

The command's process and the workers that it starts (`python -m switched_off`, without arguments) run hpo with the
functions below replaced.
"""

import os
import sys
from collections.abc import Callable
from typing import Any

import numpy as np


def cache() -> None:
    """Compute frozen layers in every epoch of every trial."""
    from hpo.training.frozen.cache import PrefixCache

    def attach(self: Any, start: Any, model: Any, splits: Any, epochs: Any, stop: Any) -> Any:
        return splits, "not used: switched off"

    PrefixCache.attach = attach  # type: ignore[method-assign]


def batching() -> None:
    """Cut batches from shuffled rows, compute each in one pass, and evaluate rows in their order."""
    from hpo.training import evaluate, fine_tune
    from hpo.training.memory import accumulation

    def shuffled(lengths: Any, batch_size: int, seed: int, epoch: int) -> Any:
        order = np.random.default_rng([seed, epoch]).permutation(len(lengths))
        return np.split(order, range(batch_size, len(order), batch_size))

    def uncut(rows: Any, lengths: Any, size: int, tokens: int | None = None) -> Any:
        return [rows[start : start + size] for start in range(0, len(rows), size)]

    def in_order(lengths: Any, tokens: int) -> Any:
        return np.split(np.arange(len(lengths)), range(64, len(lengths), 64))

    fine_tune.epoch_batches = shuffled  # type: ignore[assignment]
    accumulation.micro_batches = uncut  # type: ignore[assignment]
    evaluate.evaluation_batches = in_order  # type: ignore[assignment]


def portfolio() -> None:
    """Enqueue no first configurations: all are sampled."""
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
