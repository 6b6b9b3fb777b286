"""Strict YAML: types of scalars, errors with their line, and round trips."""

import os
from pathlib import Path

import pytest

from hpo.config.yaml import inline, parse_yaml, read_yaml, to_yaml
from hpo.errors import ConfigError


def test_yaml_1_2_scalars() -> None:
    text = "a: 1e-5\nb: no\nc: off\nd: 012\ne: true\nf: 2026-01-01x\ng: [yes, 'no', 3]\n"
    assert parse_yaml(text, "x") == {
        "a": 1e-5,
        "b": "no",
        "c": "off",
        "d": 12,
        "e": True,
        "f": "2026-01-01x",
        "g": ["yes", "no", 3],
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", r"x\.yaml, line 3: .*\"a\".* once"),
        ("m:\n  k: 1\n  k: 2\n", r"x\.yaml, line 3: .*\"k\""),
        ("a: 1\nb: !!python/object/apply:os.system ['true']\n", r"x\.yaml, line 2: .*tag"),
        ("a: [1, 2\nb: 3\n", r"x\.yaml, line \d: not valid YAML"),
        ("a: 1\n\tb: 2\n", r"x\.yaml, line 2: not valid YAML"),
        ("- a\n- b\n", r"x\.yaml: expected `key: value` lines, found list"),
        ("", r"x\.yaml: expected `key: value` lines, found nothing"),
        ("just words", r"x\.yaml: expected `key: value` lines, found str"),
        ("a: 1\n---\nb: 2\n", r"x\.yaml, line 2: "),
        ("a: \x07\n", r"x\.yaml: .*character"),
        ("a: 2026-13-45\n", r"x\.yaml: .*month"),
    ],
)
def test_error_names_the_line(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_yaml(path)


def test_unreadable_file_is_named_in_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=f"There is no file {tmp_path}/none.yaml"):
        read_yaml(Path("none.yaml"))
    (tmp_path / "latin.yaml").write_bytes("name: Zoë".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"latin\.yaml.*byte 0xeb"):
        read_yaml(Path("latin.yaml"))
    with pytest.raises(ConfigError, match="is a folder, not a YAML file"):
        read_yaml(tmp_path)


@pytest.mark.parametrize(
    "value",
    ["label", "no", "1e-5", "3", "a: b", "# x", "it's", '"q"', "a, b", "[x]", "", " padded ", "null", "Größe", "a\tb"],
)
def test_inline_round_trips_any_string(value: str) -> None:
    assert parse_yaml(f"key: {inline(value)}", "") == {"key": value}
    assert parse_yaml(f"key: {inline([value, 'b'])}  # why", "") == {"key": [value, "b"]}


def test_to_yaml_round_trips_in_order() -> None:
    values = {"z": 1e-5, "a": ["no", None, True], "m": {"text": "line\nline", "odd": "a: b"}, "e": {}, "l": []}
    assert parse_yaml(to_yaml(values), "") == values
    assert list(parse_yaml(to_yaml(values), "")) == list(values)


def test_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "study.yaml")
    with pytest.raises(ConfigError, match="a pipe or a device, not a YAML file"):
        read_yaml(tmp_path / "study.yaml")


@pytest.mark.parametrize("text", ["a: " + "[" * 5000 + "]" * 5000, "a: " + "{b: " * 3000 + "1" + "}" * 3000])
def test_deep_nesting_raises_in_one_line(text: str) -> None:
    with pytest.raises(ConfigError, match="nested too deeply") as raised:
        parse_yaml(text, "study.yaml")
    assert len(str(raised.value)) < 200


@pytest.mark.parametrize(
    "text",
    [
        "a0: &a0 [1,1,1,1,1,1,1,1,1,1]\n"
        + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 10)),
        "a: &a [*a]",
    ],
)
def test_aliases_that_expand_without_end_raise(text: str) -> None:
    with pytest.raises(ConfigError, match="aliases"):
        parse_yaml(text, "study.yaml")


def test_ordinary_aliases_are_read() -> None:
    assert parse_yaml("a: &a {x: 1}\nb: *a\nc: [*a, *a]", "")["c"] == [{"x": 1}, {"x": 1}]
