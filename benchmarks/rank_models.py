"""Compares transferability scores by how well they predict which model is best after training.

    python benchmarks/rank_models.py --data ../shared/datasets/banking77 --curves FOLDER
    python benchmarks/rank_models.py --data ../shared/datasets/{stsb,sms_spam} --model FOLDER --into FOLDER

The scores should predict each model's best final value on validation: of all configurations that `record_curves.py`
recorded on a dataset, or of a small grid, the same for all models, that is trained here. Results of the grid are
appended to `INTO/finals.jsonl` after each run, and the same command resumes from there. Every score is computed from
the same training rows and compared with the final values: Kendall's tau over the models of a dataset, and the regret of
training the top-ranked model only, as a share of the difference between the best and the worst model.
"""

import argparse
import itertools
import json
import math
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from transfer_scores import Floats, h_score, log_maximum_evidence, nearest_neighbors

os.environ.setdefault("HPO_HOME", str(Path(tempfile.gettempdir()) / "hpo-rank-models"))

from hpo.config.load import load_config
from hpo.config.trial_params import TrialParams
from hpo.errors import TrialError
from hpo.search.ranking import rank_correlation
from hpo.tasks.registry import get_task
from hpo.tasks.task_data import TaskData, fingerprint
from hpo.training.execution import choose_execution, cores
from hpo.training.fine_tune import FineTuning
from hpo.training.ranking.layer_features import LayerFeatures, extract_layer_features
from hpo.training.ranking.transferability import probe, target_columns, transferability
from hpo.workflow.context import StudyContext

MODELS = Path(__file__).resolve().parents[1] / "examples" / "models"
BUNDLED = [str(MODELS / name) for name in ("bert-3x128", "roberta-4x128", "distilbert-2x160", "electra-6x112")]
TASKS = {"stsb": "text-regression", "wnut17": "token-classification", "ncbi_disease": "token-classification"}
GRID = {"learning_rate": (3e-4, 1e-3, 3e-3), "epochs": (4,)}
Row = dict[str, Any]
Finals = dict[str, dict[str, float]]  # by dataset and model


def _last(found: LayerFeatures) -> Floats:
    return found.layers[-1].astype(np.float64)


def _mean(found: LayerFeatures) -> Floats:
    return np.mean(found.layers, axis=0, dtype=np.float64)


SCORES: dict[str, Callable[[LayerFeatures, Floats], float]] = {
    "hpo's own": lambda found, targets: transferability(found.layers, found.labels, found.inputs),
    "probe, last layer": lambda found, targets: probe(_last(found), targets, found.inputs),
    "probe, mean of layers": lambda found, targets: probe(_mean(found), targets, found.inputs),
    "probe, best layer": lambda found, targets: max(
        probe(layer.astype(np.float64), targets, found.inputs) for layer in found.layers
    ),
    "5 nearest, all layers": lambda found, targets: nearest_neighbors(found.layers, targets, found.inputs),
    "LogME, last layer": lambda found, targets: log_maximum_evidence(_last(found), targets),
    "LogME, mean of layers": lambda found, targets: log_maximum_evidence(_mean(found), targets),
    "H-score, last layer": lambda found, targets: h_score(_last(found), targets) if _is_classes(found) else math.nan,
    "H-score, mean of layers": lambda found, targets: (
        h_score(_mean(found), targets) if _is_classes(found) else math.nan
    ),
}


def _is_classes(found: LayerFeatures) -> bool:
    return found.labels.ndim == 1 and found.labels.dtype.kind in "iu"


def context_of(data: Path, models: list[str], rows: int, validation: int) -> StudyContext:
    """Return the context of models and some rows of a dataset, with the task's default metric."""
    task = TASKS.get(data.name, "text-classification")
    given = {"name": "rank", "task": task, "data": str(data.absolute()), "models": models, "max_length": 128}
    config = load_config(given)
    return StudyContext.create(config, choose_execution("cpu", cores()), some_rows(task, config.data, rows, validation))


def some_rows(name: str, data: Any, train: int, validation: int) -> TaskData:
    """Return the first rows of the shuffled splits."""
    task = get_task(name)
    prepared = task.prepare(data, 0)
    wanted = (("train", prepared.train, train), ("validation", prepared.validation, validation))
    splits = {split: rows.shuffle(seed=0).select(range(min(count, len(rows)))) for split, rows, count in wanted}
    splits = {split: rows.from_dict(rows.to_dict()) for split, rows in splits.items()}
    return replace(prepared, **splits, test=None, fingerprint=fingerprint(name, splits, prepared.label_names))


