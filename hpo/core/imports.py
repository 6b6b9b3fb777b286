"""Imports without the garbage collector, which finds nothing there and costs more than anything else in them."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def gc_disabled() -> Iterator[None]:
    """Do not collect garbage meanwhile: 1 s of the 6.7 s that torch and transformers take otherwise."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def freeze_gc() -> None:
    """Never look for garbage among what there is now. For a process of hpo's own, when it has imported.

    A full collection of it takes 0.1 to 0.3 s, and with sixteen workers on one machine all fell into one moment.
    """
    gc.freeze()
