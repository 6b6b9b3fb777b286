"""How fast is one fine-tuning trial, against `transformers.Trainer` as people call it and as an expert would?

    python benchmarks/trial_speed.py --model examples/models/bert-3x128 --data ../shared/datasets/banking77 --quick
    python benchmarks/trial_speed.py --model MINILM --model examples/models/bert-3x128 --data A --data B

Both sides train the same model on the same rows (epochs, learning rate, batch size, frozen layers), each run in a
process of its own, in the order A-B-B-A, so that a drift of the machine falls on both. A trial is timed from the
model's loading to its last evaluation, imports apart (a worker pays them once); `later` is hpo's second trial of a
model in a warm worker.

- default: TrainingArguments as they come (float32, padded to the batch's longest, shuffled), evaluated at the end.
- tuned: bf16, batches grouped by length, no checkpoints, one evaluation an epoch.
- hpo: what a search runs, one evaluation an epoch.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SIDES = ("default", "tuned", "hpo")
EPOCHS = 3
LEARNING_RATE = 1e-4
LINE = "{:20} {:24} {:>6} {:>5}  {:42} {}"


def run_hpo(case: dict[str, Any]) -> list[dict[str, float]]:
    """Two trials of the case in one warm process: the first, and a later one (another seed)."""
    from hpo.core.config import load_config
    from hpo.core.trial import TrialParams
    from hpo.training.fine_tune import FineTuning
    from hpo.training.precision import choose_execution
    from hpo.workflow.workbench import Workbench

    study = {"name": "speed", "data": case["data"], "models": [case["model"]], "search_space": {}}
    config = load_config({**study, "max_length": case["max_length"]})
    bench = Workbench(config, choose_execution("cpu" if not case["gpu"] else "cuda:0", case["threads"]))
    label = config.labels[0]
    bench.features("train", label), bench.features("validation", label)
    bench.candidates._loaded.clear()  # tokenizing is outside the trial on both sides, loading the model inside
    found = []
    for seed in (0, 1):
        started = time.perf_counter()
        layers = bench.candidates[label].stack.count
        params = TrialParams(
            model=label,
            learning_rate=LEARNING_RATE,
            batch_size=case["batch"],
            epochs=case["epochs"],
            frozen_layers=round(case["frozen"] * layers),
        )
        with tempfile.TemporaryDirectory() as folder:
            run = FineTuning(bench.plan(params, seed, Path(folder)))
            reports = list(run.reports())
        found.append(_figures(started, run.seconds["train"], len(run.plan.train) * case["epochs"], reports[-1].value))
    return found


def run_trainer(case: dict[str, Any]) -> list[dict[str, float]]:
    """One trial of the case with `Trainer`, default or tuned."""
    import numpy as np
    import torch
    import transformers
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, Trainer, TrainingArguments

    from hpo.core.config import DataConfig
    from hpo.tasks import get_task
    from hpo.training.layers import find_stack, frozen_modules

    transformers.logging.set_verbosity_error()
    torch.set_num_threads(case["threads"])
    task = get_task("text-classification")
    data = task.prepare(DataConfig(path=case["data"]), 0)
    tokenizer = AutoTokenizer.from_pretrained(case["model"])
    train, validation = (task.encode(s, tokenizer, case["max_length"]) for s in (data.train, data.validation))
    tuned = case["side"] == "tuned"
    started = time.perf_counter()
    model = AutoModelForSequenceClassification.from_pretrained(
        case["model"], dtype=torch.float32, **task.head(data), ignore_mismatched_sizes=True
    )
    stack = find_stack(model)
    for module in frozen_modules(model, stack, round(case["frozen"] * stack.count)):
        module.requires_grad_(False)
    options: dict[str, Any] = {}
    if tuned:
        options = {
            "bf16": True,
            "train_sampling_strategy": "group_by_length",
            "length_column_name": "length",
            "eval_strategy": "epoch",
            "per_device_eval_batch_size": 64,
        }
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            num_train_epochs=case["epochs"],
            per_device_train_batch_size=case["batch"],
            learning_rate=LEARNING_RATE,
            save_strategy="no" if tuned else "steps",
            report_to="none",
            disable_tqdm=True,
            use_cpu=not case["gpu"],
            **options,
        )
        trainer = Trainer(
            model=model,
            args=arguments,
            train_dataset=train,
            eval_dataset=validation,
            processing_class=tokenizer,
            compute_metrics=lambda p: {"accuracy": float(np.mean(p.predictions.argmax(-1) == p.label_ids))},
        )
        began = time.perf_counter()
        trainer.train()
        trained = time.perf_counter() - began
        score = trainer.evaluate()["eval_accuracy"]
    return [_figures(started, trained, len(train) * case["epochs"], score)]


def _figures(started: float, training: float, examples: int, score: float) -> dict[str, float]:
    return {
        "trial_seconds": time.perf_counter() - started,
        "examples_per_second": examples / training,
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "validation_accuracy": score,
    }


def matrix_rate(threads: int) -> dict[str, float]:
    """The machine's own rate of matrix products, in GFLOP/s."""
    import torch

    torch.set_num_threads(threads)
    rates = {}
    for dtype in (torch.float32, torch.bfloat16):
        a, b = torch.randn(1024, 1024).to(dtype), torch.randn(1024, 1024).to(dtype)
        for _ in range(3):
            a @ b
        began = time.perf_counter()
        for _ in range(20):
            a @ b
        rates[str(dtype).removeprefix("torch.")] = 20 * 2 * 1024**3 / (time.perf_counter() - began) / 1e9
    return rates


