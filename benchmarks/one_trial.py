"""Runs one trial of one side of `trial_speed.py` in this process: reads its case and prints its figures as JSON.

python benchmarks/one_trial.py '{"side": "hpo", "model": …, "data": …, "frozen": 0.5, "batch": 32, …}'
"""

import json
import os
import platform
import resource
import sys
import tempfile
import time
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

STARTED = time.perf_counter()
LEARNING_RATE = 1e-4
MAX_LENGTH = 128
Case = dict[str, Any]
Figures = dict[str, float]


def read_data(case: Case) -> Any:
    """Return the first rows of each shuffled split that the case names, the same on all sides."""
    from hpo.config.study import DataConfig
    from hpo.tasks.registry import get_task
    from hpo.tasks.task_data import fingerprint

    task = get_task("text-classification")
    data = task.prepare(DataConfig(path=case["data"]), 0)
    splits = {
        name: rows.shuffle(seed=0).select(range(min(case[f"{name}_rows"], len(rows))))
        for name, rows in data.splits.items()
        if f"{name}_rows" in case
    }
    # Copied: a selection by index is slower to read, which would affect only one side.
    splits = {name: rows.from_dict(rows.to_dict()) for name, rows in splits.items()}
    named = {"test": None, **splits}
    return replace(data, **named, fingerprint=fingerprint(task.name, splits, data.label_names))


def run_hpo(case: Case) -> list[Figures]:
    """Run two trials of the case in one process: the first, and a later one with another seed."""
    from hpo.config.load import load_config
    from hpo.config.trial_params import TrialParams
    from hpo.training.execution import choose_execution
    from hpo.training.fine_tune import FineTuning
    from hpo.workflow.context import StudyContext

    config = load_config(
        {
            "name": "speed",
            "data": case["data"],
            "models": [case["model"]],
            "search_space": {"learning_rate": LEARNING_RATE},
            "max_length": MAX_LENGTH,
        }
    )
    context = StudyContext.create(config, choose_execution(case["device"], case["threads"]), read_data(case))
    label = config.labels[0]
    for split in ("train", "validation"):
        context.features(split, label)
    assert context.scorer.metrics  # created at the first access, which imports evaluate
    context.candidates._loaded.clear()  # so that the first trial loads the model
    start_up = time.perf_counter() - STARTED
    found = []
    for seed in (0, 1):
        started = time.perf_counter()
        params = TrialParams(
            model=label,
            learning_rate=LEARNING_RATE,
            batch_size=case["batch"],
            epochs=case["epochs"],
            frozen_layers=round(case["frozen"] * context.candidates[label].stack.count),
        )
        with tempfile.TemporaryDirectory() as folder:
            run = FineTuning(context.plan(params, seed, Path(folder)))
            reports = list(run.reports())
        trial = time.perf_counter() - started
        print(f"{run.seconds} {run.execution}", file=sys.stderr)
        lengths = run.plan.train.lengths
        found.append(figures(case, start_up, trial, run.seconds["train"], run.model, lengths, reports[-1].value))
    return found


def training_arguments(side: str, device: str, folder: str, **given: Any) -> Any:
    """Return `TrainingArguments` with their defaults (`default`) or tuned ones (`tuned`), updated by `given`."""
    from transformers import TrainingArguments

    from hpo.training.execution import choose_execution

    cpu = device == "cpu"
    tuned: dict[str, Any] = {
        "bf16": choose_execution(device, 1).dtype == "bfloat16",
        "train_sampling_strategy": "group_by_length",
        "save_strategy": "no",
        "eval_strategy": "epoch",
        "per_device_eval_batch_size": 64,
    }
    return TrainingArguments(
        output_dir=folder,
        report_to="none",
        disable_tqdm=True,
        use_cpu=cpu,
        dataloader_pin_memory=not cpu,  # it only warns on a CPU
        **(tuned if side == "tuned" else {}),
        **given,
    )


def accuracy(predicted: Any) -> dict[str, float]:
    """Return the accuracy; the `compute_metrics` of `Trainer`."""
    return {"accuracy": float((predicted.predictions.argmax(-1) == predicted.label_ids).mean())}


