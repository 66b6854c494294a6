# `make help` lists the targets. Each does all of its own set-up.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# modules are compiled when they are first imported, and kept: all 40,000 at once take a minute, and few are ever used
unexport PYTHONDONTWRITEBYTECODE
PIP := $(BIN)/python -m pip install --disable-pip-version-check --quiet --no-compile -c constraints.txt
WORKERS := -n auto --maxprocesses=4
MARKS ?= not slow and not gpu
INSTALLED := $(VENV)/.krontime-installed
INSTALLED_DEV := $(VENV)/.krontime-dev-installed
INSTALLED_SLOW := $(VENV)/.krontime-slow-installed

.DEFAULT_GOAL := help
.PHONY: help setup train results test test-all lint docs wheel lock clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(INSTALLED)  ## create .venv and install krontime with the tested versions

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "krontime needs Python 3.11 or newer, and this is " + sys.version.split()[0] + ": make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)

$(INSTALLED): pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -e .
	@touch $@

$(INSTALLED_DEV): pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -e '.[dev]'
	@touch $@ $(INSTALLED)

$(INSTALLED_SLOW): pyproject.toml constraints.txt | $(INSTALLED_DEV)
	$(PIP) -e '.[slow]'
	@touch $@

train: $(INSTALLED)  ## train KronTime on ACSF1 and score it on the test split
	$(BIN)/krontime train

results: $(INSTALLED)  ## make the tables and plots of docs/results and the README again, from what was measured
	$(BIN)/krontime tables refresh=docs/results 'readme=[README.md,docs/performance.md,docs/benchmark.md]'

test: $(INSTALLED_DEV)  ## run the fast tests
	$(BIN)/python -m pytest $(WORKERS) -m '$(MARKS)'

test-all: $(INSTALLED_SLOW)  ## run all tests, the slow ones included
	$(BIN)/python -m pytest $(WORKERS)

lint: $(INSTALLED_DEV)  ## check style, types and the direction of imports
	$(BIN)/lint-imports --no-cache
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

docs: $(INSTALLED_DEV)  ## build the documentation site into build/site
	$(PIP) -e '.[docs]'
	$(BIN)/mkdocs build --quiet

wheel: $(INSTALLED_DEV)  ## build the wheel into dist/
	$(BIN)/python -m build --wheel

OF_TORCH := torch triton cuda-bindings cuda-pathfinder cuda-toolkit nvidia-cublas nvidia-cuda-cupti nvidia-cuda-nvrtc \
	nvidia-cuda-runtime nvidia-cudnn-cu13 nvidia-cufft nvidia-cufile nvidia-curand nvidia-cusolver nvidia-cusparse \
	nvidia-cusparselt-cu13 nvidia-nccl-cu13 nvidia-nvjitlink nvidia-nvshmem-cu13 nvidia-nvtx

lock: $(INSTALLED)  ## write requirements.lock: versions and hashes of all but torch, for the container
	$(PIP) uv
	$(BIN)/uv --quiet pip compile pyproject.toml --extra audio --extra report --extra explain --constraint constraints.txt \
		--universal --python-version 3.11 --generate-hashes --no-annotate --custom-compile-command 'make lock' \
		$(addprefix --no-emit-package ,$(OF_TORCH)) --output-file requirements.lock >/dev/null

clean:  ## remove the environment and build outputs; outputs/ stays
	rm -rf $(VENV) dist build
