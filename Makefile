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

# Each worker has a Supabase of its own; one that somebody else runs is there only once.
WORKERS := $(if $(SUPABASE_DB_URL),0,logical --maxprocesses 4)
# Faults wait as much as they work; more than four at a time, and starts on two processors take longer than is allowed.
FAULT_WORKERS ?= 4

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint types contracts unit faults matrix systemd-test bench rounds scale install-service clean

help: ## Show this.
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 24

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
	$(BIN)/shellcheck systemd/*.sh tests/systemd/*.sh

types: setup
	$(BIN)/mypy
	$(BIN)/mypy benchmarks

contracts: setup
	$(BIN)/lint-imports

unit: setup
	$(BIN)/pytest -n $(WORKERS) --dist loadfile

faults: setup ## Pull every plug, in full: SEED=n for the same dice again, ONLY=F05,F13 for some.
	$(BIN)/pytest tests/faults --faults -vv -n $(FAULT_WORKERS) --dist load --maxschedchunk 1 $(if $(SEED),--fault-seed $(SEED)) \
	  $(if $(ONLY),--fault-only $(ONLY)) $(if $(TABLE),--fault-table $(TABLE))

systemd-test: setup ## Boot a real systemd in a container, install the service in it as the README says, and break it.
	tests/systemd/run.sh '$(CURDIR)' $(BIN)/python $(if $(HAS_GPU),,'$(TORCH_CPU)') '$(TORCH)'

matrix: setup ## Try other versions of Python, PyTorch and transformers: ONLY=3.13 for some rows.
	$(BIN)/python tests/matrix.py $(if $(SUPABASE_DB_URL),--workers 0) $(if $(ONLY),--only '$(ONLY)')

bench: setup ## Measure speed against the usual ways, and write docs/performance.md. 20 minutes; ONLY=drafting for some, ONLY=windows for what takes longer; docs/performance.md names all.
	$(BIN)/python benchmarks/all.py $(ONLY)

install-service: ## As root: install this checkout as a systemd service, or upgrade it.
	@PYTHON='$(PYTHON)' TORCH='$(TORCH)' TORCH_CPU='$(if $(HAS_GPU),,$(TORCH_CPU))' systemd/install.sh

rounds: setup ## Measure what twenty rounds of learning leave behind: memory, files, disk. A quarter of an hour.
	$(BIN)/python benchmarks/rounds.py $(if $(ROUNDS),--rounds $(ROUNDS))

scale: setup ## Measure a database of a million clips, several workers on it, and a burst of inserts. Five minutes.
	$(BIN)/python benchmarks/scale.py $(if $(CLIPS),--clips $(CLIPS))

clean: ## Remove what the other targets made here.
	rm -rf $(VENV) .ambara .mypy_cache .ruff_cache .import_linter_cache .hypothesis build dist *.egg-info
