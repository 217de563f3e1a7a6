# make demo and make test need only git, Python (>= 3.11) and make; .venv is made when missing or stale.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Two test processes for two cores; `make test PYTEST_ARGS="-k words"` narrows.
PYTEST_ARGS ?=

# Some images set it. The tests start the program a thousand times: each would compile it anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo test check lint types contracts audit mutations simulate scale bench bench-aws bench-stores bench-replay bench-server bench-console lock docs clean

help:  ## Say what can be made
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 20

$(VENV)/.stamp: requirements/dev.txt pyproject.toml
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

demo: $(VENV)/.stamp  ## Run a whole HostFactory cycle in the sandbox, no AWS account needed
	$(BIN)/hostledger demo

test: $(VENV)/.stamp  ## Run the tests
	$(BIN)/python -m pytest $(PYTEST_ARGS)

check: lint types contracts test  ## Lint, types, import contracts and tests

lint: $(VENV)/.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/bandit --quiet --configfile pyproject.toml --recursive domain application infrastructure interfaces

types: $(VENV)/.stamp
	$(BIN)/mypy

audit: $(VENV)/.stamp  ## Look up the locked libraries in the advisory databases (needs the network)
	$(PYTHON) -m venv --clear $(VENV)/audit
	$(VENV)/audit/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/audit.txt
	$(VENV)/audit/bin/pip-audit --strict --require-hashes --disable-pip --requirement requirements/dev.txt \
		|| { echo "audit: not every library was looked up, or found well, at https://pypi.org (see above)"; exit 1; }

contracts: $(VENV)/.stamp
	$(BIN)/lint-imports

mutations: $(VENV)/.stamp  ## Break each promise by name and see its test fail
	$(BIN)/python -m tests.mutations

simulate: $(VENV)/.stamp  ## Run SEEDS=100 simulated sites through faults and crashes, or SEED=17 again
	PYTHONHASHSEED=0 $(BIN)/python -m tests.simulation $(if $(SEED),--seed $(SEED),--seeds $(or $(SEEDS),100)) $(SIMULATE_ARGS)

docs: $(VENV)/.stamp  ## Write the generated pages of docs/reference
	$(BIN)/python -m tests.house.reference

bench: $(VENV)/.stamp  ## Measure all of it in ten minutes (hostledger bench); writes docs/reference/performance.md
	$(BIN)/hostledger bench --beside-orb --save docs/reference/performance.json

bench-aws: $(VENV)/.stamp  ## Count AWS calls at a proxy, run 10,000 machines; writes docs/reference/aws-calls.md
	$(BIN)/python -m tests.performance.bench_aws

bench-stores: $(VENV)/.stamp  ## Measure each store against something bare; writes docs/reference/performance-stores.md
	$(BIN)/python -m tests.performance.bench_stores

bench-replay: $(VENV)/.stamp  ## Measure a rebuild of 1,000,000 events; writes docs/reference/performance-replay.md
	$(BIN)/python -m tests.performance.bench_replay

bench-server: $(VENV)/.stamp  ## Measure the server beside a constant answer; writes docs/reference/performance-server.md
	$(BIN)/python -m tests.performance.bench_server

bench-console: $(VENV)/.stamp  ## Measure the console's pages; writes docs/reference/performance-console.md
	$(BIN)/python -m tests.performance.bench_console

scale: $(VENV)/.stamp  ## Measure what grows up to 1,000,000 events and 100,000 machines; writes docs/reference/scale.md
	$(BIN)/python -m tests.performance.bench_scale $(SCALE_ARGS)

lock:  ## Compile the locked requirements anew (needs uv)
	uv pip compile pyproject.toml --universal --python-version 3.11 --extra all --group test --group check \
		--generate-hashes --no-emit-index-url --no-annotate --no-header -o requirements/dev.txt
	uv pip compile --universal --python-version 3.11 --group pyproject.toml:audit \
		--generate-hashes --no-emit-index-url --no-annotate --no-header -o requirements/audit.txt

clean:
	rm -rf $(VENV)
