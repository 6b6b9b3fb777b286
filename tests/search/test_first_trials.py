"""The configurations that are tried first: named ones, and good defaults."""

import itertools
from typing import Any

import optuna
import pytest

from hpo.config.first_trials import ModelTraits
from hpo.config.load import load_config
from hpo.config.study import StudyConfig
from hpo.config.trial_params import TrialParams
from hpo.errors import ConfigError
from hpo.search.first_trials import NEAREST_TO_NONE, FirstTrials, first_trials
from hpo.search.suggest import suggest

LAYERS = {"org/a": 2, "org/b": 6}
SPACE: dict[str, Any] = {
    "learning_rate": {"low": 1e-6, "high": 1e-3, "log": True},
    "batch_size": [16, 32],
    "epochs": {"low": 2, "high": 6, "step": 3},
    "frozen_layers": {"share": [0, 1]},
    "dropout": {"low": 0, "high": 0.3, "step": 0.1},
    "lr_scheduler": ["linear", "cosine"],
    "warmup_ratio": {"low": 0, "high": 0.2, "when": {"lr_scheduler": "cosine"}},
    "weight_decay": 0.05,
}


def config_of(**changed: Any) -> StudyConfig:
    return load_config({"name": "s", "data": "d", "models": ["org/a", "org/b"], "search_space": SPACE, **changed})


def points(config: StudyConfig, layers: dict[str, int]) -> list[dict[str, Any]]:
    models = {model: ModelTraits(count) for model, count in layers.items()}
    return list(first_trials(config, models).points)


def test_named_configurations_are_tried_with_each_model_unchanged() -> None:
    config = config_of(
        first_trials=[
            {"learning_rate": 2e-5, "frozen_layers": 1, "lr_scheduler": "cosine", "weight_decay": 0.05},
            {"model": "org/b", "frozen_layers": {"share": 1}, "dropout": 0.3, "epochs": 5},
        ]
    )
    queue = points(config, LAYERS)
    assert [point["model"] for point in queue] == ["org/a", "org/b", "org/b"]
    study = optuna.create_study()
    suggested = []
    for point in queue:
        study.enqueue_trial(point)
        trial = study.ask()
        suggested.append(suggest(trial, config.search_space, config.labels))
        assert trial.params == point  # the sampler neither added nor changed a parameter
    assert [p.resolve_frozen_layers(LAYERS[p.model]) for p in suggested] == [1, 1, 6]
    assert [p.learning_rate for p in suggested] == [2e-5, 2e-5, 5e-5]
    assert [p.warmup_ratio for p in suggested] == [0.1, 0.1, 0.1]
    assert "warmup_ratio" in queue[0] and "warmup_ratio" not in queue[2]


def test_defaults_are_moved_into_the_search_space() -> None:
    queue = points(config_of(search_space={**SPACE, "learning_rate": {"low": 1e-4, "high": 1e-3}}), LAYERS)
    assert len(queue) == 2
    assert queue[0] == {
        "model": "org/a",
        "learning_rate": 1e-4,
        "batch_size": 32,
        "epochs": 2,
        "frozen_share": queue[0]["frozen_share"],
        "dropout": 0.1,  # that of most models
        "lr_scheduler": "linear",
    }
    assert TrialParams(**queue[0]).resolve_frozen_layers(2) == 0
    own = config_of(search_space={"dropout": [None, 0.2], "early_stopping_patience": {"low": 1, "high": 4}})
    assert points(own, LAYERS)[0] == {"model": "org/a", "dropout": None, "early_stopping_patience": 4}


def test_every_default_of_none_has_a_nearest_number() -> None:
    off = {name for name, field in TrialParams.model_fields.items() if field.default is None}
    assert off - {"frozen_share"} == NEAREST_TO_NONE.keys()


