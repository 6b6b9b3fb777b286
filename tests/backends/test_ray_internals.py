"""The private parts of Ray: missing ones are reported at import."""

import sys
import tomllib
from pathlib import Path

import pytest

from hpo.errors import ConfigError

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.slow  # the import of Ray takes seconds


@pytest.mark.parametrize(
    ("module", "name"), [("services", "find_bootstrap_address"), ("ray_constants", "ENABLE_RAY_CLUSTER")]
)
def test_missing_part_of_ray_raises(module: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from hpo.backends.ray_internals import WORKING_VERSIONS, verify_ray

    verify_ray()
    monkeypatch.delattr(sys.modules[f"ray._private.{module}"], name)
    with pytest.raises(ConfigError, match=name) as raised:
        verify_ray()
    assert ray.__version__ in str(raised.value) and f"pip install '{WORKING_VERSIONS}'" in str(raised.value)


def test_ignored_argument_of_init_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    from hpo.backends.ray_internals import verify_ray

    monkeypatch.setattr(ray, "init", lambda **options: options)
    with pytest.raises(ConfigError, match="_node_ip_address"):
        verify_ray()


def test_working_versions_are_those_of_pyproject() -> None:
    from hpo.backends.ray_internals import WORKING_VERSIONS

    text = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    assert WORKING_VERSIONS in tomllib.loads(text)["project"]["optional-dependencies"]["ray"]
