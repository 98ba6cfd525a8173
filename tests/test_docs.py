"""What the pages show is run, and what they say of the program is compared with it.

Each page: its Python blocks in order, in one namespace and an empty folder; blocks with a file's name are written there first. Commands must be understood
by the command line's own parser; cheap ones are run.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import shlex
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from circuits import assemble

from neurosim import Fragment, cli, registry
from neurosim.errors import NeurosimError

ROOT = Path(__file__).parent.parent
PAGES = ["README.md", "CONTRIBUTING.md", *sorted(str(f.relative_to(ROOT)) for f in ROOT.glob("docs/**/*.md"))]
REPORTS = sorted(
    str(f.relative_to(ROOT)) for f in (*ROOT.glob("experiments/*/README.md"), ROOT / "benchmarks/README.md")
)
NOTEBOOKS = sorted(ROOT.glob("docs/notebooks/*.ipynb"))
#: A folder of notebooks that lost some is a mistake, and one that is empty must not pass.
LEAST_NOTEBOOKS = 4
FENCE = re.compile(r"^```(?P<language>\w+)?(?P<info>[^\n`]*)\n(?P<body>.*?)^```$", re.DOTALL | re.MULTILINE)
INDENTED = re.compile(r"(?<=\n\n)(?: {4}[^\n]*\n|\n(?= {4}))+", re.MULTILINE)
#: What stands for a name of the reader's own.
PLACEHOLDERS = ("MODEL", "FILE")


@dataclass(frozen=True)
class Block:
    """A listing of a page: its language, the file that it is to be written to (or empty), its text."""

    language: str
    file: str
    body: str


@lru_cache
def blocks(page: str) -> tuple[Block, ...]:
    """The listings of a page in order; indented ones have no language."""
    text = (ROOT / page).read_text()
    found: dict[int, Block] = {}
    for match in FENCE.finditer(text):
        title = re.search(r'title="([^"]+)"', match["info"])
        named = re.match(r"# (\S+\.toml)\n", match["body"])
        file = title[1] if title else named[1] if named and match["language"] == "toml" else ""
        found[match.start()] = Block(match["language"] or "", file, match["body"])
    rest = FENCE.sub(lambda match: "\n" * len(match[0]), text)
    for match in INDENTED.finditer(rest):
        found[match.start()] = Block("", "", re.sub(r"^ {4}", "", match[0], flags=re.MULTILINE))
    return tuple(found[start] for start in sorted(found))


def commands(block: Block) -> Iterator[list[str]]:
    """The arguments of each ``neurosim ...`` of a listing, also under torchrun."""
    if block.language not in ("", "bash", "console"):
        return
    for line in re.sub(r"\\\n\s*", " ", block.body).splitlines():
        line = line.removeprefix("$ ")
        if line.startswith(("neurosim ", "torchrun ")):
            words = shlex.split(line, comments=True)
            yield words[words.index("neurosim") + 1 :]


def all_commands() -> list[Any]:
    return [
        pytest.param(page, words, id=f"{page}: {' '.join(words)}")
        for page in PAGES + REPORTS for block in blocks(page) for words in commands(block)
    ]  # fmt: skip


def is_cheap(words: list[str], own: set[str]) -> bool:
    """Whether a command is run: it only reads, or it is about a circuit that the page itself has written."""
    about_own = len(words) > 1 and words[1].partition(":")[0] in own
    return words[0] in ("list", "describe") or "--dry-run" in words or about_own


# ---------------------------------------------------------------- every page


def read_me(said: dict[str, Any], folder: Path, printed: str) -> None:
    assert "largest difference of states" in printed
    assert len(list(folder.glob("*.png"))) == 2


def first_circuit(said: dict[str, Any], folder: Path, printed: str) -> None:
    assert "largest difference of states" in printed
    assert len(list(folder.glob("*.png"))) == 1


def parts(said: dict[str, Any], folder: Path, printed: str) -> None:
    from neurosim import simulate

    result = simulate(said["circuit"], level="brian2:dense", record=["pyr.g_inh"], progress=False)
    assert len(result.spikes["som"].time) > 0 and len(result.spikes["pyr"].time) == 0
    assert result.traces["pyr.g_inh"].max() > 0


def tdca(said: dict[str, Any], folder: Path, printed: str) -> None:
    assert (folder / "credits.safetensors").is_file()
    assert len(said["scores"]["validation_accuracy"]) == 3


def evolution(said: dict[str, Any], folder: Path, printed: str) -> None:
    assert np.allclose(said["found"].theta, 1, atol=0.1)  # the maximum of the page's fitness


def adding_a_model(said: dict[str, Any], folder: Path, printed: str) -> None:
    report = json.loads((folder / "runs/compare/report.json").read_text())
    cosines = [value for level in report["update_cosine"].values() for value in level.values()]
    assert len(cosines) == 4 and min(cosines) > 1 - 1e-6  # the rule is the gradient
    assert json.loads((folder / "runs/softmax/result.json").read_text())["test_accuracy"] > 0.8


#: What must be true of a page after it was run, beside that nothing was raised.
AFTER: dict[str, Callable[[dict[str, Any], Path, str], None]] = {
    "README.md": read_me,
    "docs/first_circuit.md": first_circuit,
    "docs/parts.md": parts,
    "docs/evolution.md": evolution,
    "docs/adding_a_model.md": adding_a_model,
    "docs/models/tdca.md": tdca,
}


@pytest.mark.parametrize("page", PAGES)
def test_a_page_runs_as_written(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    said: dict[str, Any] = {"__name__": "page"}
    for block in blocks(page):
        if block.file:
            Path(block.file).write_text(block.body)
        if block.language == "python":
            exec(compile(block.body, page, "exec", dont_inherit=True), said)
        elif block.file.endswith(".toml"):
            assert cli.main(["sweep", block.file, "--dry-run"]) == 0, capsys.readouterr().err
        own = {other.file for other in blocks(page) if other.file.endswith(".py")}
        for words in commands(block):
            if is_cheap(words, own):
                assert cli.main(words) == 0, capsys.readouterr().err
    if page in AFTER:
        AFTER[page](said, tmp_path, capsys.readouterr().out)


@pytest.mark.parametrize(("page", "words"), all_commands())
def test_a_command_is_understood(page, words):
    from neurosim.training import TrainConfig
    from neurosim.training.config import read_toml
    from neurosim.training.evolution.config import EvolveConfig

    arguments = cli.parser().parse_args(words)  # exits where it does not understand
    model = getattr(arguments, "model", None)
    own = {block.file for block in blocks(page)}
    for file in [x for x in words if x.endswith(".toml")]:
        assert file in own or (ROOT / file).is_file(), f"{page} names {file}"
        if file not in own:
            read_toml(ROOT / file, ("seeds", "run", "grid"))
    if model is None or model in PLACEHOLDERS or model.endswith(".toml") or ".py" in model:
        return
    keys = {"train": TrainConfig, "evolve": EvolveConfig}
    known = {*registry.model(model).parameters}
    known |= set(getattr(keys.get(arguments.command), "__dataclass_fields__", ()))
    for key in registry.parse_settings(arguments.settings):
        assert key.removeprefix("settings.").partition(".")[0] in known, f"{page}: --set {key}"


@pytest.mark.parametrize("page", PAGES + REPORTS)
def test_scripts_that_a_page_names_are_there(page):
    named = re.findall(r"python ((?:experiments|benchmarks)/[\w/]+\.py)", (ROOT / page).read_text())
    assert all((ROOT / script).is_file() for script in named), named


@pytest.mark.parametrize("page", PAGES + REPORTS)
def test_no_text_vanishes_as_a_tag(page):
    """``<z z^T>`` in prose is no formula but an unknown tag, which browsers leave out."""
    text = re.sub(r"(`+)[^`].*?\1", "", INDENTED.sub("", FENCE.sub("", (ROOT / page).read_text())), flags=re.DOTALL)
    tags = re.findall(r"</?([A-Za-z][^\s>]*)", text)
    assert set(tags) <= {"a", "br", "details", "div", "figure", "figcaption", "img", "p", "sub", "summary", "sup"}


# ---------------------------------------------------------------- what pages say of the program


def test_the_report_on_the_page_is_what_the_command_prints(tmp_path, monkeypatch, capsys):
    """The same lines; the same numbers, where they are not round-off."""
    monkeypatch.chdir(tmp_path)
    page = blocks("docs/comparison.md")
    (words,) = (w for block in page[:1] for w in commands(block))
    assert cli.main(words) == 0
    printed = Path("runs/compare/report.md").read_text().splitlines()
    shown = next(block.body for block in page if block.language == "text").splitlines()
    number = re.compile(r"\d+(?:\.\d+)?(?:e[+-]\d+)?")
    for ours, theirs in zip(shown, printed, strict=False):
        assert number.sub("#", ours) == number.sub("#", theirs)
        for a, b in zip(map(float, number.findall(ours)), map(float, number.findall(theirs)), strict=True):
            assert a == pytest.approx(b, rel=0.02) or max(a, b) < 1e-9


def test_costs_of_the_levels_are_those_of_the_benchmark():
    rows = json.loads((ROOT / "benchmarks/results/trajectory_levels.json").read_text())["rows"]
    measured = {
        (r["case"], r["level"], r["batch"]): r["level_us"] for r in rows if r["phase"] in ("whole trial", "plastic")
    }
    page = (ROOT / "docs/choosing.md").read_text()
    found = 0
    for case, at in (("ghost 784-100-10", "**ghost circuit"), ("1000x1000", "**one plastic")):
        for line in page[page.index(at) :].splitlines()[1:5]:
            name, *numbers = (cell.strip() for cell in line.strip("|").split("|"))
            level, kind = re.match(r"`(\S+)` (\w+)", name).groups()  # type: ignore[union-attr]
            one, many = (measured[case, f"{level}:{kind}", batch] for batch in (1, 128))
            assert numbers == [f"{one:.1f}", f"{many:.1f}", f"{many / 128:.2f}"], line
            found += 1
    assert found == 8
    rows = json.loads((ROOT / "benchmarks/results/training_throughput.json").read_text())["rows"]
    for row in rows:
        if "alignment" not in row["method"]:
            assert f"| {row['samples_per_second']:.0f} | {row['ratio']:.2f} |" in page, row["method"]


@pytest.mark.parametrize("name", registry.names())
def test_a_model_has_a_page_that_explains_its_measures(name):
    page = (ROOT / f"docs/models/{name}.md").read_text()
    model = registry.model(name)
    preset = {k: v for k, v in model.preset({}, "digits").items() if k in model.parameters}
    for measure in {**model.circuit().measures, **model.circuit(preset).measures}:
        assert f"| `{re.sub(r'_[1-9]$', '_', measure)}" in page, measure
    for heading in ("## Run it", "## What the ", "What is read", "## Results", "## Departures"):
        assert heading in page, heading


def test_columns_of_metrics_are_explained():
    from neurosim.training import Trainer, resolve

    page = (ROOT / "docs/models/index.md").read_text()
    for more in ({}, {"hold_out": False}):
        config = resolve("corinfomax", {"sizes": (64, 8, 10)}, epochs=1, limit=40, batch_size=20, **more)
        trainer = Trainer(config, progress=False)
        trainer.fit()
        columns = set(trainer.metrics[0]) - set(trainer.circuit.measures)
        assert {"epoch", "unsettled", "residual"} < columns
        for column in columns:
            assert f"`{column}`" in page, column


# ---------------------------------------------------------------- messages


@lru_cache
def texts() -> tuple[str, ...]:
    """Every text of the sources, formatted ones with a gap for each value."""
    found = []
    for root in ("neurosim", "models"):
        for file in (ROOT / root).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.append(node.value)
                elif isinstance(node, ast.JoinedStr):
                    found.append("".join(v.value if isinstance(v, ast.Constant) else "\0" for v in node.values))  # type: ignore[misc]
    return tuple(found)


def pattern(message: str) -> re.Pattern[str]:
    """A message of the page, in which ... stands for anything."""
    return re.compile(".{0,400}".join(re.escape(part.strip()) for part in message.split("...")), re.DOTALL)


def provoked() -> Iterator[str]:
    """Messages that are put together from several texts, as they are raised."""
    from neurosim import SOURCE, Cell, Circuit, Constant, Phase, Population, Projection, Protocol, simulate
    from neurosim.models import bac_firing

    def runaway(equations: str, **more: Any) -> Circuit:
        """A cell that drives itself."""
        cell = assemble("cell", equations, ports=("I", "J"), parameters={"tau": "0.1*ms"}, initial={"u": 2.0}, **more)
        wiring = [("W", "inp", "cell.I"), ("loop", "cell", "cell.J")]
        return Circuit(
            "runaway", Fragment((Population("inp", 1, SOURCE), Population("cell", 1, cell)), tuple(Projection(*names, Constant(3)) for names in wiring)),
            Protocol((Phase("free", "200*ms"),), clamps={"inp.r": "image"}),
        )  # fmt: skip

    image, one_phase = np.ones((1, 1)), Protocol((Phase("free", "10*ms"),))
    outputs = [Population("inp", 1, SOURCE), Population("out", 2, SOURCE)]
    taught = Circuit("taught", outputs, replace(one_phase, clamps={"inp.r": "image", "out.r": "target"}))
    growing = "du/dt = (u + I + J)/tau : 1\nr = u : 1\nI : 1\nJ : 1"
    cubic = "du/dt = (-u + I + J)/tau : 1\nr = u**3 : 1\nI : 1\nJ : 1"
    for attempt in (
        lambda: simulate(runaway(growing), image, level="torch:trajectory", progress=False),
        lambda: simulate(runaway(cubic), image, level="torch:steady", progress=False, solver="sweeps"),
        lambda: simulate(bac_firing.circuit(), level="torch:steady", progress=False),
        lambda: runaway(growing.replace("u + I", "v + I")),
        lambda: runaway(growing, holds=(), rate="rr"),
        lambda: Circuit("roleless", [Population("cell", 1, Cell("cell", "r = I : 1\nI : 1"))], one_phase),
        lambda: Cell("cell", "r = I : 1\nI : 1", ports=("I",)),
        lambda: simulate(runaway(cubic), image * np.nan),
        lambda: simulate(taught, image, np.array([[np.nan, 0.0]])),
        lambda: simulate(runaway(cubic), image, plasticity="onn"),
        lambda: registry.model("ghost_unit"),
    ):
        with warnings.catch_warnings(record=True) as told, pytest.raises(NeurosimError) as raised:
            warnings.simplefilter("always")
            attempt()
        yield str(raised.value)
        yield from (str(warning.message) for warning in told)


def test_messages_on_the_page_of_troubleshooting_are_those_of_the_program():
    page = [block.body for block in blocks("docs/troubleshooting.md") if block.language == "text"]
    messages = [line for body in page for line in body.splitlines()]
    assert len(messages) > 40
    raised = list(provoked())
    for message in messages:
        wanted = pattern(message)
        assert any(map(wanted.search, texts())) or any(map(wanted.search, raised)), message


# ---------------------------------------------------------------- the site


def test_links_of_the_site_lead_where_those_of_the_repository_lead():
    spec = importlib.util.spec_from_file_location("hooks", ROOT / "docs/hooks.py")
    assert spec is not None and spec.loader is not None
    hooks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hooks)

    class Page:
        class file:
            src_uri = ""

    def turned(site: str, link: str) -> str:
        Page.file.src_uri = site
        return hooks.on_page_markdown(f"[x]({link})", Page, None, None)[4:-1]

    assert turned("index.md", "docs/levels.md#the-step") == "levels.md#the-step"
    assert turned("index.md", "experiments/tdca/README.md") == "experiments/tdca.md"
    assert turned("models/tdca.md", "../../experiments/tdca") == "../experiments/tdca.md"
    assert turned("models/tdca.md", "../evolution.md") == "../evolution.md"
    assert turned("experiments/tables.md", "../../docs/models/corinfomax.md") == "../models/corinfomax.md"
    assert turned("experiments/tables.md", "results/table.md") == "tables/results/table.md"
    assert turned("benchmarks.md", "results/evolution.json") == "benchmarks/results/evolution.json"
    assert turned("first_circuit.md", "../README.md#two-commands") == "index.md#two-commands"
    assert turned("contributing.md", "docs/levels.md") == "levels.md"
    assert turned("index.md", "https://briansimulator.org") == "https://briansimulator.org"


# ---------------------------------------------------------------- notebooks


def test_the_notebooks_are_there():
    assert len(NOTEBOOKS) >= LEAST_NOTEBOOKS, [f.name for f in NOTEBOOKS]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path, tmp_path, monkeypatch):
    import nbformat
    from nbclient import NotebookClient

    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    assert any(cell.get("outputs") for cell in notebook.cells)


def test_the_page_of_what_is_stable_says_the_versions_of_files():
    page = (ROOT / "docs/stability.md").read_text()
    for row, file in (
        ("recordings (`.h5`)", "traces/layout.py"), ("weights, checkpoints", "tensors.py"), ("`to_nwb`", "export/nwb.py")
    ):  # fmt: skip
        version = re.search(r"^FORMAT = (\d+)", (ROOT / "neurosim" / file).read_text(), re.MULTILINE)
        assert version is not None
        assert re.search(rf"^\| {re.escape(row)}.*\| {version[1]}\b", page, re.MULTILINE), file
