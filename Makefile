# Every command of this repository. `make demo` and `make test` need Python >= 3.11, a C++ compiler and make,
# and set up the rest in .venv; the stamps in .make/ say what is installed already.

PYTHON := .venv/bin/python
RIYAZ := .venv/bin/riyaz
PYTEST := $(PYTHON) -m pytest -n 2
EXTRAS := train,docs,data,hub
COMMA := ,
PIP_LOG := .make/pip.log
unexport PYTHONDONTWRITEBYTECODE  # the tests start Python a hundred times: what one has compiled the next one reads
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo demo-documents test test-fast torture fuzz bench lint format clean

# Stamps without the environment they speak of are worth nothing.
ifeq ($(wildcard $(PYTHON)),)
  $(shell rm -rf .make)
endif

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-14s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

demo: .make/train  ## pull a model, compare five ways to adapt it to ten labels (examples/quickstart), print the table
	$(RIYAZ) pull smollm2-135m
	$(RIYAZ) compare examples/quickstart --methods nearest,zero_shot,few_shot,lora,full --budget 15m --out demo-result

demo-documents: .make/train  ## the same with a firm's handbook to retrieve from (examples/helpdesk)
	$(RIYAZ) pull smollm2-135m
	$(RIYAZ) pull minilm
	$(RIYAZ) compare examples/helpdesk --budget 15m --out demo-documents-result

test: .make/test  ## every test, with the real model (pulled once)
	$(RIYAZ) pull smollm2-135m
	$(RIYAZ) pull minilm
	$(PYTEST)

test-fast: .make/test  ## the tests without the real model: about two minutes on two cores, no network
	$(PYTEST) -m "not slow"

torture: .make/test  ## kill a pretraining run at random moments, resume it, compare it with one never killed: bit by bit
	PYTHONPATH=tests $(PYTHON) tests/torture.py --rounds 5 --kills 8

fuzz: .make/test  ## ten minutes of mutated files for every reader: models, tokenizers, rows, documents
	$(PYTHON) tests/fuzz_readers.py all --seconds 600

bench: .make/test  ## training beside transformers + PEFT on this machine; the last line is JSON
	$(PYTHON) benchmarks/training.py --peer

lint: .make/test  ## ruff and mypy
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy

format: .make/test  ## mend what ruff can mend
	.venv/bin/ruff check --fix
	.venv/bin/ruff format

clean:  ## remove caches, builds and stamps; .venv and results stay
	rm -rf .make .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

# An environment that has no working pip, or an older Python, is made anew.
.make/venv:
	@if ! $(PYTHON) -c 'import sys, pip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	  for candidate in python3 python3.13 python3.12 python3.11; do \
	    if $$candidate -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	      echo "$$candidate -m venv .venv"; $$candidate -m venv --clear .venv && break || exit 2; \
	    fi; \
	  done; \
	  if ! test -x $(PYTHON); then \
	    echo "error: no Python >= 3.11 with venv found; install one (Debian: python3 python3-venv)" >&2; exit 2; \
	  fi; \
	fi
	@mkdir -p .make && touch $@

# pip's hundreds of lines go to a log; its last ones are shown when it fails.
define install
	@echo "installing '.[$(1)]', minutes the first time (log: $(PIP_LOG))"
	@$(PYTHON) -m pip install --disable-pip-version-check --no-color -e '.[$(1)]' >$(PIP_LOG) 2>&1 </dev/null || \
	  { status=$$?; tail -n 15 $(PIP_LOG) >&2; echo "error: pip failed; the whole log is $(PIP_LOG)" >&2; exit $$status; }
endef

# All that the commands' help names: PDF and Word files, Excel and Parquet, models of the hub.
.make/train: pyproject.toml .make/venv
	$(call install,$(EXTRAS))
	@touch $@

# Asks for the demo's extras too, so that a demo after a test installs nothing.
.make/test: pyproject.toml .make/venv
	$(call install,$(EXTRAS)$(COMMA)test)
	@touch .make/train $@
