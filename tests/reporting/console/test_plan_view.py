"""The plan of a study: data, models, forecast and warnings."""

import pytest

from hpo.reporting.console import console


def test_plan_has_data_models_and_forecast(capsys: pytest.CaptureFixture[str]) -> None:
    data = {"sizes": {"train": 4000, "test": 1000}, "labels": ["a", "[b]"], "notes": ["12 rows dropped"]}
    model = {"model": "tiny", "architecture": "bert", "parameters": 1_412_000, "layers": 3, "max_length": 64}
    console.show_plan("quick", data, [{**model, "seconds_per_epoch": 3.3}], {"search": 200, "confirm": 20}, ["careful"])
    printed = capsys.readouterr()
    for part in ("4,000 train, 1,000 test", "2: a, [b]", "12 rows dropped", "1.4 M", "3.3 s", "about 3 m 40 s"):
        assert part in printed.out
    assert printed.err == "Warning: careful\n"
