"""How well two weight changes point the same way, and how alike two layers represent the same samples."""

from __future__ import annotations

import numpy as np

from neurosim.errors import NeurosimError


def cosine(a: np.ndarray, b: np.ndarray) -> float | None:
    """Cosine of the angle between two arrays, None when one of them is 0."""
    norm = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float((a * b).sum() / norm) if norm > 0 else None


def cka(x: np.ndarray, y: np.ndarray) -> float | None:
    """Linear centred kernel alignment of two activities, ``|X^T Y|^2/(|X^T X| |Y^T Y|)`` with the Frobenius norm, columns centred.

    1 where one is the other up to rotation, reflection, scale and shift; 0 where no column of one correlates with one of the other. A small
    number of samples biases it upwards. Computed in float64.

    Parameters
    ----------
    x, y
        Activities (samples, cells), the same samples in the same order; the numbers of cells may differ.

    Returns
    -------
    float or None
        Between 0 and 1; None where the activity of one is the same for all samples.

    Raises
    ------
    NeurosimError
        Different numbers of samples, or arrays that are no matrices.

    References
    ----------
    S. Kornblith, M. Norouzi, H. Lee, G. Hinton, "Similarity of Neural Network Representations Revisited", ICML 2019.
    """
    if x.ndim != 2 or y.ndim != 2 or len(x) != len(y):
        raise NeurosimError(
            f"Activities of the shapes {x.shape} and {y.shape}; wanted (samples, cells) with the same samples in both. Flatten maps with "
            "reshape(len(x), -1)."
        )
    x, y = (np.asarray(a, np.float64) - np.mean(a, axis=0, dtype=np.float64) for a in (x, y))
    norm = np.sqrt(_overlap(x, x) * _overlap(y, y))
    return float(_overlap(x, y) / norm) if norm > 0 else None


def _overlap(x: np.ndarray, y: np.ndarray) -> float:
    """``|X^T Y|^2 = <X X^T, Y Y^T>``, by the smaller matrices."""
    if len(x) < max(x.shape[1], y.shape[1]):
        return float(((x @ x.T) * (y @ y.T)).sum())
    return float(((x.T @ y) ** 2).sum())
