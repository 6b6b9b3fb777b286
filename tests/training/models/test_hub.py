"""Loading with and without the hub."""

import socket

import pytest

from hpo.config.model_ref import ModelRef
from hpo.training.models.hub import from_pretrained_arguments, hub_is_unreachable


def test_offline_variable_makes_the_hub_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "create_connection", lambda *_: pytest.fail("connected"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert hub_is_unreachable()


def test_refused_connection_makes_the_hub_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(address: tuple[str, int], timeout: float) -> socket.socket:
        assert address == ("hub.invalid", 8080)
        raise ConnectionRefusedError

    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setenv("HF_ENDPOINT", "http://hub.invalid:8080")
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(socket, "create_connection", refuse)
    assert hub_is_unreachable()
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.invalid")  # the proxy decides
    assert not hub_is_unreachable()


def test_arguments_of_from_pretrained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    ref = ModelRef(name="owner/model", label="model", revision="abc", subfolder="inner", trust_remote_code=True)
    assert from_pretrained_arguments(ref) == {
        "trust_remote_code": True,
        "subfolder": "inner",
        "revision": "abc",
        "local_files_only": True,
    }
