"""The server of `hpo dashboard`: optuna-dashboard behind a guard that decides who may read and who may write.

optuna-dashboard has no authentication. Without the guard, a web page that the user visits could create and delete
studies by cross-origin requests, or read them under a name that it resolves to this machine (DNS rebinding).
"""

import csv
import errno
import hmac
import io
import ipaddress
import secrets
import socket
from collections.abc import Callable, Iterable
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from optuna.storages import BaseStorage

from hpo.errors import ConfigError
from hpo.errors.redact import redact
from hpo.reporting.csv import escape_formula

Environ = dict[str, object]
StartResponse = Callable[..., object]
App = Callable[[Environ, StartResponse], Iterable[bytes]]

COOKIE = "hpo_dashboard"
PORTS_TRIED = 20


class Guard:
    """A WSGI application before optuna-dashboard. It answers known hosts only, and writes need the token.

    The token is in the URL that the command prints; opening it sets a cookie for the dashboard's own requests.
    """

    def __init__(self, app: App, host: str, token: str) -> None:
        self._app, self._token = app, token
        self._any_address = not is_loopback(host)
        self._names = {"localhost", host.lower()}
        if self._any_address:
            self._names |= {socket.gethostname().lower(), socket.getfqdn().lower()}

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        method, path = str(environ["REQUEST_METHOD"]), str(environ.get("PATH_INFO", ""))
        host, origin = str(environ.get("HTTP_HOST", "")), environ.get("HTTP_ORIGIN")
        if not self._is_known(host):
            return _refuse(start_response, f"the host {host!r} is not this dashboard's. Open the URL that hpo printed.")
        if origin is not None and str(origin).lower() != f"http://{host}".lower():
            return _refuse(start_response, "the request comes from another page.")
        given = parse_qs(str(environ.get("QUERY_STRING", ""))).get("token", [""])[0]
        if given and method == "GET" and path in ("", "/"):
            return self._open(given, start_response)
        if method not in ("GET", "HEAD", "OPTIONS") and not self._has_token(environ, given):
            return _refuse(start_response, "changes need the token. Open the URL that hpo printed.")
        if path.startswith("/csv/"):
            return _inert_csv(self._app, environ, start_response)
        return self._app(environ, start_response)

    def _is_known(self, host: str) -> bool:
        """Return whether a Host header names this machine, by a known name or by an address, never rebound."""
        name, _, port = host.rpartition(":") if not host.endswith("]") and ":" in host else (host, "", "")
        if port and not port.isdigit():
            return False
        name = name.strip("[]").lower()
        if name in self._names:
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        return self._any_address or address.is_loopback

    def _has_token(self, environ: Environ, in_query: str) -> bool:
        try:
            cookie = SimpleCookie(str(environ.get("HTTP_COOKIE", ""))).get(COOKIE)
        except CookieError:
            cookie = None
        found = (in_query, "" if cookie is None else cookie.value, str(environ.get("HTTP_X_HPO_TOKEN", "")))
        return any(hmac.compare_digest(one.encode(), self._token.encode()) for one in found)

    def _open(self, given: str, start_response: StartResponse) -> Iterable[bytes]:
        if not hmac.compare_digest(given.encode(), self._token.encode()):
            return _refuse(start_response, "the token is wrong or of an earlier start. Open the URL that hpo printed.")
        cookie = f"{COOKIE}={self._token}; Path=/; HttpOnly; SameSite=Strict"
        start_response("302 Found", [("Location", "/dashboard"), ("Set-Cookie", cookie), ("Content-Length", "0")])
        return [b""]


def _refuse(start_response: StartResponse, reason: str) -> Iterable[bytes]:
    body = f"Refused: {reason}\n".encode()
    start_response("403 Forbidden", [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body)))])
    return [body]


def _inert_csv(app: App, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Return the dashboard's CSV without cells that a spreadsheet evaluates; names and values come from users."""
    answered: list[tuple[str, list[tuple[str, str]]]] = []
    parts = app(environ, lambda status, headers, _=None: answered.append((status, headers)))
    body = b"".join(parts)
    status, headers = answered[-1]
    if status.startswith("200"):
        text = io.StringIO(newline="")
        rows = csv.reader(io.StringIO(body.decode("utf-8"), newline=""))
        csv.writer(text).writerows([cell if _is_number(cell) else escape_formula(cell) for cell in row] for row in rows)
        body = text.getvalue().encode()
    kept = [(name, value) for name, value in headers if name.lower() != "content-length"]
    start_response(status, [*kept, ("Content-Length", str(len(body)))])
    return [body]


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


class _Handler(WSGIRequestHandler):
    def address_string(self) -> str:
        return str(self.client_address[0])  # without a reverse lookup of its name

    def log_message(self, format: str, *arguments: object) -> None:
        super().log_message("%s", redact(format % arguments))


class _ServerV6(WSGIServer):
    address_family = socket.AF_INET6


def open_server(storage: BaseStorage, host: str = "127.0.0.1", port: int = 8080) -> tuple[WSGIServer, str]:
    """Return a server of the dashboard that listens at `host` and `port`, and the URL with the token to open it.

    Raises `ConfigError` for an address that cannot be listened on. The caller warns where `is_loopback(host)` is false.
    """
    server = _listen(host, port)
    from optuna_dashboard import wsgi

    token = secrets.token_urlsafe(16)
    server.set_app(Guard(wsgi(storage), host, token))
    shown = f"[{host}]" if ":" in host else host
    return server, f"http://{shown}:{server.server_port}/?token={token}"


def _listen(host: str, port: int) -> WSGIServer:
    if not 0 <= port <= 65535:
        raise ConfigError(f"--port {port}: must be from 1 to 65535.")
    try:
        return _bind(host, port)
    except (socket.gaierror, UnicodeError):
        raise ConfigError(f"--host {host}: no such host. Write an address of this machine: 127.0.0.1.") from None
    except OSError as error:
        code, reason = error.errno, error.strerror or error
    if code == errno.EADDRINUSE:
        raise ConfigError(f"--port {port}: another program listens there (on {host}).{_free_port(host, port)}")
    if code == errno.EACCES:
        raise ConfigError(f"--port {port}: it needs the rights of an administrator. Choose one above 1023.")
    if code == errno.EADDRNOTAVAIL:
        raise ConfigError(f"--host {host}: not an address of this machine. Write 127.0.0.1, or 0.0.0.0 for all.")
    raise ConfigError(f"cannot listen on {host}:{port}: {reason}.")


def _bind(host: str, port: int) -> WSGIServer:
    return make_server(host, port, _refuse_all, _ServerV6 if ":" in host else WSGIServer, _Handler)


def _refuse_all(_environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    return _refuse(start_response, "the dashboard is starting.")


def _free_port(host: str, port: int) -> str:
    """Return a sentence with the next free port; an empty string where none is near."""
    for other in range(port + 1, min(port + PORTS_TRIED, 65536)):
        try:
            _bind(host, other).server_close()
        except OSError:
            continue
        return f" Free: --port {other}"
    return ""


def is_loopback(host: str) -> bool:
    """Return whether a server bound to `host` is reachable from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
