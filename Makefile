# Frond. `make` alone prints what there is.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
STACK := $(PY) -m frond.stack
MEMBERS := $(sort $(wildcard libs/*/pyproject.toml services/*/pyproject.toml))
STAMP := $(VENV)/.frond-setup
TRAIN_VENV := training/.venv
TRAIN_PY := $(CURDIR)/$(TRAIN_VENV)/bin/python
TRAIN_STAMP := $(TRAIN_VENV)/.frond-setup

SERVICE ?= tiler
ONLY ?=
DURATION ?= 900
SEED ?=
REPORT ?=

.PHONY: contracts dev env hooks help setup lock up down roll status demo test coverage test-docker chaos lint format typecheck watch-topics shell bench clean logs train-env train-test train-lock train-repro dvc-remote

help: ## this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  \033[1m%-13s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## make .venv with everything that is needed (once; costs nothing when it is there)

$(STAMP): requirements/uv.txt requirements/dev.txt $(MEMBERS) tools/setup.sh
	@PYTHON="$(PYTHON)" VENV="$(VENV)" bash tools/setup.sh
	@touch $@

demo: setup ## 24 planted scenes through the whole pipeline; pictures and files in demo-out/
	@# its webhook receiver is on this machine
	@FROND_EGRESS_ALLOW="$${FROND_EGRESS_ALLOW:+$$FROND_EGRESS_ALLOW,}127.0.0.1" \
		$(STACK) with -- $(VENV)/bin/frond demo --out demo-out

up: setup ## start Kafka, MinIO and the five services; writes .frond/env
	@$(STACK) up

down: ## stop them; topics and objects stay
	@if [ -x $(PY) ]; then $(STACK) down; else echo "Nothing was running."; fi

roll: setup ## exchange every service for a fresh process while all work: an upgrade without a gap
	@$(STACK) roll

status: setup ## which services run, whether they are ready, how often each was restarted
	@$(STACK) status

logs: setup ## the ends of the services' logs
	@$(STACK) logs

watch-topics: setup ## print every event of every topic as it comes
	@$(STACK) watch

shell: setup ## a shell with .venv and, when it is up, .frond/env
	@set +u; source $(VENV)/bin/activate; [ ! -f .frond/env ] || source .frond/env; exec $${SHELL:-bash} -i

# two at a time: most of them wait for a broker or a store most of the time
test coverage: PYTEST_ARGS ?= -n 2
test: setup lint typecheck ## lint, types, and every test on real Kafka and MinIO; PYTEST_ARGS="-k merge"
	@$(STACK) fetch # before any test's clock runs; some kill a native stack, Docker or not
	@$(PY) -m pytest $(PYTEST_ARGS)

coverage: setup ## every test once more, slower, and the files that they reach least
	@$(STACK) fetch
	@rm -f .coverage .coverage.*
	@$(PY) -m pytest --cov --cov-report= $(PYTEST_ARGS)
	@$(PY) -m coverage report --sort=cover | tail -n 25

env: ## write .env for docker compose: random passwords and keys; one that is there stays
	@bash tools/env.sh

test-docker: setup ## build the images, compose up, one job through all three doors, down; testcontainers
	@bash tools/test-docker.sh

chaos: setup ## the real stack under attack: DURATION=900 SEED=7 ONLY=network,disk POINTS=tiler. SABOTAGE=all REPORT=docs/reliability.md
	@$(STACK) fetch
	@PYTHONPATH=tests DURATION="$(DURATION)" SEED="$(SEED)" ONLY="$(ONLY)" SABOTAGE="$(SABOTAGE)" $(PY) -m chaos $(if $(REPORT),--report "$(REPORT)")

lint: setup ## ruff
	@$(VENV)/bin/ruff check
	@$(VENV)/bin/ruff format --check

typecheck: setup ## mypy --strict over every library and service, and training's worker
	@$(VENV)/bin/mypy $(sort $(wildcard libs/*/src services/*/src)) training/src/frond/training/worker

format: setup ## let ruff mend what it can
	@$(VENV)/bin/ruff check --fix
	@$(VENV)/bin/ruff format

.PHONY: train-worker
train-worker: setup ## train what `frond training start` and drift ask for, one run at a time, beside `make up`; needs train-env
	@[ -f .frond/env ] || { echo "Nothing is up: make up first." >&2; exit 1; }; \
	[ -n "$${FROND_TRAINING_PROGRAM:-}" ] || [ -x training/.venv/bin/python ] || \
		{ echo "Nothing is here that trains: make train-env first." >&2; exit 1; }; \
	set -a; . .frond/env; set +a; export PYTHONPATH="$(CURDIR)/training/src"; \
	FROND_TRAINING_PROGRAM="$${FROND_TRAINING_PROGRAM:-'$(CURDIR)/training/.venv/bin/python' -m frond.training}" \
	exec $(PY) -m frond.training.worker

bench: setup ## measure against what others use: bench/results.json, docs/performance.md; ONLY=merge,raster; BENCH_ROUNDS=1 BENCH_SCALE=0.05 for a look; all of it takes hours
	@$(PY) bench/run.py $(ONLY)

dev: setup ## one service in this terminal with reload, beside a stack that is up: make dev SERVICE=tiler
	@$(STACK) run $(SERVICE) --reload

contracts: setup ## write contracts/ anew from the types (golden and frozen files never change)
	@$(PY) -m frond.contracts.export contracts
	@$(PY) -W ignore -m frond.ingest.openapi > contracts/openapi.json

hooks: setup ## install the pre-commit hooks
	@$(VENV)/bin/pre-commit install

train-env: $(TRAIN_STAMP) ## make training/.venv for `frond train`: torch, MLflow, DVC; about 6 GB

$(TRAIN_STAMP): training/requirements.txt training/pyproject.toml tools/train-env.sh | $(STAMP)
	@VENV="$(VENV)" TRAIN_VENV="$(TRAIN_VENV)" bash tools/train-env.sh
	@touch $@

train-test: train-env ## types and tests of training, in its own environment
	@$(TRAIN_PY) -m mypy --follow-imports=silent --exclude training/src/frond/training/worker training/src # the members' own types and the worker's are checked in .venv
	@$(TRAIN_PY) -m pytest --confcutdir=training -m "not stack" training/tests $(PYTEST_ARGS)

train-repro: train-env ## redo prepare → train → evaluate of what changed (DVC): ONLY=evaluate-palm; RESUME=1 goes on where training was stopped
	@cd training && RESUME="$(if $(RESUME),--resume)" PATH="$(CURDIR)/$(TRAIN_VENV)/bin:$$PATH" $(TRAIN_PY) -m dvc repro $(ONLY)

dvc-remote: train-env ## let DVC push data and models to the object store of the stack that is up
	@TRAIN_VENV="$(TRAIN_VENV)" bash tools/dvc-remote.sh

train-lock: setup ## pin and hash what training/requirements.in names
	@NAMES=training/requirements bash tools/lock.sh

lock: setup ## pin and hash what the .in files in requirements/ name
	@bash tools/lock.sh

clean: down ## remove .venv, training/.venv, .frond with its topics and objects (Docker's volumes, too), and what runs left behind
	@if [ -x $(PY) ]; then env -u FROND_STATE_DIR $(STACK) volumes --remove || true; fi
	@rm -rf $(VENV) $(TRAIN_VENV) .frond demo-out .coverage .coverage.* .mypy_cache .ruff_cache htmlcov
