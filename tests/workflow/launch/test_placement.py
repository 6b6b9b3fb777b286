"""Placement of workers: the backend of a study file, its errors, and the devices of the workers."""

import importlib.util
from typing import Any

import pytest
import torch

from hpo.config.load import load_config
from hpo.errors import ConfigError, StorageError
from hpo.training import execution
from hpo.training.execution import apply, assign_devices, choose_execution
from hpo.workflow.launch import placement
from hpo.workflow.launch.placement import create_placement

SERVER = "postgresql+psycopg://me:s3cr3t@127.0.0.1/hpo"


def study_dict(**more: Any) -> dict[str, Any]:
    return {"name": "s", "data": "d.csv", "models": "org/a", "search_space": {"learning_rate": 1e-3}, **more}


@pytest.mark.parametrize(("backend", "package"), [("ray", "ray"), ("slurm", "submitit")])
def test_missing_package_raises_with_the_pip_command(
    backend: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        placement, "find_spec", lambda name: None if name == package else importlib.util.find_spec(name)
    )
    with pytest.raises(ConfigError, match=rf"needs the package {package}.*pip install 'hpo-finetune\[{backend}\]'"):
        create_placement(load_config(study_dict(backend=backend, workers=2)))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({}, "workers: how many"),
        ({"workers": 2, "devices": ["cuda:0", "cuda:1"]}, "devices: .* names devices of one machine"),
        ({"workers": 2, "devices": "cpu", "trials_per_device": 2}, "trials_per_device: is for GPUs"),
        ({"workers": 2, "storage": SERVER}, "there is no sbatch on this machine"),
    ],
)
def test_requirements_of_slurm(more: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ConfigError, match=message):
        create_placement(load_config(study_dict(backend="slurm", **more)))


def test_sqlite_raises_for_slurm() -> None:
    with pytest.raises(StorageError, match=r"sqlite:///.*hpo\.db is a file on this machine.*PostgreSQL or MySQL"):
        create_placement(load_config(study_dict(backend="slurm", workers=2)))


def test_several_small_trials_share_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execution, "available_devices", lambda: ["cuda:0", "cuda:1", "cpu"])
    assert assign_devices("auto", None, 2) == ["cuda:0", "cuda:1"] * 2
    assert assign_devices("cuda:1", None, 3) == ["cuda:1"] * 3
    assert assign_devices("auto", 3, 2) == ["cuda:0", "cuda:1", "cuda:0"]
    with pytest.raises(ConfigError, match=r"trials_per_device: 2 has room for 4 .* not 5"):
        assign_devices("auto", 5, 2)
    for devices in ("cpu", ("cuda:0", "cpu")):
        with pytest.raises(ConfigError, match=r"trials_per_device: is for GPUs\. On CPUs, set `workers`"):
            assign_devices(devices, None, 2)
    config = load_config(study_dict(trials_per_device=2))
    assert [(slot.device, slot.sharing) for slot in create_placement(config).slots] == [
        ("cuda:0", 2),
        ("cuda:1", 2),
    ] * 2


def test_each_worker_has_its_fraction_of_the_gpu_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a mocked GPU; whether torch respects the fraction is tested below."""
    calls: list[Any] = []
    gigabyte = 2**30
    for name, answer in {
        "is_bf16_supported": lambda **_: True,
        "set_device": lambda device: None,
        "get_device_properties": lambda device: type("Device", (), {"total_memory": 80 * gigabyte}),
        "set_per_process_memory_fraction": lambda *given: calls.append(given),
    }.items():
        monkeypatch.setattr(torch.cuda, name, answer)
    before = torch.get_num_threads()
    apply(choose_execution("cuda:1", before, 1))
    assert calls == []
    apply(choose_execution("cuda:1", before, 4))
    ((part, device),) = calls
    assert device == "cuda:1"
    assert 19 < part * 80 < 20


@pytest.mark.gpu
def test_process_respects_its_memory_fraction() -> None:
    apply(choose_execution("cuda:0", 1, 4))
    total = torch.cuda.get_device_properties("cuda:0").total_memory
    try:
        with pytest.raises(torch.OutOfMemoryError):
            torch.empty(total // 3, dtype=torch.uint8, device="cuda:0")
        assert torch.empty(total // 8, dtype=torch.uint8, device="cuda:0").numel() == total // 8
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, "cuda:0")
