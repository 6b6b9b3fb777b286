"""What the trials of a study are likely to end at, and at which price of compute each, or a new one, goes on."""

import math
from collections.abc import Sequence
from weakref import WeakKeyDictionary

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState
from scipy.special import ndtri

from hpo.core.direction import loss_sign
from hpo.search.curves import Curve, curve_of, furthest_step, rungs_of, standings, truncated
from hpo.search.surrogate.gp import Kernel, Process, fit, plain_kernel
from hpo.search.surrogate.improvement import price
from hpo.search.surrogate.ridge import Ridge
from hpo.search.surrogate.space import Region
from hpo.search.surrogate.transfer import SOURCE_STUDIES, Evidence, Source
from hpo.storage.optuna_internals import optuna_storage
from hpo.storage.records import CURVE, direction_of
from hpo.storage.transactions import INFRASTRUCTURE

Array = np.ndarray

# The variance that the way to the end adds to a standing, by what is left of it (`_way_left`), and how much movement
# that is worth as evidence.
WAY, WAY_COUNT = 0.2, 4.0
MOST = 200  # trials that the process learns from: the best half of them, and others at random
REFIT = 1.2  # lengths are searched for anew when the trials have become more by this factor
FEW = 4  # trials that have to be seen before anything is learnt
MIDDLE = 0.0  # what is improved on while no end is known
BEST = 8  # trials around which candidates are looked for
TINY = 1e-6


