# Two commands need nothing but Python 3.11 (on Debian and Ubuntu also its venv package) and git:
#   make demo    sets up, trains CoDream beside its baselines on embedded real data, and audits what leaks
#   make deploy-demo   the same across processes that Flower starts, with keys, TLS and masked sums
#   make test    sets up and runs the default test suite
# Where torch should come from elsewhere than the default index (a CPU-only build on Linux, say), tell pip:
#   PIP_EXTRA_INDEX_URL=... make demo

PYTHON := $(shell command -v python3.11 || command -v python3 || echo python3)
VENV := .venv
BIN := $(VENV)/bin
OUT := runs/demo
DEPLOY_OUT := runs/deploy_demo/$(shell date +%Y%m%d-%H%M%S)

.NOTPARALLEL:
.PHONY: demo deploy-demo test test-deployment test-slow lint clean

demo: $(VENV)/.installed
	$(BIN)/python -m codream_secure demo --out $(OUT)
	$(BIN)/python -m codream_secure audit --quick --out $(OUT)/audit

deploy-demo: $(VENV)/.installed-flower
	$(BIN)/python examples/flower_codream/run_local.py $(DEPLOY_OUT)

test: $(VENV)/.installed-test
	$(BIN)/python -m pytest -q -n 2 --dist loadfile

# Tests of deployments need Flower and gRPC, and are passed over by the default suite without them.
test-deployment: $(VENV)/.installed-test $(VENV)/.installed-flower
	$(BIN)/python -m pytest -q -n 2 --dist loadfile tests/flower tests/deployment tests/deployment_codream tests/bench

test-slow: $(VENV)/.installed-test
	$(BIN)/python -m pytest -q -m slow

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo 'Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11' >&2; exit 1; }
	$(PYTHON) -m venv --clear $(VENV) || \
		{ rm -rf $(VENV); echo 'no venv module: on Debian and Ubuntu, apt install python3.11-venv' >&2; exit 1; }

$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	@echo 'installing into $(VENV); torch is large, this can take minutes'
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/.installed-flower: pyproject.toml | $(VENV)/bin/python
	@echo 'installing into $(VENV); torch is large, this can take minutes'
	$(BIN)/python -m pip install --quiet --editable '.[flower]'
	touch $@ $(VENV)/.installed

$(VENV)/.installed-test: pyproject.toml | $(VENV)/bin/python
	@echo 'installing into $(VENV); torch is large, this can take minutes'
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	touch $@ $(VENV)/.installed

$(VENV)/.installed-dev: pyproject.toml | $(VENV)/bin/python
	@echo 'installing into $(VENV); torch is large, this can take minutes'
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@ $(VENV)/.installed $(VENV)/.installed-test

clean:
	rm -rf .venv build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
