"""The server gives out the page and answers about what was opened, and nothing else."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from apportion.errors import InputError
from apportion.viewer.server import POLICY, Server
from apportion.viewer.session import Session
from viewer.worlds import write_run


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("serving")
    (folder / "secret.txt").write_text("secret")
    run = write_run(folder / "run", steps=2)
    (run / "rollouts" / "note.txt").write_text("secret")
    serving = Server(Session([run])).start()
    yield serving
    serving.shutdown()
    serving.server_close()


@contextlib.contextmanager
def started(session: Session, host: str) -> Iterator[Server]:
    """Another server of the same."""
    server = Server(session, host).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def of_version_6(*cases: Any) -> tuple[Any, ...]:
    """Cases for a machine that has IPv6, as containers often have not."""
    with socket.socket(socket.AF_INET6) as wanted:
        try:
            wanted.bind(("::1", 0))
        except OSError:
            return ()
    return cases


def bound_to_loopback(server: Server) -> None:
    """Stands for a name that leads to this machine, which tests cannot give it."""
    server.socket.bind(("127.0.0.1", 0))
    server.server_address = server.socket.getsockname()


def get(
    server: Server, path: str, host: str | None = None, method: str = "GET", to: str = "127.0.0.1", **headers: str
) -> tuple[int, bytes, dict[str, str]]:
    port = server.server_address[1]
    with contextlib.closing(http.client.HTTPConnection(to, port, timeout=30)) as connection:
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        connection.putheader("Host", host or f"127.0.0.1:{port}")
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders()
        response = connection.getresponse()
        return response.status, response.read(), dict(response.getheaders())


def test_the_page_and_answers_are_served_under_a_strict_policy(server: Server) -> None:
    for path in ("/", "/static/app.js", "/api/runs", "/api/group?part=1&group=2", "/nothing"):
        status, _, headers = get(server, path)
        assert status == (404 if path == "/nothing" else 200)
        assert headers["Content-Security-Policy"] == POLICY
        assert headers["X-Content-Type-Options"] == "nosniff"
    assert "unsafe" not in POLICY
    assert "default-src 'none'" in POLICY


def test_what_the_page_loads_is_there(server: Server) -> None:
    page = get(server, "/")[1].decode()
    assert "http:" not in page
    assert "https:" not in page
    for name in ("icon.svg", "palette.css", "app.css", "app.js"):
        assert f'"/static/{name}"' in page
        assert get(server, f"/static/{name}")[0] == 200


@pytest.mark.parametrize(
    "path",
    [
        "/../secret.txt",
        "/static/../../secret.txt",
        "/static/..%2f..%2fsecret.txt",
        "/static/%2e%2e/server.py",
        "/static/../server.py",
        "/static//etc/passwd",
        "/static/",
        "/rollouts/step_000001.arrow",
        "/config.json",
        "//etc/passwd",
        "/api/../config.json",
        "/api/group?part=../../secret&group=0",
        "/api/group?run=../run",
        "/static/app.js%00.txt",
        "http://[/",
        "?",
    ],
)
def test_no_path_leads_out_of_the_page(server: Server, path: str) -> None:
    status, content, _ = get(server, path)
    assert status in (400, 404)
    assert b"secret" not in content.replace(path.encode(), b"").replace(b"../../secret", b"")
    assert b"root:" not in content


def test_another_name_for_this_machine_is_refused(server: Server) -> None:
    port = server.server_address[1]
    names = ("evil.example", f"127.0.0.1.evil.example:{port}", "localhost.evil.example", "a@localhost", "[localhost]")
    for host in (*names, f"evil.example:{port}", "localhost:80:80", "localhost/", "::1", "[]", ":", ":80"):
        status, content, _ = get(server, "/api/runs", host=host)
        assert status == 403, host
        assert "does not go by that name" in json.loads(content)["error"]


@pytest.mark.parametrize(
    "host", ["localhost:9000", "localhost", "LOCALHOST.:1", "127.0.0.1", "127.0.0.2:80", "[::1]:9000", "10.1.2.3:8000"]
)
def test_behind_a_tunnel_the_port_is_another(server: Server, host: str) -> None:
    assert get(server, "/api/runs", host=host)[0] == 200


@pytest.mark.parametrize("listening", ["127.0.0.2", "0.0.0.0", "localhost", *of_version_6("0:0:0:0:0:0:0:1", "::")])
def test_wherever_it_listens_a_name_pointed_at_it_is_refused(server: Server, listening: str) -> None:
    with started(server.session, listening) as other:
        target = other.url.removeprefix("http://").rstrip("/")
        for host, status in (
            (f"evil.example:{other.port}", 403),
            (target, 200),
            (f"{socket.gethostname().upper()}:1", 200),
            ("localhost:9000", 200),
        ):
            address = target.rpartition(":")[0].strip("[]")
            assert get(other, "/api/runs", host=host, to=address)[0] == status, host


def test_the_name_it_was_started_with_is_its_own(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "this-machine")
    with started(server.session, "127.0.0.1") as other:
        assert not other.names_itself("mine.example")
        assert other.names_itself("this-machine:80")
        assert not other.names_itself(None)
    monkeypatch.setattr(Server, "server_bind", bound_to_loopback)
    with started(server.session, "mine.example") as other:
        assert other.names_itself("Mine.Example:9000")
        assert not other.names_itself("yours.example:9000")
        assert other.url == f"http://mine.example:{other.port}/"


@pytest.mark.parametrize(
    ("listening", "url", "elsewhere"),
    [
        ("127.0.0.1", "http://127.0.0.1:{port}/", None),
        ("localhost", "http://localhost:{port}/", None),
        ("127.0.0.2", "http://127.0.0.2:{port}/", None),
        ("0.0.0.0", "http://127.0.0.1:{port}/", "http://this-machine:{port}/"),
        ("0", "http://127.0.0.1:{port}/", "http://this-machine:{port}/"),
        *of_version_6(
            ("::1", "http://[::1]:{port}/", None),
            ("::", "http://[::1]:{port}/", "http://this-machine:{port}/"),
        ),
    ],
)
def test_it_says_where_it_can_be_reached(
    server: Server, monkeypatch: pytest.MonkeyPatch, listening: str, url: str, elsewhere: str | None
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "this-machine")
    with started(server.session, listening) as other:
        assert other.url == url.format(port=other.port)
        assert other.url_elsewhere == (elsewhere and elsewhere.format(port=other.port))


@pytest.mark.parametrize("listening", ["", " ", "no such host", "a" * 70 + ".example", "\u00fc" * 70])
def test_an_address_to_listen_at_that_cannot_be_is_refused(server: Server, listening: str) -> None:
    with pytest.raises(InputError, match="--host"):
        Server(server.session, listening)


def test_only_reading_is_understood(server: Server) -> None:
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        status, content, headers = get(server, "/api/runs", method=method)
        assert status == 501
        assert json.loads(content) == {"error": f"this is not understood here: Unsupported method ('{method}')."}
        assert headers["Content-Security-Policy"] == POLICY
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Connection"] == "close", "what follows the request was not read"
    status, content, headers = get(server, "/", method="HEAD")
    assert (status, content) == (200, b"")
    assert int(headers["Content-Length"]) > 0


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/9.9\r\n\r\n", 505),
        (b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\n\r\n", 414),
    ],
)
def test_what_is_no_request_is_answered_under_the_policy_too(server: Server, request_line: bytes, status: int) -> None:
    with socket.create_connection(server.server_address[:2], timeout=30) as connection:
        connection.sendall(request_line)
        answer = b""
        while piece := connection.recv(1 << 16):
            answer += piece
    head, _, content = answer.partition(b"\r\n\r\n")
    assert int(head.split()[1]) == status
    assert POLICY.encode() in head
    assert json.loads(content)["error"].startswith("this is not understood here: ")


def test_bad_questions_are_answered_with_a_sentence(server: Server) -> None:
    status, content, _ = get(server, "/api/group?part=77&group=0")
    assert status == 400
    assert json.loads(content)["error"].endswith("expected one it holds: steps 1 to 2.")
    assert get(server, "/api/" + "x" * 9000)[0] == 414
    assert get(server, "/api/group?" + "&".join(f"a{i}=1" for i in range(50)))[0] == 400


def test_large_answers_are_compressed_where_the_reader_can(server: Server) -> None:
    _, content, headers = get(server, "/static/app.css", **{"Accept-Encoding": "gzip"})
    assert headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(content) == server.static["app.css"]
    assert get(server, "/static/app.css")[1] == server.static["app.css"]


def test_it_binds_to_this_machine_unless_told(server: Server) -> None:
    assert server.socket.getsockname()[0] == "127.0.0.1"


def test_a_taken_port_is_said_in_a_sentence(server: Server, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(InputError, match="choose another with --host and --port"):
            Server(server.session, port=taken.getsockname()[1])
