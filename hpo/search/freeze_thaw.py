"""hpo's own search: which configuration comes next, which trial is paused, and which paused one goes on."""

from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import FrozenTrial, TrialState

from hpo.search.surrogate.acquisition import FEW, Outlook, outlook_of, sources_of
from hpo.storage.transactions import PAUSED

MOST_PAUSED = 50  # trials: an unfinished one is read from the database at every decision, about 1 ms each
CHANCE = 0.1  # of ending best, which a paused trial must have to go on when the budget allows no new ones


class FreezeThawSampler(BaseSampler):
    """Proposes what is worth the highest price of compute: expected improvement and what a look tells, by its cost.

    Learns from trials of every state; none is proposed twice while there are others. The first `n_startup_trials` are
    random, unless the study names others as its evidence (`hpo.search.surrogate.transfer`), and later a share of
    them, as in SMAC (Hutter et al., 2011): a model that is sure of a region that is not the best would stay there
    (mean final regret on recorded tweet_emotion, with 1 and 4 workers, 0.24 without random ones, 0.16 and 0.20 with a
    fifth).
    Among 10, 100 and 1,000 trials a suggestion takes 12, 22 and 56 ms, a decision of the pruner 9, 20 and 48
    (`benchmarks/suggestion_time.py`).
    """

    def __init__(self, seed: int | None = None, n_startup_trials: int = FEW, random_share: float = 0.2) -> None:
        if not 0 <= random_share <= 1:
            raise ValueError(f"random_share is {random_share}, and must be from 0 to 1")
        self._startup = n_startup_trials
        self._random_share = random_share
        self._random = RandomSampler(seed)
        self._rng = np.random.RandomState(seed)

    def reseed_rng(self) -> None:
        self._random.reseed_rng()
        self._rng = np.random.RandomState()

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        others = _others(study, trial, use_cache=True)
        return {name: kind for t in others for name, kind in t.distributions.items() if not kind.single()}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        others = _others(study, trial, use_cache=True)  # as they were read for the space: once for a trial
        seen = sum(bool(t.intermediate_values) or t.state.is_finished() for t in others)
        if not search_space or (seen < self._startup and not sources_of(study)):
            return {}
        outlook = outlook_of(study, others)
        drawn = self._rng.rand() < self._random_share
        unit = outlook.any_new(self._rng) if drawn else outlook.best_new(self._rng)[0]
        found = {} if unit is None else outlook.region.params(unit)
        return {name: value for name, value in found.items() if name in search_space}  # some may be fixed by others

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._random.sample_independent(study, trial, param_name, param_distribution)


class FreezeThawPruner(optuna.pruners.BasePruner):
    """Stops a trial at a report where another, paused or new, is worth a higher price of compute.

    What it stops is better paused than pruned: `resume` names the one to go on with. Compares with all trials, of every
    state, from the second on. A new trial counts `bar` times its price, which does not know that compute will end: at 1
    three quarters of TaskSet's went into first looks (final regret over 6 runs with 4 workers 0.07, at 0.5 0.02).
    """

    def __init__(self, bar: float = 0.5, seed: int = 0) -> None:
        if not bar > 0:
            raise ValueError(f"bar is {bar}, and must be above 0")
        self._bar = bar
        self._last = False  # whether no new trial can be begun
        self._rng = np.random.RandomState(seed)

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Whether to stop `trial` at its last report."""
        others = _others(study, trial)
        if not any(t.intermediate_values for t in others):
            return False
        outlook = outlook_of(study, [*others, trial])
        row = outlook.row_of(trial)
        if outlook.reach[row] >= 1 or not outlook.has_company(row):
            return False
        if self._last and outlook.chance(row) < CHANCE:
            return True
        own = outlook.prices(np.array([row]), paused=False)[0]
        return bool(own < max(self._best_paused(outlook)[1], self._worth_of_new(outlook)))

    def resume(self, study: optuna.Study, last: bool = False) -> FrozenTrial | None:
        """The paused trial to go on with now; None where there is none, or a new one is worth more.

        With `last`, no new one can be begun: then one goes on while it may well become the best (`CHANCE`).
        """
        self._last = last
        trials = study.get_trials(deepcopy=False)
        if not any(is_paused(t) for t in trials):
            return None
        outlook = outlook_of(study, trials)
        trial, worth = self._best_paused(outlook)
        if last:
            return trial if trial is not None and outlook.chance(outlook.row_of(trial)) >= CHANCE else None
        return trial if worth > self._worth_of_new(outlook) else None

    def surplus(self, study: optuna.Study, gigabytes: float) -> list[int]:
        """The numbers of paused trials to let go of, worth least: beyond `MOST_PAUSED`, or what the disk may hold."""
        known = study.get_trials(deepcopy=False)
        megabytes = [trial.user_attrs[PAUSED] for trial in known if is_paused(trial)]
        if len(megabytes) <= MOST_PAUSED and sum(megabytes) / 2**10 <= gigabytes:
            return []
        outlook = outlook_of(study, known)
        rows, prices = _paused(outlook)
        trials = [outlook.trials[rows[place]] for place in np.argsort(-prices)]
        held = np.cumsum([trial.user_attrs[PAUSED] / 2**10 for trial in trials])
        return [t.number for place, t in enumerate(trials) if place >= MOST_PAUSED or held[place] > gigabytes]

    def _worth_of_new(self, outlook: Outlook) -> float:
        return 0.0 if self._last else self._bar * outlook.best_new(self._rng)[1]

    def _best_paused(self, outlook: Outlook) -> tuple[FrozenTrial | None, float]:
        rows, prices = _paused(outlook)
        if not len(rows):
            return None, 0.0
        place = int(np.argmax(prices))
        return outlook.trials[rows[place]], float(prices[place])


def is_paused(trial: FrozenTrial) -> bool:
    """Whether the trial was stopped by the pruner and may go on."""
    return trial.state == TrialState.WAITING and PAUSED in trial.user_attrs


def _paused(outlook: Outlook) -> tuple[np.ndarray, np.ndarray]:
    rows = np.array([row for row, trial in enumerate(outlook.trials) if is_paused(trial)], dtype=int)
    return rows, outlook.prices(rows, paused=True) if len(rows) else np.zeros(0)


def _others(study: optuna.Study, trial: FrozenTrial, use_cache: bool = False) -> list[FrozenTrial]:
    """The other trials; with `use_cache` as they were when `trial` was asked for (Optuna's own cache of an `ask`)."""
    return [t for t in study._get_trials(deepcopy=False, use_cache=use_cache) if t.number != trial.number]
