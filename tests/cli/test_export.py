"""`bisquit export` writes what ONNX Runtime takes, and says how it compares."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
from tests.cli.driver import Run, Trained

import bisquit


def test_an_exported_tokenizer_makes_the_tokens_of_the_model(
    run: Run, trained: Trained, frame_folder: Path, tmp_path: Path
):
    output = tmp_path / "onnx"
    done = run("export", trained.model, "-o", output, "--frames", frame_folder, "--number", "3")
    assert done.status == 0, done.err
    assert "on 3 frames 0 of 36 tokens" in done.out
    frame = bisquit.read_frame(frame_folder / "noon" / "0.png")[None]
    session = onnxruntime.InferenceSession(output / "encoder.onnx", providers=["CPUExecutionProvider"])
    assert session.get_modelmeta().custom_metadata_map["bisquit.grid"] == "3x4"
    (tokens,) = session.run(None, {"frames": frame})
    np.testing.assert_array_equal(tokens, bisquit.load(trained.model).encode(frame))
    again = run("export", trained.model, "-o", output)
    assert (again.status, "name a new folder" in again.err) == (2, True)
