# Each target sets up what it needs: Python 3.11 and a C library are enough.
#   make demo    a talking avatar on http://127.0.0.1:8080
#   make test    every test that can run here
#   make failure what a viewer sees while services, Redis, disk, clock and network break
#   make check   what must pass before a commit, in under a minute
#   make up      the services without the demo's speaker
#   make bench   our figures beside what a user would have instead
#   make compose-up   the whole system in containers, with docker-compose; make compose-down ends it
#   make trial   the same, built, looked at from outside, broken and taken down (root and Docker)
#   make load    speakers and viewers until the picture suffers, then the stress test (docs/load.md)
#   make audit   known vulnerabilities in what constraints.txt pins, where a database of them can be reached
#   make landmarks   the landmark tool's own environment: labels for training, `mien send --tracker landmarks`

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
PACKAGES := shared encoder services/gateway services/generator services/signaling clients/web clients/python evaluation benchmarks
EDITABLE := $(foreach package,$(PACKAGES),-e $(package))
# Whoever has no python3.11 of that name has it as python3, or is told so.
INTERPRETER := $(shell command -v $(PYTHON) || command -v python3)
COMPOSE := $(shell command -v docker-compose || echo docker compose)
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: demo up test failure check bench load secrets compose-up compose-down trial audit landmarks clean
.DELETE_ON_ERROR:

demo: $(VENV)/.runtime
	@$(BIN)/mien demo $(ARGS)

up: $(VENV)/.runtime
	@$(BIN)/mien up $(ARGS)

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy
	$(BIN)/pytest -q -m "not slow" tests/shared tests/encoder tests/evaluation tests/benchmarks tests/gateway tests/generator tests/signaling tests/client tests/tools \
	  tests/deploy/test_compose.py tests/deploy/test_operating.py

test: $(VENV)/.dev
	$(BIN)/pytest $(ARGS)

# What a viewer sees while things break, in full length (about ten minutes); the table goes to var/failure-report.md.
failure: $(VENV)/.dev
	MIEN_FAILURE_FULL=1 MIEN_FAILURE_REPORT=var/failure-report MIEN_FAILURE_REDIS_S=60 MIEN_FAILURE_CYCLES=1000 \
	  MIEN_FAILURE_NETWORK_S=20 $(BIN)/pytest -m failure tests/failure $(ARGS)

bench: $(VENV)/.runtime
	$(BIN)/mien bench compose
	$(BIN)/mien bench encode
	$(BIN)/mien bench uplink
	$(BIN)/mien bench fanout
	$(BIN)/mien bench latency
	$(BIN)/mien bench sessions
	$(BIN)/mien bench memory

load: $(VENV)/.dev
	PYTHONPATH=tests $(BIN)/python -m load.run $(ARGS)
	PYTHONPATH=tests $(BIN)/python -m load.stress

secrets:
	@deploy/prepare

compose-up: secrets
	MIEN_REVISION=$$(git rev-parse --short=12 HEAD 2>/dev/null) $(COMPOSE) up -d --build $(ARGS)
	@echo "Mien is at $$(sed -n 's/^MIEN_ORIGIN=//p' .env); operators' API keys are in deploy/secrets/mien_api_keys.txt"

compose-down:
	$(COMPOSE) down $(ARGS)

trial: $(VENV)/.dev
	$(BIN)/python tests/deploy/compose_trial.py $(ARGS)

audit: .venv-audit/.installed
	@.venv-audit/bin/python tools/audit.py

landmarks: .venv-landmarks/.installed

clean:
	rm -rf $(VENV) .venv-landmarks .venv-audit .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache var

$(VENV)/bin/python:
	@$(INTERPRETER) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Mien needs Python 3.11 or later; $(INTERPRETER) is older. Name one: make PYTHON=/path/to/python"; exit 1; }
	$(INTERPRETER) -m venv $(VENV)

# Runs everything on a CPU; no torch.
$(VENV)/.runtime: $(VENV)/bin/python constraints.txt $(addsuffix /pyproject.toml,$(PACKAGES))
	$(PIP) -c constraints.txt $(EDITABLE)
	@touch $@

# What tests and checks want on top, torch for the network's parity tests among it.
$(VENV)/.dev: $(VENV)/.runtime requirements-dev.txt training/pyproject.toml
	$(PIP) -c constraints.txt -r requirements-dev.txt -e training
	@touch $@

.venv-audit/.installed:
	$(INTERPRETER) -m venv .venv-audit
	.venv-audit/bin/python -m pip install --quiet --disable-pip-version-check pip-audit
	@touch $@

.venv-landmarks/.installed: tools/landmarks/pyproject.toml
	$(INTERPRETER) -m venv .venv-landmarks
	.venv-landmarks/bin/python -m pip install --quiet --disable-pip-version-check -e tools/landmarks
	.venv-landmarks/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -e shared -e encoder
	@touch $@
