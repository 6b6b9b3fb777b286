"""Configuration of the backend: names, settings and errors."""

from typing import Any

import pytest

from hpo.config.load import load_config
from hpo.errors import ConfigError


def written(**more: Any) -> dict[str, Any]:
    return {"name": "s", "data": "d.csv", "models": "org/a", "search_space": {"learning_rate": 1e-3}, **more}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("rya", "backend.name: must be one of local, inline, ray, slurm"),
        ({"ray": {"adress": "x"}}, "backend.ray.adress: no such key. Did you mean 'address'?"),
        ({"ray": 3}, "backend.ray: must hold keys with values"),
        ({"name": "local", "ray": {}}, "backend: has settings of ray, but the backend is local"),
        ({"slurm": {"hours": 0}}, "backend.slurm.hours: must be greater than 0"),
        ({"slurm": {"gpus_per_worker": 2}}, "backend.slurm.gpus_per_worker: must be less than or equal to 1"),
    ],
)
def test_error_names_the_key(given: Any, message: str) -> None:
    with pytest.raises(ConfigError, match="^" + message.replace(".", r"\.").replace("?", r"\?")):
        load_config(written(backend=given))


@pytest.mark.parametrize("given", ["ray", {"ray": {"address": "auto", "gpus_per_worker": 0.5}}, {"slurm": None}])
def test_backend_round_trips(given: Any) -> None:
    config = load_config(written(backend=given))
    plain = config.to_dict()["backend"]
    assert plain == ("slurm" if given == {"slurm": None} else given)
    assert load_config(config.to_dict()) == config
    assert load_config(written(), ["backend.slurm.hours=2"]).backend.name == "slurm"
