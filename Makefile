# make demo           create the environment and the data, run a search, write the report
# make test           ruff, strict mypy, import contracts and the quick tests
# make test-all       those, the slower matrix and the browser tests: needs Chromium
# make test-faults    faults of workers and database servers: needs Debian's postgresql and mariadb-server

PYTHON ?= python3
BIN := .venv/bin
# The demo and the tests use local files only: do not wait for the hub.
export HF_HUB_OFFLINE = 1

# Two test processes with one thread each: with more, their threads compete on a machine with two cores.
PYTEST = OMP_NUM_THREADS=1 $(BIN)/pytest -n 2

.PHONY: demo test check test-all test-faults clean

demo: .venv/installed
	@$(BIN)/python examples/docstrings.py
	@$(BIN)/hpo run studies/quickstart.yaml

test: check
	$(PYTEST) -m "not slow and not gpu and not browser and not server"

# The slower matrix and the browser tests as well, as in .ci/run.
test-all: check
	$(PYTEST) -m "not gpu"

# Workers that are killed, frozen or disconnected, a full disk, exhausted memory, database servers that crash or hang.
# It starts its own PostgreSQL and MariaDB servers (Debian's packages), which the tests of one file share.
test-faults: .venv/installed-dev
	$(PYTEST) --dist loadfile --no-loadscope-reorder -m "(server or slow) and not gpu" --durations=20 tests/faults tests/storage

check: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

.venv/installed: pyproject.toml constraints.txt
	@echo "Creating the environment .venv (about a minute) …"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || (echo "hpo needs Python 3.11 or later: make PYTHON=python3.12 …"; exit 1)
	@$(PYTHON) -m venv .venv
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

.venv/installed-dev: .venv/installed
	@echo "Installing the packages of the tests …"
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

clean:
	rm -rf .venv build dist *.egg-info
