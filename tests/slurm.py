"""A private one-node Slurm for tests, from Debian's packages, in a temporary folder, on loopback, without cgroups.

It runs real job arrays. The number of the node's cores is declared by the test. Like many small clusters, it has no
accounting (slurmdbd).
"""

import getpass
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.servers import free_port

_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"  # PATH may not contain the servers
_SERVERS = ("munged", "slurmctld", "slurmd")
_START_SECONDS = 120.0  # 3 s on an idle machine
# Jobs of `high` preempt those of `low`, which are requeued. A requeued job waits for `cred_expire` (default 120 s) and
# for the scheduler's next pass (default 60 s).
_CONFIGURATION = """
ClusterName=hpo
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser={user}
SlurmdUser={user}
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge/socket,cred_expire=10
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
MailProg=/bin/true
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=2,bf_interval=2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmdParameters=config_overrides
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} State=UNKNOWN
PartitionName=low Nodes={host} Default=YES PriorityTier=1
PartitionName=high Nodes={host} PriorityTier=2
"""


class Slurm:
    """A controller, a node with `cores` declared cores, and the munged that authenticates them."""

    def __init__(self, cores: int, settings: str = "") -> None:
        # Not below pytest's own folder, which only root can read. The path of a socket must be short.
        self.folder = Path(tempfile.mkdtemp(prefix="hpo-slurm-"))
        self.folder.chmod(0o755)
        self.cores = cores
        self.configuration = self.folder / "slurm.conf"
        self._processes: list[subprocess.Popen[bytes]] = []
        for name in ("state", "spool", "munge"):
            (self.folder / name).mkdir()
        self.configuration.write_text(
            _CONFIGURATION.format(
                host=socket.gethostname().split(".")[0],
                controller_port=free_port(),
                node_port=free_port(),
                user=getpass.getuser(),
                folder=self.folder,
                cores=cores,
            )
            + settings
        )
        try:
            self._start_munge()
            self._start("slurmctld", ["-D"])
            self._wait_for_output(["scontrol", "ping"], "is UP")
            self._start("slurmd", ["-D"])
            self._wait_for_output(["sinfo", "--noheader", "--format=%T"], "idle")
        except BaseException:
            self.remove()
            raise

    def _start_munge(self) -> None:
        folder = self.folder / "munge"
        (folder / "key").write_bytes(secrets.token_bytes(1024))
        (folder / "key").chmod(0o400)
        files = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
        as_user = []
        if os.getuid() == 0:  # munged does not run as root
            for path in (folder, folder / "key"):
                shutil.chown(path, "munge", "munge")
            as_user = ["runuser", "-u", "munge", "--"]
        self._start(
            "munged", ["--foreground", *(f"--{option}={folder / file}" for option, file in files.items())], as_user
        )
        until = time.monotonic() + _START_SECONDS
        while not (folder / "socket").exists():
            self._check(until)

    def _start(self, name: str, options: list[str], as_user: Sequence[str] = ()) -> None:
        command = [*as_user, str(shutil.which(name, path=_PATH)), *options]
        with (self.folder / f"{name}.log").open("ab") as log:
            environment = {**os.environ, "SLURM_CONF": str(self.configuration)}
            process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
        self._processes.append(process)

    def _wait_for_output(self, command: list[str], output: str) -> None:
        until = time.monotonic() + _START_SECONDS
        while output not in self.run(command, check=False):
            self._check(until)

    def _check(self, until: float) -> None:
        """Wait a moment for a server that starts. Raises `AssertionError` after a timeout, or if a server has ended."""
        if time.monotonic() > until or any(process.poll() is not None for process in self._processes):
            logs = [f"{log.name}:\n{log.read_text()[-2000:]}" for log in sorted(self.folder.glob("*.log"))]
            raise AssertionError("\n".join(["Slurm did not start.", *logs]))
        time.sleep(0.2)

    def run(self, command: list[str], *, check: bool = True) -> str:
        """Run one of Slurm's commands. Returns its output."""
        environment = {**os.environ, "SLURM_CONF": str(self.configuration)}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=600)
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def preempt(self) -> None:
        """Preempt a job of `low` by a short job of `high`. Returns when the latter has ended."""
        options = ["--partition=high", f"--output={self.folder / 'high.log'}", "--wrap=sleep 1"]
        self.run(["sbatch", "--wait", *options])

    def remove(self) -> None:
        """End all jobs and servers, in reverse order of their start."""
        if len(self._processes) == len(_SERVERS):
            user = f"--user={getpass.getuser()}"
            self.run(["scancel", user, "--state=RUNNING", "--signal=KILL", "--full"], check=False)
            self.run(["scancel", user], check=False)
            until = time.monotonic() + 60
            while self.run(["squeue", "--noheader"], check=False) and time.monotonic() < until:
                time.sleep(0.2)
        for process in reversed(self._processes):
            process.terminate()
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


def start(cores: int, settings: str = "") -> Slurm:
    """Start a private Slurm, with `settings` as further lines of its configuration. Skips the test if not installed."""
    if not all(shutil.which(name, path=_PATH) for name in (*_SERVERS, "sbatch", "srun")):
        pytest.skip("Slurm is not installed (Debian: apt-get install slurm-wlm munge)")
    return Slurm(cores, settings)
