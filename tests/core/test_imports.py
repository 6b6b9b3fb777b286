"""The garbage collector rests while modules are imported, and afterwards does what it did before."""

import gc

import pytest

from hpo.core.imports import gc_disabled


@pytest.mark.parametrize("enabled", [True, False])
def test_the_collector_rests_and_is_left_as_it_was(enabled: bool) -> None:
    if not enabled:
        gc.disable()
    try:
        with gc_disabled():
            assert not gc.isenabled()
        assert gc.isenabled() == enabled
    finally:
        gc.enable()