def test_counts_and_shares_of_frozen_layers_are_converted() -> None:
    counted = config_of(
        search_space={"frozen_layers": {"low": 0, "high": 2}}, first_trials=[{"frozen_layers": {"share": 0.5}}]
    )
    assert [point["frozen_layers"] for point in points(counted, {"org/a": 2, "org/b": 3})] == [1, 2]
    for count, (model, layers) in itertools.product((0, 1, 2), LAYERS.items()):
        (point,) = points(config_of(first_trials=[{"model": model, "frozen_layers": count}]), LAYERS)
        assert TrialParams(**point).resolve_frozen_layers(layers) == count


def test_conditions_on_a_fixed_value_and_on_the_model_hold() -> None:
    space = {
        "lr_scheduler": "cosine",
        "warmup_ratio": {"low": 0.1, "high": 0.2, "when": {"lr_scheduler": "cosine"}},
        "dropout": {"low": 0.0, "high": 0.2, "when": {"model": "org/b"}},
    }
    queue = points(config_of(search_space=space, first_trials=[{"warmup_ratio": 0.2}]), LAYERS)
    assert queue == [
        {"model": "org/a", "warmup_ratio": 0.2},
        {"model": "org/b", "warmup_ratio": 0.2, "dropout": 0.1},
    ]


