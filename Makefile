PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: help run serve test lint types schema bench soak image-test requirements clean

help: ## This list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

run: $(STAMP) ## One picture, start to finish, on this machine: no GPU, bucket or ComfyUI needed
	@$(BIN)/python -m local run

serve: $(STAMP) ## A RunPod endpoint on this machine, on port 8000, until you stop it
	@$(BIN)/python -m local serve

test: lint types $(STAMP) ## Lint, types and every test: what decides whether a change lands
	$(BIN)/pytest

lint: $(STAMP) ## ruff (rules and format), and what may import what
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache

types: $(STAMP) ## mypy, strict
	$(BIN)/mypy

schema: $(STAMP) ## Write docs/contract.schema.json anew from worker/contract.py
	$(BIN)/python -m worker.schema > docs/contract.schema.json

bench: $(STAMP) ## What is measured, as JSON: minutes, and a quiet machine wanted
	$(BIN)/python -m benchmarks.image
	$(BIN)/python -m benchmarks.throughput
	$(BIN)/python -m benchmarks.registry
	$(BIN)/python -m benchmarks.registry_chaos
	$(BIN)/python -m benchmarks.dataset
	$(BIN)/python -m benchmarks.gateway
	$(BIN)/python -m benchmarks.likeness

soak: $(STAMP) ## Ten minutes of mixed jobs with faults at random, on four workers
	$(BIN)/python -m local.soak --seconds 600

image-test: ## Lint, build and run the image, with buildah and podman: as root, on Debian or Ubuntu
	$(PYTHON) -m builder.image_test

requirements: $(STAMP) ## Compile requirements*.txt, with hashes, from the short *.in files
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header requirements.in -o requirements.txt
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header requirements-dev.in -o requirements-dev.txt
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header requirements-image.in -o requirements-image.txt

clean: ## Remove what these targets made
	rm -rf $(VENV) .image-test out .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(STAMP): requirements.txt requirements-dev.txt
	@command -v $(PYTHON) >/dev/null || { echo "There is no $(PYTHON) here: install Python 3.11 or newer, on Debian or Ubuntu with 'apt-get install python3 python3-venv'." >&2; exit 1; }
	@$(PYTHON) local/install.py $(VENV) requirements.txt requirements-dev.txt
	@touch $@