class Outlook:
    """Trials by their standing among all, as normal scores, less being better; and a Gaussian process over them.

    A trial on its way shows its end with a noise that shrinks as it goes: how fast is learnt from what standings became
    since the first report. So one posterior tells each one's end from its curve, its configuration and all others,
    running ones too (normal scores: Salinas et al., 2020; freezing and thawing: Swersky et al., 2014). Costs
    are ridge regressions on the configuration, in mean whole trainings.
    """

    def __init__(
        self,
        trials: Sequence[FrozenTrial],
        sign: float,
        kernel: Kernel | None = None,
        known: int = 0,
        sources: Sequence[Source] = (),
    ) -> None:
        self.trials = [t for t in trials if INFRASTRUCTURE not in t.user_attrs]
        self._whole = furthest_step(self.trials)
        self._states = np.array([t.state for t in self.trials])
        curves = [curve_of(t, sign, self._whole) for t in self.trials]
        self._failed = self._states == TrialState.FAIL
        self._seen = np.array([curve is not None for curve in curves], dtype=bool) | self._failed
        self.count = int(self._seen.sum())
        self.reach = np.array([0.0 if curve is None else curve.reach for curve in curves])
        self.reach[self._failed] = 1.0
        self.scores = self._scores(curves)
        self.way = self._learn_way(curves)
        self.region = Region(self.trials)
        self.points = self.region.points(self.region.units)
        self._learn(kernel, known, sources)
        self._learn_costs()

    def _scores(self, curves: Sequence[Curve | None]) -> Array:
        half = 0.5 / max(self.count, 1)
        places = np.minimum(standings(curves) + half, 1 - half)
        places[self._failed] = 1 - half
        scores: Array = ndtri(places)
        return scores

    def _learn_way(self, curves: Sequence[Curve | None]) -> float:
        first = self._scores([None if curve is None else truncated(curve, 1) for curve in curves])
        begun = np.array([1.0 if curve is None else float(curve.shares[0]) for curve in curves])
        there = self._seen & ~self._failed
        moved = ((self.scores - first)[there] ** 2).sum()
        passed = (_way_left(begun) - _way_left(self.reach))[there].sum()
        return float((WAY_COUNT * WAY + moved) / (WAY_COUNT + passed))

    def _noise(self, share: Array) -> Array:
        return np.maximum(self.way * _way_left(share), TINY)

    def _learn(self, kernel: Kernel | None, known: int, sources: Sequence[Source]) -> None:
        """Find lengths where they are due, then have the process know by how much all trials differ from the evidence.

        Those without a report are believed to be what is expected of them, which makes their neighbours less attractive
        to workers that ask at the same time.
        """
        rows = self._rows()
        points, scores, noise = self.points[rows], self.scores[rows], self._noise(self.reach[rows])
        self.evidence = Evidence(sources, self.region, self.region.units[rows], scores, noise)
        expected = self.evidence.at(self.region.units)
        scores = scores - expected[rows]
        groups = self.region.groups
        if kernel is None or not np.array_equal(kernel.groups, groups):
            kernel, known = plain_kernel(groups), 0
        self.fitted = len(kernel.lengths) > 0 and self.count >= max(FEW, REFIT * known)
        self.kernel = fit(kernel, points, scores, noise) if self.fitted else kernel
        process = Process(self.kernel, points, scores, noise)
        mute = np.flatnonzero(~self._seen)
        if len(mute):
            believed, _ = process.at(self.points[mute])
            values = np.concatenate([scores, believed])
            rows = np.concatenate([rows, mute])
            process = Process(self.kernel, self.points[rows], values, np.append(noise, np.full(len(mute), TINY)))
        self.process = process
        self.mean, self.variance = process.at(self.points)
        self.mean[rows], self.variance[rows] = process.at_own()
        self.mean += expected

    def _rows(self) -> Array:
        """The trials to learn from: all that were seen, or as many as it can be."""
        rows = np.flatnonzero(self._seen)
        if len(rows) <= MOST:
            return rows
        order = rows[np.argsort(self.scores[rows], kind="stable")]
        others = np.random.default_rng(len(rows)).permutation(order[MOST // 2 :])[: MOST // 2]
        return np.concatenate([order[: MOST // 2], others])

    def _learn_costs(self) -> None:
        """Regress the seconds of whole trainings, and their first reports' shares, both in logarithms."""
        timed, begun = {}, {}
        for row, trial in enumerate(self.trials):
            curve = trial.system_attrs.get(CURVE)
            if curve and self.reach[row] > 0 and not self._failed[row] and curve[-1].get("seconds", 0) > 0:
                timed[row] = math.log(curve[-1]["seconds"] / self.reach[row])
            if trial.intermediate_values:
                begun[row] = math.log(min(trial.intermediate_values) / rungs_of(trial, self._whole))
        self._seconds, self._starts = (
            Ridge(self.points[list(known)], np.array(list(known.values()))) for known in (timed, begun)
        )

    def _cost(self, points: Array) -> Array:
        """What whole trainings cost, in the mean one's."""
        return np.exp(self._seconds.at(points) - self._seconds.centre)

    def _rival(self) -> float:
        """The best end that is known, or expected of a running trial."""
        known = self.scores[self._states == TrialState.COMPLETE].min(initial=math.inf)
        best = min(known, self.mean[(self._states == TrialState.RUNNING) & self._seen].min(initial=math.inf))
        return float(best) if math.isfinite(best) else MIDDLE

    def _new_prices(self, units: Array) -> Array:
        points = self.region.points(units)
        mean, variance = self.process.at(points)
        mean = mean + self.evidence.at(units)
        cost, share = self._cost(points), np.minimum(np.exp(self._starts.at(points)), 1)
        after = 1 / (1 / variance + 1 / self._noise(share))
        best = np.full(len(points), self._rival())
        return price(best, mean, variance**0.5, after**0.5, share * cost, (1 - share) * cost)

    def any_new(self, rng: np.random.RandomState) -> Array | None:
        """A random configuration, in units; None where all were tried."""
        units = self.region.candidates(rng, self.region.units[:0])
        return units[0] if len(units) else None

    def best_new(self, rng: np.random.RandomState) -> Array | None:
        """The configuration, in units, that is worth the highest price; None where all were tried."""
        order = np.argsort(self.mean)[:BEST]
        units = self.region.candidates(rng, self.region.units[order])
        if not len(units):
            return None
        prices = self._new_prices(units)
        closer = self.region.nearby(rng, units[np.argsort(-prices)[: BEST // 2]])
        units = np.concatenate([units, closer])
        prices = np.concatenate([prices, self._new_prices(closer)])
        best: Array = units[np.argmax(prices)]
        return best


def _way_left(share: Array) -> Array:
    """What is left of the way at a share of the schedule: the ranks of our recorded curves settle about so fast.

    (`benchmarks/step_meaning.py`. With 1 - share instead, a first look told too much, and those who began slowly were
    never gone on with: mean final regret on fine-tuning with 4 workers 0.51 instead of 0.36.)
    """
    left: Array = (1 - share) / np.sqrt(np.maximum(share, 1e-3))
    return left


_kernels: WeakKeyDictionary[optuna.Study, tuple[Kernel, int]] = WeakKeyDictionary()
_sources: WeakKeyDictionary[optuna.Study, list[Source]] = WeakKeyDictionary()


def outlook_of(study: optuna.Study, trials: Sequence[FrozenTrial]) -> Outlook:
    """The outlook of a study's trials, with the lengths that were found last, or new ones when due."""
    kernel, known = _kernels.get(study, (None, 0))
    outlook = Outlook(trials, loss_sign(direction_of(study)), kernel, known, sources_of(study))
    if outlook.fitted:
        _kernels[study] = outlook.kernel, outlook.count
    return outlook


def sources_of(study: optuna.Study) -> list[Source]:
    """What the studies tell that this one names as its evidence, as far as they are there."""
    if study not in _sources:
        there = set(optuna.get_all_study_names(optuna_storage(study)))
        names = [name for name in study.user_attrs.get(SOURCE_STUDIES, ()) if name in there]
        _sources[study] = [_source(optuna.load_study(study_name=name, storage=optuna_storage(study))) for name in names]
    return _sources[study]


def _source(study: optuna.Study) -> Source:
    outlook = Outlook(study.get_trials(deepcopy=False), loss_sign(direction_of(study)))
    return Source(outlook.region, outlook.process)
