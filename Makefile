SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PEERS := .venv-peers
UV := $(BIN)/uv
export PREFECT_SERVER_ANALYTICS_ENABLED := false
export DO_NOT_TRACK := 1
# Byte code makes every later start faster, so it is compiled at install and never forbidden.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help install demo up system-packages test soak test-models test-quick chaos check format bench bench-quick bench-peers simulate lock lock-peers clean

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-16s %s\n", $$1, $$2 }' Makefile

install: $(VENV)/.installed ## create .venv with everything in it

$(VENV)/.installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or later is needed (make PYTHON=...)"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	test -x $(UV) || $(BIN)/python -m pip install --quiet --disable-pip-version-check "$$(grep -o '^uv==[0-9.]*' requirements.lock)"
	$(UV) pip sync --quiet --compile-bytecode --python $(BIN)/python requirements.lock
	$(UV) pip install --quiet --no-deps --python $(BIN)/python --editable .
	touch $@

demo: install ## run both example models
	$(BIN)/python -m deployments.demo

PORT ?= 4200
up: install ## server, pools, form and workers on this machine, until Ctrl-C (PORT=4200)
	$(BIN)/thresher up --port $(PORT)

system-packages: ## install Chromium, PostgreSQL and Redis for tests, if they are missing
	sh tests/system-packages.sh

# Three times as many as two cores: tests wait, too, for outages to end and for processes to start.
TEST_PROCESSES ?= 6
test: install system-packages ## every kind of fault, once (TEST_PROCESSES=6)
	$(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadgroup tests

# All that make test tries, and besides: each fault with one and with two instances, services on both databases, further
# phases, rounds and pauses; outages at full length. For changes that touch these.
soak: install system-packages ## every fault in each combination, at full length
	TESTS_FULL_LENGTH=1 $(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadgroup -m "not models" tests

# Installs scikit-learn, XGBoost, LightGBM, ONNX Runtime, PyTorch, TensorFlow and MLflow: several GB, and some minutes.
test-models: install ## real models of real frameworks, as packages and as bare files
	$(BIN)/python -m pytest -n 2 --dist loadfile -m models tests/models

test-quick: install ## the inner loop: less than a minute
	$(BIN)/python -m pytest -n 2 --dist loadgroup -m "not slow and not prefect and not soak and not models" tests/domain tests/engine tests/deployments/test_specification.py

# Random faults at random moments: each round prints the seed that repeats it.
SEED ?= $(shell date +%s)
ROUNDS ?= 20
chaos: install ## random faults (SEED=... ROUNDS=20)
	CHAOS_SEED=$(SEED) CHAOS_ROUNDS=$(ROUNDS) $(BIN)/python -m pytest -s -m "" tests/faults/test_chaos.py

check: install ## ruff, its format check, mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: install ## let ruff repair and format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The table of targets; BENCH is more options, such as BENCH="--only csv --json figures.json".
BENCH ?=
bench: install $(PEERS)/.installed ## compare with hand-written baselines (BENCH="--only csv")
	$(BIN)/python tests/benchmarks/bench.py $(BENCH)

bench-quick: install ## the same with a tenth of the items
	$(BIN)/python tests/benchmarks/bench.py --quick $(BENCH)

# What the product is compared with has an environment of its own: nothing of it is installed beside the product.
bench-peers: install $(PEERS)/.installed ## compare with mlserver infer and Ray Data
	$(BIN)/python tests/benchmarks/peers.py

$(PEERS)/.installed: tests/benchmarks/peers.lock | install
	test -x $(PEERS)/bin/python || $(UV) venv --quiet --python $(BIN)/python $(PEERS)
	$(UV) pip sync --quiet --require-hashes --compile-bytecode --python $(PEERS)/bin/python tests/benchmarks/peers.lock
	touch $@

ITEMS ?= 1_000_000
INSTANCES ?= 1000
simulate: install ## a run of many instances, simulated (ITEMS=... INSTANCES=...)
	$(BIN)/python tests/benchmarks/simulate.py --items $(ITEMS) --instances $(INSTANCES)

# No index is named in the lock, so that it installs from whichever one the machine is set up with.
lock: ## pin the dependencies of pyproject.toml (LOCK_FLAGS=...)
	$(UV) pip compile pyproject.toml --extra dev --generate-hashes --no-emit-index-url --no-annotate --quiet \
		--python-version 3.11 --custom-compile-command "make lock" --output-file requirements.lock $(LOCK_FLAGS)

lock-peers: ## pin those of the benchmarks
	$(UV) pip compile tests/benchmarks/peers.in --generate-hashes --no-emit-index-url --no-annotate --quiet \
		--python-version 3.11 --custom-compile-command "make lock-peers" --output-file tests/benchmarks/peers.lock $(LOCK_FLAGS)

clean: ## remove what make, tests and the demo have made
	rm -rf $(VENV) $(PEERS) demo-output build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
