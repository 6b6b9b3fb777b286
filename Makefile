# make demo           from nothing to a fine-tuned model: environment, data, search, report
# make test           ruff, strict mypy, import contracts and the quick tests
# make test-faults    workers and database servers that die: needs Debian's postgresql and mariadb-server

PYTHON ?= python3
BIN := .venv/bin
# hpo's commands never wait for the hub here: all that the demo and the tests use is local.
export HF_HUB_OFFLINE = 1

# Two test processes: each with one thread, or they wait for each other's on a machine of two cores.
PYTEST = OMP_NUM_THREADS=1 $(BIN)/pytest -n 2

.PHONY: demo test check test-all test-faults clean

demo: .venv/installed
	@$(BIN)/python examples/docstrings.py
	@$(BIN)/hpo run studies/quickstart.yaml

test: check
	$(PYTEST) -m "not slow and not gpu and not browser and not server"

# The slower matrix and the browser tests as well: what .ci/run runs.
test-all: check
	$(PYTEST) -m "not gpu"

# Killed, frozen and cut-off workers, full disks and memory; PostgreSQL and MariaDB that crash or hang. Servers of its
# own (Debian's packages), which the tests of a file share.
test-faults: .venv/installed-dev
	$(PYTEST) --dist loadfile --no-loadscope-reorder -m "(server or slow) and not gpu" --durations=20 tests/faults tests/study

check: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

.venv/installed: pyproject.toml constraints.txt
	@echo "Making the environment .venv (about a minute) …"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || (echo "hpo needs Python 3.11 or later: make PYTHON=python3.12 …"; exit 1)
	@$(PYTHON) -m venv .venv
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

.venv/installed-dev: .venv/installed
	@echo "Adding what the tests need …"
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

clean:
	rm -rf .venv build dist *.egg-info
