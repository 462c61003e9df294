"""apportion: reinforcement learning for language models in which you choose the credit.

Usage: apportion VERB [ARGUMENTS], and apportion VERB --help for each.
"""

from __future__ import annotations

import errno
import importlib
import os
import sys
from collections.abc import Sequence

from apportion.errors import ApportionError, unknown_name

VERBS = {
    "train": "train a policy: apportion train quickstart",
    "rollout": "sample and score responses into a file",
    "credit": "credit stored rollouts under a method",
    "compare": "credit the same rollouts under several methods, and show where they differ",
    "view": "look at the credit of a run on a local page, or in the terminal",
    "report": "write what that page shows into one file",
    "grams": "find the planning phrases of correct solutions",
    "study": "compare ways to train, in paired runs",
    "calibrate": "measure credit methods against exact values",
    "claims": "measure what papers claim of their methods",
    "eval": "measure a policy on held-out tasks",
    "methods": "list credit methods and objectives",
    "doctor": "what this machine can run",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a verb; returns the exit code: 0 done, 2 bad input or a run that had to stop, 130 interrupted."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help"):
        print((__doc__ or "").strip() + "\n")
        for verb, what in VERBS.items():
            print(f"  {verb:10}{what}")
        return 0
    if words[0] in ("-V", "--version"):
        from apportion import __version__

        print(__version__)
        return 0
    try:
        if words[0] not in VERBS:
            raise unknown_name("verb", words[0], VERBS)
        code = int(importlib.import_module(f"apportion.cli.{words[0]}").main(words[1:]) or 0)
        sys.stdout.flush()
        return code
    except ApportionError as error:
        return _refuse(str(error))
    except ModuleNotFoundError as error:
        package = (error.name or "apportion").partition(".")[0]
        if package == "apportion":
            raise
        return _refuse(f'{words[0]} needs {package}, which is not installed: run pip install "apportion[train]".')
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader has gone: nothing left to say
        return 0
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            return _refuse(f"the disk is full ({error.strerror}): make room on it and try again.")
        if error.filename is None:
            raise
        return _refuse(f"cannot use {os.fsdecode(error.filename)} ({error.strerror}): choose another place or mend it.")
    except KeyboardInterrupt:
        print("apportion: interrupted.", file=sys.stderr)
        return 130


def _refuse(message: str) -> int:
    """Say on one line of standard error what is wrong."""
    print("apportion:", " ".join(message.split()), file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
