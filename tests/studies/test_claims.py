"""The claims of every card: they load, nothing registered is without one, and a seed decides what they measure."""

from __future__ import annotations

from pathlib import Path

import pytest

from apportion.credit import METHODS
from apportion.objectives import OBJECTIVES
from apportion.studies import claims
from apportion.studies.claim import Claim
from apportion.studies.claims_entries import Entry, entries
from apportion.studies.claims_processes import measure

REGISTERED = {*METHODS, *OBJECTIVES}


def every() -> list[Entry]:
    return entries()


def test_every_file_is_listed_in_order() -> None:
    files = sorted(path.stem for path in Path(str(claims.__file__)).parent.glob("*.py") if path.stem != "__init__")
    assert list(claims.CARDS) == files


def test_every_claim_is_one_of_its_own() -> None:
    keys = [entry.claim.key for entry in every()]
    assert len(keys) == len(set(keys)), "two claims have one name"
    for card in claims.CARDS:
        listed = claims.of_card(card)
        assert listed, f"{card} has no claims"
        assert all(isinstance(claim, Claim) for claim in listed), card


def test_a_claim_is_about_something_registered_or_the_strategy_of_its_card() -> None:
    for entry in every():
        assert entry.claim.method in REGISTERED or entry.claim.method == entry.card, entry.claim.key


def test_everything_registered_has_a_claim_or_a_reason_why_not() -> None:
    about = {entry.claim.method for entry in every()}
    assert set(claims.WITHOUT) <= REGISTERED, "reasons are given for what is not registered"
    assert not about & set(claims.WITHOUT), "a reason is given although there is a claim"
    missing = sorted(REGISTERED - about - set(claims.WITHOUT))
    assert not missing, f"neither a claim nor a reason in claims.WITHOUT: {', '.join(missing)}"


@pytest.mark.slow
@pytest.mark.parametrize("entry", every(), ids=lambda entry: entry.claim.key)
def test_a_seed_decides_what_is_measured(entry: Entry) -> None:
    first, same, other = (measure(entry.claim, seed) for seed in (0, 0, 1))
    assert not isinstance(first, str), first
    assert not isinstance(same, str), same
    assert not isinstance(other, str), other
    assert first[0] == same[0], "the same seed gave other figures"
    assert first[0] != other[0], "another seed gave the same figures"
