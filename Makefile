# Everything runs from .venv, which the first target that needs it sets up.
# `make demo` and `make test` are all a new checkout needs: Python 3.10+ and make.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# The newest PyTorch that has been tested; `make TORCH=...` installs another.
TORCH ?= torch==2.13.0

PAGE := src/segany/server/static/index.html

.PHONY: demo serve test test-slow browser web web-dev postgres check format bench clean

demo: $(VENV)/.installed
	$(BIN)/segany segment examples/images/astronaut.png --prompts examples/astronaut.json --out out/demo

# The annotation application with these photographs, in your own project; PHOTOS=folder adds others.
PHOTOS ?= examples/images
serve: $(VENV)/.installed-serve $(PAGE)
	$(BIN)/segany serve $(PHOTOS)

test: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

test-slow: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m "slow or not slow"

# What the tests in a browser need beside that; without it they are skipped. As root on Debian it installs
# Node.js and Chromium too.
browser: web/dist/segany.js
	@$(call system_command,chromium,chromium chromium-browser google-chrome chrome)

# The page of the annotation application.
web: $(PAGE)

# The page with a mock server, rebuilt as its sources change: http://127.0.0.1:5173/#token=mock
web-dev: web/node_modules/.installed
	cd web && npm run dev

# PostgreSQL, in which the tests of the store run beside SQLite; without it they are skipped. The tests start it.
postgres:
	@$(call system_command,postgresql,initdb /usr/lib/postgresql/*/bin/initdb)

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
	rm -rf $(VENV) out web/dist $(dir $(PAGE)) web/node_modules

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet "$(TORCH)"
	$(BIN)/python -m pip install --quiet --editable ".[torch]"
	touch $@

$(VENV)/.installed-serve: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --editable ".[torch,serve]"
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --editable ".[video,export,openvino,train,postgres,scale]" --group dev
	touch $@

web/dist/segany.js: web/node_modules/.installed web/tsconfig.json $(wildcard web/src/*.ts)
	cd web && npm run --silent check && npm run --silent build

$(PAGE): web/node_modules/.installed web/tsconfig.json web/vite.config.ts $(shell find web/app web/src web/mock web/test -type f)
	cd web && npm run --silent check && npm run --silent test && npm run --silent build:app

web/node_modules/.installed: web/package.json web/package-lock.json web/.npmrc
	@$(call system_command,nodejs npm,npm)
	cd web && npm ci --silent
	touch $@

# $(call system_command,PACKAGES,COMMANDS): Debian's packages, unless one of the commands is here.
define system_command
for name in $(2); do command -v $$name > /dev/null && exit 0; done; \
if [ "$$(id -u)" != 0 ] || ! command -v apt-get > /dev/null; then \
	echo "Install $(1) first: on Debian and Ubuntu, sudo apt-get install $(1)" >&2; exit 1; \
fi; \
apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends $(1) > /dev/null
endef
