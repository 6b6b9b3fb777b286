"""What pyproject.toml cannot declare: assets copied into the package, and a README that works on an index page."""

import re
import shutil
import tomllib
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
# Folder of the package ← files of the checkout. `hpo.core.assets` finds them in either.
ASSETS = {"search_spaces": "search_spaces/*.yaml", "demo_models": "examples/models/*/*"}


class BuildWithAssets(build_py):
    """Copy search spaces and demonstration models into the package. An editable install reads the checkout's."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            for source, target in self._assets().items():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, target)

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        return [*super().get_outputs(include_bytecode), *map(str, self._assets().values())]

    def _assets(self) -> dict[Path, Path]:
        found = {}
        for name, pattern in ASSETS.items():
            top = ROOT / pattern.partition("*")[0]
            for source in sorted(ROOT.glob(pattern)):
                found[source] = Path(self.build_lib) / "hpo" / name / source.relative_to(top)
        return found


def index_page(readme: str, repository: str | None, version: str) -> str:
    """Return the README with absolute links into `repository`, or without its images and relative links."""

    def absolute(match: re.Match[str]) -> str:
        image, text, target = match.groups()
        if repository is None:
            return "" if image else text
        return f"{image}[{text}]({repository}/{'raw' if image else 'blob'}/v{version}/{target})"

    return re.sub(r"(!?)\[([^\]]*)\]\((?!https?://|#)([^)]+)\)", absolute, readme)


project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
setup(
    cmdclass={"build_py": BuildWithAssets},
    long_description=index_page(
        (ROOT / "README.md").read_text(encoding="utf-8"),
        project.get("urls", {}).get("Repository"),
        project["version"],
    ),
    long_description_content_type="text/markdown",
)
