# Two commands for a newcomer: `make demo` and `make test`. Both install into .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: setup demo test full soak fuzz bench lint types clean

setup: $(VENV)/.installed

demo: $(VENV)/.installed
	$(BIN)/gauntlet simulate configs/quickstart.py --overwrite

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest

# The slow tests in full: three seeds of the quickstart, the sweep of AdamW's rates, five seeds without the cheats.
full: $(VENV)/.installed-dev
	$(BIN)/python -m pytest --full -m slow

# 60 rounds of real processes with 15 kills, over a folder and over a real S3 server (half an hour).
soak: $(VENV)/.installed-dev
	$(BIN)/python -m pytest --full -s tests/soak/test_soak.py

# Ten times the mutated bytes that `make test` sends.
fuzz: $(VENV)/.installed-dev
	$(BIN)/python -m pytest --full -s tests/fuzz

# One table of ratios; with REFERENCE=PATH beside a checkout of the public PyTorch code (REFERENCE_PYTHON has torch).
bench: $(VENV)/.installed-dev
	$(BIN)/python tests/benchmarks/bench.py $(if $(REFERENCE),--reference $(REFERENCE) --reference-python $(or $(REFERENCE_PYTHON),python3))

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

types: $(VENV)/.installed-dev
	$(BIN)/pyright --pythonpath $(BIN)/python

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "gauntlet_jax needs Python 3.11 or newer: make PYTHON=python3.12 demo")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis .jax_cache build dist *.egg-info
