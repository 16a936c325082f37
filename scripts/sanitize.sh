#!/usr/bin/env bash
# Run the engine's tests with a native module that is built under AddressSanitizer and UndefinedBehaviorSanitizer.
# The module goes to a temporary folder and takes the installed one's place in this run alone. Needs g++.
#
#   scripts/sanitize.sh [arguments of pytest]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

export CXX=g++
python="${PYTHON:-.venv/bin/python}"
scratch="$(mktemp -d)"
trap 'rm -rf "$scratch"' EXIT

echo "Building the engine with sanitizers: a few minutes"
"$python" -m pip install --quiet --disable-pip-version-check --no-deps --target "$scratch/site" \
	--config-settings=cmake.define.BISQUIT_SANITIZE=ON \
	--config-settings=cmake.define.CMAKE_CXX_FLAGS="-g1 -fno-omit-frame-pointer" .
module="$(find "$scratch/site/bisquit/engine" -name '_native*.so')"
test -n "$module" || { echo "the engine could not be built: pip install --verbose . tells why" >&2; exit 1; }

# An editable install finds its own module first, wherever the path leads: this one is put in its place by hand.
cat > "$scratch/sanitized.py" <<PYTHON
import importlib.util
import sys

NAME = "bisquit.engine._native"
spec = importlib.util.spec_from_file_location(NAME, "$module")
sys.modules[NAME] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules[NAME])


def pytest_report_header(config):
    from bisquit.engine import native

    assert native._native.__file__ == "$module"
    return "engine: sanitized"
PYTHON

# Python leaks on purpose. The C++ library goes first too, or its exceptions would pass the sanitizer by. What a
# sanitizer says before it ends the process, pytest must not have caught.
export ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 UBSAN_OPTIONS=print_stacktrace=1
export BISQUIT_REQUIRE_ENGINE=1 OMP_WAIT_POLICY=passive OMP_NUM_THREADS=1 PYTHONPATH="$scratch"
env LD_PRELOAD="$($CXX -print-file-name=libasan.so) $($CXX -print-file-name=libstdc++.so.6)" \
	"$python" -m pytest -p sanitized -p no:cacheprovider --capture=sys \
	tests/engine/test_native.py tests/engine/test_native_tokenizer.py tests/engine/test_integer.py \
	tests/engine/test_backend.py tests/codec/test_fuzz.py "$@"
