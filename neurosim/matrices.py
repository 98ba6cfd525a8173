"""Measures of matrices."""

from __future__ import annotations

import numpy as np


def angle(a: np.ndarray, b: np.ndarray) -> float:
    """The angle in degrees between two matrices of one shape; NaN where one is zero.

    ``arccos(<a, b>/(|a| |b|))`` with the Frobenius norm.
    """
    a, b = a.astype(np.float64).ravel(), b.astype(np.float64).ravel()
    norm = np.linalg.norm(a) * np.linalg.norm(b)
    if not norm > 0:
        return float("nan")
    return float(np.degrees(np.arccos(np.clip(a @ b / norm, -1.0, 1.0))))


def eigenvalues(a: np.ndarray) -> tuple[float, float]:
    """Smallest and largest eigenvalue of a square matrix's symmetric part; NaN if not finite."""
    a = a.astype(np.float64)
    if not np.isfinite(a).all():
        return float("nan"), float("nan")
    values = np.linalg.eigvalsh(0.5 * (a + a.T))
    return float(values[0]), float(values[-1])
