"""Measures the speed of one fine-tuning trial against `transformers.Trainer`, with default and with tuned arguments.

    python benchmarks/trial_speed.py --model examples/models/bert-3x128 --data ../shared/datasets/banking77 --quick
    python benchmarks/trial_speed.py --model MINILM --model examples/models/bert-3x128 --data A --data B

All sides train the same model on the same rows (epochs, learning rate, batch size, frozen layers). Each run has its own
process, and the sides alternate (A-B-C-C-B-A), so that drift of the machine affects all. A trial is timed from loading
the model to its last evaluation. Start-up (imports, reading and tokenizing the data, reading the model's file once) is
reported separately: a worker pays it once. `later` is hpo's second trial in a warm worker.

- default: TrainingArguments with its defaults (float32, padded to the batch's longest, shuffled), evaluated at the end.
- tuned: bf16 where the machine multiplies it natively, batches grouped by length, large evaluation batches, no
  checkpoints, one evaluation an epoch.
- hpo: a trial as a search runs it, one evaluation an epoch.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

SIDES = ("default", "tuned", "hpo")
EPOCHS = 3
Case = dict[str, Any]
Figures = dict[str, float]


def in_own_process(case: Case) -> Any:
    """Run one case in a new process with an empty HPO_HOME, and return its output."""
    with tempfile.TemporaryDirectory() as home:
        environment = {**os.environ, "HPO_HOME": home, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        done = subprocess.run(
            [sys.executable, str(Path(__file__).with_name("one_trial.py")), json.dumps(case)],
            capture_output=True,
            text=True,
            check=False,
            env=environment | {"OMP_NUM_THREADS": str(case["threads"])},
        )
    if done.returncode:
        raise SystemExit(f"{case}\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def compare(case: Case, repeats: int, bf16_gflops: float) -> dict[str, Any]:
    """Run all sides of one case, forth and back, `repeats` times; return medians and ratios of trial time."""
    runs: dict[str, list[Figures]] = {side: [] for side in (*SIDES, "later")}
    for _ in range(repeats):
        for side in (*SIDES, *reversed(SIDES)):
            first, *later = in_own_process({**case, "side": side})
            runs[side].append(first)
            runs["later"] += later
    row: dict[str, Any] = {}
    for side, found in runs.items():
        row[side] = {key: statistics.median(run[key] for run in found) for key in found[0]}
        row[side]["all_trial_seconds"] = [run["trial_seconds"] for run in found]
        if "gflops" in row[side]:
            row[side]["share_of_matrix_rate"] = row[side]["gflops"] / bf16_gflops
    row["ratios"] = {
        f"{side}_against_{other}": row[other]["trial_seconds"] / row[side]["trial_seconds"]
        for side in ("hpo", "later")
        for other in ("default", "tuned")
    }
    # Names instead of paths of this machine.
    return {**case, "model": Path(case["model"]).name, "data": Path(case["data"]).name, **row}


def show(machine: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """Print a table of trial seconds, throughput, memory and accuracy."""
    table = Table(title="Seconds of a trial, and how many times faster hpo is", title_justify="left")
    several = " / ".join(SIDES)
    for name in ("model", "data", "frozen", "batch"):
        table.add_column(name)
    for name in (f"{several} / later", "first ×", "later ×", "examples/s", "peak MB", "% of bf16 rate", "accuracy"):
        table.add_column(name, justify="right")

    def each(row: dict[str, Any], key: str, form: str, sides: Sequence[str] = SIDES) -> str:
        return " / ".join(format(row[side][key], form) if key in row[side] else "–" for side in sides)

    for row in rows:
        ratios = row["ratios"]
        table.add_row(
            *(str(row[key]) for key in ("model", "data", "frozen", "batch")),
            each(row, "trial_seconds", ".2f", (*SIDES, "later")),
            *(
                " / ".join(f"{ratios[f'{side}_against_{other}']:.1f}" for other in ("default", "tuned"))
                for side in ("hpo", "later")
            ),
            each(row, "examples_per_second", ".0f"),
            each(row, "peak_memory_mb", ".0f"),
            each(row, "share_of_matrix_rate", ".0%"),
            each(row, "validation_accuracy", ".3f"),
        )
    start_up = {side: statistics.median(row[side]["start_up_seconds"] for row in rows) for side in SIDES}
    console = Console(width=None if sys.stdout.isatty() else 190)
    console.print(table)
    console.print(f"×: against default / against tuned. Other columns: {several}.")
    console.print(f"Start-up, once a process, not included: {', '.join(f'{k} {v:.1f} s' for k, v in start_up.items())}")
    rates = ", ".join(f"{dtype} {rate:.0f} GFLOP/s" for dtype, rate in machine["matrix_gflops"].items())
    console.print(
        f"{machine['processor']}, {machine['device']}, {machine['threads']} threads; matrix products: {rates}"
    )


def cases(arguments: argparse.Namespace) -> list[Case]:
    """Return every requested combination."""
    return [
        {
            "model": str(Path(model).resolve()),
            "data": str(Path(data).resolve()),
            "frozen": frozen,
            "batch": batch,
            "epochs": 1 if arguments.quick else arguments.epochs,
            "train_rows": min(arguments.rows, 300) if arguments.quick else arguments.rows,
            "validation_rows": min(arguments.validation_rows, 200) if arguments.quick else arguments.validation_rows,
            "threads": arguments.threads,
            "device": "cuda:0" if arguments.gpu else "cpu",
        }
        for data in arguments.data
        for model in arguments.model
        for frozen in arguments.frozen or (0.0, 0.5, 1.0)
        for batch in arguments.batch or ((32,) if arguments.quick else (8, 32))
    ]


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", required=True, help="a model's folder; may be repeated")
    parser.add_argument(
        "--data", action="append", required=True, help="a folder of train, validation, test; may be repeated"
    )
    parser.add_argument("--quick", action="store_true", help="batch 32, one epoch of 300 rows: about 3 minutes a model")
    parser.add_argument("--rows", type=int, default=1000, help="training rows, from the start of the shuffled split")
    parser.add_argument("--validation-rows", type=int, default=400)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--frozen", type=float, action="append", help="share of the layers: 0, 0.5, 1; may be repeated")
    parser.add_argument("--batch", type=int, action="append", help="8, 32; may be repeated")
    parser.add_argument("--repeats", type=int, default=1, help="number of runs forth and back")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--gpu", action="store_true")
    parser.add_argument("--output", type=Path, default=Path("trial_speed.json"))
    return parser.parse_args()


def main() -> None:
    arguments = read_arguments()
    requested = cases(arguments)
    machine = in_own_process({**requested[0], "side": "machine"})
    rows = []
    for number, case in enumerate(requested, 1):
        started = time.monotonic()
        row = compare(case, arguments.repeats, machine["matrix_gflops"]["bfloat16"])
        rows.append(row)
        seconds = ", ".join(f"{side} {row[side]['trial_seconds']:.2f} s" for side in (*SIDES, "later"))
        about = f"{row['model']} {row['data']} frozen {row['frozen']} batch {row['batch']}"
        print(f"[{number} of {len(requested)}, {time.monotonic() - started:.0f} s] {about}: {seconds}", flush=True)
        arguments.output.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1))
    show(machine, rows)


if __name__ == "__main__":
    main()
