# make demo    train the five-institution diabetes model and write its report (installs what it needs)
# make test    run the tests
# make check   formatting, lint, types, layers, then the tests with coverage
# make fuzz    a minute of fuzzing for each target
# make bench   list the benchmarks and run them; results go to benchmarks/results/

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
OUT    ?= runs/demo
# One thread a process: the tests run in two processes, and layers this small gain nothing from more.
export OMP_NUM_THREADS ?= 1

.PHONY: demo test test-long check lint bench fuzz clean

demo: $(VENV)/.demo
	$(BIN)/cutlayer demo --out $(OUT)

test: $(VENV)/.dev
	$(BIN)/python -m pytest -n 2 --dist worksteal

test-long: $(VENV)/.dev
	$(BIN)/python -m pytest -m long

lint: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint
	$(BIN)/python -m pytest -n 2 --dist worksteal --cov --cov-report=term

bench: $(VENV)/.dev
	$(BIN)/python benchmarks/run.py --list
	$(BIN)/python benchmarks/run.py

fuzz: $(VENV)/.dev
	$(BIN)/python -m pip install --quiet -e ".[fuzz]"
	for target in frames states control; do $(BIN)/python fuzz/run.py $$target --seconds $${SECONDS_EACH:-60} || exit 1; done

clean:
	rm -rf $(VENV) build dist src/*.egg-info

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

$(VENV)/.demo: $(VENV)/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[demo]"
	touch $@

$(VENV)/.dev: $(VENV)/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[dev]"
	touch $@ $(VENV)/.demo
