"""The model card of the final model: a README.md with the metadata of the Hugging Face Hub."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hpo.config.model_ref import label_models
from hpo.config.yaml import to_yaml
from hpo.core.format import count, duration, interval, parameters, score
from hpo.reporting.anonymize import anonymize_command, anonymize_name
from hpo.reporting.markdown import code_block, escape, table
from hpo.storage.records.final_model import ConfirmedTrial, DataRecord, FinalModel
from hpo.tasks.registry import get_task

# The hub's rule for the name of a repository.
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")


def model_card(config: Mapping[str, Any], result: FinalModel) -> str:
    """Return the card as Markdown with the hub's metadata block.

    `config` is a `StudyConfig` as a dictionary. The card has no path of this machine, and all text is escaped. It
    states no license: the user has to, from those of the base model and of the data.
    """
    winner = result.winner
    base = _base(config, str(winner.params.get("model", "")))
    metric = result.metric
    parts = [
        f"---\n{to_yaml(_metadata(config, result, base, metric))}---",
        f"# {escape(config['name'])}",
        _opening(config, winner, base),
        "## Use",
        _use(config, result),
        "## Result",
        _result(result, metric),
        "## How it was chosen",
        _chosen(config, result, metric),
        "## Parameters",
        table(("parameter", "value"), _exact(winner.params).items()),
        "## Data",
        _data(config, result.data),
        "## Limits",
        _limits(config, result),
        "## Reproduce",
        _reproduce(config, result),
    ]
    return "\n\n".join(part.rstrip() for part in parts if part) + "\n"


def _base(config: Mapping[str, Any], label: str) -> str:
    """Return the pretrained model of the winner: a hub id or a path."""
    named = {ref["label"]: ref["name"] for ref in label_models(list(config["models"]))}
    return str(named.get(label, label))


def _is_hub_id(name: str) -> bool:
    """Return whether the name of a model or dataset is that of a hub repository and not of a local path."""
    return HUB_ID.fullmatch(name) is not None and ".." not in name and not Path(name).exists()


def _metadata(config: Mapping[str, Any], result: FinalModel, base: str, metric: str) -> dict[str, Any]:
    """Return the metadata block, with the scores in the hub's model-index format."""
    task, path = config["task"], config["data"]["path"]
    tag = get_task(task).pipeline_tag
    block: dict[str, Any] = {"library_name": "transformers", "pipeline_tag": tag, "tags": ["hpo", task]}
    if _is_hub_id(base):
        block["base_model"] = base
    if _is_hub_id(path):
        block["datasets"] = [path]
    block["metrics"] = [metric]
    if result.test:
        scores = [
            {"type": name, "name": f"Test {name}", "value": round(float(value), 6)}
            for name, value in result.test.metrics.items()
        ]
        dataset = {"name": anonymize_name(path), "type": anonymize_name(path), "split": "test"}
        entry = {"task": {"type": tag}, "dataset": dataset, "metrics": scores}
        block["model-index"] = [{"name": config["name"], "results": [entry]}]
    return block


def _opening(config: Mapping[str, Any], winner: ConfirmedTrial, base: str) -> str:
    candidates = count(len(config["models"]), "candidate model")
    return (
        f"{escape(anonymize_name(base))}, fine-tuned for {escape(config['task'])}. hpo chose the model and how to "
        f"fine-tune it among {candidates}: this is trial {winner.trial} of its study."
    )


def _use(config: Mapping[str, Any], result: FinalModel) -> str:
    """Return code that uses the model; it truncates as training did."""
    winner, usage = result.winner, get_task(config["task"]).usage.replace("{max_length}", str(result.max_length))
    if result.trust_remote_code:
        usage = usage.replace('"path/to/this/folder"', '"path/to/this/folder", trust_remote_code=True')
    names = sorted(set(re.findall(r"\b(?:pipeline|Auto\w+)\b", usage)))
    shown = code_block(f"from transformers import {', '.join(names)}\n\n{usage}", "python")
    if result.trust_remote_code:
        shown += (
            "\n\nThe model has Python code of its own, which this folder holds. `trust_remote_code=True` runs it: read "
            "it first."
        )
    if config.get("keep_adapter") and winner.params.get("peft") == "lora":
        shown += "\n\nThe LoRA adapter is merged; the adapter alone, for `peft.PeftModel`, is in `adapter/`."
    return shown


