"""Starting after the frozen layers changes no number, is done once a machine, and is refused where it does not fit."""

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from hpo.config.trial_params import Report
from hpo.training.batches.features import Features
from hpo.training.execution import Execution
from hpo.training.fine_tune import FineTuning, Stopped
from hpo.training.frozen import cache
from hpo.training.frozen.cache import PrefixCache
from hpo.training.frozen.partial_forward import PartialForward
from hpo.training.plan import TrainingPlan
from tests.small_models import ARCHITECTURES
from tests.training.conftest import make_features

Plan = Callable[..., TrainingPlan]
# Their layers return more than a hidden state, or dropout acts before them: the cache does not fit them.
UNFIT = {"t5": "return more than a hidden state", "bart": "dropout acts before"}
QUICK = ("bert", "deberta-v2", "gpt2")
MATRIX = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in ARCHITECTURES]
FORCED = Execution(prefix_cache="used")


def keyed(features: Features, key: str) -> Features:
    return replace(features, key=key)


def data(name: str = "bert") -> dict[str, Features]:
    pad = 1 if name == "roberta" else 0
    made = {"train": make_features(pad=pad), "validation": make_features(24, 1, pad=pad)}
    for features in made.values():
        values, offsets = features.columns["input_ids"]
        values[offsets[1:] - 1] = 3  # T5 and BART read the end of a text
    return {split: keyed(features, split) for split, features in made.items()}


def run(plan: TrainingPlan) -> tuple[FineTuning, list[Report]]:
    tuning = FineTuning(plan)
    return tuning, list(tuning.reports())


def assert_same(one: list[Report], other: list[Report], rel: float = 1e-5) -> None:
    for a, b in zip(one, other, strict=True):
        assert a.train_loss == pytest.approx(b.train_loss, rel=rel)
        assert a.metrics["loss"] == pytest.approx(b.metrics["loss"], rel=rel)


@pytest.mark.parametrize("name", MATRIX)
def test_cached_and_uncached_agree_at_each_count(name: str, plan: Plan, tmp_path: Path) -> None:
    layers = 1 if name == "albert" else 3
    for count in range(1, layers + 1):
        store = PrefixCache(tmp_path / f"{count}")
        of = data(name)
        _, expected = run(plan(name, layers, epochs=3, frozen_layers=count, of=of))
        tuning, found = run(
            plan(name, layers, epochs=3, frozen_layers=count, of={**of, "prefixes": store, "execution": FORCED})
        )
        assert_same(found, expected)
        assert not [m for m in tuning.model.modules() if "forward" in vars(m)]  # an ordinary model again
        if name in UNFIT:
            assert UNFIT[name] in str(tuning.execution.prefix_cache)
        else:
            assert tuning.execution.prefix_cache == "used"
            assert len(list((tmp_path / f"{count}").glob("*/hidden.bin"))) == 2


def test_with_all_layers_frozen_one_token_an_example_is_kept(plan: Plan, tmp_path: Path) -> None:
    for name in ("bert", "gpt2"):  # the first token, the last
        store = PrefixCache(tmp_path / name)
        run(plan(name, frozen_layers=2, of={**data(), "prefixes": store, "execution": FORCED}))
        sizes = {path.stat().st_size for path in (tmp_path / name).glob("*/hidden.bin")}
        assert sizes == {48 * 16 * 4, 24 * 16 * 4}


def count_calls(model: torch.nn.Module, path: str) -> list[int]:
    calls = [0]
    module = model.get_submodule(path)
    compute = module.forward

    def counted(*args: Any, **keywords: Any) -> Any:
        calls[0] += 1
        return compute(*args, **keywords)

    module.forward = counted  # type: ignore[method-assign]
    return calls


def test_frozen_layers_and_embeddings_are_not_computed_again(plan: Plan, tmp_path: Path) -> None:
    of = {**data(), "prefixes": PrefixCache(tmp_path / "cache"), "execution": FORCED}
    run(plan(layers=3, frozen_layers=2, of=of))
    later = FineTuning(plan(layers=3, frozen_layers=2, epochs=2, of=of))
    calls = {
        path: count_calls(later.model, path)
        for path in ("bert.embeddings.LayerNorm", *(f"bert.encoder.layer.{i}.output" for i in range(3)))
    }
    list(later.reports())
    evaluations = 2
    assert [c[0] for c in calls.values()] == [0, 0, 0, 12 + evaluations]


def test_fewer_layers_serve_deeper_ones(plan: Plan, tmp_path: Path) -> None:
    of = {**data(), "prefixes": PrefixCache(tmp_path / "cache"), "execution": FORCED}
    run(plan(layers=3, frozen_layers=1, of=of))
    _, expected = run(plan(layers=3, frozen_layers=2, of=data()))
    deeper = FineTuning(plan(layers=3, frozen_layers=2, of=of))
    of["prefixes"]._checks[(deeper.plan.candidate.digest, None, 2, "cpu", "float32")] = next(
        iter(of["prefixes"]._checks.values())
    )  # so that the self-check computes nothing
    bottom, middle = (count_calls(deeper.model, f"bert.encoder.layer.{i}.output") for i in (0, 1))
    assert_same(list(deeper.reports()), expected)
    assert bottom == [0]
    assert middle == [2]  # one batch of each split


