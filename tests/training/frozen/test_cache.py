"""The frozen-prefix cache: same results, computed once a machine, and not used where a model cannot be split."""

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
from hpo.training.fine_tune import FineTuning, Stopped
from hpo.training.frozen import cache
from hpo.training.frozen.cache import PrefixCache
from hpo.training.plan import TrainingPlan
from tests.small_models import ARCHITECTURES
from tests.training.conftest import CACHED, curve, make_splits

Plan = Callable[..., TrainingPlan]
# Models that cannot be split, and why.
UNFIT = {"t5": "return more than a hidden state", "bart": "dropout acts before"}
QUICK = ("bert", "deberta-v2", "gpt2")
MATRIX = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in ARCHITECTURES]


def run(plan: TrainingPlan) -> tuple[FineTuning, list[Report]]:
    tuning = FineTuning(plan)
    return tuning, list(tuning.reports())


def assert_same(one: list[Report], other: list[Report], rel: float = 1e-5) -> None:
    for a, b in zip(one, other, strict=True):
        assert a.train_loss == pytest.approx(b.train_loss, rel=rel)
        assert a.metrics["loss"] == pytest.approx(b.metrics["loss"], rel=rel)


@pytest.mark.parametrize("name", MATRIX)
def test_reports_agree_with_and_without_cache(name: str, plan: Plan, tmp_path: Path) -> None:
    layers = 1 if name == "albert" else 3
    for count in range(1, layers + 1):
        store = PrefixCache(tmp_path / f"{count}")
        of = make_splits(name)
        _, expected = run(plan(name, layers, epochs=3, frozen_layers=count, of=of))
        tuning, found = run(
            plan(name, layers, epochs=3, frozen_layers=count, of={**of, "prefixes": store, "execution": CACHED})
        )
        assert_same(found, expected)
        assert not [m for m in tuning.model.modules() if "forward" in vars(m)]  # a plain model again
        if name in UNFIT:
            assert UNFIT[name] in str(tuning.execution.prefix_cache)
        else:
            assert tuning.execution.prefix_cache == "used"
            assert len(list((tmp_path / f"{count}").glob("*/hidden.bin"))) == 2


def test_one_token_per_input_is_stored_when_all_layers_are_frozen(plan: Plan, tmp_path: Path) -> None:
    for name in ("bert", "gpt2"):  # reads the first token; the last one
        store = PrefixCache(tmp_path / name)
        run(plan(name, frozen_layers=2, of={**make_splits(), "prefixes": store, "execution": CACHED}))
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


def test_frozen_layers_and_embeddings_are_not_recomputed(plan: Plan, tmp_path: Path) -> None:
    of = {**make_splits(), "prefixes": PrefixCache(tmp_path / "cache"), "execution": CACHED}
    run(plan(layers=3, frozen_layers=2, of=of))
    later = FineTuning(plan(layers=3, frozen_layers=2, epochs=2, of=of))
    calls = {
        path: count_calls(later.model, path)
        for path in ("bert.embeddings.LayerNorm", *(f"bert.encoder.layer.{i}.output" for i in range(3)))
    }
    list(later.reports())
    evaluations = 2
    assert [c[0] for c in calls.values()] == [0, 0, 0, 12 + evaluations]


def test_deeper_states_are_computed_from_stored_ones_below(plan: Plan, tmp_path: Path) -> None:
    of = {**make_splits(), "prefixes": PrefixCache(tmp_path / "cache"), "execution": CACHED}
    run(plan(layers=3, frozen_layers=1, of=of))
    _, expected = run(plan(layers=3, frozen_layers=2, of=make_splits()))
    deeper = FineTuning(plan(layers=3, frozen_layers=2, of=of))
    of["prefixes"]._checks[(deeper.plan.candidate.digest, None, 2, "cpu", "float32")] = next(
        iter(of["prefixes"]._checks.values())
    )  # so that the check runs no forward pass
    bottom, middle = (count_calls(deeper.model, f"bert.encoder.layer.{i}.output") for i in (0, 1))
    assert_same(list(deeper.reports()), expected)
    assert bottom == [0]
    assert middle == [2]  # one batch of each split


