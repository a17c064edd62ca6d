# Everything runs from .venv, which the first target that needs it sets up.
# `make demo` and `make test` are all a new checkout needs: Python 3.10+ and make.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# The newest PyTorch that has been tested; `make TORCH=...` installs another.
TORCH ?= torch==2.13.0

.PHONY: demo test test-slow check format bench clean

demo: $(VENV)/.installed
	$(BIN)/segany segment examples/images/astronaut.png --prompts examples/astronaut.json --out out/demo

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest

test-slow: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m "slow or not slow"

check: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# make bench PEER_PYTHON=/path/to/an/environment/with/the/official/code/bin/python
bench: $(VENV)/.installed-dev
	$(BIN)/python -m benchmarks.run $(if $(PEER_PYTHON),--peer-python $(PEER_PYTHON),--only-ours)

clean:
	rm -rf $(VENV) out

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet "$(TORCH)"
	$(BIN)/python -m pip install --quiet --editable ".[torch]"
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --editable ".[video,export,openvino,train]" --group dev
	touch $@