def test_the_cost_model_decides_and_a_replay_does_not_ask(plan: Plan, tmp_path: Path) -> None:
    store = PrefixCache(tmp_path / "cache")
    once, _ = run(plan(frozen_layers=1, epochs=1, of={**data(), "prefixes": store}))
    assert "not used: it saves 0.00 s" in str(once.execution.prefix_cache)
    often, _ = run(plan(frozen_layers=1, epochs=9, of={**data(), "prefixes": store}))
    assert often.execution.prefix_cache == "used"
    again, _ = run(plan(frozen_layers=1, epochs=9, of={**data(), "prefixes": store, "execution": once.execution}))
    assert again.execution == once.execution
    nameless, _ = run(plan(frozen_layers=1, epochs=9, of={"prefixes": store}))
    assert "no key" in str(nameless.execution.prefix_cache)
    small = PrefixCache(tmp_path / "small", budget_bytes=100)
    over, _ = run(plan(frozen_layers=1, epochs=9, of={**data(), "prefixes": small}))
    assert "MB of disk" in str(over.execution.prefix_cache)
    thawed, _ = run(plan(frozen_layers=0, of={**data(), "prefixes": store}))
    assert thawed.execution.prefix_cache is None


def test_the_least_recently_used_goes_first(plan: Plan, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    store = PrefixCache(folder, budget_bytes=60_000)  # one run's two splits are about 35,000

    def stored() -> set[str]:
        return {json.loads(path.read_text())["layers"] for path in folder.glob("*/manifest.json")}

    for count in (1, 2):
        run(plan(layers=3, frozen_layers=count, of={**data(), "prefixes": store, "execution": FORCED}))
        assert count in stored()
        assert sum(path.stat().st_size for path in folder.glob("*/hidden.bin")) <= 60_000


def test_a_full_disk_and_a_stop_leave_nothing_behind(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    def full(*args: int) -> None:
        raise OSError(28, "No space left on device")

    store = PrefixCache(tmp_path / "cache")
    of = {**data(), "prefixes": store, "execution": FORCED}
    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", full)
        tuning, reports = run(plan(frozen_layers=1, of=of))
    assert "No space left" in str(tuning.execution.prefix_cache)
    assert len(reports) == 3
    stopped = plan(frozen_layers=1, of={**of, "stop": threading.Event()})
    stopped.stop.set()
    with pytest.raises(Stopped):
        run(stopped)
    assert not [path for path in (tmp_path / "cache").iterdir() if path.is_dir()]


def test_a_torn_file_is_not_used(plan: Plan, tmp_path: Path) -> None:
    of = {**data(), "prefixes": PrefixCache(tmp_path / "cache"), "execution": FORCED}
    run(plan(frozen_layers=1, of=of))
    for path in (tmp_path / "cache").glob("*/hidden.bin"):
        path.write_bytes(path.read_bytes()[:-100])
    tuning, _ = run(plan(frozen_layers=1, of=of))
    assert "its size is wrong" in str(tuning.execution.prefix_cache)


def test_other_weights_data_or_arithmetic_are_kept_apart(plan: Plan, tmp_path: Path) -> None:
    store = PrefixCache(tmp_path / "cache")
    seen = 0
    for name, execution, key in [
        ("bert", FORCED, "a"),
        ("electra", FORCED, "a"),
        ("bert", replace(FORCED, dtype="bfloat16"), "a"),
        ("bert", FORCED, "b"),
    ]:
        of = {split: keyed(features, key + split) for split, features in data().items()}
        run(plan(name, frozen_layers=1, of={**of, "prefixes": store, "execution": execution}))
        seen += 2
        assert len(list((tmp_path / "cache").glob("*/hidden.bin"))) == seen


def test_a_model_that_computes_something_else_when_split_is_found_out(plan: Plan) -> None:
    made = plan(frozen_layers=1)
    tuning = FineTuning(made)
    layer = tuning.model.bert.encoder.layer[1]
    compute = layer.forward
    # A layer that looks at what another one computed in this pass, not at what it is handed.
    seen: list[torch.Tensor] = []
    tuning.model.register_forward_pre_hook(lambda module, args: seen.clear())
    tuning.model.bert.encoder.layer[0].attention.register_forward_hook(lambda module, args, out: seen.append(out[0]))
    layer.forward = lambda hidden, *args, **keywords: compute(hidden + (seen[0] if seen else 0), *args, **keywords)
    start = PartialForward(tuning.model, made.candidate.stack, 1, tuning._setup.frozen, Execution())
    assert start.check(made.train).reason == "split in two, it computes something else"


def test_resumed_on_the_cache_is_the_same_run(plan: Plan, tmp_path: Path) -> None:
    of = {**data(), "prefixes": PrefixCache(tmp_path / "cache"), "execution": FORCED}
    made = plan(frozen_layers=1, epochs=3, dropout=0.3, of=of)
    whole = list(FineTuning(made).reports())
    first = FineTuning(made)
    steps = first.steps()
    for _ in range(4):
        next(steps)
    first.save()
    later = list(FineTuning(made).reports())
    assert [r.metrics for r in later] == [r.metrics for r in whole]
    assert [r.train_loss for r in later] == [r.train_loss for r in whole]


def test_many_first_users_compute_it_once(plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fills: list[int] = []
    fill = cache._fill

    def counted(values: torch.Tensor, *given: Any) -> None:
        fills.append(len(values))
        fill(values, *given)

    monkeypatch.setattr(cache, "_fill", counted)
    made = [
        replace(
            plan(frozen_layers=1, of={**data(), "prefixes": PrefixCache(tmp_path / "cache"), "execution": FORCED}),
            folder=tmp_path / f"user-{user}",
        )
        for user in range(4)
    ]
    with ThreadPoolExecutor(4) as users:
        verdicts = [tuning.execution.prefix_cache for tuning, _ in users.map(run, made)]
    assert verdicts == ["used"] * 4
    assert len(fills) == 2  # one of each split
