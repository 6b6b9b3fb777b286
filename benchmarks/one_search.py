"""Runs one search of a rival for `time_to_target.py` in this process: reads its case and writes its trials as JSON.

python benchmarks/one_search.py '{"side": "tuned", "study": "study.yaml", "threads": 2, "answer": "answer.json"}'

- default, tuned: `Trainer.hyperparameter_search` with Optuna, `model_init(trial)` choosing the model.
- ray: Ray Tune's ASHA (Li et al., 2020: random configurations, pruned at the rungs 1, 2, 4), two trials at once, each
  trained by hpo's own loop, so that only the search differs.
- hpo: trains only the best trial of a search that `hpo run` has run, for its test score.

All read the study file of `hpo run`. Times are those of `time.time()`.
"""

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

Case = dict[str, Any]
Answer = dict[str, Any]


def search_with_trainer(case: Case) -> Answer:
    """Run `Trainer.hyperparameter_search` on the study's space and models; train the best again for its test score."""
    import optuna
    import torch
    import transformers
    from one_trial import accuracy, training_arguments
    from transformers import Trainer

    from hpo.config.load import load_config
    from hpo.search.suggest import suggest

    transformers.logging.set_verbosity_error()
    torch.set_num_threads(case["threads"])
    config = load_config(case["study"])
    data = TextData(config.data.path, config.max_length)

    def model_init(trial: Any) -> Any:
        """Return the trial's model, and give the trainer the texts as the model's tokenizer encodes them."""
        if trial is None:  # when the Trainer is created
            return data.load(config.models[0].name)
        params = suggest(trial, config.search_space, config.labels)
        name = config.model_ref(params.model).name
        trainer.train_dataset, trainer.eval_dataset = data.encoded("train", name), data.encoded("validation", name)
        trainer.data_collator = transformers.DataCollatorWithPadding(data.tokenizer(name))
        return data.load(name, params)

    def space(trial: Any) -> dict[str, Any]:
        params = suggest(trial, config.search_space, config.labels)
        return {
            "learning_rate": params.learning_rate,
            "per_device_train_batch_size": params.batch_size,
            "num_train_epochs": params.epochs,
            "weight_decay": params.weight_decay,
            "warmup_steps": params.warmup_ratio,
        }

    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            model_init=model_init,
            # 0.0, not 0: the trainer converts a trial's value to the type of this default.
            args=training_arguments(case["side"], "cpu", folder, seed=config.seed, warmup_steps=0.0),
            train_dataset=data.encoded("train", config.models[0].name),
            eval_dataset=data.encoded("validation", config.models[0].name),
            compute_metrics=accuracy,
        )
        storage = optuna.storages.InMemoryStorage()
        best = trainer.hyperparameter_search(
            hp_space=space,
            compute_objective=lambda metrics: metrics["eval_accuracy"],
            n_trials=config.budget.max_trials,
            direction="maximize",
            backend="optuna",
            study_name="search",
            storage=storage,
            sampler=optuna.samplers.TPESampler(seed=config.seed),
            pruner=optuna.pruners.MedianPruner(),
        )
        trials = trials_of(optuna.load_study(study_name="search", storage=storage))
        trainer.hp_search_backend = transformers.trainer_utils.HPSearchBackend.OPTUNA
        trainer.train(trial=optuna.trial.FixedTrial(best.hyperparameters))
        test = trainer.evaluate(data.encoded("test", config.model_ref(best.hyperparameters["model"]).name))
    return {"trials": trials, "test": test["eval_accuracy"]}


class TextData:
    """The splits of `folder` as in a Trainer script: read by `datasets`, tokenized once for each model."""

    def __init__(self, folder: str, max_length: int | None) -> None:
        from datasets import load_dataset

        files = {split: f"{folder}/{split}.csv" for split in ("train", "validation", "test")}
        self._max_length = max_length
        self._rows = load_dataset("csv", data_files=files)
        self._names = sorted({label for split in self._rows.values() for label in split["label"]})
        self._tokenizers: dict[str, Any] = {}
        self._encoded: dict[tuple[str, str], Any] = {}

    def tokenizer(self, model: str) -> Any:
        from transformers import AutoTokenizer

        if model not in self._tokenizers:
            self._tokenizers[model] = AutoTokenizer.from_pretrained(model)
        return self._tokenizers[model]

    def encoded(self, split: str, model: str) -> Any:
        if (split, model) not in self._encoded:
            tokenizer, numbers = self.tokenizer(model), {name: n for n, name in enumerate(self._names)}

            def encode(rows: Any) -> Any:
                found = tokenizer(rows["text"], truncation=True, max_length=self._max_length, return_length=True)
                return {**found, "labels": [numbers[label] for label in rows["label"]]}

            rows = self._rows[split]
            self._encoded[split, model] = rows.map(encode, batched=True, remove_columns=rows.column_names)
        return self._encoded[split, model]

    def load(self, model: str, params: Any = None) -> Any:
        """Load a model with a head for the classes, and with a trial's dropout and frozen layers."""
        import torch
        from transformers import AutoModelForSequenceClassification

        from hpo.training.models.candidate import set_dropout
        from hpo.training.models.layers import find_stack, freeze

        names = dict(enumerate(self._names))
        head = {"num_labels": len(names), "id2label": names, "label2id": {name: n for n, name in names.items()}}
        loaded = AutoModelForSequenceClassification.from_pretrained(
            model, dtype=torch.float32, ignore_mismatched_sizes=True, **head
        )
        if params is not None:
            set_dropout(loaded, params.dropout)
            stack = find_stack(loaded)
            example = dict(self.tokenizer(model)("an example", return_tensors="pt"))
            freeze(loaded, stack, params.resolve_frozen_layers(stack.count), example)
        return loaded


