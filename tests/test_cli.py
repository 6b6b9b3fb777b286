"""The command line: every command on a real tiny study, and the message and exit code of every mistake."""

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

import hpo
from hpo import cli
from hpo.config.yaml import parse_yaml
from hpo.storage.records.study import StudyRecord
from hpo.storage.records.trial import TrialRecord
from tests.small_models import save_bert, write_reviews

STUDY = """\
data: reviews
models: [tiny]
search_space:
  learning_rate: {low: 1e-3, high: 3e-2, log: true}
  epochs: {low: 1, high: 2}
first_trials: [{learning_rate: 1e-2, epochs: 2}]
budget: {max_trials: 2}
confirm: {top: 1, seeds: 1}
backend: inline
devices: cpu
"""
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data, a model, a study file, and under `home` the results of that finished study."""
    folder = tmp_path_factory.mktemp("cli")
    write_reviews(folder / "reviews")
    save_bert(folder / "tiny")
    (folder / "reviews.yaml").write_text(STUDY)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HPO_HOME", str(folder / "home"))
        hpo.run(folder / "reviews.yaml")
    return folder


@pytest.fixture
def run(workshop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run one command in this process; returns its exit code, output and messages. Results are the test's own."""
    shutil.copytree(workshop / "home", tmp_path / "home")
    monkeypatch.chdir(workshop)
    monkeypatch.setenv("HPO_HOME", str(tmp_path / "home"))

    def command(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["hpo", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return int(ended.value.code or 0), *capsys.readouterr()

    return command


def right(ended: tuple[int, str, str]) -> str:
    """The output of a command that succeeded."""
    code, out, message = ended
    assert code == 0, message
    return out


# Help


def test_help_is_quick_and_has_an_example_for_every_command() -> None:
    heavy = "torch transformers optuna datasets pandas rich sqlalchemy evaluate sklearn"
    script = (
        "import sys, hpo, hpo.cli\n"
        "from typer.testing import CliRunner\n"
        "assert CliRunner().invoke(hpo.cli.app, ['--help']).exit_code == 0\n"
        "assert CliRunner().invoke(hpo.cli.app, ['run', '--help']).exit_code == 0\n"
        f"print([name for name in '{heavy}'.split() if name in sys.modules])"
    )
    asked = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert asked.stdout.strip() == "[]"
    names = [command.name or command.callback.__name__ for command in cli.app.registered_commands]
    assert {"init", "check", "run", "status", "list", "best", "retrain", "predict", "report", "dashboard"} < set(names)
    for name in names:
        shown = CliRunner().invoke(cli.app, [name, "--help"])
        assert shown.exit_code == 0
        assert f"Example:  hpo {name}" in shown.output


def test_examples_use_existing_options() -> None:
    for command in cli.app.registered_commands:
        name = command.name or command.callback.__name__
        options = re.findall(r"--[a-z-]+", command.epilog or "")
        shown = CliRunner().invoke(cli.app, [name, "--help"]).output.replace(command.epilog or "", "")
        assert all(option in shown for option in options), name


# Mistakes


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("run none.yaml", r"There is no file /.*/none\.yaml"),
        ("check reviews.yaml --set budgt.max_trials=3", r"reviews\.yaml: budgt: no such key\. Did you mean 'budget'\?"),
        ("run reviews.yaml --set data.path=./revews", r"data\.path: there is no file or folder .*'reviews'"),
        ("run reviews.yaml --set data.label=lable", r"data\.label: .*Did you mean 'label'\?"),
        ("run reviews.yaml --set models=./tny --name new", r"tny"),
        ("run reviews.yaml --trials 0", r"budget\.max_trials: must be greater than or equal to 1"),
        ("run reviews.yaml --set search_space.epochs=0", r"search_space\.epochs: 0 is not allowed"),
        (
            "run reviews.yaml --set search_space.epochs=3",
            r"something else:\n  search_space\.epochs: .* 3 now",
        ),
        ("init reviews --size tiny", r"--size tiny: choose one of small, base, large"),
        ("status reviws", r"There is no study 'reviws'.* Did you mean 'reviews'\?"),
        ("best reviws", r"Did you mean 'reviews'"),
        ("replay reviews --trial 9", r"'reviews' has no trial 9; its trials are 0 to 1"),
        ("predict", r"Give texts, or --file FILE"),
        ("predict --file none.csv", r"There is no file /.*/none\.csv"),
        ("predict x --study reviws", r"Did you mean 'reviews'"),
    ],
)
def test_mistake_prints_one_short_message_and_exits_with_2(arguments: str, expected: str, run: Run) -> None:
    code, _, message = run(*arguments.split())
    assert code == 2
    assert "Traceback" not in message
    (error,) = re.findall(r"^Error: (.*)", message, re.MULTILINE | re.DOTALL)
    assert re.search(expected, error)
    assert len(error.splitlines()) <= 4


