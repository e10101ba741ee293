# Every command of this repository. `make demo` and `make test` need Python >= 3.11, a C++ compiler and make,
# and set up the rest in .venv; the stamps in .make/ say what is installed and built already.

PYTHON := .venv/bin/python
RIYAZ := .venv/bin/riyaz
PYTEST := $(PYTHON) -m pytest -n 2
EXTRAS := train,docs,data,hub,json
COMMA := ,
PIP_LOG := .make/pip.log
CPP := $(foreach ending,h cpp inc,$(wildcard native/*/*.$(ending) native/*/*/*.$(ending)))
NATIVE := CMakeLists.txt native/build_backend.py $(filter-out native/tests/% native/fuzz/%,$(CPP))
# `make native PYTHON=…/python` takes another environment as it is; this folder's own is made ready first.
READY := $(if $(filter .venv/bin/python,$(PYTHON)),.make/test)
# Whether warnings are errors in the usual folder; with `STRICT=` as it was built before, and nothing is compiled anew.
STRICT := 1
SANITIZE := build/sanitize
CROSS := build/cross$(if $(SOME),-some)
WINDOWS := build/windows
THREADS := build/threads
CHECKED := $(filter-out tests/native/test_native_build.py tests/native/test_native_cross.py,$(wildcard tests/native/test_*.py))
unexport PYTHONDONTWRITEBYTECODE  # the tests start Python a hundred times: what one has compiled the next one reads
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:  # two installations at once would spoil each other; tests and compilers share the cores by themselves
.PHONY: help wheels demo demo-documents examples test test-changed test-fast torture torture-grid fuzz fuzz-native fuzz-routes threads bench native kernels cross windows tiles sanitize coverage mutants lint format clean page page-same test-page tree site man notebooks

# Stamps without the environment they speak of are worth nothing.
ifeq ($(wildcard $(PYTHON)),)
  $(shell rm -rf .make)
endif

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-14s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

demo: .make/train .make/native  ## pull a model, compare eight ways to adapt it to ten labels (examples/quickstart), print the table
	$(RIYAZ) pull smollm2-135m
	$(RIYAZ) pull minilm
	$(RIYAZ) compare examples/quickstart --methods nearest,linear,encoder,zero_shot,few_shot,lora,full,ensemble --budget 15m --out demo-result

demo-documents: .make/train .make/native  ## the same with a firm's handbook to retrieve from (examples/helpdesk)
	$(RIYAZ) pull smollm2-135m
	$(RIYAZ) pull minilm
	$(RIYAZ) compare examples/helpdesk --budget 15m --out demo-documents-result

examples: .make/train .make/native  ## the nine applications of examples/README.md in a small form, a line each
	$(RIYAZ) pull smollm2-135m
	$(RIYAZ) pull minilm
	$(PYTHON) examples/small.py

test: .make/test .make/native  ## every test, with the real model (pulled once)
	$(RIYAZ) pull smollm2-135m
	$(RIYAZ) pull minilm
	KEEP_RUN=.make/run.json $(PYTEST)

BASE := HEAD
test-changed: .make/test .make/native  ## the tests that your changes can reach, nearest first: three minutes; BASE=origin/main: of a branch
	$(RIYAZ) pull smollm2-135m
	$(RIYAZ) pull minilm
	$(PYTHON) tests/house/changed.py $(BASE)

test-fast: .make/test .make/native  ## the tests without the real model: about two minutes on two cores, no network
	$(PYTEST) -m "not slow"

torture-grid: .make/test .make/native  ## every case of the large grids, of which the other targets run a sample
	WHOLE_GRID=1 $(PYTEST) -m "grid or hypothesis"

torture: .make/test .make/native  ## kill commands and a server, let their writes fail, run them again, compare; load a server: three hours
	PYTHONPATH=tests:tests/helpers $(PYTHON) tests/torture/campaign.py --kills 8 --seconds 1800
	PYTHONPATH=tests:tests/helpers:tests/torture $(PYTHON) tests/torture/faults.py --most 3 --seconds 1800
	PYTHONPATH=tests:tests/helpers:tests/torture $(PYTHON) tests/torture/server.py --most 5 --seconds 900
	PYTHONPATH=tests:tests/helpers:tests/torture $(PYTHON) tests/torture/surroundings.py --seconds 1800
	$(RIYAZ) pull smollm2-135m
	$(RIYAZ) pull minilm
	$(PYTHON) tests/torture/soak.py smollm2-135m --requests 20000 --again 2000
	PYTHONPATH=tests/helpers $(PYTHON) tests/pretraining/torture.py --rounds 5 --kills 8
	PYTHONPATH=tests/helpers $(PYTHON) tests/pretraining/torture_ranks.py --processes 2 --kills 8

fuzz: .make/test  ## ten minutes of mutated files for every reader: models, tokenizers, rows, documents, folders
	$(PYTHON) tests/house/fuzz_readers.py all --seconds 600

fuzz-native: $(READY)  ## ten minutes of libFuzzer under ASan and UBSan for the C++ engine (Debian: clang, libclang-rt-dev)
	$(PYTHON) tests/house/fuzz_native.py all --seconds 600

fuzz-routes: .make/test .make/native  ## ten minutes of mutated requests to every route of a server with a tiny model
	$(PYTHON) tests/house/fuzz_routes.py all --seconds 600

bench: .make/test .make/native  ## training beside transformers + PEFT on this machine; the last line is JSON
	$(PYTHON) benchmarks/training.py --peer

native: $(READY)  ## build the C++ engine again beside the Python files; warnings are errors
	@$(PYTHON) -c 'import nanobind' 2>/dev/null || \
	  { echo "error: $(PYTHON) has no nanobind; install it there (pip install nanobind)" >&2; exit 2; }
	RIYAZ_STRICT=1 $(PYTHON) native/build_backend.py
	@if test -d .make; then touch .make/native; fi

kernels: $(READY)  ## compare the kernels of every instruction set of this CPU with plain loops
	RIYAZ_STRICT=$(STRICT) $(PYTHON) native/build_backend.py --target run_check_kernels

# On a CPU with all of them, and one without 8-bit matrix products and bfloat16. SOME=--some: a sample of the slow
# checks, of kernels that were compiled quickly.
cross: $(READY)  ## the same for aarch64, emulated (Debian: g++-aarch64-linux-gnu qemu-user)
	RIYAZ_STRICT=1 $(PYTHON) native/build_backend.py --folder $(CROSS) --target check_kernels -DRIYAZ_PYTHON=OFF \
	  -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 -DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++ \
	  -DCMAKE_EXE_LINKER_FLAGS=-static $(if $(SOME),-DRIYAZ_QUICK=ON) --no-warn-unused-cli
	qemu-aarch64 -cpu max $(CROSS)/check_kernels $(SOME) i8mm
	qemu-aarch64 -cpu cortex-a76 $(CROSS)/check_kernels $(SOME) scalar dotprod

# wine writes its folder below build/, and its own messages nowhere.
windows: $(READY)  ## the same for Windows, under wine: plain loops and AVX2 (Debian: g++-mingw-w64-x86-64-posix wine64 wine)
	RIYAZ_STRICT=1 $(PYTHON) native/build_backend.py --folder $(WINDOWS) --target check_kernels -DRIYAZ_PYTHON=OFF \
	  -DCMAKE_SYSTEM_NAME=Windows -DCMAKE_SYSTEM_PROCESSOR=x86_64 -DCMAKE_EXE_LINKER_FLAGS=-static \
	  -DCMAKE_CXX_COMPILER=x86_64-w64-mingw32-g++-posix '-DRIYAZ_ISAS=scalar;avx2' --no-warn-unused-cli
	WINEPREFIX=$(CURDIR)/build/wine WINEDEBUG=-all wine $(WINDOWS)/check_kernels.exe $(SOME) scalar avx2

tiles: $(READY)  ## the same for AMX's tiles, emulated, on a CPU with AVX-512 and bfloat16
	RIYAZ_STRICT=$(STRICT) $(PYTHON) native/build_backend.py --target run_check_tiles

# A copy of the package holds the checked extension, so that the ordinary one stays where it is.
sanitize: $(READY)  ## the tests of the C++ engine under AddressSanitizer and UndefinedBehaviorSanitizer
	rm -rf $(SANITIZE)/src && mkdir -p $(SANITIZE) && cp -R src $(SANITIZE)/src && rm -f $(SANITIZE)/src/riyaz/_native*
	RIYAZ_STRICT=1 $(PYTHON) native/build_backend.py --into $(SANITIZE)/src/riyaz --folder $(SANITIZE)/native \
	  -DRIYAZ_SANITIZE=ON
	compiler=$${CXX:-c++}; LD_PRELOAD="$$($$compiler -print-file-name=libasan.so) \
	  $$($$compiler -print-file-name=libstdc++.so)" ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 \
	  PYTHONPATH=$(SANITIZE)/src $(PYTHON) -m pytest -s -p no:cacheprovider $(CHECKED)

# TESTS='tests/data tests/text': some of them; ROOMS=data,text: some rooms.
coverage: .make/test  ## branches of src/riyaz and lines of native/ that the tests reach, into build/coverage
	$(RIYAZ) pull smollm2-135m
	$(RIYAZ) pull minilm
	$(PYTHON) tests/house/coverage_of.py -n 2 $(TESTS)

mutants: .make/test  ## ten small changes of every room of src/riyaz, after `make coverage`: does a test notice?
	$(PYTHON) tests/house/mutants.py $(if $(ROOMS),--rooms $(ROOMS))

threads: $(READY)  ## what threads of the C++ engine do together, under ThreadSanitizer
	RIYAZ_STRICT=1 $(PYTHON) native/build_backend.py --folder $(THREADS) --target check_threads -DRIYAZ_PYTHON=OFF \
	  -DRIYAZ_THREADS=ON '-DRIYAZ_ISAS=scalar;avx512bf16'
	$(THREADS)/check_threads

# tests/serve/test_page_build.py compares the hashes that the build wrote with the files; it needs no Node.
page:  ## build the web page into the package (Node >= 20.19); commit what it writes
	cd page && npm ci --no-audit --no-fund && npm run check && npm run build

page-same:  ## build the web page beside the committed one (Node >= 20.19); fails where a byte differs
	cd page && npm ci --no-audit --no-fund && npm run build -- --outDir ../build/page
	diff -r build/page src/riyaz/serve/static

test-page: .make/test .make/native  ## the page in a browser, from a real server with a tiny model (Debian: chromium)
	$(PYTHON) -m pytest -p no:cacheprovider page/tests

tree: $(READY)  ## write docs/tree.md: every folder and file in one line
	$(PYTHON) tests/house/tree.py

wheels: .make/test  ## wheels for x86-64, aarch64 and without the C++ engine, into dist/: a quarter of an hour on two cores
	$(PYTHON) -m pip install --disable-pip-version-check -q -e '.[wheels]'
	$(PYTHON) native/wheels.py

site: .make/site  ## build the documentation site into build/site: every page of docs/, with search; a warning is an error
	$(PYTHON) docs/site/build.py

notebooks: .make/test .make/native  ## make the notebooks of docs/notebooks from their pages and execute them: a quarter of an hour
	$(RIYAZ) pull smollm2-135m
	$(PYTHON) docs/notebooks/make.py

man: $(READY)  ## write the manual pages of every command into build/man
	$(PYTHON) -m riyaz.cli.manual build/man

lint: .make/test  ## ruff, mypy and clang-format
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy
	.venv/bin/clang-format --dry-run --Werror $(CPP)

format: .make/test  ## mend what ruff and clang-format can mend
	.venv/bin/ruff check --fix
	.venv/bin/ruff format
	.venv/bin/clang-format -i $(CPP)

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
# CI has warnings of the C++ compiler count as errors, as `make native` does.
define install
	@echo "installing '.[$(1)]', minutes the first time, up to 3 of them to build the C++ engine (log: $(PIP_LOG))"
	@$(if $(CI),RIYAZ_STRICT=1 )$(PYTHON) -m pip install --disable-pip-version-check --no-color -e '.[$(1)]' \
	  >$(PIP_LOG) 2>&1 </dev/null || \
	  { status=$$?; tail -n 15 $(PIP_LOG) >&2; echo "error: pip failed; the whole log is $(PIP_LOG)" >&2; exit $$status; }
	@$(PYTHON) -c 'from riyaz import native; print(native.why_not() and f"note: {native.why_not()}", end="\n"*(not native.available()))'
endef

# All that the commands' help names: PDF and Word files, Excel and Parquet, models of the hub.
.make/train: pyproject.toml .make/venv
	$(call install,$(EXTRAS))
	@touch $@

.make/site: pyproject.toml .make/venv
	$(call install,site)
	@touch $@

# Asks for the demo's extras too, so that a demo after a test installs nothing.
.make/test: pyproject.toml .make/venv
	$(call install,$(EXTRAS)$(COMMA)test)
	@touch .make/train .make/site $@

# C++ that changed after the installation is built again; `make native` is the quicker way while one writes it.
.make/native: $(NATIVE) | .make/train
	@if test -n "$$(find $(NATIVE) -newer .make/train)"; then \
	  echo "building the C++ engine again, up to 3 minutes (log: .make/native.log)"; \
	  $(if $(CI),RIYAZ_STRICT=1 )$(PYTHON) -m pip install --disable-pip-version-check --no-color --no-deps -e . \
	    >.make/native.log 2>&1 </dev/null || { tail -n 15 .make/native.log >&2; exit 2; }; \
	fi
	@touch $@
