"""Measures of weight matrices."""

from __future__ import annotations

import numpy as np


def angle(a: np.ndarray, b: np.ndarray) -> float:
    """The angle in degrees between two matrices of one shape, ``arccos(<a, b>/(|a| |b|))`` with the Frobenius norm; NaN for a zero one."""
    a, b = a.astype(np.float64).ravel(), b.astype(np.float64).ravel()
    norm = np.linalg.norm(a) * np.linalg.norm(b)
    return float(np.degrees(np.arccos(np.clip(a @ b / norm, -1.0, 1.0)))) if norm > 0 else float("nan")


def eigenvalues(a: np.ndarray) -> tuple[float, float]:
    """Smallest and largest eigenvalue of the symmetric part of a square matrix; NaN where it is not finite."""
    a = a.astype(np.float64)
    if not np.isfinite(a).all():
        return float("nan"), float("nan")
    values = np.linalg.eigvalsh(0.5 * (a + a.T))
    return float(values[0]), float(values[-1])
