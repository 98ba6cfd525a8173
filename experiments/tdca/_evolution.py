"""Evolutions that are tested at intervals, for search.py and control.py."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from neurosim.training.evolution import PEPG, Evolution, evolve
from neurosim.training.evolution.loop import CONFIG
from neurosim.training.run import METRICS


def evolved(
    objective: Any, theta: np.ndarray, generations: int, every: int, folder: Path, test: Callable[[np.ndarray], dict[str, Any]], config: dict[str, Any],
    **strategy: Any,
) -> tuple[np.ndarray, list[dict[str, Any]], list[dict[str, Any]]]:  # fmt: skip
    """PEPG from `theta`, tested before the first and after every `every` generations; goes on where it was stopped.

    Returns
    -------
    Theta of the last generation, its history (see `Evolution`), and rows ``{"generation": ..., **test(theta)}``.
    """
    tests, points = folder / "tests.jsonl", sorted({*range(0, generations, every), generations})
    rows = [json.loads(line) for line in tests.read_text().splitlines()] if tests.is_file() else []

    def go_on(until: int) -> Evolution:
        resume = (folder / CONFIG).is_file()
        return evolve(objective, PEPG(theta, **strategy), until, folder, resume=resume, config=config)

    for point in points:
        kept = len((folder / METRICS).read_text().splitlines()) if (folder / METRICS).is_file() else 0
        if any(row["generation"] == point for row in rows) or kept > point:
            continue
        now = go_on(point).theta if point else theta
        rows.append({"generation": point, **test(now)})
        folder.mkdir(parents=True, exist_ok=True)
        tests.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = go_on(generations)  # refuses a folder of other settings
    return found.theta, found.history, [row for row in rows if row["generation"] in points]
