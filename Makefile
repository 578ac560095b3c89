# `make demo` and `make test` are the two commands to know. Each sets up .venv by itself, needs only
# make and Python 3.11 or newer, and sets it up again only when pyproject.toml or constraints.txt changed.

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
PYTHONS := $(PYTHON) python3.11 python3.12 python3.13 python3.14 python3
# Two tests at a time: half of them wait for processes of their own. A file stays together.
PYTEST_ARGS ?= --numprocesses 2 --dist loadfile

.DEFAULT_GOAL := help
.PHONY: help demo test test-all lint bench wheel constraints locks clean

help:
	@echo "make demo         train the bundled job on this computer, over the whole road (a few minutes)"
	@echo "make test         every check: ruff, mypy, shellcheck, pytest"
	@echo "make test-all     the same, with tests that say it again at more points"
	@echo "make lint         the checks that run nothing"
	@echo "make bench        the figures of docs/performance.md, measured here (minutes)"
	@echo "make wheel        the installable package, in dist/"
	@echo "make constraints  write constraints.txt from what .venv holds"
	@echo "make locks        write the locks of the stacks in images/ (needs a Python of each stack's version)"
	@echo "make clean        remove .venv and everything that was built"

# The machine is made for this one run and ended with it; run, outputs and ledger line stay in
# cloudrun's ordinary home, so that the commands which the demo names at its end work as printed.
demo: $(READY)
	@PATH="$(CURDIR)/$(BIN):$$PATH" cloudrun submit jobs/svhn_rcnn --preset quick --on local

test: lint
	$(BIN)/python -m pytest $(PYTEST_ARGS)

test-all: lint
	CLOUDRUN_TEST_KILLS=200 $(BIN)/python -m pytest $(PYTEST_ARGS) -m ""

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	@if command -v shellcheck >/dev/null; then \
	  find . -path ./$(VENV) -prune -o -name '*.sh' -print | xargs shellcheck .ci/run && echo "shellcheck: clean"; \
	else echo "shellcheck is not installed: shell scripts not checked"; fi

bench: $(READY)
	$(BIN)/python benchmarks/bench_startup.py
	$(BIN)/python benchmarks/bench_latency.py
	$(BIN)/python benchmarks/bench_status.py
	$(BIN)/python benchmarks/bench_sync.py
	$(BIN)/python benchmarks/bench_data.py
	$(BIN)/python benchmarks/bench_aws_calls.py
	$(BIN)/python benchmarks/bench_azure_calls.py
	$(BIN)/python benchmarks/bench_rented.py
	$(BIN)/python benchmarks/bench_rcnn.py
	$(BIN)/python benchmarks/bench_bn.py
	$(BIN)/python benchmarks/bench_transfer.py
	$(BIN)/python benchmarks/bench_clean.py
	$(BIN)/python benchmarks/bench_ledger.py
	$(BIN)/python benchmarks/bench_bucket.py
	@if [ "$$(id -u)" = 0 ]; then $(BIN)/python benchmarks/bench_bake.py; \
	else echo "bench_bake.py needs root: not measured"; fi

wheel: $(READY)
	$(BIN)/python -m build --wheel --no-isolation

# A build number after + names one index's build of the same release: elsewhere it would not be found.
constraints: $(READY)
	{ echo "# The exact versions that cloudrun is tested with. Written by: make constraints"; \
	  $(BIN)/python -m pip freeze --exclude cloudrun --exclude-editable | sed 's/+.*//'; } > constraints.new
	mv constraints.new constraints.txt
	touch $(READY)

# The Pythons that the stacks are for, by the names they have on this computer: make locks PYTHON310=/path/to/it
PYTHON310 ?= python3.10
PYTHON312 ?= python3.12
locks: $(READY)
	$(BIN)/python -m cloudrun.cli.stack_lock images/cpu-torch.toml $(PYTHON310)
	$(BIN)/python -m cloudrun.cli.stack_lock images/cuda11-torch.toml $(PYTHON310)
	$(BIN)/python -m cloudrun.cli.stack_lock images/cuda12-torch.toml $(PYTHON312)
	$(BIN)/python -m cloudrun.cli.stack_lock images/cuda13-torch.toml $(PYTHON312)

clean:
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# hatchling comes first, so that the package itself is built with the version that constraints.txt names.
$(READY): pyproject.toml constraints.txt
	@$(BIN)/python -c 'import sys, pip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  for python in $(PYTHONS) ""; do \
	    "$$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && break; \
	  done; \
	  if [ -z "$$python" ]; then \
	    echo "cloudrun needs Python 3.11 or newer with its venv module, and found none."; \
	    echo "Install it (Debian, Ubuntu: apt-get install python3 python3-venv), or name yours: make $(MAKECMDGOALS) PYTHON=/path/to/python"; \
	    exit 1; \
	  fi >&2; \
	  rm -rf $(VENV) && "$$python" -m venv $(VENV); }
	@echo "setting up $(VENV) (the first time takes minutes: PyTorch is among the packages)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt hatchling
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt \
	  --no-build-isolation --editable '.[aws,azure,local,sim,tools,dev]'
	@touch $@
