"""Several processes and large sets from the command line."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.cli.driver import Run, Trained

from bisquit.cli import train
from bisquit.errors import ProcessLost
from bisquit.frames import encode_png
from bisquit.training.launch import LOST, Processes

TRAIN = ("train", "tokenizer", "--preset", "demo", "--frames", "nowhere", "--out", "run")


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    """A Parquet file of 7 frames of 12 x 16 pixels."""
    rng = np.random.default_rng(0)
    pictures = [encode_png(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)) for _ in range(7)]
    file = io.BytesIO()
    pq.write_table(pa.table({"image": pictures}), file, row_group_size=4)
    path = tmp_path / "frames.parquet"
    path.write_bytes(file.getvalue())
    return path


def test_a_training_of_several_processes_is_the_same_command_in_each(run: Run, monkeypatch: pytest.MonkeyPatch):
    launched: list[tuple[list[str], Processes]] = []
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setattr(train, "launch", lambda command, processes: launched.append((command, processes)) or 130)
    flags = ("--devices", "2", "--restarts", "3")
    assert run(*TRAIN, *flags).status == 130
    ((command, processes),) = launched
    assert command == [sys.executable, "-m", "bisquit", *TRAIN, *flags]
    assert processes == Processes(devices=2, restarts=3)


def test_one_of_several_processes_starts_no_others(run: Run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.setattr(train, "launch", None)
    assert "nowhere" in run(*TRAIN, "--devices", "2").err  # it went on to the frames


def test_a_process_that_lost_another_leaves_the_word_to_the_one_that_started_it(
    run: Run, monkeypatch: pytest.MonkeyPatch
):
    def lose() -> None:
        raise ProcessLost("another process was lost")

    monkeypatch.setattr(train, "joined", lose)
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    lost = run(*TRAIN)
    assert (lost.status, lost.err) == (LOST, "")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "run")
    assert run(*TRAIN).err == "bisquit: another process was lost\n"


def test_no_processes_are_refused(run: Run):
    refused = run(*TRAIN, "--devices", "0")
    assert refused.status == 2
    assert refused.err == "bisquit: devices is 0: it must be at least 1\n"


def shards_command(trained: Trained, frames: Path, tmp_path: Path) -> tuple[str | Path, ...]:
    """Return the command that makes shards of frames in a folder of `tmp_path`."""
    named = ("--tokenizer", trained.tokenizer, "--frames", frames, "--size", "12x16")
    return "shards", *named, "-o", tmp_path / "out"


def test_shards_are_made_once(run: Run, trained: Trained, frames: Path, tmp_path: Path):
    command = shards_command(trained, frames, tmp_path)
    first, second = run(*command), run(*command)
    assert first.out.startswith("7 frames in 2 shards, 0 were there before")
    assert second.out.startswith("0 frames in 0 shards, 2 were there before")


def test_a_prior_is_trained_on_shards_by_the_name_of_their_folder(
    run: Run, trained: Trained, frames: Path, tmp_path: Path
):
    run(*shards_command(trained, frames, tmp_path))
    tokens = ("--tokens", tmp_path / "out", "--valid-tokens", f"{tmp_path}/out/*", "--block-pictures", "4")
    small = ("--preset", "demo", "--epochs", "1", "--batch-size", "4", "--width", "8", "--out", tmp_path / "run")
    assert run("train", "prior", *tokens, *small).out == f"model in {tmp_path / 'run'}\n"
    (tmp_path / "out" / "shards.json").unlink()
    refused = run("train", "prior", *tokens, *small)
    assert refused.status == 2
    assert refused.err == f"bisquit: {tmp_path}/out has no shards.json of shards of tokens\n"


def test_workers_without_ray_are_refused_in_one_line(
    run: Run, trained: Trained, frames: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "ray", None)
    command = shards_command(trained, frames, tmp_path)
    refused = run(*command, "--workers", "2")
    assert refused.status == 2
    assert refused.err == "bisquit: workers need Ray: pip install 'bisquit[ray]'\n"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "command",
    [
        ("sample", "-o", "sheet.png"),
        ("augment", "-o", "painted"),
        ("evaluate", "--frames", "bundled:valid", "--samples", "99"),
    ],
    ids=lambda command: command[0],
)
def test_painting_by_workers_needs_ray_and_an_address_workers(
    run: Run, command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "ray", None)
    refused = run(*command, "--model", "seed", "--workers", "2")
    assert (refused.status, refused.err) == (2, "bisquit: workers need Ray: pip install 'bisquit[ray]'\n")
    refused = run(*command, "--model", "seed", "--ray-address", "auto")
    assert refused.status == 2
    assert "--ray-address is for --workers: pass both" in refused.err


def test_workers_of_an_evaluation_paint_new_frames(run: Run):
    refused = run("evaluate", "--model", "seed", "--frames", "bundled:valid", "--workers", "2")
    assert refused.status == 2
    assert "say how many with --samples" in refused.err


def test_an_address_without_workers_is_refused(run: Run, frames: Path, tmp_path: Path):
    refused = run(
        "shards", "--tokenizer", "seed", "--frames", frames, "--size", "12x16", "-o", tmp_path, "--ray-address", "x"
    )
    assert refused.status == 2
    assert "--workers" in refused.err
