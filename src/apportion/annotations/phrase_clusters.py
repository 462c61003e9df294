"""Embeddings of phrases without a language model, and clusters of embeddings, through scikit-learn.

Suffix legend: g phrases, D entries of an embedding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from apportion.errors import InputError

Embedder = Callable[[Sequence[str]], Tensor]
"""Texts ``[g]`` to vectors ``[g, D]``."""
Clustering = Callable[[Tensor], Sequence[int]]
"""Vectors ``[g, D]`` to the number of everyone's cluster ``[g]``."""

MOST = 20_000
"""Phrases that can be compared with one another in memory."""


def tfidf(shortest: int = 2, longest: int = 4, dimensions: int = 128) -> Embedder:
    """Runs of characters inside words, weighed by rarity, projected on the directions in which phrases differ most.

    Args:
        shortest: characters of the shortest run.
        longest: of the longest.
        dimensions: D, where there are that many runs.
    """
    if not 1 <= shortest <= longest or dimensions < 1:
        raise InputError(
            f"shortest={shortest}, longest={longest}, dimensions={dimensions}: expected 1 <= shortest <= longest and "
            "at least one dimension."
        )

    def embed(texts: Sequence[str]) -> Tensor:
        _require()
        from sklearn.decomposition import TruncatedSVD
        from sklearn.feature_extraction.text import TfidfVectorizer

        runs = TfidfVectorizer(analyzer="char_wb", ngram_range=(shortest, longest), sublinear_tf=True)
        weights = runs.fit_transform(texts)
        if weights.shape[1] > dimensions:
            weights = TruncatedSVD(dimensions, random_state=0).fit_transform(weights)
        else:
            weights = weights.toarray()
        return torch.nn.functional.normalize(torch.as_tensor(weights, dtype=torch.float64), dim=1)

    return embed


def agglomerative(similarity: float = 0.6) -> Clustering:
    """Clusters whose members have at least this cosine similarity on average, joined from single phrases up.

    Args:
        similarity: from 0 to 1.
    """
    if not 0 <= similarity <= 1:
        raise InputError(f"similarity is {similarity}, expected 0 to 1.")

    def cluster(vectors: Tensor) -> list[int]:
        _require()
        from sklearn.cluster import AgglomerativeClustering

        if len(vectors) > MOST:
            raise InputError(
                f"got {len(vectors)} phrases, expected at most {MOST} to compare with one another: raise min_solutions."
            )
        if len(vectors) == 1:
            return [0]
        # A hair's breadth, so that equal vectors are together at similarity 1.
        joined = AgglomerativeClustering(
            n_clusters=None, distance_threshold=1 - similarity + 1e-9, metric="cosine", linkage="average"
        )
        return [int(label) for label in joined.fit_predict(vectors.numpy())]

    return cluster


def _require() -> None:
    try:
        import sklearn  # noqa: F401
    except ImportError:
        raise InputError(
            'mining phrases needs scikit-learn, which is not installed: run pip install "apportion[grams]".'
        ) from None


EMBEDDERS: dict[str, Callable[..., Embedder]] = {"tfidf": tfidf}
CLUSTERINGS: dict[str, Callable[..., Clustering]] = {"agglomerative": agglomerative}
