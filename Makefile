# Everything a person or CI runs.  Needs Python >= 3.11, git and make; the rest it sets up by itself.
.DEFAULT_GOAL := help
.PHONY: help setup demo test fault bench e2e check format golden up down local clean

ifdef PYTHON  # else uv looks for one that will do
export UV_PYTHON := $(PYTHON)
endif
PYTHON ?= python3
FOUND := $(shell command -v uv 2>/dev/null)
UV := $(or $(FOUND),.tajo/uv/bin/uv)
NEEDED := $(if $(FOUND),,$(UV))
export UV_PYTHON_DOWNLOADS = never
# Trust what the machine trusts: it knows a company proxy's certificate, uv does not.
export UV_SYSTEM_CERTS = 1
# Compiled once here: four services start at the same time, and would each compile all they import.
export UV_COMPILE_BYTECODE = 1
RUN = $(UV) run --frozen

help: ## what there is
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

.tajo/uv/bin/uv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Tajo needs Python 3.11 or newer; $$($(PYTHON) --version) is here. Set PYTHON=python3.x." >&2; exit 1; }
	@$(PYTHON) -m venv .tajo/uv || \
		{ rm -rf .tajo/uv; echo "python3 -m venv does not work here: install your system's python3-venv, or uv." >&2; exit 1; }
	@.tajo/uv/bin/pip install --quiet --disable-pip-version-check 'uv>=0.9,<1'

setup: $(NEEDED) ## install everything into .venv
	@$(UV) sync --frozen --quiet

demo: $(NEEDED) ## a day in a contact centre, from webhook to Brevo
	@$(UV) sync --frozen --quiet --no-dev --inexact
	@$(RUN) --no-dev --no-sync tajo-sandbox demo $(ARGS)

test: setup ## everything that needs no Docker, three at a time: most of a test is waiting
	@$(RUN) pytest -n 3 --dist worksteal $(ARGS)

fault: setup ## 100,000 webhooks while everything is killed 200 times; writes docs/reliability.md
	@$(RUN) pytest tests/fault -s --storm-webhooks 100000 --storm-kills 200 --storm-away 10 \
		--backfill-events 50000 --backfill-conversations 5000 --sink-kills 200 --replay-kills 30 --backlog 20000 --into-customers 2000 --into-seed 0 \
		--report docs/reliability.md $(ARGS)

bench: setup ## how fast, and how near the limit; writes docs/performance.md.  ARGS="--only ingest", ARGS=--json
	@$(RUN) python -m tests.bench --write $(ARGS)

e2e: ## the compose deployment from a clean checkout, seen from outside; needs Docker and Compose
	@$(PYTHON) tests/e2e/run.py

check: setup ## format, lint, types, import boundaries
	@$(RUN) ruff format --check --quiet . || { echo "run: make format" >&2; exit 1; }
	@$(RUN) ruff check --quiet .
	@$(RUN) mypy
	@$(RUN) lint-imports
	@$(UV) lock --check --quiet

format: setup ## put the code in order
	@$(RUN) ruff check --quiet --fix . ; $(RUN) ruff format .

golden: setup ## rewrite what the mapping stories end as, docs/metrics.md, and what docs/cli.md says is printed; read the diff
	@$(RUN) pytest tests/golden tests/contract/test_metrics.py --rewrite-stories --quiet
	@$(RUN) pytest tests/integration/test_cli_documented.py --rewrite-cli --quiet
	@git --no-pager diff --stat tests/golden docs

up: ## run everything under Docker Compose, as .env says, and watch until it is healthy
	@$(PYTHON) deploy/up.py

down: ## stop what `make up` started; its data stay
	@$$(docker compose version >/dev/null 2>&1 && echo docker compose || echo docker-compose) down

local: setup ## run everything on this machine without Docker
	@$(RUN) tajo up

clean: ## remove what was set up and what was stored
	rm -rf .venv .tajo .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
