"""Frames from recordings by commands, and a training that reads them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.cli.driver import TINY, Run

from bisquit.frames import write_frame


@pytest.fixture
def shots(tmp_path: Path) -> Path:
    """Return a folder of 24 screenshots."""
    rng = np.random.default_rng(0)
    for i in range(24):
        write_frame(rng.integers(0, 256, (24, 40, 3), dtype=np.uint8), tmp_path / "lava" / f"{i:02d}.png")
    return tmp_path / "lava"


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """Return a video of 24 seconds, a scene each."""
    av: Any = pytest.importorskip("av")
    rng = np.random.default_rng(0)
    with av.open(str(tmp_path / "ice.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=5)
        stream.height, stream.width, stream.pix_fmt = 48, 80, "yuv420p"
        for _ in range(24):
            scene = Image.fromarray(rng.integers(0, 256, (4, 6, 3), dtype=np.uint8)).resize((80, 48))
            for _ in range(5):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(np.asarray(scene), format="rgb24")))
        container.mux(stream.encode())
    return tmp_path / "ice.mp4"


def test_recordings_become_frames_that_a_tokenizer_is_trained_on(run: Run, video: Path, shots: Path, tmp_path: Path):
    out = tmp_path / "frames"
    take = ("frames", "import", video, shots, "-o", out, "--size", "12x16", "--sequence", "4")
    done = run(*take)
    assert done.status == 0, done.err
    assert done.out == f"24 frames of 6 sequences in {out}; left out: 24 between two sequences\n"
    facts = json.loads(run("info", out, "--json").out)
    assert facts["classes"] == {"ice": 12, "lava": 12}
    assert (facts["size"], facts["races"]) == ([12, 16], 6)
    train = ("train", "tokenizer", "--preset", "demo", "--frames", out, "--out", tmp_path / "run")
    assert run(*train, *TINY).status == 0
    assert "already" in run(*take).err


def test_a_class_is_given_by_hand_and_frames_are_100_x_150_by_default(run: Run, shots: Path, tmp_path: Path):
    assert run("frames", "import", shots, "-o", tmp_path / "frames", "--class", "volcano").status == 0
    facts = json.loads(run("info", tmp_path / "frames", "--json").out)
    assert facts["classes"] == {"volcano": 24}
    assert facts["size"] == [100, 150]


def test_broken_pictures_are_named_and_can_be_left_out(run: Run, shots: Path, tmp_path: Path):
    (shots / "03.png").write_text("no picture")
    take = ("frames", "import", shots, "-o", tmp_path / "frames")
    assert "pass --skip-bad" in run(*take).err
    assert not (tmp_path / "frames").exists()
    assert run(*take, "--skip-bad").err == f"not read, or not to the end: {shots / '03.png'}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nowhere.mp4",), "nowhere.mp4 does not exist"),
        ((), "SOURCE"),
        ((".", "--size", "big"), "big must be height x width"),
        ((".", "--every", "0"), "every_s is 0.0"),
        ((".", "--class", "a/b"), "cannot name a folder"),
        ((".", "--sequence", "nan"), "sequence_s is nan"),
        ((".",), "holds no frames"),
    ],
    ids=["nowhere", "nothing", "size", "every", "class", "sequence", "empty"],
)
def test_what_cannot_be_imported_is_one_line(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], message: str
):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    refused = run("frames", "import", *arguments, "-o", tmp_path / "frames")
    assert refused.status == 2
    assert message in refused.err
    assert refused.err.count("\n") == 1
    assert not (tmp_path / "frames").exists()


def test_a_video_cut_before_its_index_is_one_line(run: Run, video: Path, shots: Path, tmp_path: Path):
    video.write_bytes(video.read_bytes()[:2000])
    refused = run("frames", "import", shots, video, "-o", tmp_path / "frames")
    assert refused.status == 2
    assert "no video that can be read, or has been cut" in refused.err
    assert refused.err.count("\n") == 1
    assert not (tmp_path / "frames").exists()
