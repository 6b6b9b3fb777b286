"""The notes that optuna-dashboard shows: on a study, and on its winner."""

import optuna
from optuna.trial import Trial

from hpo.core.format import duration, interval, parameters, score
from hpo.reporting.markdown import escape
from hpo.storage.optuna_internals import trial_id
from hpo.storage.records.final_model import ConfirmedTrial, FinalModel
from hpo.storage.records.study import StudyRecord

# Marks hpo's notes, which are overwritten; notes of users are not.
SIGNATURE = "*Written by hpo.*"


def annotate_study(study: optuna.Study) -> None:
    """Write the notes that optuna-dashboard shows: on the study, and on the winning trial.

    Each call overwrites hpo's previous notes, so a running study can be annotated; notes of users are kept.
    """
    record = StudyRecord.of(study)
    _save(study, study_note(study.study_name, record))
    if record.result:
        winner = record.result.winner
        frozen = next(trial for trial in study.get_trials(deepcopy=False) if trial.number == winner.trial)
        _save(Trial(study, trial_id(frozen)), _winner_note(winner, record.metric))


def _save(target: optuna.Study | Trial, text: str) -> None:
    from optuna_dashboard import get_note, save_note

    body, existing = f"{text}\n\n{SIGNATURE}", get_note(target)
    if body != existing and (not existing or existing.endswith(SIGNATURE)):
        save_note(target, body)


def study_note(name: str, record: StudyRecord) -> str:
    """Return the note on a study, in Markdown."""
    config, data = record.config, record.data
    sizes = ", ".join(f"{rows:,} {split}" for split, rows in data.sizes.items())
    lines = [
        f"**{escape(name)}** searches for the best model and how to fine-tune it, with hpo.",
        "",
        f"- task: {escape(config.get('task', ''))}, metric: {escape(record.metric)}",
        f"- rows: {sizes}" + (f"; {len(data.labels)} classes" if data.labels else ""),
        f"- candidates: {len(config.get('models', ()))} models",
    ]
    lines += [f"- {escape(line)}" for line in data.notes]
    if record.result:
        lines += ["", *_outcome(record.result)]
    lines += ["", "More: `hpo status`, `hpo best`, `hpo report` and `hpo predict`."]
    return "\n".join(lines)


def _outcome(result: FinalModel) -> list[str]:
    winner, test, baseline = result.winner, result.test, result.baseline
    lines = [
        f"**Winner: trial {winner.trial}**, {score(winner.mean)} ± {score(winner.std)} "
        f"on validation over {len(winner.values)} fresh seeds."
    ]
    lines += ["", *(f"- {escape(key)}: {escape(value)}" for key, value in parameters(winner.params).items()), ""]
    if test:
        bounds = f" ({interval(test.interval)})" if test.interval else ""
        lines.append(f"Test {escape(result.metric)}: **{score(test.metrics.get(result.metric))}**{bounds}.")
    if baseline:
        lines.append(f"Baseline {escape(baseline.name)}: {score(baseline.value)}.")
    spent = ", ".join(f"{phase} {duration(seconds)}" for phase, seconds in result.seconds.items())
    return [*lines, *([f"Time: {spent}."] if spent else [])]


def _winner_note(winner: ConfirmedTrial, metric: str) -> str:
    values = ", ".join(f"{score(value)} (seed {seed})" for seed, value in winner.values.items())
    return (
        f"**The winner.** {escape(metric)} in the search {score(winner.search_value)}, "
        f"then with fresh seeds {values}: mean {score(winner.mean)}."
    )
