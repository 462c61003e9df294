"""Every golden case of credit and objectives, without pytest: for an environment that holds torch and numpy only.

    python tests/golden/alone.py

``make test-alone`` makes such an environment. Fails if a case does, or if anything but torch and numpy was imported
from where packages are installed.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from golden.adapters import adapter
from golden.files import FOLDER, Case, differences, plain, read_cases

CREDIT = [
    "attention_rhythm",
    "calm",
    "capo",
    "constrained_rlhf",
    "dapo_shaping",
    "edu_align",
    "gae",
    "gigpo",
    "grpo",
    "hicra",
    "lare",
    "loop",
    "ma_rlhf",
    "nsr",
    "oprl",
    "pure",
    "reinforce_pp",
    "rloo",
    "sotopia_rl",
    "tempo",
    "tp_grpo",
    "trust_grpo",
]
OBJECTIVES = [
    "b_coder",
    "cad_rl",
    "ches",
    "dapo_loss",
    "dph_rl",
    "kl",
    "loss_agg",
    "mm_rlhf",
    "pacs",
    "rover",
    "t_reg",
    "token_dpo",
    "value_loss",
    "ac_flow",
]
LOCAL = {"apportion", "golden"}
WITH_TORCH = {"torch", "torchgen", "numpy", "typing_extensions", "sympy", "mpmath", "networkx", "jinja2", "markupsafe"}
WITH_TORCH |= {"filelock", "fsspec", "setuptools", "_distutils_hack", "pkg_resources", "nvidia", "triton"}


def wrong(slug: str, case: Case) -> str | None:
    """What is wrong with a case, if anything."""
    try:
        given = plain(adapter(slug)(**case.arguments))
    except ValueError as error:
        return None if case.refused else f"raised {error}"
    if case.refused:
        return "raised nothing"
    return next(differences(given, case.expected, case.atol), None)


def main() -> int:
    """Run them all; the number of failures."""
    failures, count = 0, 0
    for slug in CREDIT + OBJECTIVES:
        for case in read_cases(FOLDER / f"{slug}.json"):
            count += 1
            if said := wrong(slug, case):
                failures += 1
                print(f"{slug}/{case.name}: {said}")
    packages = {name.partition(".")[0] for name, module in sys.modules.items() if getattr(module, "__file__", None)}
    others = sorted(packages - LOCAL - WITH_TORCH - set(sys.stdlib_module_names) - {"__main__", "__mp_main__"})
    print(f"{count} cases of {len(CREDIT + OBJECTIVES)} files, {failures} wrong; also imported: {others or 'nothing'}")
    return failures + len(others)


if __name__ == "__main__":
    sys.exit(min(main(), 1))