def search_with_ray(case: Case) -> Answer:
    """Run ASHA on the study's space, two trials at once on a core each; each trial is trained by hpo's own loop."""
    import ray
    from ray import tune
    from ray._private import ray_constants
    from ray.tune.schedulers import ASHAScheduler

    from hpo.config.load import load_config
    from hpo.config.search_space import Categorical, Float, Int

    config = load_config(case["study"])
    domains: dict[str, Any] = {"model": tune.choice(config.labels)}
    for name, parameter in config.search_space.parameters.items():
        match parameter:
            case Categorical():
                domains[name] = tune.choice(list(parameter.choices))
            case Int():
                domains[name] = tune.randint(parameter.low, parameter.high + 1)
            case Float():
                domain = tune.loguniform if parameter.log else tune.uniform
                domains[name] = domain(parameter.low, parameter.high)
            case _:
                domains[name] = parameter.value
    epochs: Any = config.search_space.parameters["epochs"]
    ended: dict[str, float] = {}

    class EndTimes(tune.Callback):
        def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            ended[trial.trial_id] = time.time()

    ray_constants.ENABLE_RAY_CLUSTER = False  # on loopback
    options = {"include_dashboard": False, "_node_ip_address": "127.0.0.1"}
    ray.init(address="local", num_cpus=case["threads"], log_to_driver=False, **options)
    with tempfile.TemporaryDirectory() as folder:
        results = tune.Tuner(
            tune.with_parameters(train_for_ray, study=case["study"]),
            param_space=domains,
            tune_config=tune.TuneConfig(
                metric="accuracy",
                mode="max",
                num_samples=config.budget.max_trials,
                scheduler=ASHAScheduler(max_t=epochs.high, grace_period=1, reduction_factor=2),
                search_alg=tune.search.BasicVariantGenerator(random_state=config.seed),
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(storage_path=folder, callbacks=[EndTimes()], verbose=0),
        ).fit()
    ray.shutdown()
    trials = []
    for number, result in enumerate(results):
        if result.error is not None:
            raise result.error
        metrics, params = result.metrics or {}, result.config or {}
        state = "COMPLETE" if metrics["training_iteration"] == params["epochs"] else "PRUNED"
        value = metrics["accuracy"] if state == "COMPLETE" else None
        end = ended[metrics["trial_id"]]
        trials.append({"number": number, "state": state, "value": value, "ended": end, "params": params})
    best = max((t for t in trials if t["state"] == "COMPLETE"), key=lambda trial: trial["value"])
    return {"trials": sorted(trials, key=lambda t: t["ended"]), "test": score_on_test(case["study"], best["params"])}


_contexts: dict[str, Any] = {}  # by study file: a Ray worker runs one trial after another


def train_for_ray(params: dict[str, Any], study: str) -> None:
    """Run one trial of Ray's with hpo's training, and report after each epoch."""
    from ray import tune

    from hpo.config.trial_params import TrialParams
    from hpo.training.fine_tune import FineTuning

    if study not in _contexts:
        _contexts[study] = open_context(study, threads=1)
    context = _contexts[study]
    with tempfile.TemporaryDirectory() as folder:
        for report in FineTuning(context.plan(TrialParams(**params), context.config.seed, Path(folder))).reports():
            tune.report({"accuracy": report.value})


def test_best_of_hpo(case: Case) -> Answer:
    """Return the trials of a search of `hpo run`, the test score of its best one and that of its final model."""
    import optuna

    from hpo.storage.records.study import StudyRecord
    from hpo.storage.records.trial import TrialRecord
    from hpo.storage.storage import open_storage

    study = optuna.load_study(study_name=case["name"], storage=open_storage(case["storage"]))
    result = StudyRecord.of(study).result
    return {
        "trials": trials_of(study),
        "test": score_on_test(case["study"], TrialRecord.of(study.best_trial).params),
        "final_test": result.test.metrics["accuracy"],
        "confirmed": result.winner.mean,
    }


def open_context(study: str, threads: int) -> Any:
    from hpo.config.load import load_config
    from hpo.training.execution import choose_execution
    from hpo.workflow.context import StudyContext

    return StudyContext.create(load_config(study), choose_execution("cpu", threads))


def score_on_test(study: str, params: dict[str, Any]) -> float:
    """Train one configuration again as in its trial, on the training split alone; return its accuracy on test."""
    from hpo.config.trial_params import TrialParams
    from hpo.training.evaluate import evaluate
    from hpo.training.fine_tune import FineTuning

    context = open_context(study, threads=1)
    with tempfile.TemporaryDirectory() as folder:
        run = FineTuning(context.plan(TrialParams(**params), context.config.seed, Path(folder)))
        list(run.reports())
    features = context.features("test", params["model"])
    return float(evaluate(run.model, features, context.task, context.scorer, run.plan.execution).metrics["accuracy"])


def trials_of(study: Any) -> list[dict[str, Any]]:
    """Return the trials of an Optuna study, in the order in which they ended."""
    trials = [
        {
            "number": trial.number,
            "state": trial.state.name,
            "value": trial.value if trial.state.name == "COMPLETE" else None,
            "ended": trial.datetime_complete.timestamp(),
            "params": trial.params,
            "curve": list(trial.intermediate_values.values()),
        }
        for trial in study.get_trials(deepcopy=False)
    ]
    return sorted(trials, key=lambda trial: trial["ended"])


SEARCHES = {
    "default": search_with_trainer,
    "tuned": search_with_trainer,
    "ray": search_with_ray,
    "hpo": test_best_of_hpo,
}


if __name__ == "__main__":
    case = json.loads(sys.argv[1])
    Path(case["answer"]).write_text(json.dumps(SEARCHES[case["side"]](case)))
