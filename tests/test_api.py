"""The public names of `hpo`, and what each of them accepts and returns."""

import subprocess
import sys

ERRORS = (
    *("ConfigError", "DataError", "DeviceLost", "Diverged", "HpoError", "ModelError", "OutOfMemory"),
    *("StorageError", "StudyError", "TrialError"),
)


def test_dir_shows_the_public_names_and_nothing_else() -> None:
    import hpo.workflow.run  # a submodule that was imported is not shown

    assert dir(hpo) == hpo.__all__
    assert not [name for name in dir(hpo) if name.startswith("_") and name != "__version__"]
    for name in hpo.__all__:
        assert getattr(hpo, name) is not None
        if name != "__version__":
            assert getattr(hpo, name).__name__ == name
            assert getattr(hpo, name).__doc__
    assert all(issubclass(getattr(hpo, name), hpo.HpoError) for name in ERRORS)


def test_import_loads_no_library() -> None:
    heavy = "torch transformers optuna datasets pandas rich sqlalchemy evaluate sklearn pydantic numpy"
    script = f"import sys, hpo; print([name for name in '{heavy}'.split() if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
