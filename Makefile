# Only python3 (3.11 or later) with venv and make are needed.
PYTHON ?= python3
BIN := .venv/bin
# Several test processes share the cores: each does its tensor work on one thread. One more than CI has
# cores, as one of them first runs fleets, whose deadlines three others would make them miss. Bytecode
# is kept, whatever the environment says: the suite starts hundreds of processes.
TEST_ENV := OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE=

.PHONY: help demo test fleet docs gpu lint collected clean

help:
	@echo "make demo   install and watch a fleet learn, three minutes"
	@echo "make test   install with all extras, then ruff, mypy and pytest"
	@echo "make fleet  install, then tests of whole fleets at length, five minutes; CI runs them, too"
	@echo "make docs   install, then build the documentation into site/"
	@echo "make gpu    install, then the tests and the benchmark that need an NVIDIA GPU"
	@echo "make lint   ruff and mypy alone"
	@echo "make clean  remove the environment and caches"

demo: .venv/.installed
	$(BIN)/fleetseg demo

test: .venv/.installed-dev
	@$(MAKE) --no-print-directory -j 2 lint collected
	$(TEST_ENV) $(BIN)/python -m pytest -n 3 --durations=15

fleet: .venv/.installed-dev
	$(TEST_ENV) $(BIN)/python -m pytest -n 2 -m fleets --durations=5 tests/fleet/nvflare

docs: .venv/.installed-dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict
	@echo "open site/index.html"

gpu: .venv/.installed-dev
	$(BIN)/python -m pytest -m gpu tests/gpu
	$(BIN)/python benchmarks/gpu.py

lint: .venv/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Beside mypy, which has one core: the tests' files compiled once, not by each process.
collected: .venv/.installed-dev
	@$(TEST_ENV) $(BIN)/python -m pytest --collect-only --quiet > /dev/null || true

clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis site

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/.installed: .venv/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --editable '.[report]'
	@touch $@

.venv/.installed-dev: .venv/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --editable '.[zoo,pretrained,compression,fleet,report,video,onnx,docs,dev]'
	@touch $@ .venv/.installed
