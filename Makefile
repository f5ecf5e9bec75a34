# Every target makes .venv itself if it is missing. PYTHON chooses the interpreter that .venv is made with.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: setup demo test check format bench guests docs clean

setup: .venv/.developer

demo: .venv/.runtime
	@$(BIN)/spear demo

# On all cores, but for what measures time on real sockets. PYTEST="-k name tests/spear" runs just that, on one.
test: .venv/.developer
ifdef PYTEST
	$(BIN)/python -m pytest $(PYTEST)
else
	$(BIN)/python -m pytest --numprocesses=auto --dist=loadfile --ignore=tests/system
	$(BIN)/python -m pytest tests/system
endif

check: .venv/.developer
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/mypy --no-error-summary tests/typing
	$(BIN)/lint-imports
	$(BIN)/python -m tests.checks.public_api
	$(BIN)/python -m tests.checks.licences

format: .venv/.developer
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: .venv/.developer
	$(BIN)/python -m benchmarks

# Rebuilds the sample guests with the compilers that are there and compares them with what is committed.
guests: .venv/.runtime
	$(BIN)/python -m spear.guests.rebuild --check

docs: .venv/.docs
	$(BIN)/zensical build --clean --strict

clean:
	rm -rf .venv site dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

.venv/pyvenv.cfg:
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"

.venv/.runtime: pyproject.toml .venv/pyvenv.cfg
	$(BIN)/python -m pip install --quiet --editable ".[cli,local]"
	@touch $@

.venv/.developer: .venv/.runtime
	$(BIN)/python -m pip install --quiet --group test --group check
	@touch $@

.venv/.docs: .venv/.runtime
	$(BIN)/python -m pip install --quiet --group docs
	@touch $@