def test_cost_model_decides_unless_the_execution_has(plan: Plan, tmp_path: Path) -> None:
    store = PrefixCache(tmp_path / "cache")
    once, _ = run(plan(frozen_layers=1, epochs=1, of={**make_splits(), "prefixes": store}))
    assert "not used: it saves 0.00 s" in str(once.execution.prefix_cache)
    often, _ = run(plan(frozen_layers=1, epochs=9, of={**make_splits(), "prefixes": store}))
    assert often.execution.prefix_cache == "used"
    again, _ = run(
        plan(frozen_layers=1, epochs=9, of={**make_splits(), "prefixes": store, "execution": once.execution})
    )
    assert again.execution == once.execution
    keyless, _ = run(plan(frozen_layers=1, epochs=9, of={"prefixes": store}))
    assert "no key" in str(keyless.execution.prefix_cache)
    small = PrefixCache(tmp_path / "small", budget_bytes=100)
    over, _ = run(plan(frozen_layers=1, epochs=9, of={**make_splits(), "prefixes": small}))
    assert "MB of disk" in str(over.execution.prefix_cache)
    unfrozen, _ = run(plan(frozen_layers=0, of={**make_splits(), "prefixes": store}))
    assert unfrozen.execution.prefix_cache is None


def test_least_recently_used_entry_is_evicted_first(plan: Plan, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    store = PrefixCache(folder, budget_bytes=60_000)  # one run's two splits are about 35,000

    def stored() -> set[str]:
        return {json.loads(path.read_text())["layers"] for path in folder.glob("*/manifest.json")}

    for count in (1, 2):
        run(plan(layers=3, frozen_layers=count, of={**make_splits(), "prefixes": store, "execution": CACHED}))
        assert count in stored()
        assert sum(path.stat().st_size for path in folder.glob("*/hidden.bin")) <= 60_000


def test_full_disk_or_stop_leaves_no_files(plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    def full(*args: int) -> None:
        raise OSError(28, "No space left on device")

    store = PrefixCache(tmp_path / "cache")
    of = {**make_splits(), "prefixes": store, "execution": CACHED}
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


def test_torn_file_is_not_used(plan: Plan, tmp_path: Path) -> None:
    of = {**make_splits(), "prefixes": PrefixCache(tmp_path / "cache"), "execution": CACHED}
    run(plan(frozen_layers=1, of=of))
    for path in (tmp_path / "cache").glob("*/hidden.bin"):
        path.write_bytes(path.read_bytes()[:-100])
    tuning, _ = run(plan(frozen_layers=1, of=of))
    assert "its size is wrong" in str(tuning.execution.prefix_cache)


def test_entries_differ_by_weights_data_and_dtype(plan: Plan, tmp_path: Path) -> None:
    store = PrefixCache(tmp_path / "cache")
    entries = 0
    for name, execution, key in [
        ("bert", CACHED, "a"),
        ("electra", CACHED, "a"),
        ("bert", replace(CACHED, dtype="bfloat16"), "a"),
        ("bert", CACHED, "b"),
    ]:
        of = {split: replace(features, key=key + split) for split, features in make_splits().items()}
        run(plan(name, frozen_layers=1, of={**of, "prefixes": store, "execution": execution}))
        entries += 2
        assert len(list((tmp_path / "cache").glob("*/hidden.bin"))) == entries


def test_resumed_run_with_cache_has_the_same_results(plan: Plan, tmp_path: Path) -> None:
    of = {**make_splits(), "prefixes": PrefixCache(tmp_path / "cache"), "execution": CACHED}
    made = plan(frozen_layers=1, epochs=3, dropout=0.3, of=of)
    uninterrupted = list(FineTuning(made).reports())
    first = FineTuning(made)
    steps = first.steps()
    for _ in range(4):
        next(steps)
    first.save()
    assert curve(list(FineTuning(made).reports())) == curve(uninterrupted)


def test_concurrent_first_users_compute_once(plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fills: list[int] = []
    fill = cache._fill

    def counted(values: torch.Tensor, *given: Any) -> None:
        fills.append(len(values))
        fill(values, *given)

    monkeypatch.setattr(cache, "_fill", counted)
    made = [
        replace(
            plan(
                frozen_layers=1, of={**make_splits(), "prefixes": PrefixCache(tmp_path / "cache"), "execution": CACHED}
            ),
            folder=tmp_path / f"user-{user}",
        )
        for user in range(4)
    ]
    with ThreadPoolExecutor(4) as users:
        verdicts = [tuning.execution.prefix_cache for tuning, _ in users.map(run, made)]
    assert verdicts == ["used"] * 4
    assert len(fills) == 2  # one of each split
