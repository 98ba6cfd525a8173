"""The report of a comparison, and its files."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from neurosim.compare.markdown import as_markdown
from neurosim.files import user_path, write_whole


@dataclass
class Comparison:
    """A comparison of levels.

    `report` is what ``report.json`` holds (times in seconds); `traces` and `ends` are what the
    figure shows.
    """

    report: dict[str, Any]
    traces: dict[str, Any] = field(default_factory=dict)
    ends: dict[str, Any] = field(default_factory=dict)

    def markdown(self) -> str:
        """The report as tables a person reads."""
        return as_markdown(self.report)

    def _repr_markdown_(self) -> str:
        """What a notebook shows."""
        return self.markdown()

    def save(self, folder: str | Path) -> list[Path]:
        """Write ``report.md``, ``report.json`` and ``traces.png`` into a folder.

        The folder is made if it is missing.
        """
        from neurosim.plot import save_comparison, save_traces

        folder = user_path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        paths = [folder / "report.md", folder / "report.json"]
        write_whole(paths[0], self.markdown().encode())
        write_whole(paths[1], (json.dumps(self.report, indent=2) + "\n").encode())
        if self.traces:
            paths.append(folder / "traces.png")
            if len(self.traces) + len(self.ends) > 1:
                save_comparison(self.traces, paths[-1], ends=self.ends)
            else:
                save_traces(next(iter(self.traces.values())), paths[-1])
        return paths
