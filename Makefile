# make demo, make test: on a fresh clone with nothing but Python. PYTHON chooses the interpreter of the environment.
PYTHON ?= python3
BIN := .venv/bin
SOURCES := nnunetv2_hlfd trainers tests

.PHONY: demo test test-all check clean

demo: .venv/installed  ## teacher, student alone and HLFD on a built-in phantom, in minutes
	$(BIN)/nnUNetv2_hlfd demo $(DEMO)

test: check  ## lint, types and quick tests with coverage
	$(BIN)/pytest -m "not slow" --cov --cov-report=term-missing:skip-covered --cov-fail-under=90

test-all: check  ## lint, types and all tests
	$(BIN)/pytest --cov --cov-report=term-missing:skip-covered --cov-fail-under=90

check: .venv/installed-dev
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy

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
