"""Imports: no module leads back to itself, and each can be the first that a process imports."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
#: Packages and their folders.
PACKAGES = {"neurosim": ROOT / "neurosim", "neurosim.models": ROOT / "models"}

#: What modules import of others takes seconds: it is loaded once, before the processes are forked.
LIBRARIES = ["brian2", "h5py", "matplotlib.figure", "scipy.stats", "torch"]
#: Imports libraries; then each module in a process of its own, as the first one. Whatever module is
#: imported, Python runs the root of its package first: so the process that is forked has run the
#: root, and a module that the root loads is imported.
IMPORT_EACH = """
import gc, importlib, os, sys, traceback

libraries, names = (text.split() for text in sys.argv[1:])
for name in libraries:
    importlib.import_module(name)
root = importlib.import_module(names[0])

def imports(name):
    importlib.import_module(name)
    # A module with the name of a public function would take its place.
    public = [n for n in root.__all__ if not isinstance(vars(root).get(n), type(os))]
    assert public == list(root.__all__), f"modules: {set(root.__all__) - set(public)}"

imports(names[0])
gc.disable()  # a collection would copy the memory that a fork shares
for name in names:
    if name in sys.modules:
        continue
    child = os.fork()
    if not child:
        try:
            imports(name)
        except BaseException:
            print(f"== {name}\\n{traceback.format_exc()}", file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        print(name)
"""


def modules(packages: Mapping[str, Path]) -> dict[str, Path]:
    """``{name: file}`` of the modules of packages."""
    found = {}
    for package, folder in packages.items():
        for path in sorted(folder.rglob("*.py")):
            parts = [package, *path.relative_to(folder).with_suffix("").parts]
            found[".".join(parts).removesuffix(".__init__")] = path
    return found


def statements(tree: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    """Import statements, those in functions too; those for type checkers alone are left out."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            for other in node.orelse:
                yield from statements(ast.Module([other], []))
        else:
            yield from statements(node)


def above(name: str) -> list[str]:
    """``a`` and ``a.b`` of ``a.b.c``."""
    parts = name.split(".")
    return [".".join(parts[:k]) for k in range(1, len(parts))]


def imported(name: str, path: Path, known: Mapping[str, Path]) -> set[str]:
    """The known modules that a module imports; and the packages that they are in, which run first.

    The packages that the module itself is in have begun already.
    """
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    found = set()
    for node in statements(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
            continue
        base = node.module or ""
        if node.level:
            parents = package.split(".")
            base = ".".join([*parents[: len(parents) - node.level + 1], *([base] if base else [])])
        for alias in node.names:
            inner = f"{base}.{alias.name}"
            found.add(inner if inner in known else base)
    found |= {p for other in found for p in above(other) if p not in above(name)}
    return (found & known.keys()) - {name}


def circles(packages: Mapping[str, Path]) -> list[list[str]]:
    """Groups of modules of which each imports its way to each other one (R. Tarjan, 1972)."""
    known = modules(packages)
    graph = {name: sorted(imported(name, path, known)) for name, path in known.items()}
    number: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    found = []

    def visit(name: str) -> None:
        number[name] = lowest[name] = len(number)
        stack.append(name)
        for other in graph[name]:
            if other not in number:
                visit(other)
                lowest[name] = min(lowest[name], lowest[other])
            elif other in stack:
                lowest[name] = min(lowest[name], number[other])
        if lowest[name] == number[name]:
            at = stack.index(name)
            group = sorted(stack[at:])
            del stack[at:]
            if len(group) > 1:
                found.append(group)

    for name in graph:
        if name not in number:
            visit(name)
    return sorted(found)


def test_no_module_leads_back_to_itself():
    assert len(modules(PACKAGES)) > 100
    assert circles(PACKAGES) == []


def planted(folder: Path, files: Mapping[str, str]) -> dict[str, Path]:
    for name, text in files.items():
        path = folder / "plant" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        (path.parent / "__init__.py").touch()
        path.write_text(text)
    return {"plant": folder / "plant"}


def test_a_circle_is_found_wherever_its_imports_stand(tmp_path):
    lazy = "def f():\n    try:\n        from plant import b\n    finally:\n        pass\n"
    files = {
        "a.py": lazy,
        "b.py": "from .sub import c",
        "sub/c.py": "import os, plant.a as found",
        "outside.py": "from plant.a import f\nfrom plant.sub.c import found",
    }
    assert circles(planted(tmp_path, files)) == [["plant.a", "plant.b", "plant.sub.c"]]


def test_a_circle_through_a_package_is_found(tmp_path):
    """`low` asks for a module beside `top`, and runs their package, which imports `top`."""
    files = {
        "low.py": "def f():\n    from plant.high.base import ONE",
        "high/base.py": "ONE = 1",
        "high/top.py": "from plant import low\nfrom plant.high.base import ONE",
        "high/__init__.py": "from plant.high.top import ONE",
    }
    assert circles(planted(tmp_path, files)) == [["plant.high", "plant.high.top", "plant.low"]]


def test_imports_for_type_checkers_make_no_circle(tmp_path):
    condition = "import typing\nfrom typing import TYPE_CHECKING\nif {}:\n    from plant import b\n"
    files = {
        "a.py": condition.format("TYPE_CHECKING"),
        "a2.py": condition.format("typing.TYPE_CHECKING"),
        "b.py": "from plant import a, a2",
    }
    assert circles(planted(tmp_path, files)) == []
    files["a.py"] += "else:\n    from plant import b\n"
    assert circles(planted(tmp_path, files)) == [["plant.a", "plant.b"]]


def import_each(names: list[str], libraries: list[str], folder: Path) -> tuple[list[str], str]:
    """The modules that cannot be imported first, and their errors; `names` begins with the root."""
    command = [sys.executable, "-c", IMPORT_EACH, " ".join(libraries), " ".join(names)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout.split(), done.stderr


def test_each_module_can_be_imported_first(tmp_path):
    failed, errors = import_each(list(modules(PACKAGES)), LIBRARIES, tmp_path)
    assert not failed, errors


def test_a_module_that_cannot_be_imported_first_is_named(tmp_path):
    """`b` works after `a` alone; `other` takes the place of a public function."""
    files = {
        "__init__.py": "from plant.fine import fine\n__all__ = ['fine', 'other']\nother = len",
        "fine.py": "def fine(): ...",
        "a.py": "import plant\nplant.set = 1\nfrom plant import b",
        "b.py": "import plant\nplant.set",
        "other.py": "",
    }
    known = list(modules(planted(tmp_path, files)))
    assert known == ["plant", *(f"plant.{name}" for name in ("a", "b", "fine", "other"))]
    failed, errors = import_each(known, [], tmp_path)
    assert failed == ["plant.b", "plant.other"]
    assert "has no attribute 'set'" in errors and "modules: {'other'}" in errors
