"""The examples for clusters: their commands exist, and a preempted worker is requeued."""

import shlex
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import click
import pytest
import typer
from ruamel.yaml import YAML

from hpo.cli import app
from hpo.errors import EX_TEMPFAIL
from tests import slurm

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SCRIPT = EXAMPLES / "slurm" / "workers.sbatch"


def check_command(command: list[str]) -> None:
    """Raise a `click.UsageError` if the command or one of its options does not exist."""
    assert command[0] == "hpo"
    group: Any = typer.main.get_command(app)
    name, subcommand, rest = group.resolve_command(click.Context(group), command[1:])
    subcommand.make_context(name, rest, resilient_parsing=False)


def test_kubernetes_commands_exist(tmp_path: Path) -> None:
    jobs = list(YAML(typ="safe", pure=True).load_all(EXAMPLES / "kubernetes" / "search.yaml"))
    assert [(job["apiVersion"], job["kind"]) for job in jobs] == [("batch/v1", "Job")] * 2
    for job in jobs:
        pod = job["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        check_command(container["command"])
        assert pod["restartPolicy"] == "Never"  # required by `podFailurePolicy`
        assert pod["terminationGracePeriodSeconds"] >= 30
        assert {"HPO_HOME", "HPO_STORAGE"} == {entry["name"] for entry in container["env"]}
        volumes = {volume["name"] for volume in pod["volumes"]}
        assert {mount["name"] for mount in container["volumeMounts"]} == volumes
    shell = jobs[1]["spec"]["template"]["spec"]["initContainers"][0]["command"][-1]
    check_command(shlex.split(shell.split("until ")[1].split(";")[0]))
    assert "completions" not in jobs[1]["spec"]


def test_slurm_commands_exist() -> None:
    lines = SCRIPT.read_text().splitlines()
    commands = [line.removeprefix("until ").split(";")[0].split(" >")[0].rstrip(" &") for line in lines]
    found = [shlex.split(command) for command in commands if command.startswith("hpo ")]
    assert [command[1] for command in found] == ["status", "worker"]
    for command in found:
        check_command(command)
    options = [line.split()[1].split("=")[0] for line in lines if line.startswith("#SBATCH ")]
    assert {"--array", "--requeue", "--signal", "--gres", "--time", "--open-mode"} <= set(options)


@pytest.mark.parametrize(("exit_code", "requeued"), [(EX_TEMPFAIL, True), (0, False), (2, False)])
def test_preempted_worker_is_requeued(exit_code: int, requeued: bool, tmp_path: Path) -> None:
    """The script with a fake `hpo`, which takes a moment to save, and a fake `scontrol`, which writes its arguments."""
    worker = (
        f'[ "$1" = status ] && exit 0\ntrap "sleep 0.3; touch saved; exit {exit_code}" TERM\ntouch working\n'
        "while :; do sleep 0.05; done"
    )
    for name, content in {"hpo": worker, "scontrol": 'echo "$@" > requeued'}.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{content}\n")
        (tmp_path / name).chmod(0o755)
    job = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "2"}
    batch = subprocess.Popen(["bash", str(SCRIPT), "reviews"], cwd=tmp_path, env=job)
    wait_for_file(tmp_path / "working")
    batch.send_signal(signal.SIGTERM)
    assert batch.wait(timeout=60) == (0 if requeued else exit_code)
    assert (tmp_path / "saved").exists()
    assert (tmp_path / "requeued").exists() == requeued
    if requeued:
        assert (tmp_path / "requeued").read_text() == "requeue 7_2\n"


@pytest.mark.slow
def test_slurm_requeues_the_job(tmp_path: Path) -> None:
    """The script in a job of a real Slurm: on SIGTERM, the worker saves; requeued, it finishes."""
    worker = (
        '[ "$1" = status ] && exit 0\n[ -e saved ] && { touch finished; exit 0; }\n'
        f'trap "touch saved; exit {EX_TEMPFAIL}" TERM\ntouch working\nwhile :; do sleep 0.05; done'
    )
    (tmp_path / "hpo").write_text(f"#!/bin/bash\ncd {tmp_path}\n{worker}\n")
    (tmp_path / "hpo").chmod(0o755)
    node = slurm.start(cores=1)
    try:
        here = ["--gres=none", "--array=2", "--cpus-per-task=1", f"--chdir={tmp_path}"]
        path = f"--export=PATH={tmp_path}:/usr/bin:/bin,SLURM_CONF={node.configuration}"
        node.run(["sbatch", "--parsable", *here, path, str(SCRIPT), "reviews"])
        wait_for_file(tmp_path / "working")
        node.run(["scancel", "--batch", "--signal=TERM", "--state=RUNNING", "--name=hpo"])
        wait_for_file(tmp_path / "finished")
    finally:
        node.remove()
    assert (tmp_path / "saved").exists()


def wait_for_file(file: Path) -> None:
    deadline = time.monotonic() + 120
    while not file.exists():
        assert time.monotonic() < deadline, f"there is no {file.name}"
        time.sleep(0.02)
