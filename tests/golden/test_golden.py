"""Every case of every golden file, through the entries the trainer calls."""

from __future__ import annotations

import pytest

from golden.adapters import SLUGS, adapter
from golden.files import FOLDER, VECTORS, Case, differences, plain, read_cases
from golden.pending import golden_reason, read_pending

FILES = {path.stem: path for path in sorted(FOLDER.glob("*.json"))}
TESTED = [
    pytest.param(slug, case, id=f"{slug}/{case.name}")
    for slug in FILES
    if slug in SLUGS
    for case in read_cases(FILES[slug])
]
WAITING = [
    pytest.param(slug, None, id=slug, marks=pytest.mark.skip(reason=golden_reason(slug)))
    for slug in FILES
    if slug not in SLUGS
]


@pytest.mark.parametrize(("slug", "case"), [*TESTED, *WAITING])
def test_case(slug: str, case: Case) -> None:
    run = adapter(slug)
    if case.refused:
        with pytest.raises(ValueError, match=r"expected|unknown"):
            run(**case.arguments)
        return
    assert case.expected, "a case that expects nothing tests nothing"
    wrong = list(differences(plain(run(**case.arguments)), case.expected, case.atol))
    assert not wrong, "\n".join(wrong)


def test_the_folder_has_cases_for_an_adapter() -> None:
    assert TESTED, f"{FOLDER} has no golden file with an adapter, expected at least one of {', '.join(SLUGS)}"


def test_every_adapter_has_a_file() -> None:
    assert set(SLUGS) <= {path.stem for path in VECTORS.glob("*.json")}


def test_pending_lists_just_the_files_without_an_adapter() -> None:
    pending = set(read_pending().golden)
    files = {path.stem for path in VECTORS.glob("*.json")}
    assert not pending & set(SLUGS), "these have an adapter now: take them off pending.txt"
    assert not pending - files, "pending.txt names golden files that do not exist"
    assert not files - set(SLUGS) - pending, "these golden files have no adapter: write one in tests/golden/adapters"
