# Everything that a developer or CI runs. `make help` lists it. Nothing outside this folder and the user's cache is touched.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UPSTREAM := .venv-upstream
WORKERS ?= 2

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# ---- set-up ---------------------------------------------------------------------------------------------------------

$(VENV)/.python: locks/bootstrap.lock
	@command -v $(PYTHON) >/dev/null || { echo "lablease needs Python 3.11, 3.12 or 3.13: $(PYTHON) is not on PATH (set PYTHON=...)" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || { echo "lablease needs Python 3.11, 3.12 or 3.13: $(PYTHON) is $$($(PYTHON) --version) (set PYTHON=...)" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' || { echo "this Python has no venv: install its venv package (Debian: python3-venv)" >&2; exit 1; }
	@echo "-> virtual environment $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r locks/bootstrap.lock
	@touch $@

$(VENV)/.run: $(VENV)/.python locks/run.lock pyproject.toml
	@echo "-> packages to run lablease (locks/run.lock)"
	@$(BIN)/uv pip install -q -p $(BIN)/python --require-hashes -r locks/run.lock
	@$(BIN)/uv pip install -q -p $(BIN)/python --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.run locks/dev.lock
	@echo "-> packages to develop lablease (locks/dev.lock)"
	@$(BIN)/uv pip install -q -p $(BIN)/python --require-hashes -r locks/dev.lock
	@touch $@

$(UPSTREAM)/.done: $(VENV)/.python locks/upstream.lock
	@echo "-> the published Jumpstarter 0.9.0 peers in $(UPSTREAM) (locks/upstream.lock)"
	@$(BIN)/uv venv -q --clear -p $(BIN)/python $(UPSTREAM)
	@$(BIN)/uv pip install -q -p $(UPSTREAM)/bin/python --require-hashes -r locks/upstream.lock
	@touch $@

.PHONY: venv dev upstream
venv: $(VENV)/.run ## make .venv with what is needed to run
dev: $(VENV)/.dev ## make .venv with what is needed to develop
upstream: $(UPSTREAM)/.done ## make .venv-upstream with the published jmp 0.9.0

# ---- use ------------------------------------------------------------------------------------------------------------

.PHONY: demo up down
demo: $(VENV)/.run ## set all up, lease a demo board by manifest, use it, see the lease end, tear down
	@$(BIN)/python -m lablease.cli.main demo

up: $(VENV)/.run ## start the control plane and the services on this machine
	@$(BIN)/lablease up

down: $(VENV)/.run ## stop them
	@$(BIN)/lablease down

# ---- checks ---------------------------------------------------------------------------------------------------------

.PHONY: check lint mypy pyright contracts unit
check: $(VENV)/.dev $(UPSTREAM)/.done ## lint, types, import contracts, generated files, unit and property tests
	@$(MAKE) --no-print-directory -j3 -Otarget lint mypy pyright contracts unit

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

mypy: $(VENV)/.dev
	$(BIN)/mypy

pyright: $(VENV)/.dev
	$(BIN)/pyright

contracts: $(VENV)/.dev
	$(BIN)/lint-imports
	$(BIN)/python tools/make_proto.py --check

unit: $(VENV)/.dev $(UPSTREAM)/.done
	$(BIN)/pytest -q -n $(WORKERS) tests/unit tests/property

.PHONY: test binaries control-plane e2e rules mutation
test: check rules control-plane e2e wheel ## everything: check, coverage of the rules, real control plane, real peers, wheel

binaries: $(VENV)/.run ## find or build etcd, kube-apiserver and kubectl
	@$(BIN)/python -m lablease.embedded.prepare

control-plane: $(VENV)/.dev binaries ## tests on a real kube-apiserver and etcd
	$(BIN)/pytest -q tests/control_plane

e2e: $(VENV)/.dev $(UPSTREAM)/.done binaries ## tests with the published jmp 0.9.0 client and exporter
	$(BIN)/pytest -q -n $(WORKERS) --dist loadfile tests/e2e

rules: $(VENV)/.dev ## every branch of the rules is covered by unit and property tests
	$(BIN)/pytest -q -n $(WORKERS) tests/unit/test_rules_*.py tests/property --cov=src/lablease/rules --cov-branch --cov-report=term-missing:skip-covered --cov-fail-under=100

mutation: $(VENV)/.dev ## mutation score of the rules, at least 90 % (minutes; docs/mutation.md)
	rm -rf mutants
	$(BIN)/mutmut run --max-children $(WORKERS)
	$(BIN)/mutmut results
	$(BIN)/mutmut export-cicd-stats
	@$(BIN)/python -c 'import json; s = json.load(open("mutants/mutmut-cicd-stats.json")); score = 100 * (s["killed"] + s["timeout"]) / s["total"]; print(f"mutation score {score:.1f} %, at least 90 is wanted"); raise SystemExit(score < 90)'

# ---- build ----------------------------------------------------------------------------------------------------------

.PHONY: proto lock wheel bench clean
proto: $(VENV)/.dev ## generate src/lablease/wire from proto/
	$(BIN)/python tools/make_proto.py

lock: $(VENV)/.python ## resolve all locks anew
	COMPILE="$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-header"; \
	$$COMPILE --upgrade --all-extras --group dev pyproject.toml -o locks/dev.lock; \
	$$COMPILE --all-extras --group build -c locks/dev.lock pyproject.toml -o locks/run.lock; \
	$$COMPILE --upgrade locks/upstream.in -o locks/upstream.lock; \
	$$COMPILE --upgrade locks/bootstrap.in -o locks/bootstrap.lock

wheel: $(VENV)/.dev ## build the wheel, install it in a fresh environment, start each entry point
	$(BIN)/python tools/check_wheel.py

bench: $(VENV)/.dev $(UPSTREAM)/.done ## print the figures of docs/benchmarks.md
	$(BIN)/python bench/router.py
	$(BIN)/python bench/lease_latency.py
	$(BIN)/python bench/writes.py

clean: ## remove what the targets above made in this folder
	rm -rf $(VENV) $(UPSTREAM) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache mutants