@pytest.mark.parametrize(
    ("trial", "expected"),
    [
        (
            {"learning_rate": 0.5},
            "first_trials[0].learning_rate: 0.5 is outside the search space; the nearest is 0.001.",
        ),
        ({"batch_size": 24}, "first_trials[0].batch_size: 24 is outside the search space; the nearest is 16."),
        ({"dropout": 0.15}, "first_trials[0].dropout: 0.15 is outside the search space; the nearest is"),
        (
            {"weight_decay": 0.01},
            "first_trials[0].weight_decay: 0.01 is outside the search space; the nearest is 0.05.",
        ),
        ({"label_smoothing": 0.1}, "first_trials[0].label_smoothing: 0.1 is not in the search space, where each"),
        ({"warmup_ratio": 0.2}, "first_trials[0].warmup_ratio: 0.2 is not in the search space, where each"),
        ({"frozen_layers": 5}, "first_trials[0].frozen_layers: 5 is more than the 2 layers of org/a."),
        (
            {"model": "org/b", "frozen_layers": 7},
            "first_trials[0].frozen_layers: 7 is more than the 6 layers of org/b.",
        ),
    ],
)
def test_configuration_outside_the_search_space_raises(trial: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        points(config_of(first_trials=[trial]), LAYERS)
    assert expected in str(caught.value)


def test_count_of_frozen_layers_beyond_the_share_raises() -> None:
    half = config_of(search_space={"frozen_layers": {"share": [0, 0.5]}}, first_trials=[{"frozen_layers": 6}])
    with pytest.raises(ConfigError, match=r"frozen_layers: 6 is outside the search space; the nearest is 3"):
        points(half, {"org/a": 6, "org/b": 6})


FAMILIES = {
    "org/a": ModelTraits(2, "bert", 4_000_000),
    "org/b": ModelTraits(6, "roberta", 125_000_000),
    "org/c": ModelTraits(6, "mystery", 100_000_000),
}
PORTFOLIO = [
    {"when": {"max_params": 50e6}, "learning_rate": 3e-4, "epochs": 5},
    {"when": {"model_type": ["roberta"]}, "learning_rate": 2e-5, "epochs": 4, "weight_decay": 0.1},
    {"when": {"model_type": "roberta"}, "learning_rate": 1e-4, "peft": "lora"},
    {"when": {"min_params": 50e6, "max_params": 124e6, "model_type": "roberta"}, "learning_rate": 1e-6},
    {"when": {"model_type": "bert"}, "learning_rate": 5e-4},
]


NOTHING_FROZEN = {"learning_rate": {"low": 1e-5, "high": 1e-3, "log": True}}


def good_defaults(trials: int = 32, models: dict[str, ModelTraits] = FAMILIES, **changed: Any) -> FirstTrials:
    config = config_of(models=list(FAMILIES), budget={"max_trials": trials}, portfolio=PORTFOLIO, **changed)
    return first_trials(config, models)


def test_portfolio_has_one_default_for_each_model_before_variants() -> None:
    found = good_defaults()
    assert [(p["model"], p["learning_rate"]) for p in found.points] == [
        ("org/a", 3e-4),
        ("org/b", 2e-5),
        ("org/c", 5e-5),  # the portfolio has no entry for it
        ("org/a", 5e-4),
    ]
    assert found.points[1]["epochs"] == 5  # the nearest to 4 in the search space
    assert found.note.endswith("own recipes go first: 1 moved into the search space, 1 left out.")
    space = config_of().search_space
    study = optuna.create_study()
    for point in found.points:
        study.enqueue_trial(point)
        trial = study.ask()
        suggest(trial, space, list(FAMILIES))
        assert trial.params == point  # complete, and in the search space
    best_first = {label: FAMILIES[label] for label in ("org/b", "org/a")}  # c is dropped
    assert [p["model"] for p in good_defaults(models=best_first).points] == ["org/b", "org/a", "org/a"]


def test_portfolio_starts_with_the_head_alone_where_all_layers_can_be_frozen() -> None:
    portfolio = [{"frozen_share": 1.0, "learning_rate": 2e-4}, *PORTFOLIO]
    config = config_of(models=list(FAMILIES), budget={"max_trials": 32}, portfolio=portfolio)
    first, *others = first_trials(config, FAMILIES).points
    assert (first["model"], first["learning_rate"]) == ("org/a", 2e-4)
    assert TrialParams(**first).resolve_frozen_layers(2) == 2
    assert others == list(good_defaults().points)
    narrow = config.model_copy(update={"search_space": config_of(search_space=NOTHING_FROZEN).search_space})
    assert [p["model"] for p in first_trials(narrow, FAMILIES).points][:3] == list(FAMILIES)


def test_portfolio_of_ranked_models_is_that_of_the_best() -> None:
    config = config_of(models=list(FAMILIES), budget={"max_trials": 32}, portfolio=PORTFOLIO)
    assert first_trials(config, FAMILIES, ranked=True).points == tuple(
        point for point in good_defaults().points if point["model"] == "org/a"
    )
    named = config_of(models=list(FAMILIES), first_trials=[{"epochs": 5}])
    assert len(first_trials(named, FAMILIES, ranked=True).points) == len(FAMILIES)  # as given


def test_portfolio_is_a_part_of_the_budget() -> None:
    assert [p["model"] for p in good_defaults(9).points] == ["org/a", "org/b", "org/c"]  # no room for a variant
    assert [p["model"] for p in good_defaults(4).points] == ["org/a", "org/b"]
    assert len(good_defaults(1).points) == 1
    assert "2 left out" in good_defaults(9).note


def test_defaults_with_adapters_are_for_spaces_with_adapters() -> None:
    space = {**SPACE, "peft": ["none", "lora"]}
    both = good_defaults(search_space=space).points
    assert [(p["model"], p["peft"]) for p in both if p["model"] == "org/b"] == [("org/b", "none"), ("org/b", "lora")]
    only = good_defaults(search_space={**SPACE, "peft": "lora"}).points
    assert {p["model"] for p in only} == set(FAMILIES)
    assert [(p["model"], p["learning_rate"]) for p in only if p["model"] == "org/b"] == [("org/b", 1e-4)]


def test_named_configurations_may_be_for_some_models() -> None:
    written = [{"when": {"model_type": "roberta"}, "learning_rate": 2e-5}, {"when": {"max_params": 5e6}, "epochs": 5}]
    named = good_defaults(first_trials=written).points
    assert [(p["model"], p["learning_rate"]) for p in named] == [("org/b", 2e-5), ("org/a", 5e-5)]
    for wrong, expected in (({"model_typ": "bert"}, "Did you mean 'model_type'"), ({"min_params": -1}, "greater than")):
        with pytest.raises(ConfigError, match=r"first_trials\[0\]\.when\.") as caught:
            config_of(first_trials=[{"when": wrong, "epochs": 2}])
        assert expected in str(caught.value)
