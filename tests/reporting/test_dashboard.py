"""optuna-dashboard: hpo's notes, the notes of users, and the address of the server."""

import threading
import urllib.request

import pytest
from optuna.storages import InMemoryStorage

from hpo.reporting.dashboard import annotate_study, is_loopback
from hpo.storage.records.study import StudyRecord
from tests.reporting.studies import make_study


def test_notes_name_the_winner_and_are_escaped() -> None:
    from optuna.trial import Trial
    from optuna_dashboard import get_note, save_note

    study = make_study()
    annotate_study(study)
    note = get_note(study)
    winner = StudyRecord.of(study).result.winner.trial
    assert f"**Winner: trial {winner}**" in note and "0.712" in note and "<script>" not in note
    frozen = study.trials[winner]
    assert "**The winner.**" in get_note(Trial(study, frozen._trial_id))
    save_note(study, "a note of my own")
    annotate_study(study)
    assert get_note(study) == "a note of my own"


def test_notes_on_an_unfinished_study() -> None:
    from optuna_dashboard import get_note

    study = make_study(trials=0, result=False)
    annotate_study(study)
    assert "4,000 train" in get_note(study) and "Winner" not in get_note(study)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("localhost", True), ("::1", True), ("0.0.0.0", False), ("box.lan", False)],
)
def test_loopback_hosts(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


def test_serves_a_storage(monkeypatch: pytest.MonkeyPatch) -> None:
    import wsgiref.simple_server

    from hpo.reporting.dashboard import serve

    started: list[wsgiref.simple_server.WSGIServer] = []
    ready = threading.Event()
    serve_forever = wsgiref.simple_server.WSGIServer.serve_forever

    def record(server: wsgiref.simple_server.WSGIServer, poll_interval: float = 0.05) -> None:
        started.append(server)
        ready.set()
        serve_forever(server, poll_interval)

    monkeypatch.setattr(wsgiref.simple_server.WSGIServer, "serve_forever", record)
    storage = InMemoryStorage()
    make_study(trials=2, result=False, name="served", storage=storage)
    thread = threading.Thread(target=serve, args=(storage, "127.0.0.1", 0), daemon=True)
    thread.start()
    assert ready.wait(30)
    with urllib.request.urlopen(f"http://127.0.0.1:{started[0].server_port}/api/studies", timeout=10) as answer:
        assert b"served" in answer.read()
    started[0].shutdown()
    thread.join(10)
    started[0].server_close()
