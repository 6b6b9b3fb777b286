"""The garbage collector is disabled inside the block and restored after it."""

import gc

import pytest

from hpo.core.imports import gc_disabled


@pytest.mark.parametrize("enabled", [True, False])
def test_gc_disabled_restores_the_previous_state(enabled: bool) -> None:
    if not enabled:
        gc.disable()
    try:
        with gc_disabled():
            assert not gc.isenabled()
        assert gc.isenabled() == enabled
    finally:
        gc.enable()
