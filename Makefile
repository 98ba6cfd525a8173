# `make` lists the targets. Each one does the set-up it needs; the first run downloads PyTorch and takes minutes.

PYTHON ?= python3
PYTEST_ARGS ?= -q -n auto --maxprocesses 4 --dist worksteal

BIN := .venv/bin
STAMP := .venv/.installed
LEVELS := brian2:equations brian2:dense torch:trajectory torch:steady

.DEFAULT_GOAL := help
.PHONY: help setup demo test slow lint types packages format docs docs-serve benchmark clean

help:  ## list these targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  make %-10s %s\n", $$1, $$2 }'

setup: $(STAMP)  ## create .venv and install neurosim into it (PYTHON=... picks the interpreter)

# A plain .pth in place of setuptools' import hook: with the hook, a script beside the clone takes the clone's folder for the package. The
# link makes neurosim.models importable then. git ignores it, and so does a build.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "neurosim needs Python 3.11 or newer, got " + sys.version.split()[0] + ": make PYTHON=python3.11 ...")'
	@echo "== installing neurosim into .venv (minutes the first time: PyTorch is large)"
	$(PYTHON) -m venv .venv
	@ln -sfn ../models neurosim/models
	$(BIN)/python -m pip install --constraint constraints.txt --config-settings editable_mode=compat --editable '.[dev]'
	@touch $@

demo: $(STAMP)  ## run the ghost-unit circuit on four levels and compare them
	$(BIN)/neurosim compare ghost_units --levels $(LEVELS) --out demo --overwrite
	@echo "The report and its figures are in $(CURDIR)/demo"

test: $(STAMP)  ## the tests, without the slow ones
	$(BIN)/python -m pytest $(PYTEST_ARGS) -m "not slow" tests

slow: $(STAMP)  ## the slow tests only
	$(BIN)/python -m pytest $(PYTEST_ARGS) -m slow tests

lint: $(STAMP) packages  ## ruff, pyright, and whether pyproject.toml lists every package
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	@$(MAKE) --no-print-directory types

# Pyright does not know that models/ is neurosim.models: this link tells it. git ignores the link, and so does a build.
types: $(STAMP)
	@ln -sfn ../models neurosim/models
	$(BIN)/pyright

define CHECK_PACKAGES
import pathlib, sys, tomllib
said = set(tomllib.load(open("pyproject.toml", "rb"))["tool"]["setuptools"]["packages"])
here = {".".join(f.parent.parts) for root in ("neurosim", "models") for f in pathlib.Path(root).rglob("*.py")}
here = {"neurosim." + name if name.split(".")[0] == "models" else name for name in here}
wrong = [f"  add    {name}" for name in sorted(here - said)] + [f"  remove {name}" for name in sorted(said - here)]
sys.exit("[tool.setuptools] packages in pyproject.toml is out of date:\n" + "\n".join(wrong) if wrong else 0)
endef
export CHECK_PACKAGES

packages: $(STAMP)
	@$(BIN)/python -c "$$CHECK_PACKAGES"

format: $(STAMP)  ## let ruff rewrite the sources
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

docs: $(STAMP)  ## build the pages of docs/ into site/; a dead link or a warning fails
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

docs-serve: $(STAMP)  ## show the site while one writes
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs serve

benchmark: $(STAMP)  ## run every script in benchmarks/
	@set -e; found=; for script in benchmarks/[!_]*.py; do \
	  [ -e "$$script" ] || continue; found=1; echo "== $$script"; $(BIN)/python "$$script"; \
	done; [ -n "$$found" ] || echo "benchmarks/ holds no script yet"

clean:  ## remove .venv, builds and caches
	rm -rf neurosim/models .venv build dist site *.egg-info .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