def _result(result: FinalModel, metric: str) -> str:
    rows: list[tuple[str, str, str, str]] = []
    if result.test:
        for name, value in result.test.metrics.items():
            bounds = interval(result.test.interval) if name == metric else ""
            rows.append((f"this model, {name}", "test", score(value), bounds))
    winner = result.winner
    seeds = count(len(winner.values), "fresh seed")
    rows.append(
        (f"its configuration on {seeds}, {metric}", "validation", f"{score(winner.mean)} ± {score(winner.std)}", "")
    )
    if result.defaults:
        best = score(result.defaults.value)
        rows.append((f"the best default configuration, {metric}", "validation", best, ""))
    if result.baseline:
        rows.append((f"{result.baseline.name}, {metric}", "test", score(result.baseline.value), ""))
    return table(("what", "split", "score", "95 % interval"), rows)


def _exact(params: Mapping[str, Any]) -> dict[str, str]:
    """Return the parameters with enough digits to reproduce the training."""
    return {
        key: f"{value:.6g}" if isinstance(value := params[key], float) else str(value) for key in parameters(params)
    }


def _chosen(config: Mapping[str, Any], result: FinalModel, metric: str) -> str:
    """Return the search and the confirmation, seed by seed."""
    rows = [
        (
            entry.trial,
            anonymize_name(str(entry.params.get("model", ""))),
            score(entry.search_value),
            f"{score(entry.mean)} ± {score(entry.std)}",
            ", ".join(f"{score(value)} (seed {seed})" for seed, value in entry.values.items()),
        )
        for entry in result.confirmed
    ]
    kept = {
        "train+validation": "The final model was then trained on training and validation data together.",
        "train": "The final model was then trained on the same training rows.",
    }.get(result.refit, "The final model is the checkpoint that was validated.")
    trials, metric = count(config["budget"]["max_trials"], "trial"), escape(metric)
    head = ("trial", "model", "in the search", "mean of fresh seeds", "by seed")
    return (
        f"A search of up to {trials} with seed {config['seed']}, on validation {metric}. Its best configurations were "
        f"retrained with fresh seeds, and the one with the best mean was chosen. {kept}\n\n{table(head, rows)}"
    )


def _data(config: Mapping[str, Any], data: DataRecord) -> str:
    sizes = ", ".join(f"{rows:,} {escape(split)}" for split, rows in data.sizes.items())
    lines = [f"- source: {escape(anonymize_name(config['data']['path']))}", f"- rows: {sizes}"]
    labels = data.labels
    if labels:
        shown = ", ".join(escape(label) for label in labels[:50])
        lines.append(f"- {len(labels)} classes: {shown}{', …' if len(labels) > 50 else ''}")
    for role, column in data.columns.items():
        names = column if isinstance(column, str) else ", ".join(column or ())
        lines.append(f"- {escape(role)}: column {escape(names)}")
    lines += [f"- {escape(note)}" for note in data.notes]
    if data.fingerprint:
        lines.append(f"- fingerprint: {escape(data.fingerprint)}")
    return "\n".join(lines)


def _limits(config: Mapping[str, Any], result: FinalModel) -> str:
    """Return the limits of the scores and of the model."""
    test, lines = result.test, []
    if not test:
        lines.append("- There was no test split: the validation score chose the model, so it is optimistic.")
    elif test.evaluations > 1:
        lines.append(
            f"- The test split has been evaluated {test.evaluations} times in this study. Choosing between those "
            "results makes the test score optimistic."
        )
    else:
        lines.append("- The test split was evaluated once, after the winner was chosen.")
    if test and test.interval:
        rows = count(test.rows, "test row")
        lines.append(
            f"- The interval is a bootstrap over {rows}: it covers other rows of the same distribution, not other data."
        )
    lines += [
        f"- {get_task(config['task']).limitations}",
        "- No license is stated: those of the base model and of the data apply.",
    ]
    return "\n".join(lines)


def _reproduce(config: Mapping[str, Any], result: FinalModel) -> str:
    seeds = ", ".join(str(seed) for seed in result.winner.values)
    parts = [code_block(" ".join(anonymize_command(result.command).split()), "sh")]
    spent = ", ".join(f"{escape(phase)} {duration(seconds)}" for phase, seconds in result.seconds.items())
    lines = [f"- seeds: {config['seed']} in the search" + (f", {seeds} to confirm" if seeds else "")]
    lines.append(
        "- versions: " + ", ".join(f"{escape(name)} {escape(value)}" for name, value in result.versions.items())
    )
    if spent:
        lines.append(f"- time: {spent}")
    return "\n\n".join([*parts, "\n".join(lines)])
