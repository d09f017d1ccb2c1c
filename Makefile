# `make run` and `make test` need nothing but make and Python >= 3.11: each sets up .venv first where it is missing.
#
#   DEVICE=cpu|cuda   which package set and device (default: cuda where an NVIDIA GPU is seen)
#   CONFIG=FILE       what `make run` and `make compare` run
#   ARGS="..."        further arguments for run or pytest, split at spaces, quotes not interpreted
#   PYTHON=PATH       the Python that .venv is made from
#   COVERAGE=yes|no   whether `make test` prints what was covered (default: yes from Python 3.12 on)

ifndef DEVICE
DEVICE := $(shell nvidia-smi -L 2>/dev/null | grep -q '^GPU' || [ -e /dev/nvidia0 ] && echo cuda || echo cpu)
endif
ifeq ($(filter cpu cuda,$(DEVICE)),)
$(error DEVICE is cpu or cuda, not "$(DEVICE)")
endif
CONFIG ?= configs/dmc_pixels.py$(if $(filter cpu,$(DEVICE)),:quick)
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; exit; }; done)

# The CUDA set holds the CPU set, so DEVICE=cpu on a GPU machine uses the .venv that is there.
SET := $(if $(wildcard .venv/.ready-cuda),cuda,$(DEVICE))
READY := .venv/.ready-$(SET)
REQUIREMENTS := $(if $(filter cuda,$(SET)),requirements.txt,requirements-cpu.txt)
PY := .venv/bin/python
# Words of $ARGS reach the program as they are: no globbing, and (0,1) is no shell syntax. The program takes the shell's
# place, so that it hears a SIGTERM that make is sent, and saves.
WITH_ARGS = set -f; exec $(1) $$ARGS

export ARGS
ifeq ($(DEVICE),cpu)
# The CUDA wheels print an alarming traceback where there is no GPU.
export JAX_PLATFORMS := cpu
endif

.PHONY: help run compare test test-all check bench-smoke format docs venv clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@sed -n 's/^#   \([A-Z]\)/     \1/p' $(MAKEFILE_LIST)

run: $(READY)  ## train an agent from pixels (a short run where there is no GPU)
	$(call WITH_ARGS,$(PY) -m experiments.run --config=$(CONFIG))

compare: $(READY)  ## train a dense network and NE on the same seeds, and draw both beside each other
	$(call WITH_ARGS,$(PY) -m experiments.compare --config=$(CONFIG) --method=none --method=ne)

# Tests compare bit for bit, and several workers can't share a GPU's memory: on the CPU, whatever DEVICE is.
test test-all: export JAX_PLATFORMS := cpu
PYTEST := $(PY) -m pytest -n auto --maxprocesses=8 --dist=worksteal
# What the tests covered. From Python 3.12 on this costs next to nothing; on 3.11 a quarter of the time, so there it must be asked for.
COVERAGE ?= $(shell $(PYTHON) -c 'import sys; print("yes" if sys.version_info >= (3, 12) else "no")' 2>/dev/null)
test: export COVERAGE_CORE := $(if $(filter yes,$(COVERAGE)),$(shell $(PYTHON) -c 'import sys; print("sysmon" if sys.version_info >= (3, 12) else "ctrace")'))

test: $(READY)  ## run the tests, and print which code they covered
	$(call WITH_ARGS,$(PYTEST) $(if $(filter yes,$(COVERAGE)),--cov --cov-report=term:skip-covered))
	@$(if $(filter yes,$(COVERAGE)),,echo "coverage: make test COVERAGE=yes (on Python 3.11 it makes the tests a quarter slower)")

test-all: $(READY)  ## run the tests, slow ones included
	$(call WITH_ARGS,$(PYTEST) -m "slow or not slow")

# Pyright takes Node.js from its wheel, whatever is on PATH, and does not look for a newer pyright.
check: $(READY)  ## lint, formatting, types
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	PYRIGHT_PYTHON_GLOBAL_NODE=0 PYRIGHT_PYTHON_IGNORE_WARNINGS=1 $(PY) -m pyright

bench-smoke: $(READY)  ## compare what the main programs are made of with the baseline: no timing
	$(PY) -m experiments.benches.count

format: $(READY)  ## mend what lint and formatting can mend
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

docs: export JAX_PLATFORMS := cpu
docs: $(READY)  ## build the site of docs/ into build/docs; a warning is an error
	$(PY) -m sphinx --quiet --fail-on-warning --doctree-dir build/doctrees docs build/docs
	@echo "build/docs/index.html"

venv: $(READY)  ## set up .venv and no more

clean:  ## remove .venv, caches and build output; results stay
	rm -rf .venv .pytest_cache .ruff_cache .coverage .coverage.* build dist *.egg-info
	find . -name __pycache__ -prune -exec rm -rf {} +

# Always from nothing: a half-made .venv and one whose packages changed version in place are both unsafe to mend.
# The stamp comes last, so an interrupted set-up starts over. uv is much faster, but pip must do where uv can't.
$(READY): requirements-cpu.txt requirements.txt requirements-dev.txt requirements-nodeps.txt constraints.txt
	@if [ -z "$(PYTHON)" ]; then echo "ne_jax needs Python 3.11 or newer; none is on PATH (or say make PYTHON=/path/to/python3)." >&2; exit 1; fi
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "ne_jax needs Python 3.11 or newer; $(PYTHON) is older, or does not run." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo "$(PYTHON) lacks the venv module; on Debian or Ubuntu: apt install python3-venv" >&2; exit 1; }
	@echo "Setting up .venv from $(REQUIREMENTS): about a minute for the CPU set, a 3.4 GB download for CUDA."
	$(PYTHON) -m venv --clear .venv
	@$(PY) -m pip install --quiet --disable-pip-version-check uv || true
	@install_with() { \
		"$$@" -c constraints.txt -r $(REQUIREMENTS) -r requirements-dev.txt && "$$@" --no-deps -r requirements-nodeps.txt; }; \
	install_with $(PY) -m uv pip install --python $(PY) || { \
		echo "uv could not install the packages; trying pip."; \
		install_with $(PY) -m pip install --disable-pip-version-check; }
	@touch $@
