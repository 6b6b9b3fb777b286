"""Search spaces by name: a file of the study comes before a ready-made one."""

from pathlib import Path

import pytest

from hpo.config.space_files import read_space_file, ready_made_spaces
from hpo.errors import ConfigError


def test_file_comes_before_a_ready_made_space(tmp_path: Path) -> None:
    assert "learning_rate" in read_space_file("vision", tmp_path)
    (tmp_path / "vision").write_text("epochs: 3\n")
    assert read_space_file("vision", tmp_path) == {"epochs": 3}


def test_unknown_space_raises_with_the_names(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Did you mean 'vision'") as caught:
        read_space_file("visoin", tmp_path)
    assert str(caught.value).endswith(f"Ready-made: {', '.join(sorted(ready_made_spaces()))}.")
