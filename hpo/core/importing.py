"""Imports without the garbage collector, which finds nothing there and costs more than anything else in them."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def importing() -> Iterator[None]:
    """Do not collect garbage meanwhile, and never look again at what there is afterwards (`gc.freeze`).

    For a process of hpo's own, at its start. With torch and transformers: 1 s of 6.7 s of imports, and 0.3 s at each
    full collection later, which with sixteen workers on one machine fell into one moment.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
