"""Confidence intervals."""

import math
from statistics import NormalDist


def wilson(hits: float, seen: float, confidence: float) -> tuple[float, float]:
    """(low, high) for the share of hits (Wilson 1927), within 0 to 1; (0, 1) if seen is 0."""
    if not seen:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share = hits / seen
    middle = (share + z * z / (2 * seen)) / (1 + z * z / seen)
    half = z / (1 + z * z / seen) * math.sqrt(share * (1 - share) / seen + z * z / (4 * seen**2))
    low = 0.0 if hits == 0 else middle - half  # 0 exactly, without rounding
    return low, 1.0 if hits == seen else middle + half
