PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: help run serve test lint types schema bench mutants style soak page-test image-test install-test audit requirements image-requirements clean

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

style: $(STAMP) ## How the code reads, in numbers, a row a package
	@$(BIN)/python -m benchmarks.style

mutants: $(STAMP) ## Change the pure core in a thousand ways and see which no test notices: an hour
	rm -rf mutants
	$(BIN)/mutmut run --max-children 2 $(MUTANTS)
	$(BIN)/mutmut results

soak: $(STAMP) ## Ten minutes of mixed jobs with faults at random, on four workers
	$(BIN)/python -m local.soak --seconds 600

page-test: $(STAMP) ## The page in a real browser, as a person uses it: needs Chromium
	$(BIN)/pytest -m browser tests/integration/gateway/test_page.py

image-test: ## Lint, build and run the image, with buildah and podman: as root, on Debian or Ubuntu
	$(PYTHON) -m builder.image_test

install-test: ## The install on pips from 23.0.1 on, Pythons 3.11 to 3.13 and, as root, stock Debians
	$(PYTHON) -m builder.install_matrix

audit: $(STAMP) ## Known holes in every pinned package: needs pypi.org's database
	for lock in requirements*.txt builder/locks/*.txt; do \
		$(BIN)/uv tool run pip-audit==2.10.1 --no-deps --disable-pip -r $$lock || failed=1; \
	done; exit $${failed:-0}

COMPILE = $(BIN)/uv pip compile -q --python-version 3.11 --generate-hashes --no-emit-index-url --no-header
LOCKS := builder/locks
# What the image has once, in /opt/torch: no environment installs its own.
SHARED = $(shell sed -n 's/^\(torch[a-z]*\|triton\|nvidia-[a-z0-9-]*\|cuda-[a-z]*\)==.*/--no-emit-package \1/p' $(LOCKS)/torch.txt)

requirements: $(STAMP) ## Compile requirements*.txt, with hashes, from the short *.in files
	$(COMPILE) --universal requirements.in -o requirements.txt
	$(COMPILE) --universal requirements-dev.in -o requirements-dev.txt
	$(COMPILE) --universal requirements-image.in -o requirements-image.txt

image-requirements: $(STAMP) ## Compile builder/locks/*.txt, what the image installs, in the same way
	$(COMPILE) $(LOCKS)/uv.in -o $(LOCKS)/uv.txt
	$(COMPILE) --python-platform x86_64-manylinux_2_28 $(LOCKS)/torch.in -o $(LOCKS)/torch.txt
	$(COMPILE) --python-platform x86_64-manylinux_2_28 -c $(LOCKS)/torch.txt $(SHARED) $(LOCKS)/comfyui.in -o $(LOCKS)/comfyui.txt
	$(COMPILE) --python-platform x86_64-manylinux_2_28 -c $(LOCKS)/torch.txt $(SHARED) $(LOCKS)/sd-scripts.in -o $(LOCKS)/sd-scripts.txt

clean: ## Remove what these targets made
	rm -rf $(VENV) mutants .image-test out .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(STAMP): requirements.txt requirements-dev.txt
	@command -v $(PYTHON) >/dev/null || { echo "There is no $(PYTHON) here: install Python 3.11 or newer, on Debian or Ubuntu with 'apt-get install python3 python3-venv'." >&2; exit 1; }
	@$(PYTHON) local/install.py $(VENV) requirements.txt requirements-dev.txt
	@touch $@
