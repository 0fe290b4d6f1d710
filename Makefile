# Two commands for a newcomer: `make demo` and `make test`. Nothing but Python 3.11, make and a package index is needed.
PYTHON ?= python3.11
BIN := .venv/bin
OUT ?= out/quickstart

.PHONY: help install demo leaderboard test check format test-all test-gpu clean

help: ## show these targets
	@grep -E '^[a-z-]+:.*##' Makefile | sed 's/:.*## /\t/' | expand -t 12

.venv/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,embedded]'
	touch $@

install: .venv/installed ## make .venv with everything in it

demo: install ## run recipes/quickstart.yaml and print its table (measured already: just print)
	$(BIN)/compressbench run recipes/quickstart.yaml --out $(OUT) --resume

leaderboard: install ## draw results/site and its picture anew from the records in results
	$(BIN)/compressbench leaderboard results --out results/site
	-$(BIN)/python tests/browser/picture.py

test: install ## all tests that need no network and no GPU
	$(BIN)/python -m pytest -n auto

test-all: install ## the slow ones too
	$(BIN)/python -m pytest -m 'not gpu and not network'

test-gpu: install ## those that need a GPU
	$(BIN)/python -m pytest -m gpu

check: install ## format, lint, types, import contract
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/python -m mypy
	$(BIN)/lint-imports

format: install ## write the format that check wants
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean: ## remove what install and demo have made
	rm -rf .venv out
