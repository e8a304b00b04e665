# Two commands are enough: `make demo` and `make test`. Each makes its own environment from the lock file,
# on a machine that has Python 3.11 or newer and nothing else.

PYTHON := $(shell for p in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && command -v "$$p" && break; done)
UV := .venv-tools/bin/uv
RUN := .venv/bin
SYNC := UV_PROJECT_ENVIRONMENT=.venv UV_PYTHON_DOWNLOADS=never $(UV) sync --frozen --compile-bytecode --python "$(PYTHON)"

# A wait that runs out on a busy machine gets one second go, which is named in the report; a wrong answer never does.
SECOND_GO := --reruns 1 --only-rerun "not within [0-9.]+ s" -r R

# Integration tests mostly wait: files run side by side, each worker with servers of its own (a gigabyte each).
ITEST_WORKERS ?= 3

export PYTHONPATH :=
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup demo up down test check lint types models unit contract itest chaos chaos-mutants soak bench schemas docs fmt clean

help: ## what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: .venv/.has-demo ## set up, and see a chain of pipelines at work on real data
	@$(RUN)/farandole demo $(DEMO)

test: check models unit contract itest chaos ## set up, and pass every test

setup: .venv/.has-all ## the environment of whoever works on Farandole

up: .venv/.has-demo ## Kafka and a schema registry on this machine
	@$(RUN)/farandole up

down: ## stop them
	@test ! -x $(RUN)/farandole || $(RUN)/farandole down

check: lint types schemas ## everything that is known without running anything

lint: .venv/.has-all
	$(RUN)/ruff format --check
	$(RUN)/ruff check
	$(RUN)/lint-imports --no-cache --no-logo

types: .venv/.has-all
	$(RUN)/mypy

schemas: .venv/.has-all ## whether the event classes are those of schemas/avro
	$(RUN)/farandole schemas check

models: .venv/.has-all ## the protocols, exhaustively explored: the first thing to be green
	$(RUN)/pytest -q tests/models

unit: .venv/.has-all ## the house rules and all that needs no server
	$(RUN)/pytest -q tests/unit services

contract: .venv/.has-all ## one suite on every implementation; PostgreSQL starts by itself
	$(RUN)/pytest -q tests/contract

itest: .venv/.has-all ## real servers, started by the project's own launcher
	$(RUN)/pytest -q tests/integration -m "not soak" --durations=20 \
		-n $(ITEST_WORKERS) --dist loadfile --no-loadscope-reorder $(SECOND_GO)

chaos: .venv/.has-all ## services killed at every point, and the books that must balance
	$(RUN)/pytest -q tests/chaos -m "not soak" --durations=10 $(SECOND_GO)

chaos-mutants: .venv/.has-all ## one safeguard switched off at a time: a test must notice
	$(RUN)/python -m tests.chaos.mutants

soak: .venv/.has-all ## what takes minutes by nature
	$(RUN)/pytest -q tests -m soak

bench: .venv/.has-all ## one hop, against others; needs `make up`
	PATH="$(CURDIR)/.venv-tools/bin:$$PATH" $(RUN)/python -m bench.hop $(BENCH)

docs: .venv/.has-all ## write the generated pages of the reference anew
	$(RUN)/python docs/generate.py

fmt: .venv/.has-all ## format, and mend what can be mended by itself
	$(RUN)/ruff format
	$(RUN)/ruff check --fix

clean: down ## take away what was made here: environments, caches, the embedded stack and its data
	rm -rf .venv .venv-tools .farandole .pytest_cache .ruff_cache .mypy_cache .hypothesis .import_linter_cache

# The demo's environment lacks only the tools; one that has more is left as it is.
.venv/.has-demo: pyproject.toml uv.lock $(UV)
	$(SYNC) --inexact --no-dev --extra demo
	@touch $@

.venv/.has-all: pyproject.toml uv.lock $(UV)
	$(SYNC) --all-extras
	@touch $@ .venv/.has-demo

$(UV):
	@test -n "$(PYTHON)" || { echo "Farandole needs Python 3.11 or newer, and there is none on PATH" >&2; exit 1; }
	"$(PYTHON)" -m venv .venv-tools
	.venv-tools/bin/python -m pip install --quiet --disable-pip-version-check "uv>=0.9"
	@touch $@
