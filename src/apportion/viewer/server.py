"""The page and its answers over HTTP, for one person on one machine: standard library, read only, nothing guessed.

Model output is hostile text. The page shows text only as text; the policy sent with it lets nothing run but the
page's own files. A name in a request is looked up in a table and never becomes a path or an import.
"""

from __future__ import annotations

import gzip
import http.server
import json
import socket
import threading
from http import HTTPStatus
from importlib import resources
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from apportion.errors import ApportionError, InputError
from apportion.viewer.session import Session

LOOPBACK = ("127.0.0.1", "::1", "localhost")

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


class Server(http.server.ThreadingHTTPServer):
    """Serves a session.

    Args:
        session: what is looked at.
        host: address to listen at; others than this machine reach it only where this is not a loopback address.
        port: 0: any that is free.

    Raises:
        InputError: the address cannot be used.
    """

    daemon_threads = True

    def __init__(self, session: Session, host: str = "127.0.0.1", port: int = 0) -> None:
        self.session, self.host, self.static = session, host, static_files()
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            super().__init__((host, port), Handler)
        except (OSError, OverflowError) as error:
            raise InputError(
                f"cannot listen at {host} port {port} ({error}): choose another with --host and --port."
            ) from None

    @property
    def url(self) -> str:
        """Where a browser finds it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.server_address[1]}/"

    def start(self) -> Server:
        """Serve in the background."""
        threading.Thread(target=self.serve_forever, name="serve", daemon=True).start()
        return self

    def names_itself(self, host: str | None) -> bool:
        """Whether a request's Host header names this server: a page elsewhere whose name was pointed here does not.

        Only checked on loopback; under another address the server cannot know its names.
        """
        if self.host not in LOOPBACK:
            return True
        name, _, port = (host or "").rpartition(":")
        return name.strip("[]") in LOOPBACK and port == str(self.server_address[1])


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers GET: ``/`` and ``/static/NAME`` with files of the page, ``/api/QUESTION`` with JSON."""

    server: Server
    server_version, sys_version = "apportion", ""
    protocol_version = "HTTP/1.1"
    timeout = 60

    def do_GET(self) -> None:
        """Answer."""
        if not self.server.names_itself(self.headers.get("Host")):
            self._error(HTTPStatus.FORBIDDEN, "this server answers only to its own address.")
        elif len(self.path) > LONGEST_QUERY:
            self._error(HTTPStatus.REQUEST_URI_TOO_LONG, "the request is too long.")
        elif (path := urlsplit(self.path).path) == "/":
            self._file("index.html")
        elif path.startswith("/static/"):
            self._file(path.removeprefix("/static/"))
        elif path.startswith("/api/"):
            self._question(path.removeprefix("/api/"), urlsplit(self.path).query)
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
            answer = self.server.session.answer(question, dict(parse_qsl(query, max_num_fields=20)))
        except (ApportionError, ValueError) as error:
            self._error(HTTPStatus.BAD_REQUEST, str(error))
            return
        except OSError as error:
            self._error(HTTPStatus.INTERNAL_SERVER_ERROR, f"a file cannot be read ({error.strerror}).")
            return
        self._json(HTTPStatus.OK, answer)

    def _error(self, status: HTTPStatus, message: str) -> None:
        self._json(status, {"error": message})

    def _json(self, status: HTTPStatus, content: Any) -> None:
        self._send(status, json.dumps(content, allow_nan=False).encode("ascii"), "application/json")

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
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True  # the reader has gone

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: requests are not news."""
