# Everything runs in .venv, which is made from the pinned requirements.txt and made anew when that
# file changes. No environment has to be active.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

# Two kernels at a time, one thread each: spinning threads would only get in each other's way.
export OMP_NUM_THREADS ?= 1

.DEFAULT_GOAL := help
.PHONY: help run test lab refresh student assignment slides colab gpu site wheel lint lock readme \
  clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "%-12s%s\n", $$1, $$2}' Makefile

run: $(READY)  ## execute every notebook, with a table of seconds and checks at the end
	@$(BIN)/python -m tools.notebooks run $(NB)

test: $(READY)  ## unit tests, all outputs of every notebook, and JupyterLab in a browser
	@sh tools/browser.sh
	@$(BIN)/python -m pytest

lab: $(READY)  ## open JupyterLab on the first notebook
	@$(BIN)/jupyter lab notebooks/00_start_here.ipynb

refresh: $(READY)  ## record the outputs of notebooks anew: make refresh NB=04_two_regressions
	@$(BIN)/python -m tools.notebooks refresh $(NB)

student: $(READY)  ## copies without the solutions, in notebooks/student
	@$(BIN)/python -m tools.notebooks student

assignment: $(READY)  ## an assignment for nbgrader, in build/assignments: make assignment NB=04
	@$(BIN)/python -m tools.assignment $(NB)

slides: $(READY)  ## slides of lessons, in build/slides/html: make slides NB=04
	@$(BIN)/python -m tools.slides $(NB)

colab: $(READY)  ## copies for Google Colab, in build/colab: make colab REPO=owner/name
	@$(BIN)/python -m tools.colab $(REPO)

gpu: $(READY)  ## the experiments that want a graphics card, under 8 minutes, and their records
	@$(BIN)/python -m experiments.gpu

site: $(READY)  ## the notebooks, a page for each method and the package as a site, in build/site/html
	@$(BIN)/python -m tools.site

wheel: $(READY)  ## build the wheel and try it in new environments (needs the network)
	@$(BIN)/python -m tools.wheel

lint: $(READY)  ## ruff and mypy
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

readme: $(READY)  ## the tables and the picture in README.md, the minutes in docs/teaching.md
	@$(BIN)/python -m tools.readme

lock: $(READY)  ## resolve requirements.txt anew from pyproject.toml
	@$(BIN)/python -m tools.lock

clean:  ## remove everything that is generated
	rm -rf $(VENV) build notebooks/student .mypy_cache .ruff_cache .hypothesis

# The stamp is written last, so that an interrupted set-up is not taken for a finished one. A stale
# environment is removed first, so that packages that left requirements.txt leave it too. The stamp
# holds this folder's path: an environment does not survive being moved or copied.
ifneq ($(shell cat $(READY) 2>/dev/null),$(CURDIR))
.PHONY: $(READY)
endif
$(READY): requirements.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0] + "; try: make PYTHON=python3.11 ...")'
	@rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@pwd -P > $@
