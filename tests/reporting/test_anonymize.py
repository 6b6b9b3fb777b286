"""Commands and names without folders and passwords."""

import pytest

from hpo.reporting.anonymize import anonymize_command, anonymize_name


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("hpo run /a/b.yaml --set data.path=/c/d", "hpo run b.yaml --set data.path=d"),
        (
            "hpo run a.yaml --storage postgresql+psycopg://me:p@ss@db/hpo",
            "--storage postgresql+psycopg://me:***@db/hpo",
        ),
        ("hpo run a.yaml --storage sqlite:////home/me/hpo.db", "--storage sqlite:///hpo.db"),
        ("hpo run 'my study.yaml'", "hpo run 'my study.yaml'"),
        ("hpo run 'unclosed", "hpo run"),
    ],
)
def test_commands_lose_folders_and_passwords(given: str, expected: str) -> None:
    assert expected in anonymize_command(given)
    assert "p@ss" not in anonymize_command(given) and "/home" not in anonymize_command(given)


def test_names_lose_folders() -> None:
    assert [anonymize_name(name) for name in ("/a/b", "../b", "~/b", "org/b")] == ["b", "b", "b", "org/b"]
