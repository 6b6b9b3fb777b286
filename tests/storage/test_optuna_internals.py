"""The private parts of Optuna and Ray: used in one file each, and missing ones are reported at import."""

import ast
import runpy
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.storages import RDBStorage
from optuna.storages._cached_storage import _CachedStorage
from optuna.storages._rdb import models

from hpo.errors import StorageError
from hpo.storage import optuna_internals

ROOT = Path(__file__).parents[2]
OWN_FILES = {ROOT / "hpo/storage/optuna_internals.py", ROOT / "hpo/backends/ray_internals.py"}


def rename_parameter(self: Any, study_id: int, template: Any = None) -> None: ...


MISSING: list[tuple[type, str, Any, str]] = [
    (RDBStorage, "_create_new_trial", None, r"RDBStorage\._create_new_trial\(study_id, template_trial\)"),
    (RDBStorage, "_create_new_trial", rename_parameter, r"RDBStorage\._create_new_trial\(study_id, template_trial\)"),
    (RDBStorage, "set_trial_state_values", rename_parameter, r"RDBStorage\.set_trial_state_values"),
    (optuna.Study, "_get_trials", None, r"Study\._get_trials"),
    (optuna.Study, "__init__", lambda self, name: None, r"Study\._study_id.*Study\._storage"),
    (models.TrialModel, "datetime_start", None, r"TrialModel\.datetime_start"),
]


@pytest.mark.parametrize(("owner", "name", "changed", "message"), MISSING)
def test_missing_part_of_optuna_raises_at_import(
    owner: type, name: str, changed: Any, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if changed is None:
        monkeypatch.delattr(owner, name)
    else:
        monkeypatch.setattr(owner, name, changed)
    with pytest.raises(StorageError, match=message) as raised:
        runpy.run_path(optuna_internals.__file__)
    assert optuna.__version__ in str(raised.value)
    assert f"pip install '{optuna_internals.WORKING_VERSIONS}'" in str(raised.value)


def test_missing_module_of_optuna_raises_at_import(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna.storages._cached_storage", None)
    with pytest.raises(StorageError, match=r"optuna\.storages\._cached_storage"):
        runpy.run_path(optuna_internals.__file__)


def test_working_versions_are_those_of_pyproject() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert optuna_internals.WORKING_VERSIONS in project["dependencies"]


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def private_names() -> set[str]:
    """Names of private methods and attributes of the classes of Optuna that hpo uses."""
    constructed = (optuna.Study, optuna.trial.Trial, optuna.trial.FrozenTrial, RDBStorage, _CachedStorage)
    names = {name for cls in (*constructed, BaseSampler, BasePruner) for name in dir(cls)}
    names |= {name for cls in constructed for name in cls.__init__.__code__.co_names}
    return {name for name in names if is_private(name)} | {"_rdb", "_node_ip_address"}


PRIVATE = private_names()


def private_uses(tree: ast.Module) -> Iterator[str]:
    """The private names of Optuna and Ray that a module imports, reads, overrides or holds as a string."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            module = getattr(node, "module", None) or ""
            names = [f"{module}.{alias.name}".strip(".") for alias in node.names]
            yield from (
                name for name in names if name.startswith(("optuna.", "ray.")) and any(map(is_private, name.split(".")))
            )
        elif isinstance(node, ast.Attribute) and node.attr in PRIVATE:
            if not (isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")):
                yield ast.unparse(node)
        elif isinstance(node, ast.ClassDef) and any("Storage" in ast.unparse(base) for base in node.bases):
            yield from (part.name for part in node.body if isinstance(part, ast.FunctionDef) and part.name in PRIVATE)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in PRIVATE:
            yield node.value


@pytest.mark.parametrize(
    "code",
    [
        "from optuna.storages._rdb import models",
        "import ray._private.services",
        "study._study_id",
        "super()._get_trials()",
        "class A(RDBStorage):\n    def _create_new_trial(self): ...",
        "setattr(Storage, '_get_trials', None)",
    ],
)
def test_private_use_is_found(code: str) -> None:
    assert list(private_uses(ast.parse(code)))


def test_no_other_file_uses_private_names_of_optuna_or_ray() -> None:
    found = {
        str(file.relative_to(ROOT)): uses
        for file in sorted((ROOT / "hpo").rglob("*.py"))
        if file not in OWN_FILES and (uses := list(private_uses(ast.parse(file.read_text()))))
    }
    assert found == {}
