"""Student's t, without a statistics library."""

from __future__ import annotations

from statistics import NormalDist


def student(level: float, freedom: int) -> float:
    """The quantile that holds ``level`` of the distribution between its negative and itself.

    By its expansion around the normal's: from 5 degrees of freedom on within 0.3 % up to a level of 0.975, and within
    0.6 % up to 0.99; with 2 it is 3 % short at 0.95.

    Args:
        level: between 0 and 1.
        freedom: degrees of freedom, the number of repeats less 1.

    Example:
        >>> round(student(0.95, 19), 3)
        2.093
    """
    z = NormalDist().inv_cdf(0.5 + level / 2)
    return (
        z
        + (z**3 + z) / (4 * freedom)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * freedom**3)
    )