def test_debug_shows_the_traceback(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["hpo", "run", "none.yaml", "--debug"])
    with pytest.raises(hpo.HpoError, match=r"There is no file"):
        cli.main()


def test_unreachable_database_exits_with_3_and_hides_the_password(run: Run) -> None:
    code, out, message = run("list", "--storage", "postgresql+psycopg://me:hunter2@127.0.0.1:1/x/y?password=hunter2")
    assert code == 3
    assert "hunter2" not in out + message and "***" in message


# Every command on a finished study


def test_finished_study_is_not_run_again(run: Run) -> None:
    out = right(run("run", "reviews.yaml"))
    assert "Study 'reviews' is finished: nothing was run." in out
    assert "Winner: trial" in out
    for command in (
        'predict "a text" --study reviews',
        "report reviews",
        "dashboard",
        "run reviews.yaml --trials",
        "run reviews.yaml --name",
    ):
        assert f"hpo {command}" in out
    assert "final model" in out


def test_status_list_best_and_report_of_a_finished_study(run: Run) -> None:
    assert right(run("status")) == right(run("status", "reviews"))
    assert "reviews" in right(run("status")) and "finished" in right(run("status"))
    assert "finished" in right(run("status", "--watch"))
    assert re.search(r"reviews +accuracy +finished +2 of 2", right(run("list")))
    assert "learning_rate" in right(run("best"))
    found = json.loads(right(run("best", "--json")))
    assert found["params"]["model"] == "tiny" and 0 <= found["value"] <= 1
    first = parse_yaml(right(run("best", "--yaml")), "")["first_trials"]
    assert first == [found["first_trial"]]
    folder = Path(os.environ["HPO_HOME"]) / "runs" / "reviews"
    (folder / "report.html").unlink()
    assert str(folder / "report.html") in right(run("report"))
    assert (folder / "report.html").stat().st_size > 1000


def test_best_of_one_study_is_a_first_trial_of_another(run: Run) -> None:
    first = parse_yaml(right(run("best", "--yaml")), "")["first_trials"]
    right(run("check", "reviews.yaml", "--set", f"first_trials={json.dumps(first)}"))


def test_predict_accepts_texts_and_files(run: Run) -> None:
    lines = right(run("predict", "the film was great", "the film was awful")).splitlines()[-2:]
    assert [line.split("\t")[2] for line in lines] == ["the film was great", "the film was awful"]
    assert {line.split("\t")[0] for line in lines} <= {"positive", "negative"}
    Path("some.csv").write_text("text\na great film\na poor film\n")
    assert [line.split("\t")[2] for line in right(run("predict", "--file", "some.csv")).splitlines()[-2:]] == [
        "a great film",
        "a poor film",
    ]


def test_replay_and_retrain_of_a_trial(run: Run) -> None:
    shown = right(run("replay", "--trial", "0"))
    rungs = [line.split() for line in shown.splitlines() if re.match(r"\s*\d+ ", line)]
    assert rungs and all(recorded == replayed for _, recorded, replayed, _ in rungs)
    assert "test evaluated 2×" in right(run("retrain", "reviews", "--trial", "1"))
    assert (Path(os.environ["HPO_HOME"]) / "runs" / "reviews" / "trial-1" / "model.safetensors").is_file()


# A study in several runs


def test_any_name_is_accepted_and_the_latest_study_is_the_default(run: Run) -> None:
    out = right(run("run", "reviews.yaml", "--name", "2026: ../a #b", "--trials", "1"))
    assert "hpo report '2026: ../a #b'" in out
    assert len(list((Path(os.environ["HPO_HOME"]) / "runs").iterdir())) == 2
    assert "2026: ../a #b" in right(run("status"))
    assert "2 of 2" in right(run("list")) and "1 of 1" in right(run("list"))