def in_own_process(case: dict[str, Any]) -> list[dict[str, float]]:
    """Run one case in a fresh process with a fresh home, and read its figures."""
    with tempfile.TemporaryDirectory() as home:
        environment = {**os.environ, "HPO_HOME": home, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(case["threads"])}
        done = subprocess.run(
            [sys.executable, __file__, "--case", json.dumps(case)],
            capture_output=True,
            text=True,
            check=False,
            env=environment,
        )
    if done.returncode:
        raise SystemExit(f"{case}\n{done.stderr}")
    return list(json.loads(done.stdout.splitlines()[-1]))


def compare(case: dict[str, Any], repeats: int) -> dict[str, Any]:
    """All sides of one case, A-B-C-C-B-A, `repeats` times; medians and ratios of trial time."""
    runs: dict[str, list[dict[str, float]]] = {side: [] for side in (*SIDES, "later")}
    for _ in range(repeats):
        for side in (*SIDES, *reversed(SIDES)):
            first, *later = in_own_process({**case, "side": side})
            runs[side].append(first)
            runs["later"] += later
    row = {
        side: {key: statistics.median(run[key] for run in found) for key in found[0]} for side, found in runs.items()
    }
    seconds = {side: figures["trial_seconds"] for side, figures in row.items()}
    ratios = {
        f"{side}_against_{other}": seconds[other] / seconds[side]
        for side in ("hpo", "later")
        for other in ("default", "tuned")
    }
    return {**case, **row, "ratios": ratios}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", help="a model's folder; may be repeated")
    parser.add_argument("--data", action="append", help="a folder of train, validation, test; may be repeated")
    parser.add_argument("--quick", action="store_true", help="one batch size, one epoch, one repeat: about 5 minutes")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--gpu", action="store_true")
    parser.add_argument("--output", type=Path, default=Path("trial_speed.json"))
    parser.add_argument("--case", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        case = json.loads(arguments.case)
        print(json.dumps(run_hpo(case) if case["side"] == "hpo" else run_trainer(case)))
        return
    machine = {"processor": platform.processor() or platform.machine(), "threads": arguments.threads}
    machine |= {"gflops": matrix_rate(arguments.threads), "python": platform.python_version()}
    rows = []
    print(LINE.format("model", "data", "frozen", "batch", "times faster: first / later trial", "default, tuned, hpo"))
    for data in arguments.data:
        for model in arguments.model:
            for frozen in (0.0, 0.5, 1.0):
                for batch in (32,) if arguments.quick else (8, 32):
                    case = {"model": str(Path(model).resolve()), "data": str(Path(data).resolve()), "frozen": frozen}
                    case |= {"batch": batch, "epochs": 1 if arguments.quick else EPOCHS, "max_length": 128}
                    row = compare({**case, "threads": arguments.threads, "gpu": arguments.gpu}, arguments.repeats)
                    rows.append(row)
                    ratio = row["ratios"]
                    told = f"default {ratio['hpo_against_default']:.1f} / {ratio['later_against_default']:.1f}, "
                    told += f"tuned {ratio['hpo_against_tuned']:.1f} / {ratio['later_against_tuned']:.1f}"
                    scores = ", ".join(f"{row[side]['validation_accuracy']:.3f}" for side in SIDES)
                    names = Path(model).name, Path(data).name
                    print(LINE.format(*names, frozen, batch, told, scores), flush=True)
                    for case_row in rows:  # names, not this machine's paths
                        case_row |= {key: Path(case_row[key]).name for key in ("model", "data")}
                    arguments.output.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
