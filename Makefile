# All that a checkout needs, from nothing but Python and a package index. `make` alone lists the verbs.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps
LOCKED := $(PIP) --require-hashes
DEMO := runs/demo

# OpenMP's threads then wait asleep: where anything else runs too, spinning ones make small steps many times slower.
export OMP_WAIT_POLICY ?= passive

.DEFAULT_GOAL := help
.PHONY: help setup demo train-demo seed results ablations scaling compare-priors tokenizers editing control augmentation bench bench-sampling bench-codec bench-scale exact docs test test-browser test-s3 sanitize fuzz faults check format lock sbom audit clean

help: ## List the verbs
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' Makefile

setup: $(VENV)/.setup ## Install bisquit and all that it needs into .venv, and nothing elsewhere

$(VENV)/.setup: pyproject.toml $(wildcard locks/*) $(wildcard native/*)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
		{ echo "bisquit needs Python 3.11 or newer, and $(PYTHON) is not: name one, as in PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo "$(PYTHON) cannot make environments: install its venv module (Debian: python3-venv)" >&2; exit 1; }
	@echo "Installing bisquit into $(VENV): a minute or more, and 1.4 GB with PyTorch's CPU build"
	@$(PYTHON) -m venv $(VENV)
	@$(LOCKED) -r locks/torch-cpu.txt 2>/dev/null || $(LOCKED) -r locks/torch.txt
	@$(LOCKED) -r locks/runtime.txt -r locks/build.txt -r locks/dev.txt
	@if grep -qs '^Requires-Dist: nvidia' $(VENV)/lib/python*/site-packages/torch-*.dist-info/METADATA; then $(LOCKED) -r locks/cuda.txt; fi
	@$(PIP) --no-build-isolation --editable .
	@touch $@

demo: $(VENV)/.setup ## Paint 16 new frames with the best model that ships: demo.png
	$(BIN)/bisquit sample --model best --top-p 0.95 -n 16 --seed 0 -o demo.png

train-demo: $(VENV)/.setup ## Train the demo preset on the bundled frames in minutes, and paint with it: train-demo.png
	$(BIN)/bisquit train tokenizer --preset demo --frames bundled --out $(DEMO)/tokenizer --resume
	$(BIN)/bisquit tokenize --tokenizer $(DEMO)/tokenizer --frames bundled --part train --mirrored -o $(DEMO)/train.safetensors
	$(BIN)/bisquit tokenize --tokenizer $(DEMO)/tokenizer --frames bundled --part valid -o $(DEMO)/valid.safetensors
	$(BIN)/bisquit train prior --preset demo --tokens $(DEMO)/train.safetensors --valid-tokens $(DEMO)/valid.safetensors \
		--out $(DEMO)/prior --resume
	$(BIN)/bisquit sample --model $(DEMO)/prior -n 16 --seed 0 -o train-demo.png

seed: $(VENV)/.setup ## Train the seed preset in full and write docs/seed.md: FRAMES=... VALID_FRAMES=..., two hours
	@test -n "$(FRAMES)" -a -n "$(VALID_FRAMES)" || { echo "make seed needs FRAMES=... VALID_FRAMES=..." >&2; exit 1; }
	$(BIN)/python scripts/seed_results.py --frames '$(FRAMES)' --valid-frames '$(VALID_FRAMES)'

results: $(VENV)/.setup ## Measure and judge seed, small and best, and write docs/results.md: FRAMES=... VALID_FRAMES=...
	@test -n "$(FRAMES)" -a -n "$(VALID_FRAMES)" || { echo "make results needs FRAMES=... VALID_FRAMES=..." >&2; exit 1; }
	$(BIN)/python scripts/results.py --frames '$(FRAMES)' --valid-frames '$(VALID_FRAMES)' $(ARGS)

$(VENV)/.bench: $(VENV)/.setup
	@$(LOCKED) -r locks/bench.txt
	@touch $@

ablations: $(VENV)/.bench ## Vary the seed preset one thing at a time, write docs/ablations.md: FRAMES=... VALID_FRAMES=..., three hours a seed
	@test -n "$(FRAMES)" -a -n "$(VALID_FRAMES)" || { echo "make ablations needs FRAMES=... VALID_FRAMES=..." >&2; exit 1; }
	$(BIN)/python scripts/ablations.py --frames '$(FRAMES)' --valid-frames '$(VALID_FRAMES)' $(ARGS)

scaling: $(VENV)/.bench ## Fit how loss falls with size, tokens and compute, write docs/scaling.md: TOKENIZER=... FRAMES=... VALID_FRAMES=..., an hour a seed
	@test -n "$(TOKENIZER)" -a -n "$(FRAMES)" -a -n "$(VALID_FRAMES)" || \
		{ echo "make scaling needs TOKENIZER=... FRAMES=... VALID_FRAMES=..." >&2; exit 1; }
	$(BIN)/python scripts/scaling.py --tokenizer '$(TOKENIZER)' --frames '$(FRAMES)' --valid-frames '$(VALID_FRAMES)' $(ARGS)

compare-priors: $(VENV)/.bench ## Set the families of priors side by side, write docs/compare-priors.md: FRAMES=... VALID_FRAMES=..., most of a day
	@test -n "$(FRAMES)" -a -n "$(VALID_FRAMES)" || { echo "make compare-priors needs FRAMES=... VALID_FRAMES=..." >&2; exit 1; }
	$(BIN)/python scripts/compare_priors.py --frames '$(FRAMES)' --valid-frames '$(VALID_FRAMES)' $(ARGS)

tokenizers: $(VENV)/.setup ## Vary the best preset's tokenizer, sharpen its decoder, write docs/tokenizers.md: FRAMES=... VALID_FRAMES=..., some hours
	@test -n "$(FRAMES)" -a -n "$(VALID_FRAMES)" || { echo "make tokenizers needs FRAMES=... VALID_FRAMES=..." >&2; exit 1; }
	$(BIN)/python scripts/tokenizer_study.py --frames '$(FRAMES)' --valid-frames '$(VALID_FRAMES)' $(ARGS)

editing: $(VENV)/.bench ## Fill holes by every way there is, and write docs/editing.md: VALID_FRAMES=...
	@test -n "$(VALID_FRAMES)" || { echo "make editing needs VALID_FRAMES=..." >&2; exit 1; }
	$(BIN)/python scripts/editing_study.py --valid-frames '$(VALID_FRAMES)' $(ARGS)

control: $(VENV)/.bench ## Ask a model for classes and in words, and write docs/control.md: MODEL=... VALID_FRAMES=...
	@test -n "$(MODEL)" -a -n "$(VALID_FRAMES)" || { echo "make control needs MODEL=... VALID_FRAMES=..." >&2; exit 1; }
	@$(LOCKED) -r locks/text.txt
	$(BIN)/python scripts/control_study.py --model '$(MODEL)' --valid-frames '$(VALID_FRAMES)' $(ARGS)

augmentation: $(VENV)/.setup ## Train classifiers with painted frames and without, and write docs/augmentation.md: FRAMES=... VALID_FRAMES=... PAINTED=...
	@test -n "$(FRAMES)" -a -n "$(VALID_FRAMES)" -a -n "$(PAINTED)" || \
		{ echo "make augmentation needs FRAMES=... VALID_FRAMES=... PAINTED=..." >&2; exit 1; }
	$(BIN)/python scripts/augmentation_study.py --frames '$(FRAMES)' --valid-frames '$(VALID_FRAMES)' --painted '$(PAINTED)' $(ARGS)

bench-sampling: $(VENV)/.bench ## Measure painting against every other way: the last line is one JSON object
	env -u OMP_WAIT_POLICY $(BIN)/python benchmarks/sampling.py

bench-codec: $(VENV)/.bench ## Measure the codec against others and write docs/codec.md: FRAMES=...
	@test -n "$(FRAMES)" || { echo "make bench-codec needs FRAMES=..." >&2; exit 1; }
	$(BIN)/python benchmarks/codec.py --frames '$(FRAMES)' $(ARGS)

bench-scale: $(VENV)/.setup ## Measure two processes and workers against one, and shards of a million frames, and write docs/scale.md: hours; ARGS=--frames=...
	@$(LOCKED) -r locks/ray.txt
	$(BIN)/python benchmarks/scale.py $(ARGS)

exact: $(VENV)/.bench ## Compare the codec's bytes and pixels over every way to compute them, and write docs/exactness.md: FRAMES=...
	@test -n "$(FRAMES)" || { echo "make exact needs FRAMES=..." >&2; exit 1; }
	$(BIN)/python benchmarks/exactness.py --frames '$(FRAMES)' $(ARGS)

bench: bench-sampling ## Measure everything that docs/performance.md claims, half an hour
	$(BIN)/python benchmarks/growth.py
	$(BIN)/python benchmarks/training.py
	$(BIN)/python benchmarks/tokenizing.py
	$(BIN)/python benchmarks/loading.py
	$(BIN)/python benchmarks/denormals.py
	$(BIN)/python benchmarks/cold_start.py
	$(BIN)/python benchmarks/studio.py
	$(BIN)/python benchmarks/gpu.py

$(VENV)/.docs: $(VENV)/.setup
	@$(LOCKED) -r locks/docs.txt
	@touch $@

docs: $(VENV)/.docs ## Build the site of the documents and the docstrings: build/site
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict $(ARGS)

# Each process with one thread: the tests' models are too small for more.
TEST_PROCESSES ?= 2
test: $(VENV)/.setup ## Run the tests in TEST_PROCESSES=2; ARGS="-k tokenizer" goes to pytest
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses=$(TEST_PROCESSES) --dist=worksteal $(ARGS)

$(VENV)/.browser: $(VENV)/.setup
	@$(LOCKED) -r locks/browser.txt
	@touch $@

test-browser: $(VENV)/.browser ## Look at the studio through a Chromium that is installed; ARGS=--screenshots writes docs/images/studio-*.png
	BISQUIT_REQUIRE_BROWSER=1 $(BIN)/pytest tests/browser $(ARGS)

$(VENV)/.s3: $(VENV)/.setup
	@$(LOCKED) -r locks/s3.txt -r locks/s3-test.txt
	@touch $@

test-s3: $(VENV)/.s3 ## Make shards in a bucket of a server on this machine, killed midway and gone on with
	$(BIN)/pytest tests/test_s3.py $(ARGS)

sanitize: $(VENV)/.setup ## Run the engine's tests under AddressSanitizer and UndefinedBehaviorSanitizer: three minutes
	PYTHON=$(BIN)/python scripts/sanitize.sh $(ARGS)

$(VENV)/.fuzz: $(VENV)/.setup
	@$(LOCKED) -r locks/fuzz.txt
	@touch $@

FUZZ_S ?= 60
fuzz: $(VENV)/.fuzz ## Give damaged and crafted bytes to all that reads any, FUZZ_S=60 seconds over all; ARGS="--only codec"
	$(BIN)/python fuzz/fuzz.py --seconds $(FUZZ_S) $(ARGS)

faults: $(VENV)/.setup ## Kill every long command at random moments, and write docs/faults.md
	$(BIN)/python scripts/faults.py $(ARGS)

check: $(VENV)/.setup ## Lint, check the format, the types and the import order
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/clang-format --dry-run --Werror native/*.cpp native/*.hpp

format: $(VENV)/.setup ## Mend what the linter can, and format
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
	$(BIN)/clang-format -i native/*.cpp native/*.hpp

$(VENV)/.audit: $(VENV)/.setup
	@$(LOCKED) -r locks/audit.txt
	@touch $@

lock: $(VENV)/.audit ## Pin what pyproject.toml asks for, with hashes, in locks/: ARGS=--upgrade takes the newest of all but PyTorch
	$(BIN)/python scripts/lock.py $(ARGS)

sbom: $(VENV)/.audit ## List what is installed in .venv, licences and all, as CycloneDX: build/sbom.json
	@mkdir -p build
	$(BIN)/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible --output-file build/sbom.json $(BIN)/python

audit: $(VENV)/.audit ## Ask the package index whether a pin in locks/ is known to be vulnerable
	@mkdir -p build
	@$(BIN)/pip-audit --strict --disable-pip --require-hashes --progress-spinner off \
		$(addprefix --requirement ,$(wildcard locks/*.txt)) 2> build/audit.log || \
		{ echo "not every pin could be found free of known weaknesses: $$(tail -n 1 build/audit.log)" >&2; exit 1; }

clean: ## Remove caches and builds; .venv and runs stay
	rm -rf build dist .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find src tests -name __pycache__ -prune -exec rm -rf {} +
