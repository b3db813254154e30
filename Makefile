# Each target installs what it needs. The machine needs only Python 3.11 and a C library.
#   make demo          run a talking avatar on http://127.0.0.1:8080
#   make test          run the tests: under eight minutes on two cores
#   make test-browser  run the tests with a real Chromium, as CI does
#   make test-long     run the tests that take minutes by their nature, as CI does
#   make failure       measure what viewers see while services, Redis, disk, clock and network fail
#   make check         run the checks that must pass before a commit, in about a minute and a half
#   make up            run the services without the demo's speaker
#   make wheels        build every package as a wheel, in dist/
#   make bench         measure Mien beside the alternatives that a user has
#   make compose-up    run the whole system in containers with docker-compose; make compose-down stops it
#   make trial         build that system, test it from outside, break parts of it and remove it (needs root and Docker)
#   make load          add speakers and viewers until the video suffers, then run the stress test (docs/load.md)
#   make audit         look for known vulnerabilities in what we install, if a vulnerability database can be reached
#   make locks         write the locks with hashes again, and Redis' users, after a change of what they are made from
#   make browser-encoder   build the files that run the encoder in a browser (needs clang-16, lld-16)
#   make landmarks     install the landmark tool's environment: labels for training, `mien send --tracker landmarks`

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
PACKAGES := shared encoder services/gateway services/generator services/signaling clients/web clients/python evaluation benchmarks
EDITABLE := $(foreach package,$(PACKAGES),-e $(package))
# If there is no python3.11, use python3; its version is checked below.
INTERPRETER := $(shell command -v $(PYTHON) || command -v python3)
# Many tests wait for sockets and processes: one more of them than there are cores keeps the cores busy.
WORKERS := $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1)
COMPOSE := $(shell command -v docker-compose || echo docker compose)
# What `make check` tests; `make test ARGS=--after-check` leaves it out.
export MIEN_CHECKED := tests/test_no_telemetry.py $(addprefix tests/,shared encoder js gateway generator signaling client tools) \
  $(addprefix tests/deploy/test_,compose.py operating.py supply_chain.py)
# The variables also constrain what builds a package: pip before 25.3 reads the first one for that, later ones the second.
CONSTRAINED := PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt
PIP := $(CONSTRAINED) $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: demo up browser-encoder wheels test test-browser test-long failure check bench load secrets compose-up compose-down trial audit locks landmarks clean
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
	$(BIN)/pytest -q -n $(WORKERS) --dist worksteal -m "not slow and not long" $(MIEN_CHECKED)

# First what may run side by side, on every core; then whole services and measured rates, one test at a time. A pass that
# selects no test (ARGS="-k ...") ends with status 5, which is no failure.
test: $(VENV)/.dev
	@failed=0; \
	$(BIN)/pytest -n $(WORKERS) --dist worksteal -m "not alone and not long" $(ARGS) || [ $$? = 5 ] || failed=1; \
	$(BIN)/pytest -m "alone and not long and not chromium" $(ARGS) || [ $$? = 5 ] || failed=1; \
	exit $$failed

# What a real Chromium does, one test at a time. Without one on this machine they are skipped and say so.
test-browser: $(VENV)/.dev
	$(BIN)/pytest -m "chromium and not long" $(ARGS)

# What takes minutes by its nature: what viewers see while parts fail, leaks over a thousand sessions, memory, wheels.
test-long: $(VENV)/.dev
	$(BIN)/pytest -m long $(ARGS)

# The failure tests in full length, about ten minutes. They write their table to var/failure-report.md.
failure: $(VENV)/.dev
	MIEN_FAILURE_FULL=1 MIEN_FAILURE_REPORT=var/failure-report MIEN_FAILURE_REDIS_S=60 MIEN_FAILURE_CYCLES=1000 \
	  MIEN_FAILURE_NETWORK_S=20 $(BIN)/pytest -m failure tests/failure $(ARGS)

# Every package as a wheel. With them `pip install --find-links dist -c constraints.txt mien` needs no checkout.
wheels: $(VENV)/bin/python
	rm -rf dist
	$(CONSTRAINED) $(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist $(addprefix ./,$(PACKAGES) clients/mien)

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
	@echo "Mien is at $$(sed -n 's/^MIEN_ORIGIN=//p' .env); the API key is in deploy/secrets/mien_api_keys.txt"

compose-down:
	$(COMPOSE) down $(ARGS)

trial: $(VENV)/.dev
	$(BIN)/python tests/deploy/compose_trial.py $(ARGS)

audit: .venv-audit/.installed
	@.venv-audit/bin/python tools/audit.py

locks: $(VENV)/.runtime
	PYTHON=$(INTERPRETER) deploy/renew-locks
	$(BIN)/python tools/redis_users.py

browser-encoder: $(VENV)/.dev
	$(BIN)/python tools/browser_encoder.py

landmarks: .venv-landmarks/.installed

clean:
	rm -rf clients/js/node_modules clients/js/types dist $(VENV) .venv-landmarks .venv-audit .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache var

$(VENV)/bin/python:
	@$(INTERPRETER) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Mien needs Python 3.11 or later; $(INTERPRETER) is older. Give the path of one: make PYTHON=/path/to/python"; exit 1; }
	$(INTERPRETER) -m venv $(VENV)

# Everything needed to run on a CPU, without torch.
$(VENV)/.runtime: $(VENV)/bin/python constraints.txt $(addsuffix /pyproject.toml,$(PACKAGES))
	$(PIP) -c constraints.txt $(EDITABLE)
	@touch $@

# What tests and checks need in addition. This includes torch, for the network's parity tests.
$(VENV)/.dev: $(VENV)/.runtime requirements-dev.txt training/pyproject.toml
	$(PIP) -c constraints.txt -r requirements-dev.txt -e training
	@touch $@

# TypeScript, which only checks clients/js: nothing of it is shipped.
clients/js/node_modules/.installed: clients/js/package-lock.json
	npm ci --prefix clients/js --ignore-scripts --no-audit --no-fund
	@touch $@

.venv-audit/.installed: tools/audit.lock
	$(INTERPRETER) -m venv .venv-audit
	.venv-audit/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r tools/audit.lock
	@touch $@

.venv-landmarks/.installed: tools/landmarks/pyproject.toml tools/landmarks/landmarks.lock
	$(INTERPRETER) -m venv .venv-landmarks
	.venv-landmarks/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r tools/landmarks/landmarks.lock
	$(CONSTRAINED) .venv-landmarks/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -e tools/landmarks -e shared -e encoder
	@touch $@
