"""Every Python block of the README and of the pages that are meant to be typed in runs as written."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def run_blocks(page: str) -> dict[str, object]:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    assert blocks
    namespace: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, page, "exec"), namespace)
    return namespace


@pytest.mark.parametrize(("page", "pictures"), [("README.md", 2), ("docs/first_circuit.md", 1)])
def test_blocks_run_in_order(page, pictures, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run_blocks(page)
    assert "largest difference of states" in capsys.readouterr().out
    assert len(list(tmp_path.glob("*.png"))) == pictures


def test_the_circuit_on_the_page_of_parts_is_inhibited():
    from neurosim import simulate

    result = simulate(
        run_blocks("docs/parts.md")["circuit"], level="brian2:dense", record=["pyr.g_inh"], progress=False
    )
    assert len(result.spikes["som"].time) > 0 and len(result.spikes["pyr"].time) == 0
    assert result.traces["pyr.g_inh"].max() > 0


def test_the_blocks_on_evolution_leave_credits_that_teach(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = run_blocks("docs/models/tdca.md")
    assert (tmp_path / "credits.safetensors").is_file()
    assert len(said["scores"]["validation_accuracy"]) == 3  # type: ignore[index]
