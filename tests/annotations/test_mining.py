"""Planning phrases out of solutions: which phrases, how they are clustered, which clusters are kept."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from torch import Tensor

from annotations.test_token_texts import DICE
from apportion.annotations import phrase_clusters
from apportion.annotations.mining import (
    Cluster,
    document_frequency,
    mine,
    most_frequent,
    solutions_of,
    write_mined,
)
from apportion.annotations.phrase_clusters import agglomerative, tfidf
from apportion.annotations.planning_grams import read_grams
from apportion.errors import InputError, MissingColumn
from apportion.rollouts import Rollouts
from reference import planning as naive

PLANS = ("let's try another way", "but the problem says that", "let me check that again")


def essays(count: int, dice: random.Random) -> list[str]:
    """Solutions that share plans and nothing else."""

    def word() -> str:
        return "".join(dice.choices("bcdfgklmnprstvz", k=7))

    return [f"{' '.join(word() for _ in range(20))}. {dice.choice(PLANS)}: {word()} {word()}" for _ in range(count)]


@given(dice=DICE)
def test_document_frequency_is_that_of_the_naive_loop(dice: random.Random) -> None:
    def ids(longest: int) -> list[int]:
        return [dice.randint(0, 2) for _ in range(dice.randint(0, longest))]

    solutions = [ids(6) for _ in range(dice.randint(0, 5))]
    clusters = [[[*ids(2), 0] for _ in range(dice.randint(0, 3))] for _ in range(dice.randint(0, 4))]
    assert document_frequency(solutions, clusters) == naive.document_frequency(solutions, clusters)


@given(dice=DICE)
def test_the_clusters_kept_are_those_of_the_naive_loop(dice: random.Random) -> None:
    counts = [dice.randint(0, 3) for _ in range(dice.randint(1, 12))]
    fraction = dice.choice([0.01, 0.1, 0.2, 1 / 3, 0.5, 1.0])
    assert most_frequent(counts, fraction) == naive.selected(counts, fraction)


def test_shares_that_come_to_a_whole_number_are_that_number() -> None:
    assert most_frequent([0, 0, 0, 0, 0], 0.2) == [0]
    assert most_frequent([1] * 100, 0.07) == list(range(7))  # 0.07 * 100 is 7.000000000000001
    assert most_frequent([], 0.2) == []


def test_what_solutions_share_is_found() -> None:
    found = mine(essays(60, random.Random(0)), top_fraction=1.0)
    grams = {gram for cluster in found for gram in cluster.grams}
    assert {"let's try another", "let's try another way", "but the problem says that", "check that again"} <= grams
    assert all(any(gram in plan for plan in PLANS) for gram in grams)
    assert all(3 <= len(gram.split()) <= 5 for gram in grams)
    assert [c.solutions for c in found] == sorted((c.solutions for c in found), reverse=True)


def test_phrases_end_at_marks_and_lines_and_equal_solutions_count_once() -> None:
    text = "one two three, four five\nsix seven eight"
    everything = {"sizes": (3, 3), "top_fraction": 1.0, "min_solutions": 1}
    assert mine([text, text], **everything) == [Cluster(1, ("one two three",)), Cluster(1, ("six seven eight",))]
    shouted = mine([text.upper(), "One  two\tthree"], **{**everything, "min_solutions": 2})
    assert shouted == [Cluster(2, ("one two three",))]


def test_wordings_of_one_plan_are_one_cluster_that_all_their_solutions_share() -> None:
    wordings = ["we could try another approach", "we can try another approach", "we should try another approach"]
    texts = [f"{w}. {i}{i} uvw{i} xyz{i}" for i, w in enumerate(wordings * 2)]
    found = mine(texts, sizes=(5, 5), top_fraction=1.0, clustering="agglomerative(similarity=0.3)")
    assert found == [Cluster(6, tuple(sorted(wordings)))]
    apart = mine(texts, sizes=(5, 5), top_fraction=1.0, clustering="agglomerative(similarity=1.0)")
    assert apart == [Cluster(2, (wording,)) for wording in sorted(wordings)]


def test_the_top_fraction_is_of_clusters() -> None:
    texts = ["a b c. x y z", "a b c. q r s", "a b c. x y z. n"]
    found = mine(texts, sizes=(3, 3), min_solutions=1, top_fraction=0.5, clustering="agglomerative(similarity=1.0)")
    assert found == [Cluster(3, ("a b c",)), Cluster(2, ("x y z",))]


def by_first_letter() -> Any:
    """An embedder and a clustering of somebody else's."""

    def embed(texts: Sequence[str]) -> Tensor:
        return torch.tensor([[float(ord(text[0]))] for text in texts])

    return embed


def rounded() -> Any:
    def cluster(vectors: Tensor) -> list[int]:
        return [int(v) for v in vectors[:, 0].tolist()]

    return cluster


ASKED: list[list[str]] = []


def in_order() -> Any:
    """An embedder that remembers what it was asked."""

    def embed(texts: Sequence[str]) -> Tensor:
        ASKED.append(list(texts))
        return torch.eye(len(texts))

    return embed


