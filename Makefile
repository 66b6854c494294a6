# `make help` lists the targets. Each does all of its own set-up.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.krontime-installed

.DEFAULT_GOAL := help
.PHONY: help setup train test test-all lint wheel clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP)  ## create .venv and install krontime with the tested versions

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt -e '.[dev]'
	@touch $@

train: $(STAMP)  ## train KronTime on ACSF1 and score it on the test split
	$(BIN)/krontime train

test: $(STAMP)  ## run the fast tests
	$(BIN)/python -m pytest -m 'not slow and not gpu'

test-all: $(STAMP)  ## run all tests, the slow ones included
	$(BIN)/python -m pytest

lint: $(STAMP)  ## check style and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

wheel: $(STAMP)  ## build the wheel into dist/
	$(BIN)/python -m build --wheel

clean:  ## remove the environment and build outputs; outputs/ stays
	rm -rf $(VENV) dist build
