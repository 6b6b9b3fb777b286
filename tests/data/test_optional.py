"""Optional packages."""

import json

import pytest

from hpo.data.optional import require_module
from hpo.errors import DataError


def test_missing_package_raises_with_the_command_that_installs_it() -> None:
    assert require_module("json", "audio", "Reading audio") is json
    with pytest.raises(DataError, match=r"Reading audio needs a package .*pip install 'hpo-finetune\[audio\]'"):
        require_module("no_such_package", "audio", "Reading audio")
