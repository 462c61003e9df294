"""How good verdicts are: a judge's yes and no against annotations of people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from apportion.errors import InputError


@dataclass(frozen=True)
class VerdictQuality:
    """Counts of verdicts, and what follows from them.

    Attributes:
        true_positives: said and so.
        false_positives: said but not so.
        false_negatives: so but not said.
        true_negatives: neither.
        invalid: among these, predictions that are no verdict, taken as negative.
    """

    true_positives: int
    false_positives: int
    false_negatives: int
    true_negatives: int
    invalid: int

    @property
    def precision(self) -> float:
        """Of what was said, the share that is so; 0 if nothing was said."""
        return _share(self.true_positives, self.true_positives + self.false_positives)

    @property
    def recall(self) -> float:
        """Of what is so, the share that was said; 0 if nothing is so."""
        return _share(self.true_positives, self.true_positives + self.false_negatives)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall; 0 if both are."""
        return _share(2 * self.true_positives, 2 * self.true_positives + self.false_positives + self.false_negatives)

    @property
    def accuracy(self) -> float:
        """Share of verdicts that agree with the annotation."""
        right = self.true_positives + self.true_negatives
        return _share(right, right + self.false_positives + self.false_negatives)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        shares = {name: getattr(self, name) for name in ("precision", "recall", "f1", "accuracy")}
        return {**shares, "invalid": self.invalid}


def verdict_quality(predictions: Sequence[bool | None], annotations: Sequence[bool]) -> VerdictQuality:
    """Compare verdicts with annotations.

    Args:
        predictions: True, False, or None where a reply held no verdict, which counts as False and as ``invalid``.
        annotations: what people said, one a prediction.

    Raises:
        InputError: none at all, other numbers of them, or entries that are not True, False or (of predictions) None.

    Source: arXiv 2409.12798.

    Example:
        >>> quality = verdict_quality([True, True, None, False], [True, False, True, False])
        >>> quality.precision, quality.recall, quality.accuracy, quality.invalid
        (0.5, 0.5, 0.5, 1)
    """
    if len(predictions) != len(annotations) or not annotations:
        raise InputError(
            f"got {len(predictions)} predictions for {len(annotations)} annotations, expected as many, at least one."
        )
    for what, given, known in (("prediction", predictions, (True, False, None)), ("annotation", annotations, (0, 1))):
        others = [value for value in given if value not in known]
        if others:
            raise InputError(
                f"{others[0]!r} is no {what}, expected True or False, or None for a reply without verdict."
            )
    pairs = [(bool(said), bool(so)) for said, so in zip(predictions, annotations, strict=True)]
    return VerdictQuality(
        pairs.count((True, True)),
        pairs.count((True, False)),
        pairs.count((False, True)),
        pairs.count((False, False)),
        sum(said is None for said in predictions),
    )


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
