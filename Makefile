# All that a newcomer needs: `make demo` to see it work, `make test` to check it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# requirements.lock holds the versions that are tested; as constraints they bind only what is asked for
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint requirements.lock
# a process a core, each with one thread: threads of processes that share cores wait for each other
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --quiet --numprocesses auto --maxprocesses 4

.DEFAULT_GOAL := help
.PHONY: help demo docs test fuzz lint quick install lock clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.installed  ## train, evaluate and save a network on the embedded digits, from nothing but Python
	$(BIN)/resnets train digits --network resnet14 --output demo --overwrite
	$(BIN)/resnets evaluate demo/model.safetensors digits
	@echo
	@echo "The model file is demo/model.safetensors. Try next:"
	@echo "  $(BIN)/resnets --help"
	@echo "  $(BIN)/resnets show resnet14"
	@echo "  $(BIN)/resnets train FOLDER_OF_CLASS_FOLDERS"

install: $(VENV)/.installed  ## create .venv with this package in it

test: lint  ## ruff, mypy and every test, warnings as errors
	$(PYTEST) -m "not slow"
	$(PYTEST) -m slow

quick: $(VENV)/.installed-for-tests  ## only the tests that take less than about five seconds
	$(PYTEST) -m "not slow" --exitfirst

docs: $(VENV)/.installed-for-tests  ## build the documentation, in docs/_build; warnings and broken links are errors
	$(BIN)/sphinx-build --nitpicky --fail-on-warning --keep-going --quiet docs docs/_build

MINUTES ?= 60
fuzz: $(VENV)/.installed-for-tests  ## damage files for an hour, or MINUTES=5, and keep what breaks a reader
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.fuzz.run --minutes $(MINUTES) --seed $$(date +%s)

lint: $(VENV)/.installed-for-tests  ## ruff and mypy
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	for system in linux darwin win32; do $(BIN)/mypy --platform $$system || exit 1; done

lock: $(VENV)/.installed-for-tests  ## write down the versions that are installed now
	$(BIN)/python -m pip freeze --exclude-editable | sed 's/+cpu$$//' | grep -v '^nvidia-\|^triton' > requirements.lock

clean:  ## remove .venv and what tools left behind
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(VENV)/bin/python pyproject.toml requirements.lock
	$(PIP) --editable .
	touch $@

$(VENV)/.installed-for-tests: $(VENV)/.installed
	$(PIP) --editable '.[all,docs,test]'
	touch $@
