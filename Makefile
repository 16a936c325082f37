# All that a checkout needs, from nothing but Python and a package index. `make` alone lists the verbs.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := runs/demo

# OpenMP's threads then wait asleep: where anything else runs too, spinning ones make small steps many times slower.
export OMP_WAIT_POLICY ?= passive

# What goes on with a run that was stopped, and is empty where there is none.
resume = $(if $(wildcard $(1)),--resume)

.DEFAULT_GOAL := help
.PHONY: help setup demo test check format constraints clean

help: ## List the verbs
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' Makefile

setup: $(VENV)/.setup ## Install bisquit and all that it needs into .venv, and nothing elsewhere

$(VENV)/.setup: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
		{ echo "bisquit needs Python 3.11 or newer, and $(PYTHON) is not: name one, as in PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo "$(PYTHON) cannot make environments: install its venv module (Debian: python3-venv)" >&2; exit 1; }
	@echo "Installing bisquit into $(VENV): a minute or more, and 1.4 GB with PyTorch's CPU build"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: $(VENV)/.setup ## Train the demo preset on the bundled frames, and paint 16 new ones: demo.png
	$(BIN)/bisquit train tokenizer --preset demo --frames bundled --out $(DEMO)/tokenizer $(call resume,$(DEMO)/tokenizer)
	$(BIN)/bisquit tokenize --tokenizer $(DEMO)/tokenizer --frames bundled:train -o $(DEMO)/train.safetensors
	$(BIN)/bisquit tokenize --tokenizer $(DEMO)/tokenizer --frames bundled:valid -o $(DEMO)/valid.safetensors
	$(BIN)/bisquit train prior --preset demo --tokens $(DEMO)/train.safetensors --valid-tokens $(DEMO)/valid.safetensors \
		--out $(DEMO)/prior $(call resume,$(DEMO)/prior)
	$(BIN)/bisquit sample --model $(DEMO)/prior -n 16 --seed 0 -o demo.png

test: $(VENV)/.setup ## Run the tests; ARGS="-k tokenizer" goes to pytest
	$(BIN)/pytest $(ARGS)

check: $(VENV)/.setup ## Lint, check the format, the types and the import order
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: $(VENV)/.setup ## Mend what the linter can, and format
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

constraints: ## Resolve every dependency anew but PyTorch, and pin it in constraints.txt
	@scratch=$$(mktemp -d) && trap 'rm -rf "$$scratch"' EXIT && \
	$(PYTHON) -m venv "$$scratch/venv" && \
	sed '/^torch==/q' constraints.txt > "$$scratch/pins" && \
	"$$scratch/venv/bin/python" -m pip install -qq --disable-pip-version-check --constraint "$$scratch/pins" '.[dev]' && \
	"$$scratch/venv/bin/python" -m pip freeze --all --exclude bisquit --exclude pip --exclude torch >> "$$scratch/pins" && \
	cat "$$scratch/pins" > constraints.txt

clean: ## Remove caches and builds; .venv and runs stay
	rm -rf build dist .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find src tests -name __pycache__ -prune -exec rm -rf {} +
