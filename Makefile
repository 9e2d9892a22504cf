# A fresh clone with nothing but Python needs no more than `make demo` or `make test`.
# PYTHON is the interpreter of the environment, WORKERS the number of test processes (each also uses memory: 2 GB),
# SAMPLES how many damaged files of each kind make faults reads.
PYTHON ?= python3
WORKERS ?= 2
SEED ?= $(shell date +%s)
SAMPLES ?= 10000
BIN := .venv/bin
SOURCES := nnunetv2_hlfd trainers tests
# Files go to the workers one by one in their order: the long ones of tests/integration come first.
PYTEST := $(BIN)/pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder
COVERAGE := --cov --cov-report=term-missing:skip-covered --cov-fail-under=90

.PHONY: help demo test test-all faults test-shuffled check docs dist clean

help:  ## show the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /: /' | awk -F': ' '{printf "make %-14s %s\n", $$1, $$2}'

demo: .venv/installed  ## compare a teacher, the student alone and HLFD on a built-in phantom, in minutes
	$(BIN)/nnUNetv2_hlfd demo $(DEMO)

test: check  ## lint, check types and run the quick tests with coverage, in minutes
	$(PYTEST) -m "not slow" $(COVERAGE)

test-all: check  ## the same with all tests, the slow ones too, in an hour or more
	$(PYTEST) --timeout 7200 $(COVERAGE)

test-shuffled: .venv/installed-dev  ## run the quick tests in random order and without cache; SEED=N repeats an order
	$(PYTEST) -m "not slow" -p no:cacheprovider --random-order --random-order-seed=$(SEED)

faults: .venv/installed-dev  ## try every fault for real, 10,000 damaged files of each kind, in hours; SAMPLES=100: fewer
	FAULT_SAMPLES=$(SAMPLES) $(BIN)/pytest --numprocesses $(WORKERS) --dist worksteal --timeout 14400 -m faults

check: .venv/installed-dev  ## lint and check types
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy

docs: .venv/installed-dev  ## build the documentation as a site in build/docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

dist: .venv/installed-dev  ## build and check sdist and wheel, and try the wheel in a clean environment
	rm -rf dist build/dist
	$(BIN)/python -m build
	$(BIN)/twine check --strict dist/*
	$(BIN)/python -m venv build/dist/environment
	build/dist/environment/bin/python -m pip install --quiet dist/*.whl
	build/dist/environment/bin/python tests/support/installed_package.py build/dist/demo

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/installed: pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install -e .
	touch $@

.venv/installed-dev: pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install -e ".[dev]"
	touch .venv/installed $@

clean:  ## remove the environment, the demo and caches
	rm -rf .venv hlfd_demo build dist .coverage .coverage.* .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
