"""The surrogate model: predicts the final score and the cost of configurations from the trials of a study."""

import math
from collections.abc import Sequence
from weakref import WeakKeyDictionary

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState
from scipy.special import ndtri

from hpo.core.direction import loss_sign
from hpo.search.curves import LearningCurve, fraction_better, learning_curve, max_reported_step
from hpo.search.surrogate.cost import CostModel
from hpo.search.surrogate.gp import GaussianProcess, Kernel, fit_kernel, prior_kernel
from hpo.search.surrogate.space import UnitCube
from hpo.search.surrogate.transfer import SourceStudy, TransferPrior
from hpo.storage.optuna_internals import optuna_storage
from hpo.storage.records.study import StudyRecord, direction_of
from hpo.storage.records.trial import failed_by_infrastructure

Array = np.ndarray

# The prior of the variance that a score still gains by the end of training, relative to `_remaining_noise`, and how
# much observed movement the prior counts as.
NOISE_SCALE, NOISE_COUNT = 0.2, 4.0
MAX_OBSERVATIONS = 200  # trials that the process is fitted to: half of them the best, the others at random
MIN_OBSERVATIONS = 4  # trials before a kernel is fitted
REFIT_FACTOR = 1.2  # growth of the number of trials after which the kernel is fitted again
MEDIAN_SCORE = 0.0  # the score to improve on before any final one is known
MIN_NOISE = 1e-6


class SurrogateModel:
    """A Gaussian process over configurations, fitted to the final scores of trials, and a model of their cost.

    A score is the normal quantile of the fraction of trials that are better (Salinas et al., 2020), so that less is
    better and the median is 0. The score of an unfinished trial is a noisy observation of its final one, and the
    noise shrinks as it trains (freeze-thaw Bayesian optimization: Swersky et al., 2014); how fast is learned from how
    scores moved since the first report. So one posterior predicts the final score of a trial from its learning curve,
    its configuration and all other trials, the running ones included. Trials that the infrastructure failed are left
    out; other failures get the worst score.

    `sign` times a value is a loss. `kernel` is where the fit starts, and `fitted_to` the number of trials that it was
    fitted to. `sources` give the prior mean.
    """

    def __init__(
        self,
        trials: Sequence[FrozenTrial],
        sign: float,
        kernel: Kernel | None = None,
        fitted_to: int = 0,
        sources: Sequence[SourceStudy] = (),
    ) -> None:
        trials = [t for t in trials if not failed_by_infrastructure(t)]
        default_rungs = max_reported_step(trials)
        self._states = np.array([t.state for t in trials])
        curves = [learning_curve(t, sign, default_rungs) for t in trials]
        self._failed = self._states == TrialState.FAIL
        self._observed = np.array([curve is not None for curve in curves], dtype=bool) | self._failed
        self.count = int(self._observed.sum())  # of observed trials
        self._progress = np.array([0.0 if curve is None else curve.progress for curve in curves])
        self._progress[self._failed] = 1.0
        self._scores = self._score(curves)
        self._noise_scale = self._estimate_noise_scale(curves)
        self.space = UnitCube(trials)
        self._points = self.space.encode(self.space.units)
        self._fit(kernel, fitted_to, sources)
        self.costs = CostModel(trials, self._points, self._progress, ~self._failed, default_rungs)

    def _score(self, curves: Sequence[LearningCurve | None]) -> Array:
        half = 0.5 / max(self.count, 1)
        quantiles = np.minimum(fraction_better(curves) + half, 1 - half)
        quantiles[self._failed] = 1 - half
        scores: Array = ndtri(quantiles)
        return scores

    def _estimate_noise_scale(self, curves: Sequence[LearningCurve | None]) -> float:
        first_scores = self._score([None if curve is None else curve.truncated(1) for curve in curves])
        first_shares = np.array([1.0 if curve is None else float(curve.shares[0]) for curve in curves])
        trained = self._observed & ~self._failed
        moved = ((self._scores - first_scores)[trained] ** 2).sum()
        passed = (_remaining_noise(first_shares) - _remaining_noise(self._progress))[trained].sum()
        return float((NOISE_COUNT * NOISE_SCALE + moved) / (NOISE_COUNT + passed))

    def noise_at(self, share: Array) -> Array:
        """Return the variance of a score at a share of the schedule as an observation of the final score."""
        return np.maximum(self._noise_scale * _remaining_noise(share), MIN_NOISE)

    def _fit(self, kernel: Kernel | None, fitted_to: int, sources: Sequence[SourceStudy]) -> None:
        """Fit the kernel if that is due, and the process to the differences of the scores from the prior mean.

        Trials without a report are added with their predicted scores, which makes their neighbors less attractive to
        workers that ask at the same time.
        """
        rows = self._rows_to_fit()
        points, scores, noise = self._points[rows], self._scores[rows], self.noise_at(self._progress[rows])
        self.prior = TransferPrior(sources, self.space, self.space.units[rows], scores, noise)
        prior_mean = self.prior.predict(self.space.units)
        scores = scores - prior_mean[rows]
        groups = self.space.groups
        if kernel is None or not np.array_equal(kernel.groups, groups):
            kernel, fitted_to = prior_kernel(groups), 0
        due = max(MIN_OBSERVATIONS, REFIT_FACTOR * fitted_to)
        self.is_refitted = len(kernel.log_length_scales) > 0 and self.count >= due
        self.kernel = fit_kernel(kernel, points, scores, noise) if self.is_refitted else kernel
        process = GaussianProcess(self.kernel, points, scores, noise)
        unobserved = np.flatnonzero(~self._observed)
        if len(unobserved):
            predicted, _ = process.predict(self._points[unobserved])
            scores, rows = np.concatenate([scores, predicted]), np.concatenate([rows, unobserved])
            noise = np.append(noise, np.full(len(unobserved), MIN_NOISE))
            process = GaussianProcess(self.kernel, self._points[rows], scores, noise)
        self.process = process
        self.mean, _ = process.predict(self._points)  # (trials,): predicted final scores
        self.mean[rows], _ = process.predict_observed()
        self.mean += prior_mean

    def _rows_to_fit(self) -> Array:
        """Return the rows of the observed trials, or of `MAX_OBSERVATIONS` of them."""
        rows = np.flatnonzero(self._observed)
        if len(rows) <= MAX_OBSERVATIONS:
            return rows
        best_first, half = rows[np.argsort(self._scores[rows], kind="stable")], MAX_OBSERVATIONS // 2
        others = np.random.default_rng(len(rows)).permutation(best_first[half:])[:half]
        return np.concatenate([best_first[:half], others])

    def predict(self, units: Array) -> tuple[Array, Array]:
        """Return the mean and the variance of the final scores at `units` (n, parameters), (n,) each."""
        mean, variance = self.process.predict(self.space.encode(units))
        return mean + self.prior.predict(units), variance

    def best_score(self) -> float:
        """Return the best final score: the best of complete trials and of predictions for running ones."""
        complete = self._scores[self._states == TrialState.COMPLETE].min(initial=math.inf)
        running = self.mean[(self._states == TrialState.RUNNING) & self._observed].min(initial=math.inf)
        best = float(min(complete, running))
        return best if math.isfinite(best) else MEDIAN_SCORE


