"""A dry run of a sampler and a pruner: a few trials without training, to find what fails before anything is trained."""

from collections.abc import Sequence

import optuna
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.trial import TrialState

from hpo.config.search_space import SearchSpace
from hpo.errors import ConfigError
from hpo.search.finite_space import FiniteSpace
from hpo.search.suggest import suggest
from hpo.storage.optuna_internals import tell_trial

N_TRIALS = 12  # samplers start with random trials: Optuna's, by default, with up to 10
N_REPORTS = 3


def dry_run(sampler: BaseSampler, pruner: BasePruner, space: SearchSpace, models: Sequence[str]) -> None:
    """Ask for, report, prune and tell a few trials of the search space in an in-memory study.

    A sampler may import its package, reject a condition or meet the end of its grid only after several trials. Pass
    objects of their own: the ones passed here have learned from the dry run. Raises `ConfigError` for any error.
    """
    finite = FiniteSpace.of(space, models)
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # these trials are not part of a study
    try:
        study = optuna.create_study(direction="maximize", sampler=sampler, pruner=pruner)
        for number in range(N_TRIALS):
            if finite is not None and finite.is_exhausted(study.get_trials(deepcopy=False)):
                return
            trial = study.ask()
            suggest(trial, space, models)
            if _dry_train(study, trial, value=(7 * number % N_TRIALS) / N_TRIALS):
                return
    except Exception as error:  # of any kind: it is the sampler's, the pruner's, or a conflict between the two
        reason = " ".join(str(error).split()).rstrip(".")
        raise ConfigError(
            f"sampler, pruner: {type(sampler).__name__} with {type(pruner).__name__} fails on this search space, in a "
            f"trial run without training: {type(error).__name__}: {reason}. Choose others, or leave both keys out."
        ) from error
    finally:
        optuna.logging.set_verbosity(verbosity)


def _dry_train(study: optuna.Study, trial: optuna.Trial, value: float) -> bool:
    """Report a learning curve that ends at `value`; return whether the sampler stopped the study."""
    for step in range(1, N_REPORTS + 1):
        trial.report(value * step / N_REPORTS, step)
        if trial.should_prune():
            return tell_trial(study, trial, None, TrialState.PRUNED)
    return tell_trial(study, trial, value, TrialState.COMPLETE)
