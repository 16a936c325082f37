"""Each verb does what its help says, on one tiny model that was made by commands."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tests.cli.driver import TINY, Run, Trained

import bisquit


def test_a_run_leaves_the_model_its_record_and_its_curves(trained: Trained):
    record = json.loads((trained.tokenizer / "run.json").read_text())
    assert record["preset"] == "demo"
    assert record["finished"]
    assert record["recipe"]["tokenizer"]["quantizer"]["bits"] == 4
    assert record["recipe"]["training"]["batch_size"] == 4
    assert any((trained.tokenizer / "logs").glob("events.*"))
    assert {path.name for path in trained.model.glob("*.safetensors")} == {"tokenizer.safetensors", "prior.safetensors"}


def test_a_second_run_in_the_same_folder_is_refused_unless_resumed(run: Run, trained: Trained, frame_folder: Path):
    command = ("train", "tokenizer", "--preset", "demo", "--frames", frame_folder, "--out", trained.tokenizer)
    refused = run(*command, *TINY, "--bits", "4")
    assert refused.status == 2
    assert "--resume" in refused.err
    assert run(*command, *TINY, "--bits", "4", "--resume").status == 0
    other = run(*command, *TINY, "--bits", "5", "--resume")
    assert other.status == 2
    assert "bits = 4, not 5" in other.err


def test_sample_writes_one_sheet(run: Run, trained: Trained, tmp_path: Path):
    assert (
        run("sample", "--model", trained.model, "-n", "3", "-o", tmp_path / "sheet.png", "--columns", "2").status == 0
    )
    assert bisquit.read_frame(tmp_path / "sheet.png").shape == (2 + 2 * 14, 2 + 2 * 18, 3)


def test_sample_writes_separate_files_that_depend_on_the_seed_alone(run: Run, trained: Trained, tmp_path: Path):
    sample = ("sample", "--model", trained.model, "--separate", "--seed", "7")
    run(*sample, "-n", "3", "-o", tmp_path / "folder", "--batch-size", "1")
    run(*sample, "-n", "2", "-o", tmp_path / "frame.png")
    assert sorted(path.name for path in (tmp_path / "folder").iterdir()) == ["0.png", "1.png", "2.png"]
    for i in range(2):
        frame = bisquit.read_frame(tmp_path / "folder" / f"{i}.png")
        assert frame.shape == (12, 16, 3)
        np.testing.assert_array_equal(frame, bisquit.read_frame(tmp_path / f"frame-{i}.png"))


def test_reconstruct_keeps_the_size_of_a_picture(run: Run, trained: Trained, frame_folder: Path, tmp_path: Path):
    source = frame_folder / "noon" / "0.png"
    done = run("reconstruct", "--model", trained.model, source, "-o", tmp_path / "back.png")
    assert done.status == 0
    assert "PSNR" in done.out
    frame = bisquit.read_frame(source)
    model = bisquit.load(trained.model)
    np.testing.assert_array_equal(
        bisquit.read_frame(tmp_path / "back.png"), model.decode(model.encode(frame[None]), (12, 16))[0]
    )


def test_reconstruct_makes_a_folder_or_a_sheet_of_a_set(run: Run, trained: Trained, frame_folder: Path, tmp_path: Path):
    assert run("reconstruct", "--model", trained.model, frame_folder, "-o", tmp_path / "all").status == 0
    names = {str(path.relative_to(tmp_path / "all")) for path in (tmp_path / "all").rglob("*.png")}
    assert names == {f"{name}/{i}.png" for name in ("night", "noon") for i in range(8)}
    sheet = ("reconstruct", "--model", trained.model, frame_folder, "-o", tmp_path / "sheet.png", "--number", "5")
    assert run(*sheet).status == 0
    assert bisquit.read_frame(tmp_path / "sheet.png").shape == (2 + 4 * 14, 2 + 4 * 18, 3)


def test_evaluate_writes_the_promised_keys(run: Run, trained: Trained, frame_folder: Path, tmp_path: Path):
    output = tmp_path / "figures.json"
    done = run(
        *("evaluate", "--model", trained.model, "--frames", frame_folder),
        *("--json", output, "--count-tokens", trained.tokens),
    )
    assert done.status == 0
    figures = json.loads(output.read_text())
    for key in ("mse", "psnr_db", "ssim", "bits_per_token", "bits_per_image", "count_baseline_bits_per_image"):
        assert isinstance(figures[key], float), key
    assert figures["frames"] == 16
    assert 1 <= figures["codes_used"] <= 16
    assert figures["bits_per_image"] == pytest.approx(12 * figures["bits_per_token"])
    assert "PSNR" in done.out


def test_evaluate_counts_what_the_prior_was_trained_on(run: Run, trained: Trained, frame_folder: Path, tmp_path: Path):
    output = tmp_path / "figures.json"
    run("evaluate", "--model", trained.model, "--frames", frame_folder, "--json", output)
    figures = json.loads(output.read_text())
    assert figures["count_baseline_fitted_on"] == 16
    assert figures["count_baseline_source"] == str(trained.tokens)


def test_evaluate_measures_a_tokenizer_alone(run: Run, trained: Trained, frame_folder: Path, tmp_path: Path):
    output = tmp_path / "figures.json"
    run("evaluate", "--model", trained.tokenizer, "--frames", frame_folder, "--json", output)
    figures = json.loads(output.read_text())
    assert figures["bits_per_image"] is None
    assert figures["count_baseline_fitted_on"] == 600
    assert figures["count_baseline_source"] == "bundled:train"


def test_info_tells_of_a_model_of_tokens_and_of_frames(run: Run, trained: Trained, frame_folder: Path):
    model = json.loads(run("info", trained.model, "--json").out)
    tokens = json.loads(run("info", trained.tokens, "--json").out)
    frames = json.loads(run("info", frame_folder, "--json").out)
    assert model["grid"] == tokens["grid"] == [3, 4]
    assert model["tokenizer"] == tokens["tokenizer"]
    assert tokens["classes"] == frames["classes"] == {"night": 8, "noon": 8}
    assert frames["size"] == [12, 16]
    assert "night" in run("info", frame_folder).out


def test_the_help_of_a_training_lists_every_setting(run: Run):
    text = run("train", "prior", "--help").out
    for flag in ("--positions", "--n-layers", "--dropout", "--ema-decay", "--resume"):
        assert flag in text


def test_mirrored_tokens_are_twice_as_many(run: Run, trained: Trained, frame_folder: Path, tmp_path: Path):
    output = tmp_path / "mirrored.safetensors"
    run("tokenize", "--tokenizer", trained.tokenizer, "--frames", frame_folder, "-o", output, "--mirrored")
    assert json.loads(run("info", output, "--json").out)["pictures"] == 32
