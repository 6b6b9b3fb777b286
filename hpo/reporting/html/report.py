"""The report of a study: one HTML page that needs nothing but a browser."""

import json
import os
from collections.abc import Iterable, Mapping
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
from hpo.storage.records import direction_of, params_of


def write_report(study: optuna.Study, path: Path) -> None:
    """Write the report of a study, finished or not, as one self-contained page.

    plotly.js is inlined once, nothing is loaded from anywhere, and every text is escaped. The file appears
    whole or not at all. Raises `OSError` where it cannot be written.
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
    """What the template shows."""
    attrs, trials = study.user_attrs, study.get_trials(deepcopy=False)
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE and is_finite(trial.value)]
    metric, result = str(attrs.get("metric", "value")), attrs.get("result") or {}
    sections = [
        *optuna_sections(study, complete, shorten(metric)),
        *study_sections(study, complete, shorten(metric), result.get("confusion"), bool(result.get("test"))),
    ]
    return {
        "name": study.study_name,
        "metric": metric,
        "written": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "counts": _counts(trials),
        "task": attrs.get("config", {}).get("task", ""),
        "best": _best(study, complete),
        "result": {"seconds": {}, "test": None, "refit": "", **result},
        "winner": _entry(result["winner"]) if result else None,
        "confirmed": [_entry(entry) for entry in result.get("confirmed", ())],
        "command": anonymize_command(result.get("command", "")),
        "model_folder": "/".join(Path(result.get("model_dir", "")).parts[-2:]),
        "tiles": _tiles(result, metric),
        "sections": sections,
        "figures": figures_json(sections),
        "table": _trial_table(trials, metric),
        "ranking": agreement(study),
        "data": _data(attrs.get("data", {})),
        "versions": attrs.get("versions", {}),
        "test_evaluations": attrs.get("test_evaluations", []),
    }


def _counts(trials: Iterable[FrozenTrial]) -> str:
    """`16 trials: 9 complete, 6 pruned, 1 failed`."""
    names = {TrialState.FAIL: "failed"}
    states = [names.get(trial.state, trial.state.name.lower()) for trial in trials]
    told = [f"{states.count(state)} {state}" for state in dict.fromkeys(sorted(states))]
    return f"{count(len(states), 'trial')}{': ' if told else ''}{', '.join(told)}"


def _best(study: optuna.Study, complete: list[FrozenTrial]) -> dict[str, Any] | None:
    """The best trial of the search so far."""
    if not complete:
        return None
    sign = loss_sign(direction_of(study))
    best = min(complete, key=lambda trial: sign * (trial.value or 0.0))
    return {"trial": best.number, "value": best.value, "params": shown_params(best)}


def _entry(entry: Mapping[str, Any]) -> dict[str, Any]:
    """A confirmed configuration with its parameters as texts."""
    return {**entry, "params": parameters(entry["params"]), "model": entry["params"].get("model", NOTHING)}


def _tiles(result: Mapping[str, Any], metric: str) -> list[dict[str, str]]:
    """The headline numbers: what it is, the number, and what stands behind it."""
    tiles = []
    test, winner, defaults, baseline = (result.get(key) for key in ("test", "winner", "defaults", "baseline"))
    if test:
        bounds = f"95 % interval {interval(test.get('interval'))}, " if test.get("interval") else ""
        seen = f"{count(test['rows'], 'row')}, seen {test.get('seen', 1)}×"
        tiles.append({"what": f"test {metric}", "value": score(test["metrics"].get(metric)), "behind": bounds + seen})
    if winner:
        seeds = count(len(winner.get("values", ())), "fresh seed")
        value = f"{score(winner['mean'])} ± {score(winner.get('std'))}"
        tiles.append({"what": f"validation {metric}", "value": value, "behind": f"the winner on {seeds}"})
    if defaults:
        behind = f"validation, trial {defaults['trial']}, {defaults['params'].get('model', '')}"
        tiles.append({"what": "best defaults", "value": score(defaults["value"]), "behind": behind})
    if baseline:
        tiles.append({"what": "baseline", "value": score(baseline["value"]), "behind": f"test, {baseline['name']}"})
    return tiles


def _trial_table(trials: Iterable[FrozenTrial], metric: str) -> dict[str, Any]:
    """All trials as texts, with a number beside each cell that can be sorted by one."""
    rows = [(trial, shown_params(trial)) for trial in trials]
    names = list(dict.fromkeys(name for _, params in rows for name in params))
    # A parameter that is the same everywhere says nothing in a row: told once above the table.
    fixed = {name: rows[0][1].get(name, "") for name in names if len({params.get(name) for _, params in rows}) == 1}
    columns = [name for name in names if len(rows) < 2 or name not in fixed]
    body = []
    for trial, params in rows:
        seconds = sum(trial.user_attrs.get("seconds", {}).values()) or (
            trial.duration.total_seconds() if trial.duration else None
        )
        value = trial.value if trial.value is not None else trial.intermediate_values.get(trial.last_step or 0)
        raw = params_of(trial)
        body.append(
            {
                "number": trial.number,
                "state": "failed" if trial.state == TrialState.FAIL else trial.state.name.lower(),
                "value": value,
                "spread": (trial.user_attrs.get("spread") or {}).get(metric),
                "params": [(params.get(name, ""), raw.get(name, "")) for name in columns],
                "epochs": trial.user_attrs.get("epochs_trained"),
                "seconds": seconds,
                "failure": trial.user_attrs.get("failure", ""),
            }
        )
    return {"columns": columns, "rows": body, "fixed": fixed if len(rows) > 1 else {}}


def _data(data: Mapping[str, Any]) -> dict[str, Any]:
    labels = [str(label) for label in data.get("labels", ())]
    return {
        "sizes": data.get("sizes", {}),
        "labels": labels[:40],
        "more_labels": max(len(labels) - 40, 0),
        "notes": data.get("notes", []),
        "fingerprint": data.get("fingerprint", ""),
        "columns": data.get("columns", {}),
    }


def figures_json(sections: Iterable[Section]) -> str:
    """All figures as JSON that may stand in a script element: no `<`, `>` or `&` in it."""
    figures = []
    for section in sections:
        for figure in section.figures:
            plain = json.loads(figure.to_json())
            plain["layout"].pop("template", None)
            plain["layout"].pop("title", None)  # the section's heading says it
            plain["layout"].pop("plot_bgcolor", None)  # the page's own, light or dark
            figures.append(plain)
    text = json.dumps(figures, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026").replace("\u2028", "\\u2028")
