# make demo    a small model learns arithmetic on this machine's CPU, in minutes
# make test    all tests
# make check   format, lint, types, architecture
# make format  put the format right, and what else ruff can mend
# make bench   measure beside TRL, about an hour on two cores: leave the machine alone; see docs/measurements.md
# make docs    build the documentation into build/site
# make clean   remove .venv, .venv-trl and caches; runs stay
#
# Python 3.11 or newer, make and git are all it takes: the first target that needs it makes .venv and installs into it.
# Another Python:                    make PYTHON=/path/to/python demo
# Some tests only:                   make test ARGS="tests/config -x"
# Some measurements only:            make bench ARGS="--only W1", and --quick to see that it runs

VENV := .venv
TRL_VENV := .venv-trl
BIN := $(VENV)/bin
PYTHON ?=
ARGS ?=

# PyPI's torch for Linux brings gigabytes of CUDA. Without an NVIDIA driver PyTorch's CPU index is asked as well, if it
# answers within 3 seconds: its torch 2.13.0+cpu counts as newer than 2.13.0 and is taken. Otherwise plain pip, which
# works everywhere. Your own choice: make CPU_INDEX=https://mirror/whl/cpu, or CPU_INDEX= for plain pip.
CPU_INDEX ?= https://download.pytorch.org/whl/cpu

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1

.PHONY: demo test check format bench docs clean

demo: $(VENV)/base
	$(BIN)/groupwise demo

test: $(VENV)/dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 $(ARGS)

check: $(VENV)/dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q tests/test_architecture.py tests/test_architecture_checks.py

format: $(VENV)/dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/bench $(TRL_VENV)/trl
	$(BIN)/python bench/run.py $(ARGS)

docs: $(VENV)/docs
	$(BIN)/python docs/site.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

clean:
	rm -rf $(VENV) $(TRL_VENV) build dist .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamps are files in .venv, so that whoever removes .venv removes them too.
$(VENV)/base: pyproject.toml constraints.txt
	@test -x $(BIN)/pip || for python in $(PYTHON) python3.11 python3 python3.12 python3.13 python3.14; do \
		if $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
			echo "Making .venv with $$($$python -V) ($$python)"; \
			exec $$python -m venv --clear $(VENV); \
		fi; \
	done; test -x $(BIN)/pip || { echo "No Python 3.11 or newer found: install one, or make PYTHON=/path/to/it" >&2; exit 1; }
	$(BIN)/python $(install) -e .
	@touch $@

$(VENV)/dev: $(VENV)/base
	$(BIN)/python $(install) -e '.[dev]'
	@touch $@

$(VENV)/docs: $(VENV)/base
	$(BIN)/python $(install) -e '.[docs]'
	@touch $@

$(VENV)/bench: $(VENV)/base
	$(BIN)/python $(install) -e '.[bench]'
	@touch $@

# Beside us, not with us: each side has what it would install by itself, at the versions of constraints.txt.
$(TRL_VENV)/trl: $(VENV)/base
	@test -x $(TRL_VENV)/bin/pip || $(BIN)/python -m venv --clear $(TRL_VENV)
	$(TRL_VENV)/bin/python $(install) torch 'trl[peft]'
	@touch $@

install = -m pip install -c constraints.txt $$($(cpu_index))
cpu_index = test "$$(uname -s)" = Linux && test -n "$(CPU_INDEX)" && ! command -v nvidia-smi >/dev/null 2>&1 \
	&& $(BIN)/python -c 'import urllib.request as r; r.urlopen("$(CPU_INDEX)/torch/", timeout=3)' 2>/dev/null \
	&& echo --extra-index-url $(CPU_INDEX)
