# make demo     a sweep on real data, in less than three minutes after the set-up
# make test     the checks and tests, but for those that are marked slow
# make install  only the set-up: the project, editable, in .venv
# make cifar    sweep, controls, retraining, report and export on CIFAR-10; that takes hours. Its images are
#               downloaded, or taken from a folder of Parquet files: make cifar DATA=FOLDER
#
# Another Python than python3: make PYTHON=python3.12 demo

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/installed-from-setup.py

# The drills that are quick, one of each; benchmarks/faults.py has more.
DRILLS := step-slow worker-killed driver-killed node-drained storage-away checkpoint-damaged deadline

.DEFAULT_GOAL := help
# Of `make cifar`: what is searched on, and where it is kept. The same command again goes on where it ended.
DATA ?= cifar10
SWEEP ?= $(HOME)/nasib_ray_results/cifar

.PHONY: help demo test install cifar

help:
	@sed -n '/^#/!q; s/^# \{0,1\}//p' Makefile

install: $(INSTALLED)

$(INSTALLED): setup.py
	@command -v $(PYTHON) >/dev/null || { \
	  echo "There is no $(PYTHON) here: install Python 3.10 or newer, or name one as in 'make PYTHON=python3.12 install'." >&2; \
	  exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	  echo "nasib-ray needs Python 3.10 or newer, but $(PYTHON) is $$($(PYTHON) --version 2>&1):" \
	    "name another one as in 'make PYTHON=python3.12 install'." >&2; \
	  exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "$(PYTHON) cannot make virtual environments: install its venv package (python3-venv on Debian and Ubuntu)." >&2; \
	  exit 1; }
	@echo 'Setting up .venv: PyTorch, Ray and others; some gigabytes and a few minutes.'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check --editable '.[dev]'
	@touch $@

demo: $(INSTALLED)
	$(BIN)/nasib-ray sweep examples/digits.yaml
	@echo
	@echo 'Where to look next:'
	@echo '  $(BIN)/nasib-ray --help         every command, with examples'
	@echo '  $(BIN)/nasib-ray status PATH    this sweep again; PATH is where its results are (above)'
	@echo '  examples/digits.yaml          what was run; examples/paper.yaml is the paper'"'"'s CIFAR-10 search'
	@echo '  examples/any_trainable.py     the same budget around a Trainable of your own'
	@echo '  README.md, docs/              how it works'

cifar: $(INSTALLED)
	$(BIN)/nasib-ray sweep examples/cifar.yaml --data '$(DATA)' --storage '$(dir $(SWEEP))' --name '$(notdir $(SWEEP))' --controls
	$(BIN)/nasib-ray retrain '$(SWEEP)' --controls --seeds 3
	$(BIN)/nasib-ray compare '$(SWEEP)'
	$(BIN)/nasib-ray export '$(SWEEP)' -o '$(SWEEP)/network.onnx'
	$(BIN)/nasib-ray report '$(SWEEP)'

# Everything that is written goes into a folder of this run, and Ray is one of its own: runs beside each other, in other
# clones, are not disturbed.
test: $(INSTALLED)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	@scratch=$$(mktemp -d) && trap 'rm -rf "$$scratch"' EXIT && trap 'exit 130' INT TERM && set -ex && \
	  export NASIB_RAY_CACHE="$$scratch/cache" && unset RAY_ADDRESS && \
	  $(BIN)/pytest -m 'not ray and not slow' --numprocesses=auto --basetemp="$$scratch/unit" && \
	  $(BIN)/pytest -m 'ray and not slow' --numprocesses=2 --dist=loadfile --basetemp="$$scratch/ray" && \
	  $(BIN)/python benchmarks/faults.py --drills 7 --jobs 2 --trainables foreign told --faults $(DRILLS) && \
	  { set +x; } 2>/dev/null && echo && echo 'All checks and tests passed.'
