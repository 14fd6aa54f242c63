# The two commands of the README are `make quickstart` and `make test`.
# PYTHON=python3.12 chooses the interpreter, PIP_ARGS is passed to pip.

PYTHON ?= python3
PIP_ARGS ?=
VENV := .venv
VENV_OPENMMLAB := .venv-openmmlab
PYTEST := -m pytest -n 2

.DEFAULT_GOAL := help
.PHONY: help install quickstart test test-fast test-tables docs docs-tables coverage mutation attack check lint types clean

help:  ## Show this help
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | \
	    awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

# $(1): folder of the environment, $(2): its requirements. The stamp is written
# last, so that a broken-off installation is taken up again.
define install_into
	@$(PYTHON) -c 'import sys; v = sys.version.split()[0]; \
	    sys.exit(0 if sys.version_info >= (3, 10) else \
	    f"mmdtm needs Python 3.10 or newer, this is {v}: make PYTHON=python3.11 ...")'
	@echo "Installing $(2) into $(1) (about a minute, longer with CUDA wheels)"
	$(PYTHON) -m venv $(1)
	$(1)/bin/python -m pip install -q -U pip setuptools wheel
	$(1)/bin/python -m pip install -q $(PIP_ARGS) -r requirements/$(2).txt -r requirements/tests.txt
	$(1)/bin/python -m pip install -q --no-deps --no-build-isolation -e .
	touch $@
endef

install: $(VENV)/.installed  ## Make .venv with the pinned packages

$(VENV)/.installed: requirements/runtime.txt requirements/onedl.txt requirements/tests.txt requirements/docs.txt
	$(call install_into,$(VENV),onedl)

$(VENV_OPENMMLAB)/.installed: requirements/runtime.txt requirements/openmmlab.txt requirements/tests.txt requirements/docs.txt
	$(call install_into,$(VENV_OPENMMLAB),openmmlab)

quickstart: install  ## DTM on a toy dataset (minutes, no GPU; QUICKSTART=--full for all of it)
	$(VENV)/bin/python examples/toy/quickstart.py $(QUICKSTART)

test: install $(VENV_OPENMMLAB)/.installed  ## All tests on both stacks
	$(VENV)/bin/python $(PYTEST)
	$(VENV_OPENMMLAB)/bin/python $(PYTEST)

test-fast: install  ## The fast tests on the default stack (under two minutes on two idle cores)
	$(VENV)/bin/python $(PYTEST) -m 'not slow'

test-tables: install  ## Every chain behind the paper's tables, small, on made data
	rm -rf work_dirs/tables-smoke
	$(VENV)/bin/python tools/reproduce.py all --run --smoke

docs: install  ## The documentation site, into site/
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/python -m mkdocs build --strict

docs-tables: install  ## Bring docs/tables.md and the model index up to date
	$(VENV)/bin/python tools/docs_tables.py

coverage: install  ## Branch coverage of the core (mmdtm/morphing)
	$(VENV)/bin/python -m pytest tests/morphing --cov=mmdtm.morphing --cov-branch \
	    --cov-report=term-missing

mutation: install  ## Mutants of the core that its tests let live (ten minutes)
	$(VENV)/bin/python -m pip install -q mutmut==3.8.1
	rm -rf build/mutation && mkdir -p build/mutation/mmdtm build/mutation/tests
	cp -r mmdtm/__init__.py mmdtm/morphing build/mutation/mmdtm
	cp -r tests/morphing $(filter-out tests/test_%,$(wildcard tests/*.py)) build/mutation/tests
	cp pyproject.toml build/mutation
	@# mutmut leaves functions with a decorator alone.
	sed -i.bak '/^@torch.no_grad()$$/d' build/mutation/mmdtm/morphing/*.py
	rm build/mutation/mmdtm/morphing/*.bak
	cd build/mutation && PYTHONPATH= OMP_NUM_THREADS=1 \
	    $(abspath $(VENV))/bin/python -m mutmut run --max-children 2
	cd build/mutation && $(abspath $(VENV))/bin/python -m mutmut results

attack: install  ## 300 kills, faults of disks and processes, hostile input (20 min)
	$(VENV)/bin/python tests/attack/campaign.py --kills 300

check: lint types test-fast  ## Before each commit: style, types, fast tests

lint: install  ## Style
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

types: install  ## Types of the package
	$(VENV)/bin/mypy

clean:  ## Remove the environments, the results and all caches
	rm -rf $(VENV) $(VENV_OPENMMLAB) work_dirs build site *.egg-info \
	    .pytest_cache .ruff_cache .mypy_cache .hypothesis .coverage
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
