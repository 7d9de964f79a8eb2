# The commands of a newcomer: each sets up everything it needs from a clean clone.
#   make demo    build geoact and run the study: geoact-study/report.html
#   make test    build geoact and run the tests
# and of a developer:
#   make lint    formatting, linting, types, generated documentation
#   make bench   every case against a copy, and the CPU bars against torch, NumPy and others (installs torch into an
#                environment of its own)
#   make gate    is the working tree slower than BASE (default: HEAD)? both are built and take turns
#   make instructions   the CPU kernels' instructions, counted under valgrind and held to the stored table (x86_64)
# and, for the GPU kernels, without a GPU:
#   make simulate   the CUDA kernels on the simulated device: the tests, in three thread orders, and with sanitizers
#   make triton     the Triton kernels under Triton's interpreter
#   make kernels    both compiled (CUDA for sm_90 and 120, Triton also for sm_80 and 100) and held to the stored report of registers and instructions
# and with one:
#   make gpu        build for it, test there, measure the GPU bars (downloads nothing)
PYTHON ?= python3
VENV := .venv
BENCH_VENV := .venv-bench
BIN := $(VENV)/bin
# Empty for a machine without torch: what needs it is then neither built nor tested. A machine without a GPU may prefer
# make test TORCH="torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu"
TORCH ?= torch==2.13.0
comma := ,
EXTRAS := dev$(if $(TORCH),$(comma)dev-torch)
# Where there is no GPU one architecture is compiled, to know that it compiles; a plain pip install compiles all.
export CUDAARCHS ?= $(if $(shell nvidia-smi -L 2>/dev/null),native,90-real)
BUILD_TOOLS := scikit-build-core pybind11 numpy cmake ninja

.PHONY: demo test lint bench gate instructions simulate triton kernels gpu clean
.DELETE_ON_ERROR:

SOURCES := CMakeLists.txt pyproject.toml $(shell find cmake csrc kernels python -type f -not -name '*.pyc')

# One stamp per environment: rebuilt when a source is newer, so that no command ever runs an old build.
$(VENV)/base: constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	touch $@

$(VENV)/demo: $(VENV)/base $(SOURCES)
	GEOACT_CUDA=OFF $(BIN)/python -m pip install --quiet --constraint constraints.txt '.[study]'
	touch $@

# Built in the environment itself, so that the part that needs torch's headers is built for the torch that is there.
$(VENV)/dev: $(VENV)/base $(SOURCES)
	$(BIN)/python -m pip install --quiet $(TORCH) $(BUILD_TOOLS) --constraint constraints.txt
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-build-isolation \
	  --config-settings=cmake.define.GEOACT_CUSIM=ON '.[$(EXTRAS)]'
	touch $@

# timm needs torchvision, which may be built for another torch: apart, so that nothing else meets it.
$(VENV)/timm: $(VENV)/dev
	$(if $(TORCH),$(BIN)/python -m pip install --quiet --no-deps --upgrade --target $@-packages timm==1.0.31 torchvision==0.29.2)
	touch $@

demo: $(VENV)/demo
	$(BIN)/geoact study --quick --out geoact-study
	@echo "open geoact-study/report.html"

test: $(VENV)/dev $(VENV)/timm
	GEOACT_TEST_TIMM=$(if $(TORCH),$(CURDIR)/$(VENV)/timm-packages) $(BIN)/pytest tests --numprocesses 2

lint: $(VENV)/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	git ls-files 'csrc/*.h' 'csrc/*.cpp' 'csrc/*.cuh' 'csrc/*.cu' 'tests/*.cpp' | xargs $(BIN)/clang-format --dry-run --Werror
	$(BIN)/python docs/generate.py --check

$(BENCH_VENV)/ready: constraints.txt $(SOURCES)
	$(PYTHON) -m venv $(BENCH_VENV)
	$(BENCH_VENV)/bin/python -m pip install --quiet --upgrade pip
	$(BENCH_VENV)/bin/python -m pip install --quiet --constraint constraints.txt $(TORCH) transformers $(BUILD_TOOLS)
	GEOACT_CUDA=OFF $(BENCH_VENV)/bin/python -m pip install --quiet --constraint constraints.txt --no-build-isolation '.[peers]'
	touch $@

# One file for each class of machine; docs/generate.py shows them all.
MEASURED = benchmarks/results/$(shell $(BENCH_VENV)/bin/python -c \
  "from geoact.bench import environment as e; print(e.slug(e.describe()))").json

bench: $(BENCH_VENV)/ready
	$(BENCH_VENV)/bin/geoact bench run benchmarks/suite.py --json $(MEASURED)
	$(BENCH_VENV)/bin/python benchmarks/watching.py

BASE := HEAD

gate: $(VENV)/dev
	$(BIN)/geoact compare $(BASE) . --changed

# INSTRUCTIONS_ARGUMENTS="--save benchmarks/results/instructions.json" stores the table anew.
INSTRUCTIONS := benchmarks/results/instructions.json
INSTRUCTIONS_EXPLAINED := $(wildcard benchmarks/results/instructions_explained.json)
INSTRUCTIONS_ARGUMENTS := --baseline $(INSTRUCTIONS) $(addprefix --explained ,$(INSTRUCTIONS_EXPLAINED))

instructions: $(VENV)/dev
	$(BIN)/python -m geoact.bench.instructions benchmarks/instructions_suite.py $(INSTRUCTIONS_ARGUMENTS)

# The files that say what geoact computes; the others are about threads, packages and commands.
COMPUTED := $(addprefix tests/test_,values.py backward.py merge.py oracles.py errors.py layout.py masks.py statistics.py)
SIMULATED := GEOACT_TEST_BACKEND=cusim $(BIN)/pytest -q

simulate: $(VENV)/dev
	$(SIMULATED) --numprocesses 2 $(COMPUTED)
	GEOACT_SIM_ORDER=reverse $(SIMULATED) tests/test_merge.py tests/test_oracles.py
	GEOACT_SIM_ORDER=random:7 $(SIMULATED) tests/test_merge.py tests/test_oracles.py
	bash tests/cpp/check_sim.sh

# In an environment of its own: the interpreter replaces what Triton compiles with, for the whole process.
triton: $(VENV)/triton
	TRITON_INTERPRET=1 $(BIN)/pytest -q --numprocesses 2 tests/tritonlang

$(VENV)/triton: $(VENV)/dev
	$(BIN)/python -m pip install --quiet --constraint constraints.txt triton
	touch $@

# All would take twenty minutes: one of each kind. KERNELS_ARGUMENTS=--update stores the report anew.
TRITON_COMPILED := relu,gelu,swish
KERNELS_ARGUMENTS :=

kernels: $(VENV)/triton
	rm -rf build/triton && mkdir -p build/triton
	$(BIN)/python tests/tritonlang/compile_ahead.py build/triton --only $(TRITON_COMPILED)
	$(BIN)/python benchmarks/kernels_static.py --triton build/triton $(KERNELS_ARGUMENTS)

gpu:
	$(PYTHON) benchmarks/make_gpu.py

clean:
	rm -rf build dist $(VENV) $(BENCH_VENV)
