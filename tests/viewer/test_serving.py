"""The server gives out the page and answers about what was opened, and nothing else."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import json
import socket
from collections.abc import Iterator
from pathlib import Path

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


def get(
    server: Server, path: str, host: str | None = None, method: str = "GET", **headers: str
) -> tuple[int, bytes, dict[str, str]]:
    port = server.server_address[1]
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
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
    ],
)
def test_no_path_leads_out_of_the_page(server: Server, path: str) -> None:
    status, content, _ = get(server, path)
    assert status in (400, 404)
    assert b"secret" not in content.replace(path.encode(), b"").replace(b"../../secret", b"")
    assert b"root:" not in content


def test_another_name_for_this_machine_is_refused(server: Server) -> None:
    port = server.server_address[1]
    for host in ("evil.example", f"evil.example:{port}", f"127.0.0.1.evil.example:{port}", "127.0.0.1:1"):
        status, content, _ = get(server, "/api/runs", host=host)
        assert (status, json.loads(content)) == (403, {"error": "this server answers only to its own address."})
    assert get(server, "/api/runs", host=f"localhost:{port}")[0] == 200


def test_only_reading_is_understood(server: Server) -> None:
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        assert get(server, "/api/runs", method=method)[0] == 501
    status, content, headers = get(server, "/", method="HEAD")
    assert (status, content) == (200, b"")
    assert int(headers["Content-Length"]) > 0


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
