"""The layout of the code: sizes of folders and files, a summary in each file, and tests that mirror the modules."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = sorted((ROOT / "hpo").rglob("*.py"))
FOLDERS = sorted({module.parent for module in MODULES})
MOST_FILES, MOST_LINES = 14, 400
# Folders of tests about hpo as a whole, or about other parts of the repository.
OTHER_TESTS = {"browser", "contracts", "examples", "faults"}


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: str(folder.relative_to(ROOT)))
def test_folder_is_small_and_a_package(folder: Path) -> None:
    assert len(list(folder.glob("*.py"))) <= MOST_FILES
    assert (folder / "__init__.py").is_file()


def test_modules_are_short_and_start_with_a_summary() -> None:
    for module in MODULES:
        source = module.read_text(encoding="utf-8")
        assert source.count("\n") <= MOST_LINES, module
        summary = (ast.get_docstring(ast.parse(source)) or "").split("\n\n")[0].rstrip()
        assert summary.endswith((".", ":", "?")), f"{module}: the first paragraph of its docstring is a sentence"


def test_folders_of_tests_mirror_those_of_hpo() -> None:
    tests = {path.parent.relative_to(ROOT / "tests").as_posix() for path in (ROOT / "tests").rglob("test_*.py")}
    packages = {folder.relative_to(ROOT / "hpo").as_posix() for folder in FOLDERS}
    assert {folder for folder in tests - packages if folder.partition("/")[0] not in OTHER_TESTS} == set()
