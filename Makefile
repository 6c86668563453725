# Everything a newcomer types. Each target makes what it needs: a virtual environment here, nothing system-wide.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
STAMP := $(VENV)/.installed

# Without an NVIDIA GPU a CUDA build of PyTorch is gigabytes for nothing. `TORCH_CPU` is the CPU-only build that the
# tests were last run with; where no package index offers it, whatever `torch` means there is taken.
TORCH ?= torch>=2.6,<3
TORCH_CPU ?= torch==2.13.0+cpu
HAS_GPU := $(wildcard /dev/nvidiactl)

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint types contracts unit bench clean

help: ## Show this.
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 18

setup: $(STAMP) ## Make the virtual environment.

$(STAMP): pyproject.toml
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV) || \
	  { rm -rf $(VENV); echo "make: $(PYTHON) cannot make a virtual environment; on Debian: apt install python3-venv" >&2; exit 1; }
ifeq ($(HAS_GPU),)
	$(PIP) install --quiet '$(TORCH_CPU)' || $(PIP) install --quiet '$(TORCH)'
endif
	$(PIP) install --quiet --editable '.[local,dev]'
	touch $(STAMP)

demo: setup ## Watch pending clips being drafted: an embedded Supabase, the daemon, synthetic speech.
	$(BIN)/ambara demo

test: lint types contracts unit ## Everything that has to hold.

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy

contracts: setup
	$(BIN)/lint-imports

unit: setup
	$(BIN)/pytest

bench: setup ## Measure the latency from a committed insert to a visible draft.
	$(BIN)/python benchmarks/latency.py

clean: ## Remove what the other targets made here.
	rm -rf $(VENV) .ambara .mypy_cache .ruff_cache .import_linter_cache .hypothesis build dist *.egg-info
