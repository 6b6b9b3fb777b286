"""Advice in terms of options, and options that reach the data and the study file."""

from pathlib import Path

import pytest

from hpo.config.load import load_config
from hpo.errors import DataError
from hpo.workflow.flags import PREDICT, as_flags
from hpo.workflow.init import write_study_file


def test_keys_become_options() -> None:
    message = "data.text: x. Set `data.encoding: cp1252`, `data.drop_empty: true` or `data.image`; `data.path` stays"
    assert as_flags(message) == "--text: x. Set `--encoding cp1252`, `--drop-empty` or `--text`; `data.path` stays"
    assert as_flags("set `data.encoding: latin-1` or `data.text`", PREDICT) == "set `--encoding latin-1` or `data.text`"


def test_advice_of_init_can_be_followed(tmp_path: Path) -> None:
    data, output = tmp_path / "d.csv", tmp_path / "d.yaml"
    rows = [f"caf\xe9 {n} {'good' if n % 2 else 'bad'},{n % 2}" for n in range(40)] + [",1"]
    data.write_bytes("\n".join(["text,label", *rows]).encode("cp1252"))
    with pytest.raises(DataError, match="set `--encoding cp1252`"):
        write_study_file(str(data), ["m"], output=output)
    with pytest.raises(DataError, match="set `--drop-empty`"):
        write_study_file(str(data), ["m"], output=output, reading={"encoding": "cp1252"})
    write_study_file(str(data), ["m"], output=output, reading={"encoding": "cp1252", "drop_empty": True, "test": None})
    config = load_config(output)
    assert config.data.encoding == "cp1252" and config.data.drop_empty and config.data.test is None
