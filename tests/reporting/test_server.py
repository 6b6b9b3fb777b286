"""The dashboard's server: it answers its own hosts and pages only, and changes need the token of the printed URL."""

import json
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.cookiejar import CookieJar
from urllib.parse import urlsplit

import optuna
import pytest
from optuna.storages import InMemoryStorage

from hpo.errors import ConfigError
from hpo.reporting.server import is_loopback, open_server
from tests.reporting.studies import make_study

STUDY = json.dumps({"study_name": "new", "directions": ["maximize"]}).encode()


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("localhost", True), ("::1", True), ("0.0.0.0", False), ("box.lan", False)],
)
def test_loopback_hosts(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """Yield the URL of a dashboard with one study, which has a formula among its attributes."""
    storage = InMemoryStorage()
    study = make_study(trials=2, result=False, name="served", storage=storage)
    study.add_trial(optuna.create_trial(value=-0.5, user_attrs={"=1+1": "=cmd()"}))
    server, url = open_server(storage, "127.0.0.1", 0)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield url
    server.shutdown()
    thread.join(10)
    server.server_close()


def request(url: str, path: str, method: str = "GET", body: bytes | None = None, **headers: str) -> tuple[int, str]:
    """Return the status and the body of the answer to one request without cookies."""
    parts = urlsplit(url)
    asked = urllib.request.Request(f"http://{parts.netloc}{path}", body, method=method)
    for name, value in {"Content-Type": "application/json", "Accept-Encoding": "identity", **headers}.items():
        asked.add_header(name, value)
    try:
        with urllib.request.urlopen(asked, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_serves_the_studies(url: str) -> None:
    status, body = request(url, "/api/studies")
    assert status == 200 and "served" in body


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8080", "127.0.0.1.evil.example", "10.1.2.3", ""])
def test_foreign_host_is_refused_for_reading_and_writing(url: str, host: str) -> None:
    token = urlsplit(url).query
    assert request(url, "/api/studies", Host=host)[0] == 403
    assert request(url, "/csv/0", Host=host)[0] == 403
    assert request(url, f"/api/studies?{token}", "POST", STUDY, Host=host)[0] == 403
    assert request(url, f"/api/studies/0?{token}", "DELETE", Host=host)[0] == 403


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "https://127.0.0.1", "http://127.0.0.1:1"])
def test_foreign_origin_is_refused_even_with_the_token(url: str, origin: str) -> None:
    token = urlsplit(url).query
    assert request(url, f"/api/studies?{token}", "POST", STUDY, Origin=origin)[0] == 403
    assert request(url, f"/api/studies/0?{token}", "DELETE", Origin=origin)[0] == 403


def test_change_needs_the_token(url: str) -> None:
    for method, path in (("POST", "/api/studies"), ("DELETE", "/api/studies/0"), ("PUT", "/api/studies/0/note")):
        status, body = request(url, path, method, STUDY)
        assert status == 403 and "URL that hpo printed" in body
        assert request(url, f"{path}?token=wrong", method, STUDY)[0] == 403
    assert request(url, "/?token=wrong")[0] == 403
    assert "served" in request(url, "/api/studies")[1]


def test_opening_the_printed_url_allows_changes(url: str) -> None:
    parts = urlsplit(url)
    browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))
    browser.addheaders = [("Accept-Encoding", "identity")]
    assert b"Optuna Dashboard" in browser.open(url, timeout=10).read()
    asked = urllib.request.Request(f"http://{parts.netloc}/api/studies", STUDY, {"Content-Type": "application/json"})
    asked.add_header("Origin", f"http://{parts.netloc}")
    assert browser.open(asked, timeout=10).status == 201


def test_csv_has_no_formula(url: str) -> None:
    status, body = request(url, "/csv/0")
    assert status == 200 and "'=cmd()" in body and ",=cmd()" not in body and ",-0.5," in body


def test_address_that_cannot_be_listened_on_raises() -> None:
    storage = InMemoryStorage()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"--port {port}: another program listens there .*Free: --port \d+"):
            open_server(storage, "127.0.0.1", port)
    for host, port, message in (
        ("127.0.0.1", 70000, "from 1 to 65535"),
        ("127.0.0.1", -1, "from 1 to 65535"),
        ("no.such.host.invalid", 0, "no such host"),
        ("a..b", 0, "no such host"),
        ("203.0.113.7", 0, "not an address of this machine"),
    ):
        with pytest.raises(ConfigError, match=message):
            open_server(storage, host, port)
