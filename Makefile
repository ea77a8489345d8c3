# Everything a newcomer runs. Needs Python 3.11 or newer (with venv) and make.
# Where packages come from is pip's own business: set PIP_INDEX_URL,
# PIP_EXTRA_INDEX_URL or PIP_FIND_LINKS to use another index or a folder of wheels.

.DEFAULT_GOAL := help
.PHONY: serve test check wheel benchmarks clean help

CANDIDATES := python3.11 python3.12 python3.13 python3.14 python3
SUITABLE := import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info < (3, 15))
# The first that runs: a name on the path may be a shim for a version that is not installed.
PYTHON ?= $(shell for python in $(CANDIDATES); do \
	$$python -c '$(SUITABLE)' 2>/dev/null && { echo $$python; break; }; done)

VENV := .venv
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
SERVE_FLAGS ?=
PYTEST_FLAGS ?=

serve: $(VENV)/installed ## Set up on the first run, then serve on 127.0.0.1:8000
	exec $(BIN)/charloom serve $(SERVE_FLAGS)

test: $(VENV)/installed-dev ## Set up, then run every test with coverage of app/charlm
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --cov --cov-report=term-missing $(PYTEST_FLAGS)

check: $(VENV)/installed-dev ## Lint, formatting, types, import floors
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

wheel: $(BIN)/python ## Build the wheel of the last commit and try it in an empty environment
	bash .ci/wheel $(BIN)/python

benchmarks: $(VENV)/installed-dev ## Measure the engine and the server beside others (20 minutes, two idle cores)
	$(PIP_INSTALL) -r benchmarks/requirements.txt
	$(BIN)/python -m benchmarks

clean: ## Remove the environment and every cache; data/ and models/ stay
	rm -rf $(VENV) build dist *.egg-info .coverage .coverage.* .hypothesis .import_linter_cache
	rm -rf .mypy_cache .pytest_cache .ruff_cache
	find app migrations tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(BIN)/python:
	@test -n "$(PYTHON)" || { \
		echo "Charloom needs Python 3.11 to 3.14 with venv; none was found." >&2; \
		echo "Install one (on Debian: python3 and python3-venv) or say make PYTHON=/path/to/python3.11" >&2; \
		exit 1; }
	$(PYTHON) -m venv $(VENV)

# A stamp is newer than what it was made from, so the second run starts at once;
# an install that was cut short leaves no stamp and is done again.
$(VENV)/installed: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing what Charloom needs into $(VENV) (once; some minutes on a slow line)"
	$(PIP_INSTALL) -e .
	@touch $@

$(VENV)/installed-dev: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing what Charloom and its tests need into $(VENV) (once)"
	$(PIP_INSTALL) -e '.[dev]'
	@touch $(VENV)/installed $@
