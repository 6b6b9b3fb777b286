"""The report of a study: one self-contained HTML page."""

import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from hpo.core.direction import loss_sign
from hpo.core.format import NOTHING, count, duration, interval, number, parameters, score
from hpo.reporting.anonymize import anonymize_command
from hpo.reporting.html.figures import is_finite, shown_params, study_sections
from hpo.reporting.html.optuna_figures import optuna_sections
from hpo.reporting.html.section import Section, shorten
from hpo.search.ranking import agreement
from hpo.storage.records.final_model import ConfirmedTrial, DataRecord, FinalModel
from hpo.storage.records.study import StudyRecord, direction_of
from hpo.storage.records.trial import TrialRecord, latest_value


def write_report(study: optuna.Study, path: Path) -> None:
    """Write the report of a study, finished or not.

    plotly.js is inlined, nothing is loaded over the network, and all text is escaped. The file is replaced atomically.
    Raises `OSError` where it cannot be written.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from plotly.offline import get_plotlyjs

    environment = Environment(
        loader=PackageLoader("hpo.reporting.html", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters |= {"score": score, "number": number, "duration": duration, "interval": interval}
    page = environment.get_template("report.html.j2").render(plotlyjs=get_plotlyjs(), **_context(study))
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    path.parent.mkdir(parents=True, exist_ok=True)
    part.write_text(page, encoding="utf-8")
    part.replace(path)


def _context(study: optuna.Study) -> dict[str, Any]:
    """Return the variables of the template."""
    record, trials = StudyRecord.of(study), study.get_trials(deepcopy=False)
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE and is_finite(trial.value)]
    metric, result = record.metric, record.result
    sections = [
        *optuna_sections(study, complete, shorten(metric)),
        *study_sections(study, complete, shorten(metric), result),
    ]
    return {
        "name": study.study_name,
        "metric": metric,
        "written": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "counts": _counts(trials),
        "task": record.config.get("task", ""),
        "best": _best(study, complete),
        "result": result or {"seconds": {}, "test": None, "refit": ""},
        "winner": _entry(result.winner) if result else None,
        "confirmed": [_entry(entry) for entry in result.confirmed] if result else [],
        "command": anonymize_command(result.command) if result else "",
        "model_folder": "/".join(result.model_dir.parts[-2:]) if result else "",
        "tiles": _tiles(result, metric) if result else [],
        "sections": sections,
        "figures": figures_json(sections),
        "table": _trial_table(trials, metric),
        "ranking": agreement(study),
        "data": _data(record.data),
        "versions": record.versions,
        "test_evaluations": record.test_evaluations,
    }


def _counts(trials: Iterable[FrozenTrial]) -> str:
    """Return `16 trials: 9 complete, 6 pruned, 1 failed`."""
    states = Counter(map(_state, trials))
    each = ", ".join(f"{states[state]} {state}" for state in sorted(states))
    return count(states.total(), "trial") + (f": {each}" if each else "")


def _state(trial: FrozenTrial) -> str:
    return "failed" if trial.state == TrialState.FAIL else trial.state.name.lower()


def _best(study: optuna.Study, complete: list[FrozenTrial]) -> dict[str, Any] | None:
    """Return the best trial of the search so far."""
    if not complete:
        return None
    sign = loss_sign(direction_of(study))
    best = min(complete, key=lambda trial: sign * (trial.value or 0.0))
    return {"trial": best.number, "value": best.value, "params": shown_params(best)}


def _entry(entry: ConfirmedTrial) -> dict[str, Any]:
    """Return a confirmed configuration with its parameters formatted."""
    return {**entry.model_dump(), "params": parameters(entry.params), "model": entry.params.get("model", NOTHING)}


def _tiles(result: FinalModel, metric: str) -> list[dict[str, str]]:
    """Return the headline numbers, each with what it measures and how."""
    tiles = []
    test, winner, defaults, baseline = result.test, result.winner, result.defaults, result.baseline
    if test:
        bounds = f"95 % interval {interval(test.interval)}, " if test.interval else ""
        rows = f"{count(test.rows, 'row')}, evaluated {test.evaluations}×"
        tiles.append({"what": f"test {metric}", "value": score(test.metrics.get(metric)), "detail": bounds + rows})
    seeds = count(len(winner.values), "fresh seed")
    value = f"{score(winner.mean)} ± {score(winner.std)}"
    tiles.append({"what": f"validation {metric}", "value": value, "detail": f"the winner on {seeds}"})
    if defaults:
        detail = f"validation, trial {defaults.trial}, {defaults.params.get('model', '')}"
        tiles.append({"what": "best defaults", "value": score(defaults.value), "detail": detail})
    if baseline:
        tiles.append({"what": "baseline", "value": score(baseline.value), "detail": f"test, {baseline.name}"})
    return tiles


def _trial_table(trials: Iterable[FrozenTrial], metric: str) -> dict[str, Any]:
    """Return all trials as rows; each parameter is a pair of its text and the value that the column is sorted by."""
    rows = [(trial, shown_params(trial)) for trial in trials]
    shared = _shared_params([params for _, params in rows])
    columns = [name for name in dict.fromkeys(name for _, params in rows for name in params) if name not in shared]
    body = [_trial_row(trial, params, columns, metric) for trial, params in rows]
    return {"columns": columns, "rows": body, "fixed": shared}


def _shared_params(rows: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Return the parameters with the same value in all of several trials, which are listed once above the table."""
    if len(rows) < 2:
        return {}
    return {name: value for name, value in rows[0].items() if all(params.get(name) == value for params in rows)}


def _trial_row(trial: FrozenTrial, params: Mapping[str, str], columns: Sequence[str], metric: str) -> dict[str, Any]:
    record = TrialRecord.of(trial)
    elapsed = trial.duration.total_seconds() if trial.duration else None
    return {
        "number": trial.number,
        "state": _state(trial),
        "value": latest_value(trial),
        "spread": record.spread.get(metric),
        "params": [(params.get(name, ""), record.params.get(name, "")) for name in columns],
        "epochs": record.epochs_trained,
        "seconds": sum(record.seconds.values()) or elapsed,
        "failure": record.failure,
    }


def _data(data: DataRecord) -> dict[str, Any]:
    return {
        "sizes": data.sizes,
        "labels": data.labels[:40],
        "more_labels": max(len(data.labels) - 40, 0),
        "notes": data.notes,
        "fingerprint": data.fingerprint,
        "columns": data.columns,
    }


def figures_json(sections: Iterable[Section]) -> str:
    """Return all figures as JSON for a script element, without `<`, `>` and `&`."""
    figures = []
    for section in sections:
        for figure in section.figures:
            plain = json.loads(figure.to_json())
            plain["layout"].pop("template", None)
            plain["layout"].pop("title", None)  # it repeats the section's heading
            plain["layout"].pop("plot_bgcolor", None)  # the page's own, light or dark
            figures.append(plain)
    text = json.dumps(figures, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026").replace("\u2028", "\\u2028")
