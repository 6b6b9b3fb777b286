"""The command line: `hpo COMMAND`. Each command is a few lines; what it needs is imported when it runs."""

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from hpo.core.imports import freeze_gc, gc_disabled
from hpo.core.process import keep_interrupts
from hpo.errors import HpoError
from hpo.reporting.console import console

app = typer.Typer(
    name="hpo",
    help="Find the best pre-trained model for your data, and how to fine-tune it.\n\n"
    "With --debug, any command shows the traceback of its error.",
    epilog="Example:  hpo init data/  and then  hpo run studies/data.yaml",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

StudyFile = Annotated[Path, typer.Argument(help="The study file.", metavar="STUDY.yaml")]
Name = Annotated[str | None, typer.Argument(help="The study's name; without it, the latest.", metavar="[NAME]")]
StorageUrl = Annotated[
    str | None, typer.Option("--storage", help="Database URL; else HPO_STORAGE, else studies/hpo.db.")
]
Settings = Annotated[list[str] | None, typer.Option("--set", help="key=value, overrides the file.")]


@app.command(epilog="Example:  hpo init data/reviews.csv --model ./my-bert --model FacebookAI/roberta-base")
def init(
    data: Annotated[str, typer.Argument(help="A file (csv, json, parquet, xlsx, …), a folder, or a hub dataset.")],
    model: Annotated[list[str] | None, typer.Option(help="A candidate: hub id or folder. May be repeated.")] = None,
    size: Annotated[str | None, typer.Option(help="Size of the proposed models: small, base or large.")] = None,
    text: Annotated[
        list[str] | None, typer.Option(help="The text column, if it is not recognized; twice for pairs.")
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option(help="The label column, if it is not recognized; several: a 0/1 column for each class."),
    ] = None,
    task: Annotated[str | None, typer.Option(help="The task, if it is not recognized, or ./my_task.py.")] = None,
    group: Annotated[
        str | None, typer.Option(help="A column whose values (a patient, an author) no two splits may share.")
    ] = None,
    space: Annotated[
        str | None, typer.Option(help="A ready-made search space, if not the one that suits task and data.")
    ] = None,
    encoding: Annotated[str | None, typer.Option(help="The text encoding of the files, if not utf-8.")] = None,
    header: Annotated[
        bool | None, typer.Option(help="Whether the first line of a table names its columns, if it is not recognized.")
    ] = None,
    drop_empty: Annotated[
        bool | None, typer.Option("--drop-empty", help="Drop rows with an empty text, or questions without an answer.")
    ] = None,
    label_delimiter: Annotated[
        str | None, typer.Option(help="The separator of several labels in one cell, if it is not recognized.")
    ] = None,
    train: Annotated[str | None, typer.Option(help="The file or split to train on, if it is not recognized.")] = None,
    validation: Annotated[str | None, typer.Option(help="The file or split to select on.")] = None,
    test: Annotated[str | None, typer.Option(help="The file or split to test on, once.")] = None,
    output: Annotated[Path | None, typer.Option(help="The file to write; else studies/DATA.yaml.")] = None,
) -> None:
    """Inspect DATA and write a study file that runs as it is."""
    from hpo.workflow.init import write_study_file

    with console.progress("reading the data"):
        reading = {"encoding": encoding, "header": header, "drop_empty": drop_empty, "label_delimiter": label_delimiter}
        reading |= {"train": train, "validation": validation, "test": test}
        path = write_study_file(data, model or (), size, output, text or (), label or (), task, group, space, reading)
    console.note(f"Wrote {path}. Read it, then: hpo check {shlex.quote(str(path))}")


@app.command(epilog="Example:  hpo check studies/reviews.yaml --set budget.max_trials=16")
def check(file: StudyFile, settings: Settings = None) -> None:
    """Validate a study without training it.

    Shows its data, its models and a forecast of its duration.
    """
    from hpo.workflow.checks.study import check as check_study

    check_study(file, settings or ()).show()


@app.command(epilog="Example:  hpo rank studies/reviews.yaml --set constraints.max_params=150000000")
def rank(file: StudyFile, settings: Settings = None) -> None:
    """Rank a study's models on its data without training them.

    The score is how well a model's frozen features predict the labels. `hpo run` ranks too, and tries the best first.
    """
    from hpo.workflow.rank import rank as rank_models

    console.show_ranking(rank_models(file, settings or ()))


@app.command(epilog="Example:  hpo run studies/reviews.yaml --trials 32 --set metric=f1_macro")
def run(
    file: StudyFile,
    settings: Settings = None,
    trials: Annotated[int | None, typer.Option(help="Total trials, over all runs of the study.")] = None,
    hours: Annotated[float | None, typer.Option(help="Total wall-clock hours, over all runs of the study.")] = None,
    storage: StorageUrl = None,
    name: Annotated[str | None, typer.Option(help="The study's name; else the file's.")] = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Run the failed trials again.")] = False,
) -> None:
    """Run a study to its final model, or resume it where it stopped."""
    with gc_disabled():
        from hpo.workflow.run import run as run_study

    result = run_study(
        file,
        overrides=settings or (),
        name=name,
        trials=trials,
        hours=hours,
        storage=storage,
        retry_failed=retry_failed,
    )
    console.show_result(result.record, _next_commands(result, file))


@app.command(epilog="Example:  hpo status --watch")
def status(
    name: Name = None,
    watch: Annotated[bool, typer.Option("--watch", help="Refresh until nobody works on the study.")] = False,
    storage: StorageUrl = None,
) -> None:
    """Show the progress of a study: trials, best so far, workers, failures, disk use."""
    from hpo.storage.status import ACTIVE_PHASES, read_status
    from hpo.storage.storage import open_storage
    from hpo.workflow.studies import open_study

    database = open_storage(storage)
    study = open_study(database, name).study_name
    if watch:
        console.live(
            lambda: read_status(database, study, disk=True),
            lambda: read_status(database, study).phase not in ACTIVE_PHASES,
        )
    else:
        console.show_status(read_status(database, study, disk=True))


@app.command("list", epilog="Example:  hpo list")
def list_(storage: StorageUrl = None) -> None:
    """List all studies of the database, the latest last."""
    from hpo.workflow.studies import list_studies

    console.show_studies(list_studies(storage))


@app.command(epilog="Example:  hpo best --json")
def best(
    name: Name = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, for another program.")] = False,
    as_yaml: Annotated[bool, typer.Option("--yaml", help="As YAML: a first trial for another study file.")] = False,
    storage: StorageUrl = None,
) -> None:
    """Show the winner of a study, or its best trial so far."""
    from hpo.workflow.studies import best_configuration

    found = best_configuration(name, storage)
    if as_json:
        import json

        console.emit(json.dumps(found, indent=1))
    elif as_yaml:
        from hpo.config.yaml import to_yaml

        console.emit(to_yaml({"first_trials": [found["first_trial"]]}).rstrip())
    else:
        console.show_best(found["params"], found["value"], found["metric"], found["trial"])


@app.command(epilog="Example:  hpo retrain reviews --trial 12")
def retrain(
    name: Name = None,
    trial: Annotated[int | None, typer.Option(help="The trial; else the winner.")] = None,
    storage: StorageUrl = None,
) -> None:
    """Train a trial's configuration to a final model.

    Trains on train + validation. The model is evaluated on test, which is counted, and saved in the study's folder.
    """
    from hpo.workflow.retrain import retrain as train_again

    with console.progress("training"):
        record = train_again(name, trial, storage)
    console.show_result(record)


@app.command(epilog='Example:  hpo predict "what a great film" "never again"')
def predict(
    texts: Annotated[
        list[str] | None,
        typer.Argument(help="Texts (two for a pair; a question and its choices), or paths of images or audio files."),
    ] = None,
    file: Annotated[
        Path | None, typer.Option(help="A csv, tsv, jsonl, parquet or txt file of inputs, or a folder of files.")
    ] = None,
    name: Annotated[
        str | None, typer.Option("--study", help="The study, or a final model's folder; else the latest.")
    ] = None,
    encoding: Annotated[
        str | None, typer.Option(help="The text encoding of FILE, if not that of the training data.")
    ] = None,
    storage: StorageUrl = None,
) -> None:
    """Predict with a study's final model."""
    from hpo.errors import ConfigError
    from hpo.workflow.result import open_predictor

    if bool(texts) == (file is not None):
        raise ConfigError('Give texts, or --file FILE. Example: hpo predict "some text"')
    with console.progress("predicting"):
        predictor = open_predictor(name, storage)
        rows = predictor.predict_file(file, encoding) if file is not None else predictor.predict_arguments(texts or [])
    console.show_predictions(rows)


@app.command(epilog="Example:  hpo report reviews")
def report(name: Name = None, storage: StorageUrl = None) -> None:
    """Write the report (report.html) and the table of trials (trials.csv).

    Works while the study is running, too.
    """
    from hpo.workflow.run import write_reports

    console.note(f"Open {write_reports(_open(name, storage))} in a browser.")


@app.command(epilog="Example:  hpo dashboard --port 8080")
def dashboard(
    storage: StorageUrl = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8080,
) -> None:
    """Open optuna-dashboard on all studies of the database. Changes need the printed URL, which has a token."""
    from hpo.reporting.server import is_loopback, open_server
    from hpo.storage.storage import open_storage

    server, url = open_server(open_storage(storage), host, port)
    if not is_loopback(host):
        console.warn(f"anyone who reaches {host}:{server.server_port} can read the studies: it has no password.")
    console.show(f"The dashboard is at {url} (Ctrl-C stops it).")
    with server:
        server.serve_forever()


@app.command(epilog="Example:  hpo replay reviews --trial 7")
def replay(
    trial: Annotated[int, typer.Option(help="The trial's number.")],
    name: Name = None,
    storage: StorageUrl = None,
) -> None:
    """Run a trial again with its recorded settings, and compare the curves."""
    from hpo.workflow.replay import replay as replay_trial

    study = _open(name, storage)
    with console.progress(f"replaying trial {trial}"):
        found = replay_trial(study, trial)
    console.show_replay(found.steps, found.recorded, found.replayed, found.not_applied)


@app.command(epilog="Example:  hpo worker --study reviews --storage postgresql+psycopg://user@host/hpo")
def worker(
    study: Annotated[str | None, typer.Option(help="The study; else the latest.")] = None,
    storage: StorageUrl = None,
    device: Annotated[str, typer.Option(help="cpu, cuda:0 …; auto takes the first GPU.")] = "auto",
) -> None:
    """Add one worker to a study, until it is finished.

    Runs on this machine, or on any that reaches the database and finds data and models at the same paths.
    """
    with gc_disabled():
        from hpo.workflow.worker.loop import run_worker
    freeze_gc()
    run_worker(study, storage, device)


@app.command(epilog="Example:  hpo stop reviews")
def stop(name: Name = None, storage: StorageUrl = None) -> None:
    """Stop a study's workers, wherever they run.

    Each saves its trial and exits; `hpo run` resumes them.
    """
    from hpo.workflow.stop import stop as stop_study

    study = _open(name, storage).study_name
    with console.progress("stopping: running trials are being saved"):
        left = stop_study(study, storage)
    for one in left:
        console.warn(f"process {one.pid} on {one.host} is still running.")
    console.note(
        f"Study '{study}': stop requested; workers stop at their next heartbeat."
        if left
        else f"Study '{study}' is stopped."
    )


@app.command(epilog="Example:  hpo delete reviews")
def delete(
    name: Annotated[str, typer.Argument(help="The study's name.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
    storage: StorageUrl = None,
) -> None:
    """Delete a study: its trials in the database, and its folder with report and models."""
    from hpo.core.paths import run_folder
    from hpo.storage.records.study import StudyRecord
    from hpo.workflow.stop import delete as delete_study

    study = _open(name, storage)
    trials, folder = len(study.get_trials(deepcopy=False)), run_folder(name, StudyRecord.of(study).identity)
    if not yes and not console.ask(f"Delete study '{name}' with its {trials} trials and {folder}?"):
        console.note("Nothing was deleted.")
        return
    delete_study(name, storage)
    console.note(f"Study '{name}' is deleted.")


def _open(name: str | None, storage: str | None) -> Any:
    from hpo.storage.storage import open_storage
    from hpo.workflow.studies import open_study

    return open_study(open_storage(storage), name)


def _next_commands(result: Any, file: Path) -> list[tuple[str, str]]:
    from hpo.workflow.predict import Predictor, example_command

    study, path = shlex.quote(result.name), shlex.quote(str(file))
    predict = example_command(Predictor(result.model_dir).task, result.record.data.columns)
    return [
        (f"{predict} --study {study}", "use the final model"),
        (f"hpo report {study}", "the report with all plots"),
        ("hpo dashboard", "browse all trials"),
        (f"hpo run {path} --trials N", "resume with more trials"),
        (f"hpo run {path} --name NEW", "start from scratch"),
    ]


def main() -> None:
    """Run the command line. An error is printed as one message, without a traceback unless --debug is given."""
    keep_interrupts()
    console.encode_all()
    debug = "--debug" in sys.argv
    sys.argv = [argument for argument in sys.argv if argument != "--debug"]
    try:
        app()
    except HpoError as error:
        if debug:
            raise
        console.error(str(error))
        raise SystemExit(error.exit_code) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except Exception as error:
        if debug:
            raise
        console.error(_explain_bug(error))
        raise SystemExit(1) from None


def _explain_bug(error: Exception) -> str:
    """Return what an unexpected error was, where it was raised, and what to do."""
    import traceback

    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if f"{Path(__file__).parent}" in frame.filename]
    where = f" (in {Path(ours[-1].filename).name}, line {ours[-1].lineno})" if ours else ""
    reason = next((line for line in str(error).splitlines() if line.strip()), "no message")[:500]
    return (
        f"unexpected {type(error).__name__}{where}: {reason}\nThe same command with --debug shows the traceback; "
        "`hpo run` resumes a study with what was saved."
    )


if __name__ == "__main__":
    main()
