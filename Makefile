# Two commands on a fresh machine: `make demo` and `make test`. Each makes its own environment
# in .venv, with the versions of constraints.txt, and finds it ready the next time.

VENV := .venv
BIN := $(VENV)/bin
# The first Python that is new enough; `make PYTHON=/path/to/python3.12 ...` chooses another.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null \
	&& { echo $$p; break; }; done)
# Quiet but for errors.
PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt
# Compiled once and shared by the workers; one torch thread each, or they fight over the cores.
TEST_WORKERS ?= 2

.PHONY: demo demo-maxcompute test soak bench check format clean

demo: $(VENV)/.demo-installed
	$(BIN)/python demo/auckland.py

demo-maxcompute: $(VENV)/.maxcompute-installed
	$(BIN)/python demo/maxcompute.py

test: $(VENV)/.test-installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(TEST_WORKERS)

soak: $(VENV)/.test-installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m soak

bench: $(VENV)/.test-installed
	$(BIN)/python -m benchmarks

check: $(VENV)/.test-installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.test-installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) demo/work .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "flowpatch needs Python 3.11, 3.12 or 3.13: none was found. \
	Install one, or name it: make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo-installed: pyproject.toml constraints.txt | $(BIN)/python
	@echo 'Installing into $(VENV), about a minute ...'
	@$(PIP) -e '.[demo]'
	@touch $@

$(VENV)/.maxcompute-installed: pyproject.toml constraints.txt | $(BIN)/python
	@echo 'Installing into $(VENV), about a minute ...'
	@$(PIP) -e '.[demo,emulator,maxcompute]'
	@touch $@ $(VENV)/.demo-installed

$(VENV)/.test-installed: pyproject.toml constraints.txt | $(BIN)/python
	@echo 'Installing into $(VENV), about a minute ...'
	@$(PIP) -e '.[test]'
	@touch $@ $(VENV)/.demo-installed $(VENV)/.maxcompute-installed
