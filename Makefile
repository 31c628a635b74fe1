# make demo    a small model learns arithmetic on this machine's CPU, in minutes
# make test    all tests
# make check   format, lint, types, architecture
# make format  put the format right, and what else ruff can mend
# make clean   remove .venv and caches; runs stay
#
# Python 3.11 or newer, make and git are all it takes: the first target that needs it makes .venv and installs into it.
# Another Python:                    make PYTHON=/path/to/python demo
# Some tests only:                   make test ARGS="tests/config -x"

VENV := .venv
BIN := $(VENV)/bin
PYTHON ?=
ARGS ?=

# PyPI's torch for Linux brings gigabytes of CUDA. Without an NVIDIA driver PyTorch's CPU index is asked as well, if it
# answers within 3 seconds: its torch 2.13.0+cpu counts as newer than 2.13.0 and is taken. Otherwise plain pip, which
# works everywhere. Your own choice: make CPU_INDEX=https://mirror/whl/cpu, or CPU_INDEX= for plain pip.
CPU_INDEX ?= https://download.pytorch.org/whl/cpu

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1

.PHONY: demo test check format clean

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

clean:
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamps are files in .venv, so that whoever removes .venv removes them too.
$(VENV)/base: pyproject.toml constraints.txt
	@test -x $(BIN)/pip || for python in $(PYTHON) python3.11 python3 python3.12 python3.13 python3.14; do \
		if $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
			echo "Making .venv with $$($$python -V) ($$python)"; \
			exec $$python -m venv --clear $(VENV); \
		fi; \
	done; test -x $(BIN)/pip || { echo "No Python 3.11 or newer found: install one, or make PYTHON=/path/to/it" >&2; exit 1; }
	$(install) -e .
	@touch $@

$(VENV)/dev: $(VENV)/base
	$(install) -e '.[dev]'
	@touch $@

install = $(BIN)/python -m pip install -c constraints.txt $$($(cpu_index))
cpu_index = test "$$(uname -s)" = Linux && test -n "$(CPU_INDEX)" && ! command -v nvidia-smi >/dev/null 2>&1 \
	&& $(BIN)/python -c 'import urllib.request as r; r.urlopen("$(CPU_INDEX)/torch/", timeout=3)' 2>/dev/null \
	&& echo --extra-index-url $(CPU_INDEX)