def test_storage_url_is_recorded_nowhere(run: Run, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/hunter2.db"  # a server's would hold a password
    (tmp_path / "secret.yaml").write_text(
        Path("reviews.yaml").read_text().replace("[tiny]", str(Path("tiny").absolute())) + f"storage: {url}\n"
    )
    data = f"data={Path('reviews').absolute()}"
    code, out, message = run("run", str(tmp_path / "secret.yaml"), "--set", data, "--trials", "1")
    assert code == 0 and "hunter2" not in out + message
    study = hpo.load("secret", url).study
    records = [StudyRecord.of(study).attributes(), *(TrialRecord.of(trial).attributes() for trial in study.trials)]
    assert "hunter2" not in json.dumps(records)
    kept = [path for path in (Path(os.environ["HPO_HOME"]) / "runs" / "secret").rglob("*") if path.is_file()]
    assert {"study.yaml", "README.md", "trials.csv", "report.html", "hpo.json"} <= {path.name for path in kept}
    assert not [path for path in kept if b"hunter2" in path.read_bytes()]


def test_worker_by_hand_finishes_an_interrupted_study(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from hpo.workflow.worker import loop

    work = loop.WorkerLoop.work

    def interrupted(self: loop.WorkerLoop) -> None:
        signal.raise_signal(signal.SIGINT)
        work(self)

    with monkeypatch.context() as patch:
        patch.setattr(loop.WorkerLoop, "work", interrupted)
        code, out, _ = run("run", "reviews.yaml", "--name", "later")
        assert code == 130 and "the same command resumes it" in out
    assert "stopped" in right(run("status"))
    code, _, message = run("predict", "x")
    assert code == 2 and "'later' is not finished" in message
    assert run("best")[0] == 2
    command = [sys.executable, "-m", "hpo.cli", "worker", "--study", "later", "--device", "cpu"]
    by_hand = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert by_hand.returncode == 0, by_hand.stderr
    assert "finished" in right(run("status", "later"))
    assert json.loads(right(run("best", "--json")))["trial"] in (0, 1)
    assert "is finished" in right(run("run", "reviews.yaml", "--name", "later"))


def test_worker_with_other_data_raises(run: Run, workshop: Path) -> None:
    (table,) = (workshop / "reviews").glob("train*")
    before = table.read_text()
    command = [sys.executable, "-m", "hpo.cli", "worker", "--study", "reviews", "--device", "cpu"]
    try:
        table.write_text(f"{before}a film that was added,{before.splitlines()[-1].rpartition(',')[2]}\n")
        by_hand = subprocess.run(command, capture_output=True, text=True, check=False, timeout=400)
    finally:
        table.write_text(before)
    assert by_hand.returncode == 2 and "Traceback" not in by_hand.stderr
    assert "is not what study 'reviews' was created from: its fingerprint" in " ".join(by_hand.stderr.split())


def test_delete_asks_for_confirmation(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    files = Path(os.environ["HPO_HOME"]) / "runs" / "reviews"
    monkeypatch.setattr("sys.stdin", io.StringIO())
    code, _, message = run("delete", "reviews")
    assert code == 2 and "--yes" in message
    monkeypatch.setattr("builtins.input", lambda question: "n")
    assert "Nothing was deleted" in right(run("delete", "reviews"))
    assert files.is_dir() and "reviews" in right(run("list"))
    asked: list[str] = []
    monkeypatch.setattr("builtins.input", lambda question: asked.append(question) or "y")
    assert "is deleted" in right(run("delete", "reviews"))
    assert "with its 2 trials" in asked[0] and str(files) in asked[0]
    assert not files.exists() and "No studies yet" in right(run("list"))
    assert run("delete", "reviews", "--yes")[0] == 2
    assert run("stop")[0] == 2


def test_stop_of_a_finished_study_raises(run: Run) -> None:
    code, _, message = run("stop", "reviews")
    assert code == 2 and "is finished: there is nothing to stop" in message


@pytest.fixture
def in_a_shell(run: Run) -> Callable[[str], subprocess.CompletedProcess[str]]:
    def command(line: str) -> subprocess.CompletedProcess[str]:
        line = line.replace("hpo ", f"{sys.executable} -m hpo.cli ")
        return subprocess.run(["bash", "-o", "pipefail", "-c", line], capture_output=True, text=True, check=False)

    return command


def test_closed_pipe_is_no_error(in_a_shell: Callable[[str], subprocess.CompletedProcess[str]]) -> None:
    assert in_a_shell("hpo list | true").stderr == ""
    assert in_a_shell("hpo best --json | true").stderr == ""