def test_the_most_frequent_phrases_come_first() -> None:
    ASKED.clear()
    mine(["z b", "z", "c z b"], embedder="annotations.test_mining:in_order", sizes=(1, 1), min_solutions=1)
    assert ASKED == [["z", "b", "c"]]


def one_too_few() -> Any:
    return lambda vectors: [0] * (len(vectors) - 1)


def test_embedders_and_clusterings_of_others() -> None:
    here = "annotations.test_mining"
    settings: dict[str, Any] = {"sizes": (1, 1), "min_solutions": 1, "top_fraction": 1.0}
    found = mine(["ab b", "ac"], embedder=f"{here}:by_first_letter", clustering=f"{here}:rounded", **settings)
    assert found == [Cluster(2, ("ab", "ac")), Cluster(1, ("b",))]
    with pytest.raises(InputError, match="gave 2 clusters for 3 phrases, expected one each"):
        mine(["ab b", "ac"], clustering=f"{here}:one_too_few", **settings)


def test_the_embedder_sees_likeness_and_its_result_does_not_change() -> None:
    texts = ["let's try another way", "let us try another way", "the sum of the digits"]
    for dimensions in (2, 128):
        vectors = tfidf(dimensions=dimensions)(texts)
        torch.testing.assert_close(vectors.norm(dim=1), torch.ones(3, dtype=torch.float64))
        alike = vectors @ vectors.T
        assert alike[0, 1] > 0.5 > 0.3 > alike[0, 2]
        assert torch.equal(vectors, tfidf(dimensions=dimensions)(texts))


def test_clusters_are_of_directions() -> None:
    vectors = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.96, 0.28], [0.28, 0.96], [-1.0, 0.0]])
    for scaled in (vectors, vectors * 5):
        one, other, like_one, like_other, alone = agglomerative(0.9)(scaled)
        assert one == like_one != other == like_other
        assert alone not in (one, other)
    assert len(set(agglomerative(1.0)(vectors))) == 5
    assert agglomerative(1.0)(vectors[[0, 1, 0, 1]])[:2] == agglomerative(1.0)(vectors[[0, 1, 0, 1]])[2:]
    assert agglomerative()(vectors[:1]) == [0]


def test_too_many_phrases_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(phrase_clusters, "MOST", 2)
    with pytest.raises(InputError, match="got 3 phrases, expected at most 2 to compare with one another: raise min"):
        agglomerative()(torch.eye(3))


def test_solutions_are_the_texts_of_what_was_rewarded() -> None:
    rollouts = Rollouts.from_lists(
        [[1], [2], [3], [4], [5]], groups=[0] * 5, rewards=[1.0, 0.0, None, 1.0], episodes=[0, 1, 2, 3, 3]
    ).with_column("response:text", ["a", "b", "c", "d", "e"])
    assert solutions_of(rollouts) == ["a", "d\ne"]
    assert solutions_of(rollouts, threshold=1.0) == []
    some = rollouts.with_reward("style", torch.ones(4), present=torch.tensor([True, False, True, True]))
    assert solutions_of(some, "style") == ["a", "c", "d\ne"]
    with pytest.raises(MissingColumn, match=r"mining needs the column 'response:text', .* sampling records it"):
        solutions_of(Rollouts.from_lists([[1]], groups=[0], rewards=[1.0]))
    with pytest.raises(MissingColumn, match=r"mining needs the column 'episode:reward/mine'"):
        solutions_of(rollouts, "mine")


def test_what_is_written_is_what_the_annotator_reads(tmp_path: Path) -> None:
    path = tmp_path / "grams.json"
    clusters = [Cluster(3, ("naïve try", "x y")), Cluster(2, ("x y",))]
    write_mined(path, clusters, top_fraction=0.2)
    assert read_grams(str(path)) == ("naïve try", "x y")
    content = json.loads(path.read_text())
    assert content["clusters"][0] == {"solutions": 3, "grams": ["naïve try", "x y"]}
    assert content["settings"] == {"top_fraction": 0.2}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"sizes": (0, 2)}, r"sizes is \(0, 2\), expected the fewest and the most words"),
        ({"sizes": (4, 3)}, r"sizes is \(4, 3\), expected"),
        ({"min_solutions": 0}, "min_solutions is 0, expected 1 or more"),
        ({"top_fraction": 0.0}, "top_fraction is 0.0, expected more than 0 and at most 1"),
        ({"top_fraction": 1.5}, "top_fraction is 1.5, expected"),
        ({"embedder": "words"}, "unknown embedder 'words'"),
        ({"clustering": "agglomerative(similarity=2)"}, "similarity is 2, expected 0 to 1"),
        ({"embedder": "tfidf(shortest=3, longest=2)"}, "shortest=3, longest=2, dimensions=128: expected"),
        ({}, "no phrase of 3 to 5 words occurs in 2 of the 2 distinct solutions, expected one: give more"),
    ],
)
def test_settings_that_cannot_be_used(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        mine(["a b c d", "e f g h"], **settings)


def test_counts_below_nought() -> None:
    with pytest.raises(InputError, match="a count is -1, expected 0 or more"):
        most_frequent([-1, 2], 0.5)
