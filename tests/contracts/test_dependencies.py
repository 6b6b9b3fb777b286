"""Every package that hpo imports is declared in pyproject.toml, and every one declared for its users is imported."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import hpo

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
# Import name → distribution, where they differ.
DISTRIBUTIONS = {
    "PIL": "pillow",
    "pydantic_core": "pydantic",  # which pins it
    "sklearn": "scikit-learn",
    "ruamel": "ruamel-yaml",
}
OF_A_NOTEBOOK = {"ipython"}  # imported only inside one
# Imported by name, or by other packages: metrics by evaluate, models by transformers, drivers by SQLAlchemy.
INDIRECT = {"jiwer", "openpyxl", "pymysql", "soundfile", "timm"}


def normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def imported(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield the top-level package of each absolute import, those inside functions included, and its file."""
    for file in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                names = [node.module]
            else:
                continue
            for name in names:
                yield name.partition(".")[0], file


def declared(requirements: list[str]) -> set[str]:
    return {normalized(re.match(r"[\w.-]+", requirement).group()) for requirement in requirements}  # type: ignore[union-attr]


def test_imports_are_declared_and_declared_packages_are_imported() -> None:
    found: dict[str, Path] = {}
    for name, file in imported(ROOT / "hpo"):
        if name != "hpo" and name not in sys.stdlib_module_names:
            found.setdefault(normalized(DISTRIBUTIONS.get(name, name)), file)
    extras = PROJECT["optional-dependencies"]
    offered = declared(PROJECT["dependencies"]) | {
        name for extra, packages in extras.items() if extra != "dev" for name in declared(packages)
    }
    undeclared = {name: str(file.relative_to(ROOT)) for name, file in found.items() if name not in offered}
    assert undeclared.keys() <= OF_A_NOTEBOOK, undeclared
    assert offered - found.keys() <= INDIRECT


def test_version_is_that_of_the_distribution() -> None:
    assert hpo.__version__ == PROJECT["version"]


def test_pinned_versions_are_within_the_bounds() -> None:
    from packaging.requirements import Requirement

    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").split()
    pinned = {normalized(name): version for name, _, version in (line.partition("==") for line in lines)}
    everything = [*PROJECT["dependencies"], *(p for ps in PROJECT["optional-dependencies"].values() for p in ps)]
    for requirement in map(Requirement, everything):
        version = pinned.get(normalized(requirement.name))
        assert version is None or requirement.specifier.contains(version), requirement
    missing = declared(PROJECT["dependencies"]) | declared(PROJECT["optional-dependencies"]["dev"])
    assert missing - pinned.keys() == {"hpo-finetune"}
