"""Look at the credit of a run on a local page, or at one group in the terminal."""

from __future__ import annotations

import math
import os
import time
import webbrowser
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_origin, get_type_hints

from apportion.cli.arguments import parse
from apportion.credit import METHODS
from apportion.errors import InputError
from apportion.viewer.server import Server
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
    paths, options = split_paths(argv, Arguments)
    arguments = parse(Arguments, options, "apportion view")
    if not paths:
        raise InputError("view needs a run or a file of rollouts: apportion view RUN.")
    if not arguments.terminal and (arguments.step is not None or arguments.group is not None):
        raise InputError("--step and --group choose what --terminal prints: add it, or leave them out.")
    if arguments.terminal and len(paths) > 1:
        raise InputError(f"--terminal prints one group of one run, and {len(paths)} were given: give one of them.")
    if not 0 <= arguments.port < 1 << 16:
        raise InputError(f"--port is {arguments.port}, expected 0 to 65535.")
    session = Session(paths, arguments.credit, arguments.tokenizer)
    if arguments.terminal:
        show(session, arguments.credit, arguments.step, arguments.group)
        return 0
    serve(session, arguments)
    return 0


def split_paths(argv: Sequence[str], kind: type[Any]) -> tuple[list[Path], list[str]]:
    """The words that are no options and no values of options, as paths, and the rest.

    Behind an option that takes several words, a path is a word with the sign that separates folders, or the name of
    something that is there and no credit method.

    Args:
        argv: words after the verb.
        kind: the dataclass of its options.

    Example:
        >>> split_paths(["--port", "1", "a", "--terminal", "b"], Arguments)[1]
        ['--port', '1', '--terminal']
    """
    kinds = get_type_hints(kind)
    paths: list[Path] = []
    options: list[str] = []
    room: float = 0  # for values of the option before
    for i, word in enumerate(argv):
        if word == "--":
            return [*paths, *map(Path, argv[i + 1 :])], options
        if word.startswith("-"):
            name, equals, _ = word.partition("=")
            values = kinds.get(name.lstrip("-").replace("-", "_"), bool)
            room = 0 if equals or values is bool else math.inf if get_origin(values) is tuple else 1
            options.append(word)
        elif room == 0 or (room == math.inf and _names_a_path(word)):
            paths.append(Path(word))
        else:
            options.append(word)
            room -= 1
    return paths, options


def _names_a_path(word: str) -> bool:
    return os.sep in word.partition("(")[0] or (word not in METHODS and Path(word).exists())


def serve(session: Session, arguments: Arguments) -> None:
    """Serve until interrupted."""
    server = Server(session, arguments.host, arguments.port)
    session.watch()
    server.start()
    print(f"looking at {', '.join(source.name for source in session.sources)}: {server.url}", flush=True)
    if server.url_elsewhere is not None:
        print(f"from elsewhere: {server.url_elsewhere}; anybody who reaches it can read these rollouts", flush=True)
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
