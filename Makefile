# `make demo` and `make test` do everything from a fresh clone: environment, install, run.
# With CPU=1 PyTorch is its build for CPUs, without gigabytes of CUDA libraries.
CPU ?=
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo docs test test-all lint format clean

$(VENV)/.installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(if $(CPU),$(BIN)/python -m pip install --quiet torch torchvision --index-url https://download.pytorch.org/whl/cpu)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[train,demo,dev]'
	touch $@

demo: $(VENV)/.installed
	$(BIN)/okng demo

# The site, to build/site; it is read from there without a server.
docs: $(VENV)/.installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# One process per core, one thread each: twice as fast as one process with all of them. What shares a fitted detector stays
# together: tests/conftest.py says which tests those are.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadscope

test: lint
	$(PYTEST) -m "not slow"

test-all: lint
	$(PYTEST)

format: $(VENV)/.installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache build dist