def run_trainer(case: Case) -> list[Figures]:
    """Run one trial of the case with `Trainer`, default or tuned."""
    import numpy as np
    import torch
    import transformers
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, Trainer

    from hpo.tasks.registry import get_task
    from hpo.training.models.layers import find_stack, freeze

    transformers.logging.set_verbosity_error()
    torch.set_num_threads(case["threads"])
    task = get_task("text-classification")
    data = read_data(case)
    tokenizer = AutoTokenizer.from_pretrained(case["model"])
    train, validation = (task.encode(rows, tokenizer, MAX_LENGTH) for rows in (data.train, data.validation))
    evaluation_seconds, scores = [], []

    class Timed(Trainer):
        """Trainer that records the seconds of its evaluations, which the training throughput excludes."""

        def evaluate(self, *given: Any, **keywords: Any) -> dict[str, float]:
            before = time.perf_counter()
            found = super().evaluate(*given, **keywords)
            evaluation_seconds.append(time.perf_counter() - before)
            scores.append(found["eval_accuracy"])
            return found

    def load() -> Any:
        return AutoModelForSequenceClassification.from_pretrained(
            case["model"], dtype=torch.float32, **task.head_config(data), ignore_mismatched_sizes=True
        )

    load()
    start_up = time.perf_counter() - STARTED
    started = time.perf_counter()
    model = load()
    stack = find_stack(model)
    example = dict(tokenizer("an example", return_tensors="pt"))
    freeze(model, stack, round(case["frozen"] * stack.count), example)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Timed(
            model=model,
            args=training_arguments(
                case["side"],
                case["device"],
                folder,
                num_train_epochs=case["epochs"],
                per_device_train_batch_size=case["batch"],
                learning_rate=LEARNING_RATE,
            ),
            train_dataset=train,
            eval_dataset=validation,
            processing_class=tokenizer,
            compute_metrics=accuracy,
        )
        before = time.perf_counter()
        trainer.train()
        training = time.perf_counter() - before - sum(evaluation_seconds)
        if case["side"] == "default":
            trainer.evaluate()
    trial = time.perf_counter() - started
    return [figures(case, start_up, trial, training, model, np.array(train["length"]), scores[-1])]


def figures(
    case: Case, start_up: float, trial: float, training: float, model: Any, lengths: Any, score: float
) -> Figures:
    """Return a trial's figures; `lengths` are the training rows' tokens without padding."""
    import torch
    from torch import nn

    found = {
        "start_up_seconds": start_up,
        "trial_seconds": trial,
        "training_seconds": training,
        "examples_per_second": len(lengths) * case["epochs"] / training,
        # Of the process: a later trial's includes the first.
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "validation_accuracy": score,
    }
    if case["device"] != "cpu":
        found["peak_device_memory_mb"] = torch.cuda.max_memory_allocated() / 2**20
    if case["frozen"] == 0:
        embedded = sum(m.weight.numel() for m in model.modules() if isinstance(m, nn.Embedding))
        multiplied = sum(p.numel() for p in model.parameters()) - embedded
        # 2 operations a parameter and token forward, 4 backward (Kaplan et al., 2020); attention's own are not counted.
        found["gflops"] = 6 * multiplied * float(lengths.sum()) * case["epochs"] / training / 1e9
    return found


def describe_machine(case: Case) -> dict[str, Any]:
    """Describe the machine, with its rate of matrix products in GFLOP/s: the best of several rounds."""
    import torch

    device = torch.device(case["device"])
    torch.set_num_threads(case["threads"])
    side, times = (1024, 20) if device.type == "cpu" else (8192, 20)
    rates = {}
    for dtype in (torch.float32, torch.bfloat16):
        a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
        seconds = []
        for _ in range(6):
            before = time.perf_counter()
            for _ in range(times):
                a @ b
            if device.type == "cuda":
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - before)
        rates[str(dtype).removeprefix("torch.")] = round(times * 2 * side**3 / min(seconds) / 1e9, 1)
    cpuinfo = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    names = [line.split(":", 1)[1].strip() for line in cpuinfo.splitlines() if line.startswith("model name")]
    return {
        "device": "cpu" if device.type == "cpu" else torch.cuda.get_device_name(device),
        "processor": names[0] if names else platform.processor() or platform.machine(),
        "threads": case["threads"],
        "memory_gb": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1),
        "matrix_gflops": rates,
        "versions": {name: version(name) for name in ("torch", "transformers")} | {"python": platform.python_version()},
    }


RUNS = {"default": run_trainer, "tuned": run_trainer, "hpo": run_hpo, "machine": describe_machine}


if __name__ == "__main__":
    case = json.loads(sys.argv[1])
    print(json.dumps(RUNS[case["side"]](case)))