def recorded_finals(folder: Path) -> Finals:
    """Return each model's best final value that `record_curves.py` has recorded."""
    best: Finals = {}
    for file in sorted(folder.glob("*.jsonl")):
        found: dict[str, float] = defaultdict(lambda: -math.inf)
        for row in map(json.loads, file.read_text(encoding="utf-8").splitlines()):
            if row["failure"] is None:
                model = row["params"]["model"]
                found[model] = max(found[model], row["reports"][-1]["accuracy"])
        best[file.stem] = dict(found)
    return best


def train_grid(context: StudyContext, dataset: str, file: Path) -> dict[str, float]:
    """Train the configurations of the grid that the file lacks; return the best value of each model."""
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    done = {json.dumps([row["dataset"], row["params"]]): row["value"] for row in map(json.loads, lines)}
    best: dict[str, float] = {}
    for values in itertools.product(context.config.labels, *GRID.values()):
        params = dict(zip(("model", *GRID), values, strict=True))
        key = json.dumps([dataset, params])
        if key not in done:
            started = time.process_time()
            done[key] = final_of(context, params)
            row = {"dataset": dataset, "params": params, "value": done[key]}
            with file.open("a", encoding="utf-8") as out:
                out.write(json.dumps(row | {"seconds": round(time.process_time() - started, 2)}) + "\n")
        if done[key] is not None:
            best[params["model"]] = max(best.get(params["model"], -math.inf), done[key])
    return best


def final_of(context: StudyContext, params: Row) -> float | None:
    """Return the final value of one run on validation; None where it fails."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            return list(FineTuning(context.plan(TrialParams(**params), 0, Path(folder))).reports())[-1].value
        except TrialError:
            return None


def scores_of(context: StudyContext) -> tuple[dict[str, dict[str, float]], float]:
    """Return each score of each model, and the mean CPU seconds of the forward pass and hpo's own score."""
    found: dict[str, dict[str, float]] = {name: {} for name in (*SCORES, "parameters")}
    seconds = []
    for label in context.config.labels:
        features = context.features("train", label)
        started = time.process_time()
        layer_features = extract_layer_features(
            context.candidates[label], features, np.arange(len(features)), context.execution
        )
        transferability(layer_features.layers, layer_features.labels, layer_features.inputs)
        seconds.append(time.process_time() - started)
        targets = target_columns(layer_features.labels)
        for name, score in SCORES.items():
            found[name][label] = score(layer_features, targets)
        found["parameters"][label] = context.candidates[label].parameters
    return found, float(np.mean(seconds))


def show(outcomes: dict[str, tuple[dict[str, dict[str, float]], dict[str, float]]]) -> None:
    """Print a table of tau and regret, one row a score, below the final values of each dataset."""
    console, table = Console(width=160), Table("score", *outcomes, "mean tau", "mean regret")
    for dataset, (_, finals) in outcomes.items():
        console.print(f"{dataset}: best of each model: {', '.join(f'{m} {v:.3f}' for m, v in finals.items())}")
    for name in (*SCORES, "parameters"):
        cells, taus, regrets = [], [], []
        for scores, finals in outcomes.values():
            models = [model for model in finals if math.isfinite(scores[name].get(model, math.nan))]
            if len(models) < 2:
                cells.append("–")
                continue
            tau = rank_correlation([scores[name][m] for m in models], [finals[m] for m in models]) or 0.0
            best, worst = max(finals.values()), min(finals.values())
            regret = (best - finals[max(models, key=lambda m: scores[name][m])]) / (best - worst)
            taus.append(tau)
            regrets.append(regret)
            cells.append(f"{tau:+.2f}, {regret:.2f}")
        table.add_row(name, *cells, f"{np.mean(taus):+.2f}", f"{np.mean(regrets):.2f}")
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="folders of labeled data")
    parser.add_argument(
        "--model", action="append", default=[], help="a model in addition to the bundled ones; may be repeated"
    )
    parser.add_argument("--rows", type=int, default=800)
    parser.add_argument("--validation-rows", type=int, default=400)
    parser.add_argument(
        "--into", type=Path, help="folder for the results of the grid; without it only --curves are used"
    )
    parser.add_argument("--curves", type=Path, help="folder that record_curves.py wrote")
    arguments = parser.parse_args()
    recorded = recorded_finals(arguments.curves) if arguments.curves else {}
    outcomes = {}
    for data in arguments.data:
        context = context_of(data, [*BUNDLED, *arguments.model], arguments.rows, arguments.validation_rows)
        finals = recorded.get(data.name, {})
        if arguments.into is not None:
            arguments.into.mkdir(parents=True, exist_ok=True)
            finals = train_grid(context, data.name, arguments.into / "finals.jsonl")
        scores, seconds = scores_of(context)
        print(
            f"{data.name}: {seconds:.2f} s a model for {len(context.data.train)} rows", json.dumps(scores), flush=True
        )
        outcomes[data.name] = scores, finals
    show(outcomes)


if __name__ == "__main__":
    main()
