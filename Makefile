# make demo | check | test | docs | bench | peers | clean: each sets up what it needs (a virtual environment with the pinned versions) by itself.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
# Another build of torch, as in: make test TORCH=torch==2.13.0+cu130
TORCH ?= torch==2.13.0

BIN := .venv/bin
INSTALLED := .venv/installed

.PHONY: help demo check test docs bench peers clean

help:
	@sed -n 1p $(MAKEFILE_LIST) | cut -c3-

demo: $(INSTALLED)
	$(BIN)/anamorph demo --out build/demo

check: docs
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright
	$(BIN)/lint-imports

test: $(INSTALLED)
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4

docs: $(INSTALLED)
	$(BIN)/mkdocs build --quiet --strict

bench: $(INSTALLED)
	$(BIN)/python -m benchmarks

# Each peer in its own environment: they ask for other versions than we do. PEERS="ants elastix greedy" for all.
PEERS ?= ants elastix

peers:
	for peer in $(PEERS); do \
		test -x build/peers/$$peer/bin/python || $(PYTHON) -m venv build/peers/$$peer; \
		build/peers/$$peer/bin/python -m pip install --quiet -r src/anamorph/inference/peers/requirements_$$peer.txt || exit 1; \
	done

clean:
	rm -rf build dist .hypothesis .pytest_cache .ruff_cache .import_linter_cache

# torch goes first and alone: whatever needs it afterwards then finds the wanted build. hatchling is pinned like the rest,
# hence no build isolation.
$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=...")'
	@echo "Setting up .venv from constraints.txt: some minutes, once."
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -c constraints.txt pip hatchling editables
	$(BIN)/python -m pip install --quiet -c constraints.txt $(TORCH)
	$(BIN)/python -m pip install --quiet -c constraints.txt --no-build-isolation -e '.[dev]'
	touch $@
