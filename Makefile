# The commands a person needs; `make` alone lists them.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# torch comes first and apart from the lock, so that the same lock serves a CPU and a CUDA build.
# Another build: make setup TORCH='torch==2.13.0+cpu', with pip's own settings naming where it lies.
TORCH  ?= torch==2.13.0
QUIET  := DO_NOT_TRACK=1 PREFECT_SERVER_ANALYTICS_ENABLED=false MLFLOW_DISABLE_TELEMETRY=true
STAMP  := $(VENV)/.consilium-setup
# Where `make bench` makes the environments of other frameworks, about 3 GB.
PEERS  ?= .peers

# dynamic-network-architectures asks for timm, for networks that are not used here; it asks for torchvision.
OF_TIMM := timm huggingface-hub hf-xet httpcore2 httpx2 truststore httpx2-jsfetch
# What belongs to torch's CUDA build, and so is installed by `pip install torch` or not at all.
# torchvision: medmnist asks for it, but nothing here needs it and its CUDA build breaks beside a CPU torch.
NOT_LOCKED := torch torchvision $(OF_TIMM) setuptools triton cuda-bindings cuda-pathfinder cuda-toolkit \
  nvidia-cublas nvidia-cuda-cupti nvidia-cuda-nvrtc nvidia-cuda-runtime nvidia-cudnn-cu13 nvidia-cufft \
  nvidia-cufile nvidia-curand nvidia-cusolver nvidia-cusparse nvidia-cusparselt-cu13 nvidia-nccl-cu13 \
  nvidia-nvjitlink nvidia-nvshmem-cu13 nvidia-nvtx

.PHONY: help setup run test numerical coverage mutants bench lint types imports check docs reference lock ui clean
.DEFAULT_GOAL := help

help:  ## this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(STAMP)  ## virtual environment with the locked packages; does nothing the second time
	@echo "setup: ready ($(VENV))"

$(STAMP): requirements.lock pyproject.toml Makefile
	@echo "setup 1/5: virtual environment in $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Consilium needs Python 3.11 or newer; name one with: make setup PYTHON=python3.11")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "setup 2/5: $(TORCH) and the installer (about a minute)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check "$(TORCH)" uv
	@echo "setup 3/5: $$(grep -cE '^[a-z0-9].*==' requirements.lock) packages from requirements.lock"
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --require-hashes --compile-bytecode -r requirements.lock
	@echo "setup 4/5: consilium itself, editable"
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	@echo "setup 5/5: templates of the databases of Prefect and MLflow, which take seconds to make"
	@$(QUIET) $(BIN)/python -m tasks.new_database >/dev/null 2>&1 || \
	  echo "setup 5/5: not made; the first run makes them"
	@touch $@

run: $(STAMP)  ## the demo experiment end to end
	@$(BIN)/consilium run demo

test: $(STAMP)  ## all tests, three at a time; ARGS="-k name" for some
	@$(BIN)/python -m pytest -n 3 --dist worksteal $(ARGS)

numerical: $(STAMP)  ## the numerical tests as on a processor without AVX-512
	@ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 $(BIN)/python -m pytest -m numerical $(ARGS)

coverage: $(STAMP)  ## all tests, and which lines and branches they ran; ARGS="tests/federated" for some
	@$(BIN)/python -m pytest -n 2 --dist worksteal --cov --cov-report=html --cov-report=term:skip-covered $(ARGS)

mutants: $(STAMP)  ## small faults that tests have to notice; ARGS="masks" for some (docs/mutants.md)
	@$(BIN)/python -m tests.mutants $(ARGS)

bench: $(STAMP)  ## rounds beside other frameworks, and what has changed; ARGS="--quick" for a try
	@$(BIN)/python -m benchmarks.rounds --peers $(PEERS) $(ARGS)

lint: $(STAMP)  ## ruff: lint and format
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

types: $(STAMP)  ## mypy --strict on federated/ and models/
	@$(BIN)/mypy

imports: $(STAMP)  ## the import contract: flows -> tasks -> federated -> models
	@$(BIN)/lint-imports

check: lint types imports  ## lint, types and the import contract

docs: $(STAMP)  ## the documentation as a site in build/docs; fails if a link leads nowhere
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict
	@echo "docs: build/docs/index.html, for any browser; no server is needed"

reference: $(STAMP)  ## the pages of docs/reference that are made from the program
	@$(BIN)/python -m flows.reference

ui: $(STAMP)  ## MLflow and Prefect in the browser
	@$(BIN)/consilium serve --ui-only

lock: $(STAMP)  ## resolve pyproject.toml anew into requirements.lock
	$(BIN)/uv pip compile pyproject.toml --extra dev --extra dask --extra docs --extra release --universal --python-version 3.11 \
	  --generate-hashes --no-header --no-annotate --quiet $(addprefix --no-emit-package ,$(NOT_LOCKED)) -o requirements.lock

clean:  ## remove the virtual environment and caches; data, runs and mlruns stay
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis build *.egg-info
