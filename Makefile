# The commands of a newcomer: each sets up everything it needs from a clean clone.
#   make demo    build geoact and run the study: geoact-study/report.html
#   make test    build geoact and run the tests
# and of a developer:
#   make lint    formatting, linting, types, generated documentation
#   make bench   the CPU bars against torch and NumPy (installs torch into an environment of its own)
PYTHON ?= python3
VENV := .venv
BENCH_VENV := .venv-bench
BIN := $(VENV)/bin
TORCH := torch==2.13.0

.PHONY: demo test lint bench wheel-test clean
.DELETE_ON_ERROR:

SOURCES := CMakeLists.txt pyproject.toml $(shell find csrc python -type f -not -name '*.pyc')

# One stamp per environment: rebuilt when a source is newer, so that no command ever runs an old build.
$(VENV)/base: constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	touch $@

$(VENV)/demo: $(VENV)/base $(SOURCES)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt '.[study]'
	touch $@

$(VENV)/dev: $(VENV)/base $(SOURCES)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt '.[dev]'
	touch $@

demo: $(VENV)/demo
	$(BIN)/geoact study --out geoact-study
	@echo "open geoact-study/report.html"

test: $(VENV)/dev
	$(BIN)/pytest tests

lint: $(VENV)/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	git ls-files 'csrc/*.h' 'csrc/*.cpp' 'tests/*.cpp' | xargs $(BIN)/clang-format --dry-run --Werror
	$(BIN)/python docs/generate.py --check

$(BENCH_VENV)/ready: constraints.txt $(SOURCES)
	$(PYTHON) -m venv $(BENCH_VENV)
	$(BENCH_VENV)/bin/python -m pip install --quiet --upgrade pip
	$(BENCH_VENV)/bin/python -m pip install --quiet --constraint constraints.txt $(TORCH) '.[bench]'
	touch $@

bench: $(BENCH_VENV)/ready
	$(BENCH_VENV)/bin/python benchmarks/bars.py

clean:
	rm -rf build dist $(VENV) $(BENCH_VENV)
