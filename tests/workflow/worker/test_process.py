"""The process of a worker: its imports run before its specification arrives."""

import subprocess
import sys

import pytest


@pytest.mark.slow
def test_waiting_worker_has_imported_what_loading_a_model_needs() -> None:
    script = """
import sys
from hpo.workflow.worker import process
late = {"evaluate", "transformers.modeling_utils"}
assert not late & sys.modules.keys()
process.main()
print(*sorted(late & sys.modules.keys()))
"""
    # Its specification never comes: the parent has found a mistake.
    done = subprocess.run(
        [sys.executable, "-c", script], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["evaluate", "transformers.modeling_utils"]
