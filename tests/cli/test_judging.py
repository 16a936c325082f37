"""A feature network trained by a command, and new frames judged by it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from tests.cli.driver import Run, Trained

import bisquit
from bisquit.checkpoint import load_features
from bisquit.cli.main import main
from bisquit.evaluation.generation import FIGURES
from bisquit.generate import Pipeline


@pytest.fixture(scope="session")
def features(tmp_path_factory: pytest.TempPathFactory, frame_folder: Path) -> Path:
    """Return the folder of a tiny feature network's run."""
    out = tmp_path_factory.mktemp("features") / "run"
    arguments = ("train", "features", "--preset", "seed", "--frames", frame_folder, "--out", out)
    settings = ("--widths", "8,8", "--dimensions", "4", "--batch-size", "4", "--epochs", "2", "--no-flip")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["bisquit", *map(str, (*arguments, *settings))])
        main()
    return out


@pytest.fixture
def evaluate(run: Run, trained: Trained, frame_folder: Path, features: Path):
    """Return a function that evaluates the tiny model's new frames, by default seven."""

    def call(*arguments: str | Path, number: int = 7):
        judged_by = ("--samples", str(number), "--real", frame_folder, "--features", features)
        return run("evaluate", "--model", trained.model, "--frames", frame_folder, *judged_by, *arguments)

    return call


def test_a_feature_network_is_trained_as_the_preset_and_the_flags_say(features: Path):
    record = json.loads((features / "run.json").read_text())
    assert (record["stage"], record["preset"], record["finished"]) == ("features", "seed", True)
    assert record["recipe"]["augmentation"] == {"flip": False, "shift_px": 4, "colour": 0.2}
    assert record["recipe"]["network"] == {"widths": [8, 8], "dimensions": 4}
    assert record["recipe"]["training"]["schedule"] == "cosine"
    network = load_features(features / "features.safetensors")
    assert network.classes == ("night", "noon")
    assert network.config.widths == (8, 8)


def test_a_feature_networks_run_is_resumed_like_others(run: Run, features: Path, frame_folder: Path):
    command = ("train", "features", "--preset", "seed", "--frames", frame_folder, "--out", features)
    assert "--resume" in run(*command).err
    refused = run(*command, "--resume")
    assert refused.status == 2
    assert "recipe.network.widths = [8, 8]" in refused.err


