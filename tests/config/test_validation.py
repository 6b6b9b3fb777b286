"""Messages of validation errors, and names of studies."""

from typing import Any

import pytest
from pydantic import Field, ValidationError

from hpo.config.validation import Config, check_study_name, explain
from hpo.errors import ConfigError


class Inner(Config):
    size: int = Field(1, ge=1)


class Outer(Config):
    inner: Inner | None = None
    others: tuple[Inner, ...] = ()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"iner": {}}, "iner: no such key. Did you mean 'inner'? Allowed: inner, others."),
        ({"inner": {"siz": 2}}, "inner.siz: no such key. Did you mean 'size'? Allowed: size."),
        ({"others": [{}, {"sise": 2}]}, "others.1.sise: no such key. Did you mean 'size'? Allowed: size."),
        ({"inner": {"size": 0}}, "inner.size: must be greater than or equal to 1 (given: 0)."),
        ({"inner": {"size": 1.5}}, "inner.size: must be an integer (given: 1.5)."),
        ({"inner": 3}, "inner: must hold keys with values (given: 3)."),
    ],
)
def test_explain_names_the_key_and_what_is_allowed(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Outer.model_validate(given)
    assert explain(caught.value, Outer) == message


@pytest.mark.parametrize("name", ["", "  ", "a\0b", "x" * 513, "bad \udcff byte"])
def test_invalid_study_name_raises(name: str) -> None:
    with pytest.raises(ConfigError, match=r"^name: "):
        check_study_name(name)
