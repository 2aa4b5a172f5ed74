# `make demo` and `make test` set up everything they need. Nothing but Python 3.11 or newer, gcc and make is expected.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: setup demo test test-slow lint clean

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "wamkit needs Python 3.11 or newer; set PYTHON=..."; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { echo "cannot make a virtual environment (on Debian: apt-get install python3-venv)"; exit 2; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "uv>=0.9"
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable ".[dev]"
	@touch $(READY)

demo: $(READY)
	$(BIN)/wam adapt tests/data/g1_inspire_v21 --robot g1_inspire \
	  --video tests/data/droid_video --video-task "a robot arm works at a table" --split-by order --out runs/demo

# Two processes, each a file at a time: a file's expensive fixtures are made once. Parity counts what all of it has read.
test: $(READY)
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow" --ignore tests/parity tests
	$(BIN)/python -m pytest tests/parity

test-slow: $(READY)
	$(BIN)/python -m pytest -m slow tests

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

clean:
	rm -rf $(VENV) runs build *.egg-info
