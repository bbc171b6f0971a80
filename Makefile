# All that a newcomer needs: `make demo` to see it work, `make test` to check it.
ifeq ($(OS),Windows_NT)  # with make and a POSIX shell, such as Git's
PYTHON ?= python
SCRIPTS := Scripts
else
PYTHON ?= python3
SCRIPTS := bin
endif
VENV := .venv
BIN := $(VENV)/$(SCRIPTS)
# requirements.lock holds the versions that are tested; as constraints they bind only what is asked for
# without compiling all that is installed: most of it is never imported
PIP := $(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check --constraint requirements.lock
# a process more than there are cores, as some tests only wait; each has one thread: threads of
# processes that share cores wait for each other
# bytecode is kept, also where PYTHONDONTWRITEBYTECODE is set: tests start some hundred processes
# worksteal: each begins with a part of the list in its order, so that most of what the tests of a
# file share (a trained network, an export) is made once
PYTEST := PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest --quiet --numprocesses "$$($(BIN)/python -c 'import os; print(min(4, 1 + (os.cpu_count() or 1)))')" --dist worksteal

.DEFAULT_GOAL := help
.PHONY: help demo docs test fuzz soak lint quick install lock lowest latest package clean

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
	$(PYTEST) -m "not soak"

quick: $(VENV)/.installed-for-tests  ## only the tests that take less than about five seconds
	$(PYTEST) -m "not slow and not soak" --exitfirst

docs: $(VENV)/.installed-for-tests  ## build the documentation, in docs/_build; warnings and broken links are errors
	$(BIN)/sphinx-build --nitpicky --fail-on-warning --keep-going --quiet docs docs/_build

MINUTES ?= 60
fuzz: $(VENV)/.installed-for-tests  ## damage files for an hour, or MINUTES=5, and keep what breaks a reader
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.fuzz.run --minutes $(MINUTES) --seed $$(date +%s)

soak: $(VENV)/.installed-for-tests  ## what takes long: memory that grows, load, lost machines, and the like of what `test` runs
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m soak

lint: $(VENV)/.installed-for-tests  ## ruff, and mypy for Linux, macOS and Windows
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	printf '%s\n' linux pyproject.toml darwin mypy-portable.ini win32 mypy-portable.ini | \
	xargs -P 3 -n 2 sh -c '$(BIN)/mypy --platform $$0 --config-file $$1 --cache-dir .mypy_cache/$$0'

lock: $(VENV)/.installed-for-tests  ## write down the versions that are installed now
	$(BIN)/python -m pip freeze --exclude-editable | sed 's/+cpu$$//' | grep -v '^nvidia-\|^triton==' > requirements.lock

# environments of their own: what is tested is what a fresh installation would get
lowest:  ## the quick tests with the lowest versions that pyproject.toml allows
	$(PYTHON) -m venv --clear build/lowest
	build/lowest/$(SCRIPTS)/python -m pip install --quiet uv
	build/lowest/$(SCRIPTS)/uv pip install --quiet --python build/lowest --resolution lowest-direct --editable '.[all,test]'
	OMP_NUM_THREADS=1 build/lowest/$(SCRIPTS)/python -m pytest --quiet --numprocesses auto -m "not slow and not soak" $(TESTS)

latest:  ## the quick tests with the newest versions there are
	$(PYTHON) -m venv --clear build/latest
	build/latest/$(SCRIPTS)/python -m pip install --quiet --upgrade --editable '.[all,docs,test]'
	OMP_NUM_THREADS=1 build/latest/$(SCRIPTS)/python -m pytest --quiet --numprocesses auto -m "not slow and not soak" $(TESTS)

package: $(VENV)/.installed-for-tests  ## build wheel and sdist, check them, and predict from the wheel in an empty environment
	rm -rf dist
	$(BIN)/python -m hatchling build --directory dist
	$(PYTHON) -m venv --clear build/twine
	build/twine/$(SCRIPTS)/python -m pip install --quiet twine
	build/twine/$(SCRIPTS)/twine check --strict dist/*
	$(PYTHON) -m venv --clear build/empty
	build/empty/$(SCRIPTS)/python -m pip install --quiet --constraint requirements.lock dist/*.whl
	build/empty/$(SCRIPTS)/python -c "from PIL import Image; Image.new('RGB', (64, 48), 'teal').save('build/photo.png')"
	cd build && empty/$(SCRIPTS)/resnets predict photo.png

clean:  ## remove .venv and what tools left behind
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(VENV)/pyvenv.cfg:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(VENV)/pyvenv.cfg pyproject.toml requirements.lock
	$(PIP) --editable .
	touch $@

$(VENV)/.installed-for-tests: $(VENV)/.installed
	$(PIP) --editable '.[all,docs,test]'
	touch $@
