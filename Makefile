# Everything a developer types. `make setup` needs Python 3.11 or later and nothing else.
PYTHON ?= python3
ENGINE ?= process
JOBS ?= 2
SECONDS ?= 600
SEED ?= 100000
BIN := .venv/bin
PLUGINS := $(sort $(wildcard plugins/*))

.PHONY: help setup demo test soak check bench format generate requirements clean

help:
	@echo "make setup         a .venv with the project, its plugins and the tools"
	@echo "make demo          a cluster on loopback at work, under a minute (ENGINE=docker: with containers)"
	@echo "make test          all tests; what needs an engine is skipped where there is none; JOBS=$(JOBS) files at a time"
	@echo "make soak          managers that fail in every way there is, simulated, for SECONDS=$(SECONDS) from SEED=$(SEED) on"
	@echo "make check         format, lint, types, layers, generated code, wire table, pinned requirements"
	@echo "make bench         the race against Docker's own swarm mode, as ratios, and what managers survive (LONG=1: an hour)"
	@echo "make format        let ruff put the code in shape"
	@echo "make generate      generate swarmcore/api from its .proto files"
	@echo "make requirements  pin the requirements anew"

setup: .venv/.ready

.venv/.ready: requirements/dev.txt pyproject.toml $(wildcard plugins/*/pyproject.toml)
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "installing into .venv …"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e . $(addprefix -e ./,$(PLUGINS))
	@touch $@

demo: setup
	@$(BIN)/python -m swarmcore.testing.demo --engine $(ENGINE)

test: setup
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile

soak: setup
	$(BIN)/python -m swarmcore.testing.simulation --seeds $(SEED): --seconds $(SECONDS)

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy swarmcore tools tests bench
	@set -e; for plugin in $(PLUGINS); do echo "mypy $$plugin"; $(BIN)/mypy $$plugin; done
	$(BIN)/lint-imports
	$(BIN)/python tools/generate_api.py --check
	$(BIN)/python tools/check_wire.py swarmcore/api
	$(BIN)/python tools/pin_requirements.py --check

bench: setup
	@status=0; \
	$(BIN)/python -m bench.race || status=1; \
	$(BIN)/python -m bench.survival $(if $(LONG),--long) || status=1; \
	exit $$status

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

generate: setup
	$(BIN)/python tools/generate_api.py

requirements: setup
	$(BIN)/python tools/pin_requirements.py

clean:
	rm -rf .venv build dist
