# The front door. `make help` lists what there is.

VENV := .venv
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest
SETUP := PYTHON="$(PYTHON)" bash tools/setup.sh
PYTHON ?= python3

# One thread per process: with several, torch's threads wait for one another on a shared machine.
export OMP_NUM_THREADS ?= 1
export MPLBACKEND ?= Agg
# Tests start some hundred processes, each of which would compile all of phicalc's source again.
unexport PYTHONDONTWRITEBYTECODE
# pytest workers; and more of its arguments, e.g. ARGS="-k ewald -x"
JOBS ?= 2
ARGS ?=

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo test thorough coverage check bench docs pages package matrix clean certificates

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# Stamps: the demo and the checks need only what installs from wheels, the documentation some more.
$(VENV)/.base: setup.cfg pyproject.toml constraints.txt
	@$(SETUP) base
	@touch $@

$(VENV)/.cluster: $(VENV)/.base
	@$(SETUP) cluster
	@touch $@

$(VENV)/.docs: $(VENV)/.base
	@$(SETUP) docs
	@touch $@

setup: $(VENV)/.base ## make .venv with everything; torch-cluster is compiled if there is a compiler
	@$(SETUP) cluster
	@touch $(VENV)/.cluster

demo: $(VENV)/.base ## 64 waters at 300 K with the shipped model: trajectory, log and picture in demo/
	$(BIN)/python md_examples/02_nvt_water.py --output demo

test: $(VENV)/.cluster ## the tests: random order, warnings are errors, array shapes checked
	$(PYTEST) -n $(JOBS) $(ARGS)

thorough: $(VENV)/.cluster ## tests that compile for minutes; after changes of what is compiled
	$(PYTEST) -n $(JOBS) -m thorough $(ARGS)

coverage: $(VENV)/.cluster ## the same, with the lines that no test runs; about twice as long
	$(PYTEST) -n $(JOBS) --cov --cov-report=term $(ARGS)

check: $(VENV)/.base ## lint, format, types, spelling
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/codespell phicalc md_examples models tools docs *.md *.cfg *.toml *.cff Makefile

bench: $(VENV)/.cluster ## the benchmarks: one process, shape checks off; run it on an idle machine
	JAXTYPING_DISABLE=1 $(PYTEST) tests/benchmarks -m benchmark -n 0 -p no:randomly -s $(ARGS)

certificates: $(VENV)/.base ## the quick checks of all shipped models, beside them (minutes); after changes of a model
	for model in $(patsubst %/card.json,%,$(wildcard models/*/card.json models/benchmarks/*/card.json)); do \
	  $(BIN)/phicalc validate $$(basename $$model) --quick --compile no || [ $$? = 1 ] || exit 2; done

docs: $(VENV)/.docs ## the documentation into site/, its tutorials executed; warnings are errors
	NO_MKDOCS_2_WARNING=1 JOBS=$(JOBS) $(BIN)/python -m mkdocs build --strict $(ARGS)

pages: $(VENV)/.docs ## the same in seconds: tutorials are shown, not executed
	TUTORIALS=no $(MAKE) docs

package: $(VENV)/.base ## wheel and source distribution into dist/, looked into and tried in new environments
	bash tools/package.sh

matrix: ## other versions of Python and of what phicalc needs: environments, a quick part of the tests, a table
	bash tools/matrix.sh $(ARGS)

clean: ## remove caches, build products and demo output; the environment stays
	rm -rf build dist demo site *.egg-info .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find phicalc models tests md_examples -name __pycache__ -type d -prune -exec rm -rf {} +