def _remaining_noise(share: Array) -> Array:
    """Return the relative variance that a score at a share of the schedule still gains by the end.

    The ranks of recorded learning curves settle about so fast (`benchmarks/step_meaning.py`). With 1 - share instead,
    first reports counted too much and slow starters were abandoned: the mean final regret on recorded fine-tuning,
    with 4 workers, was 0.51 instead of 0.36.
    """
    remaining: Array = (1 - share) / np.sqrt(np.maximum(share, 1e-3))
    return remaining


_kernels: WeakKeyDictionary[optuna.Study, tuple[Kernel, int]] = WeakKeyDictionary()
_sources: WeakKeyDictionary[optuna.Study, list[SourceStudy]] = WeakKeyDictionary()


def fit_surrogate(study: optuna.Study, trials: Sequence[FrozenTrial]) -> SurrogateModel:
    """Return the model of a study's `trials`; its kernel is the last one of the study unless a new fit is due."""
    kernel, fitted_to = _kernels.get(study, (None, 0))
    model = SurrogateModel(trials, loss_sign(direction_of(study)), kernel, fitted_to, source_studies(study))
    if model.is_refitted:
        _kernels[study] = model.kernel, model.count
    return model


def source_studies(study: optuna.Study) -> list[SourceStudy]:
    """Return the models of the studies that `study` names as its sources and that still exist."""
    if study not in _sources:
        existing = set(optuna.get_all_study_names(optuna_storage(study)))
        names = [name for name in StudyRecord.of(study).source_studies if name in existing]
        _sources[study] = [
            _load_source(optuna.load_study(study_name=name, storage=optuna_storage(study))) for name in names
        ]
    return _sources[study]


def _load_source(study: optuna.Study) -> SourceStudy:
    model = SurrogateModel(study.get_trials(deepcopy=False), loss_sign(direction_of(study)))
    return SourceStudy(model.space, model.process)
