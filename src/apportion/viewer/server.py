"""The page and its answers over HTTP, for one person on one machine: standard library, read only, nothing guessed.

Model output is hostile text. The page shows text only as text; the policy sent with it lets nothing run but the
page's own files. A name in a request is looked up in a table and never becomes a path or an import.
"""

from __future__ import annotations

import gzip
import http.server
import ipaddress
import json
import re
import socket
import threading
from email.message import Message
from http import HTTPStatus
from importlib import resources
from typing import Any
from urllib.parse import parse_qsl

from apportion.errors import ApportionError, InputError
from apportion.viewer.session import Session

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}

KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}

HOST = re.compile(r"(?:\[(?P<figures>[^\[\]]*)\]|(?P<name>[^:\[\]]+))(?::\d*)?")
"""A Host header: a name or an address in figures, and perhaps a port."""

LONGEST_QUERY = 8192
"""Characters of a request's path and query that are read."""


def static_files() -> dict[str, bytes]:
    """The files of the page by name.

    Example:
        >>> "index.html" in static_files()
        True
    """
    folder = resources.files("apportion.viewer") / "static"
    return {file.name: file.read_bytes() for file in folder.iterdir() if "." + file.name.split(".")[-1] in KINDS}


def as_json(content: Any) -> bytes:
    """An answer, with an error where it holds what JSON cannot."""
    return json.dumps(content, allow_nan=False).encode("ascii")


class Server(http.server.ThreadingHTTPServer):
    """Serves a session.

    Args:
        session: what is looked at.
        host: address or name to listen at; others than this machine reach it only where this is no loopback address.
        port: 0: any that is free.

    Raises:
        InputError: the address cannot be used, or is empty.

    Attributes:
        port: it listens at.
        local: only this machine reaches it.
    """

    daemon_threads = True

    def __init__(self, session: Session, host: str = "127.0.0.1", port: int = 0) -> None:
        if not host.strip():
            raise InputError("--host is empty, expected an address to listen at, such as 127.0.0.1.")
        self.session, self.host, self.static = session, host, static_files()
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            super().__init__((host, port), Handler)
        except (OSError, OverflowError, TypeError) as error:  # TypeError: a name that cannot be one
            raise InputError(
                f"cannot listen at {host} port {port} ({error}): choose another with --host and --port."
            ) from None
        bound = ipaddress.ip_address(str(self.server_address[0]))
        self.port, self.local, self._everywhere = int(self.server_address[1]), bound.is_loopback, bound.is_unspecified
        self._names = {name.lower().rstrip(".") for name in ("localhost", host, socket.gethostname())}

    @property
    def url(self) -> str:
        """Where a browser on this machine finds it."""
        if self._everywhere:  # 0.0.0.0 and :: are places to listen at and none to go to
            return self._at("::1" if self.address_family == socket.AF_INET6 else "127.0.0.1")
        return self._at(self.host)

    @property
    def url_elsewhere(self) -> str | None:
        """Where a browser on another machine may find it; None where none can."""
        if self.local:
            return None
        return self._at(socket.gethostname() if self._everywhere else self.host)

    def _at(self, host: str) -> str:
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}/"

    def start(self) -> Server:
        """Serve in the background."""
        threading.Thread(target=self.serve_forever, name="serve", daemon=True).start()
        return self

    def names_itself(self, host: str | None) -> bool:
        """Whether a request's Host header names this server, as that of a page whose name was pointed here does not.

        Names are ``localhost``, the one it was started with and that of this machine; an address written in figures
        names no other place, so any is taken. The port says nothing: behind a tunnel it is another one.
        """
        name = HOST.fullmatch(host or "")
        if name is None:
            return False
        try:
            ipaddress.ip_address(name["figures"] or name["name"])
        except ValueError:
            return name["name"] is not None and name["name"].lower().rstrip(".") in self._names
        return True


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers GET: ``/`` and ``/static/NAME`` with files of the page, ``/api/QUESTION`` with JSON."""

    server: Server
    server_version, sys_version = "apportion", ""
    protocol_version = "HTTP/1.1"
    timeout = 60
    headers = Message()  # those of no request: a line that cannot be read is answered before there are any

    def do_GET(self) -> None:
        """Answer."""
        path, _, query = self.path.partition("?")
        if not self.server.names_itself(self.headers.get("Host")):
            self._error(
                HTTPStatus.FORBIDDEN,
                "this server does not go by that name: open it as localhost or by its address, or start it with that "
                "name as --host.",
            )
        elif len(self.path) > LONGEST_QUERY:
            self._error(HTTPStatus.REQUEST_URI_TOO_LONG, "the request is too long.")
        elif path == "/":
            self._file("index.html")
        elif path.startswith("/static/"):
            self._file(path.removeprefix("/static/"))
        elif path.startswith("/api/"):
            self._question(path.removeprefix("/api/"), query)
        else:
            self._error(HTTPStatus.NOT_FOUND, "there is nothing here.")

    do_HEAD = do_GET

    def _file(self, name: str) -> None:
        content = self.server.static.get(name)
        if content is None:
            self._error(HTTPStatus.NOT_FOUND, "there is no such file of the page.")
            return
        kind = KINDS["." + name.split(".")[-1]]
        self._send(HTTPStatus.OK, content, f"{kind}; charset=utf-8")

    def _question(self, question: str, query: str) -> None:
        try:
            asked = dict(parse_qsl(query, max_num_fields=20))
        except ValueError as error:
            self._error(HTTPStatus.BAD_REQUEST, f"the question cannot be read ({error}).")
            return
        try:
            answer = as_json(self.server.session.answer(question, asked))
        except ApportionError as error:
            self._error(HTTPStatus.BAD_REQUEST, str(error))
        except OSError as error:
            self._error(HTTPStatus.INTERNAL_SERVER_ERROR, f"a file cannot be read ({error.strerror}).")
        except Exception as error:  # nobody foresaw it, and the page would say that the viewer has stopped
            said = f"the viewer failed at {question!r} ({type(error).__name__}: {error})."
            self._error(HTTPStatus.INTERNAL_SERVER_ERROR, said)
        else:
            self._send(HTTPStatus.OK, answer, "application/json")

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What is no request of a browser for this page; the connection ends, for its rest cannot be told apart."""
        self.close_connection = True
        self.request_version = self.protocol_version  # a line without one would get no head, and no policy in it
        status = HTTPStatus(code)
        self._error(status, f"this is not understood here: {message or status.phrase}.")

    def _error(self, status: HTTPStatus, message: str) -> None:
        self._send(status, as_json({"error": message}), "application/json")

    def _send(self, status: HTTPStatus, content: bytes, kind: str) -> None:
        packed = len(content) > 4096 and "gzip" in self.headers.get("Accept-Encoding", "")
        if packed:
            content = gzip.compress(content, compresslevel=1)
        try:
            self.send_response(status)
            for name, value in HEADERS.items():
                self.send_header(name, value)
            if packed:
                self.send_header("Content-Encoding", "gzip")
            if self.close_connection:
                self.send_header("Connection", "close")
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True  # the reader has gone

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: requests are not news."""
