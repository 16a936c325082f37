"""The flags that say how a prior is computed: the same pictures from every backend, one line for what cannot be."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.cli.driver import Run, Trained
from tests.engine.driver import needs_engine


def painted(run: Run, trained: Trained, sheet: Path, *flags: str) -> bytes:
    outcome = run("sample", "--model", trained.model, "-n", "5", "--seed", "3", "-o", sheet, *flags)
    assert outcome.status == 0, outcome.err
    return sheet.read_bytes()


def refusal(run: Run, *arguments: str | Path) -> str:
    outcome = run(*arguments)
    assert outcome.status == 2
    (line,) = outcome.err.splitlines()
    return line


@needs_engine
@pytest.mark.parametrize("flags", [(), ("--temperature", "0.7", "--top-p", "0.9")], ids=str)
@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_every_backend_writes_the_same_file(
    run: Run, trained: Trained, tmp_path: Path, precision: str, flags: tuple[str, ...]
):
    sheets = [
        painted(run, trained, tmp_path / f"{backend}.png", "--backend", backend, "--precision", precision, *flags)
        for backend in ("auto", "engine", "torch")
    ]
    assert sheets[0] == sheets[1] == sheets[2]


@needs_engine
def test_the_engine_computes_unless_something_else_is_asked_for(
    run: Run, trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    wanted = painted(run, trained, tmp_path / "sheet.png")
    monkeypatch.delattr("bisquit.engine.EnginePrior.paint")
    monkeypatch.setattr("bisquit.engine.EnginePrior.next_logits", None)
    assert painted(run, trained, tmp_path / "torch.png", "--backend", "torch") == wanted
    with pytest.raises(AttributeError, match="paint"):
        painted(run, trained, tmp_path / "sheet.png")


def test_a_top_k_beyond_every_codebook_leaves_all(run: Run, trained: Trained, tmp_path: Path):
    sheets = [painted(run, trained, tmp_path / "sheet.png", *flags) for flags in ((), ("--top-k", str(10**12)))]
    assert sheets[0] == sheets[1]


@pytest.mark.parametrize("backend", ["auto", "torch", "engine"])
def test_bfloat16_on_a_cpu_is_refused(run: Run, trained: Trained, tmp_path: Path, backend: str):
    sample = ("sample", "--model", trained.model, "-o", tmp_path / "sheet.png", "--device", "cpu")
    line = refusal(run, *sample, "--backend", backend, "--precision", "bfloat16")
    assert line == "bisquit: bfloat16 is for PyTorch on a GPU: on a CPU, int8 is faster"
    assert not (tmp_path / "sheet.png").exists()


@pytest.mark.parametrize("verb", ["sample", "evaluate"])
@pytest.mark.parametrize(("flag", "value"), [("--backend", "tensorrt"), ("--precision", "int4")])
def test_names_that_there_are_not_are_refused(
    run: Run, trained: Trained, frame_folder: Path, tmp_path: Path, verb: str, flag: str, value: str
):
    rest = ("-o", tmp_path / "sheet.png") if verb == "sample" else ("--frames", frame_folder)
    assert value in refusal(run, verb, "--model", trained.model, *rest, flag, value)


def figures(run: Run, trained: Trained, frame_folder: Path, output: Path, *flags: str) -> dict[str, float]:
    outcome = run("evaluate", "--model", trained.model, "--frames", frame_folder, "--json", output, *flags)
    assert outcome.status == 0, outcome.err
    return json.loads(output.read_text())


@needs_engine
def test_every_backend_measures_the_same_bits(run: Run, trained: Trained, frame_folder: Path, tmp_path: Path):
    output = tmp_path / "figures.json"
    wanted = figures(run, trained, frame_folder, output)
    assert (wanted["backend"], wanted["arithmetic"]) == ("torch", "float32")
    for precision, tolerance in (("float32", 1e-6), ("int8", 0.01)):
        found = {
            backend: figures(*(run, trained, frame_folder, output, "--backend", backend, "--precision", precision))
            for backend in ("torch", "engine")
        }
        assert (found["engine"]["backend"], found["engine"]["arithmetic"]) == ("engine", precision)
        bits = {backend: each["bits_per_image"] for backend, each in found.items()}
        assert bits["engine"] == pytest.approx(bits["torch"], rel=1e-6)
        assert bits["engine"] == pytest.approx(wanted["bits_per_image"], rel=tolerance)


def test_without_the_engine_pytorch_paints_the_same_and_one_line_says_so(run: Run, trained: Trained, tmp_path: Path):
    program = "import sys\nsys.modules['bisquit.engine._native'] = None\nfrom bisquit.cli.main import main\nmain()\n"
    sample = ("sample", "--model", trained.model, "-n", "5", "--seed", "3", "-o", tmp_path / "sheet.png")
    command = [sys.executable, "-c", program, *map(str, sample)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("bisquit: the native engine is not built here (")
    wanted = painted(run, trained, tmp_path / "wanted.png", "--backend", "torch")
    assert (tmp_path / "sheet.png").read_bytes() == wanted
