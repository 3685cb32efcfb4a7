# Everything a newcomer needs: `make help`.
# The only requirements are make and Python >= 3.11; the rest goes into .venv (and, for the tests, apt).

SHELL = /bin/sh
BIN = .venv/bin
PYTEST = $(BIN)/python -m pytest
# How the tests are spread over the processors; `make test WORKERS=0` runs them in one process.
WORKERS = auto
# More arguments for pytest: `make test ARGS="-k claim"`.
ARGS =
# How many seeds `make chaos` plays.
SEEDS = 20

.DEFAULT_GOAL := help
.PHONY: help demo test check format lint types arrows docs bench chaos build clean
.DELETE_ON_ERROR:

help:  ## show this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 18

demo: .venv/ready  ## run the example workflow and look at what it leaves behind
	@PATH="$(CURDIR)/$(BIN):$$PATH" sh examples/stdlib_census/demo.sh

test: .venv/ready-dev system  ## run all tests (installs missing system programs with apt)
	@$(BIN)/python -m compileall -q tea spool executors tools  # once: the tests start tea some thousand times
	$(PYTEST) -n $(WORKERS) $(ARGS)

check: format lint types arrows test  ## the gate: everything that must pass before a commit

format: .venv/ready-dev  ## is the code formatted?
	$(BIN)/ruff format --check .

lint: .venv/ready-dev  ## is it free of what ruff finds?
	$(BIN)/ruff check .

types: .venv/ready-dev  ## do the types fit?
	$(BIN)/mypy

arrows: .venv/ready-dev  ## do imports run only downwards?
	$(BIN)/lint-imports

docs: .venv/ready-dev  ## are the examples, links and command lines in the documentation right?
	$(PYTEST) -q tests/test_docs.py

bench: .venv/ready-bench  ## measure tea beside its peers; writes benchmarks/results/
	$(BIN)/python -m benchmarks

chaos: .venv/ready-dev  ## kill workflows at random moments, SEEDS of them
	$(BIN)/python -m tests.faults.chaos --seeds $(SEEDS)

build: .venv/ready-dev  ## make the wheel and the source distribution in dist/
	$(BIN)/python -m build

clean:  ## remove what the other targets made
	rm -rf .venv .venv.log build dist *.egg-info .coverage .mypy_cache .ruff_cache .pytest_cache \
		.import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: system
system:
	@sh scripts/setup-system.sh

# One stamp for each set of dependencies, newer than what it was made from.
SETUP = pyproject.toml scripts/constraints.txt scripts/setup-venv.sh scripts/find-python.sh scripts/apt-install.sh

.venv/ready: $(SETUP)
	@sh scripts/setup-venv.sh
	@touch $@

.venv/ready-%: $(SETUP)
	@sh scripts/setup-venv.sh $*
	@touch $@