def test_frames_without_classes_are_refused(run: Run, frame_folder: Path, tmp_path: Path):
    command = ("train", "features", "--preset", "seed", "--out", tmp_path / "run", "--frames")
    outcome = run(*command, frame_folder / "noon" / "*.png")
    assert outcome.status == 2
    assert "the frames have 0 classes" in outcome.err
    assert len(outcome.err.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_new_frames_are_judged_and_kept_and_shown(evaluate, trained: Trained, tmp_path: Path):
    sampling = ("--seed", "3", "--temperature", "0.7", "--top-k", "9", "--top-p", "0.9", "--min-p", "0.01")
    files = ("--json", tmp_path / "figures.json", "--neighbours", tmp_path / "sheet.png")
    done = evaluate(*sampling, *files, "--keep-samples", tmp_path / "new.npz")
    assert done.status == 0, done.err
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert [key for key in FIGURES if figures[key] is None] == ["class_accuracy"]
    assert figures["samples"] == 7
    assert (figures["seed"], figures["temperature"], figures["top_k"]) == (3, 0.7, 9)
    assert "Fréchet distance" in done.out
    settings = bisquit.SamplingConfig(temperature=0.7, top_k=9, top_p=0.9, min_p=0.01)
    wanted = bisquit.load(trained.model).sample(7, seed=3, settings=settings)
    np.testing.assert_array_equal(np.load(tmp_path / "new.npz")["frames"], wanted)
    assert bisquit.read_frame(tmp_path / "sheet.png").shape == (2 + 4 * 14, 2 + 4 * 18, 3)


def test_the_sheet_has_the_nearest_sample_first_and_its_neighbour_under_it(
    evaluate, frame_folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    real = bisquit.load_frames(frame_folder)
    samples = real[[9, 3, 5, 6, 7, 8]]
    samples[[0, 2, 3, 4, 5]] ^= 255  # but for the second they are negatives
    monkeypatch.setattr(Pipeline, "sample", lambda *arguments, **named: samples)
    assert evaluate("--neighbours", tmp_path / "sheet.png", number=6).status == 0
    sheet = bisquit.read_frame(tmp_path / "sheet.png")
    np.testing.assert_array_equal(sheet[2:14, 2:18], samples[1])
    np.testing.assert_array_equal(sheet[16:28, 2:18], samples[1])
    assert not np.array_equal(sheet[2:14, 20:36], sheet[16:28, 20:36])


@pytest.mark.parametrize(("given", "wanted"), [((), "auto"), (("--backend", "torch"), "torch")])
def test_what_paints_is_what_sample_takes_unless_it_is_named(
    evaluate, frame_folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, given: tuple[str, ...], wanted: str
):
    asked: list[str] = []

    def sample(pipeline: Pipeline, n: int, *, backend: str, **named: object) -> np.ndarray:
        asked.append(backend)
        return bisquit.load_frames(frame_folder)[:n]

    monkeypatch.setattr(Pipeline, "sample", sample)
    assert evaluate(*given, "--json", tmp_path / "figures.json").status == 0
    assert asked == [wanted]
    assert json.loads((tmp_path / "figures.json").read_text())["backend"] == "torch"


def test_without_samples_nothing_is_judged(run: Run, trained: Trained, frame_folder: Path, tmp_path: Path):
    output = tmp_path / "figures.json"
    done = run("evaluate", "--model", trained.model, "--frames", frame_folder, "--json", output)
    figures = json.loads(output.read_text())
    assert all(figures[key] is None for key in FIGURES)
    assert "temperature" not in figures
    assert "Fréchet" not in done.out


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--features", "nowhere"), "nowhere is not there"),
        (("--samples", "4"), "samples is 4: it must be 6 at least"),
        (("--samples", "17"), "samples is 17: it must be at most 16"),
        (("--real", "bundled:train"), "those of --real 100 x 150"),
        (("--samples", "0", "--neighbours", "sheet.png"), "say how many with --samples"),
        (("--samples", "0", "--by-class"), "say how many with --samples"),
        (("--neighbours", "sheet.txt"), "sheet.txt must end like a picture"),
        (("--temperature", "-1"), "temperature is -1.0"),
        (("--size", "11x16"), "pass --size 12x16"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_cannot_be_judged_is_refused_before_anything_is_painted(
    evaluate, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], complaint: str
):
    monkeypatch.setattr(Pipeline, "sample", lambda *arguments, **named: pytest.fail("painted"))
    outcome = evaluate(*arguments)
    assert outcome.status == 2
    assert len(outcome.err.strip().splitlines()) == 1
    assert complaint in outcome.err


def test_a_tokenizer_alone_paints_nothing_to_judge(run: Run, trained: Trained, frame_folder: Path, features: Path):
    judged_by = ("--samples", "7", "--real", frame_folder, "--features", features)
    outcome = run("evaluate", "--model", trained.tokenizer, "--frames", frame_folder, *judged_by)
    assert outcome.status == 2
    assert "no prior to paint with" in outcome.err


def test_a_report_shows_what_was_measured(evaluate, tmp_path: Path):
    assert evaluate("--report", tmp_path / "page.html").status == 0
    page = (tmp_path / "page.html").read_text()
    assert page.count("data:image/png;base64,") == 5  # reconstructions, bits, their map, new frames, the nearest
    assert "Frechet distance" in page or "Fréchet distance" in page


def test_a_report_of_a_tokenizer_has_its_reconstructions(
    run: Run, trained: Trained, frame_folder: Path, tmp_path: Path
):
    command = ("evaluate", "--model", trained.tokenizer, "--frames", frame_folder, "--report", tmp_path / "page.md")
    assert run(*command).status == 0
    assert [path.name for path in (tmp_path / "page").iterdir()] == ["01.png"]


def test_a_report_that_could_not_be_written_is_refused_first(run: Run, trained: Trained, tmp_path: Path):
    outcome = run("evaluate", "--model", trained.model, "--frames", "nowhere", "--report", tmp_path / "page.pdf")
    assert outcome.status == 2
    assert ".html" in outcome.err


def test_classes_are_asked_for_in_turn_and_counted(
    evaluate, frame_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    asked: list[list[str]] = []
    frames = bisquit.load_frames(str(frame_folder))

    def paint(self: Pipeline, n: int, *, class_name: list[str], **named: object) -> np.ndarray:
        asked.append(class_name)
        return np.stack([frames[frames.classes.index(name) * 8 + i // 2] for i, name in enumerate(class_name)])

    monkeypatch.setattr("bisquit.cli.evaluate.chosen_classes", lambda pipeline, names: ("noon", "night"))
    monkeypatch.setattr(Pipeline, "sample", paint)
    done = evaluate("--by-class", "--json", tmp_path / "figures.json", number=8)
    assert done.status == 0, done.err
    assert asked == [["noon", "night"] * 4]
    assert 0 <= json.loads((tmp_path / "figures.json").read_text())["class_accuracy"] <= 1


def test_a_model_that_knows_no_classes_is_not_asked_for_them(evaluate):
    refused = evaluate("--by-class")
    assert refused.status == 2
    assert "knows no classes" in refused.err
