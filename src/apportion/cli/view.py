"""Look at the credit of a run on a local page, or at one group in the terminal."""

from __future__ import annotations

import time
import webbrowser
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from apportion.cli.arguments import parse
from apportion.errors import InputError
from apportion.viewer.server import LOOPBACK, Server
from apportion.viewer.session import Session
from apportion.viewer.terminal import show


@dataclass(frozen=True)
class Arguments:
    """Look at credit: apportion view RUN [RUN ...].

    RUN is the folder of a run, which may still be going, or a file of rollouts. The page is served to this machine
    only until it is interrupted; nothing is written.
    """

    credit: tuple[str, ...] = ()
    """Further credit methods to offer, such as "tempo(norm_by_std=False)"; the registered ones are there anyway."""
    tokenizer: Path | None = None
    """A tokenizer.json, or the folder of a model, to show tokens of rollouts files as text."""
    terminal: bool = False
    """Print one group as a coloured tree instead."""
    step: int | None = None
    """With --terminal: the step of the group; default: the last."""
    group: str | None = None
    """With --terminal: the group, by its id or name; default: the one whose rewards differ most."""
    host: str = "127.0.0.1"
    """Address to listen at. Anybody who reaches another one than this machine's own may read the rollouts."""
    port: int = 0
    """Port to listen at; 0: any that is free."""
    browser: bool = True
    """Open the page in a browser."""


def main(argv: Sequence[str]) -> int:
    """``apportion view``"""
    paths, options = split_paths(argv)
    if not paths and options and options[0] in ("-h", "--help"):
        parse(Arguments, options, "apportion view")
    if not paths:
        raise InputError("view needs a run or a file of rollouts: apportion view RUN.")
    arguments = parse(Arguments, options, "apportion view")
    if not arguments.terminal and (arguments.step is not None or arguments.group is not None):
        raise InputError("--step and --group choose what --terminal prints: add it, or leave them out.")
    if not 0 <= arguments.port < 1 << 16:
        raise InputError(f"--port is {arguments.port}, expected 0 to 65535.")
    session = Session(paths, arguments.credit, arguments.tokenizer)
    if arguments.terminal:
        show(session, arguments.credit, arguments.step, arguments.group)
        return 0
    serve(session, arguments)
    return 0


def split_paths(argv: Sequence[str]) -> tuple[list[Path], list[str]]:
    """The words before the first option, as paths, and the rest.

    Example:
        >>> split_paths(["a", "b", "--port", "1"])[1]
        ['--port', '1']
    """
    first = next((i for i, word in enumerate(argv) if word.startswith("-")), len(argv))
    return [Path(word) for word in argv[:first]], list(argv[first:])


def serve(session: Session, arguments: Arguments) -> None:
    """Serve until interrupted."""
    server = Server(session, arguments.host, arguments.port)
    session.watch()
    server.start()
    print(f"looking at {', '.join(source.name for source in session.sources)}: {server.url}", flush=True)
    if arguments.host not in LOOPBACK:
        print(f"anybody who reaches {arguments.host} can read these rollouts", flush=True)
    print("Ctrl-C ends it", flush=True)
    if arguments.browser:
        webbrowser.open(server.url)
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        print()
    finally:
        session.close()
        server.shutdown()
        server.server_close()
