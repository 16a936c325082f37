"""Frames from videos and screenshots: which are taken, where they go, and which sources are refused."""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bisquit.errors import ConfigError, FrameError
from bisquit.frames import fit_frame, load_frames, load_splits, write_frame
from bisquit.frames.record import BadFrames
from bisquit.frames.recording import GAP_S, ImportConfig, import_recordings, is_blank, is_blended
from bisquit.frames.video import AROUND_S, Moment, read_moments

FPS = 10
SIZE = (32, 48)
WriteVideo = Callable[..., Path]


def scene(seed: int) -> np.ndarray:
    """Return a picture of soft patches of colour, uint8 (64, 96, 3), such as a video keeps."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((96, 64), Image.Resampling.BICUBIC))


def held(seeds: Sequence[int], seconds: float = 1.0) -> list[np.ndarray]:
    """Return the frames of scenes that each stand still for some seconds."""
    return [scene(seed) for seed in seeds for _ in range(round(seconds * FPS))]


def faded(start: np.ndarray, end: np.ndarray, count: int) -> list[np.ndarray]:
    """Return the frames of a cross-fade."""
    shares = np.linspace(0, 1, count + 2)[1:-1]
    return [np.round((1 - share) * start + share * end).astype(np.uint8) for share in shares]


@pytest.fixture
def write_video(tmp_path: Path) -> WriteVideo:
    """A function that writes frames as a video; the test is skipped where PyAV is not installed."""
    av: Any = pytest.importorskip("av")

    def write(name: str, frames: Sequence[np.ndarray], turned: int = 0) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with av.open(str(path), "w") as container:
            stream = container.add_stream("mpeg4", rate=FPS, options={"qscale": "2"})
            stream.height, stream.width = frames[0].shape[:2]
            stream.pix_fmt, stream.bit_rate = "yuv420p", 4_000_000
            if turned:
                stream.set_display_rotation(turned)
            for frame in frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode())
        return path

    return write


@pytest.fixture
def shots(tmp_path: Path) -> Callable[..., Path]:
    """A function that writes pictures to a folder."""

    def write(name: str, frames: Sequence[np.ndarray]) -> Path:
        for i, frame in enumerate(frames):
            write_frame(frame, tmp_path / name / f"{i:03d}.png")
        return tmp_path / name

    return write


def rows_of(folder: Path) -> list[dict[str, str]]:
    """Return all that the metadata of a folder says, in the order of the files."""
    found = []
    for path in sorted(folder.rglob("metadata.csv")):
        with path.open(encoding="utf-8", newline="") as file:
            found += list(csv.DictReader(file))
    return found


def times_of(folder: Path) -> list[float]:
    return [float(row["time_s"]) for row in rows_of(folder)]


def config(**changes: Any) -> ImportConfig:
    return ImportConfig(size=SIZE).replace(**changes)


# Moments of a video


def test_a_moment_is_the_first_frame_of_its_time_with_what_is_around_it(write_video: WriteVideo):
    path = write_video("a.mp4", [np.full((64, 96, 3), 5 * i, np.uint8) for i in range(45)])
    moments = list(read_moments(path, 2.0, BadFrames(skip=False)))
    assert [moment.time_s for moment in moments] == pytest.approx([0, 2, 4])

    def number(frame: np.ndarray | None) -> float | None:
        return None if frame is None else round(float(frame.mean()) / 5)

    around = round(AROUND_S * FPS)
    numbers = [tuple(map(number, (moment.before, moment.frame, moment.after))) for moment in moments]
    assert numbers == [(None, 0, around), (20 - around, 20, 20 + around), (40 - around, 40, 40 + around)]


def test_a_frame_is_in_one_moment_even_if_moments_are_denser_than_frames(write_video: WriteVideo):
    path = write_video("a.mp4", held([0, 1, 2]))
    moments = list(read_moments(path, 0.01, BadFrames(skip=False)))
    assert [moment.time_s for moment in moments] == pytest.approx(np.arange(30) / FPS)
    assert all(moment.before is not None for moment in moments[1:])
    assert all(moment.after is not None for moment in moments[:-1])


def test_a_turned_video_is_set_upright(write_video: WriteVideo):
    av = pytest.importorskip("av")
    if not hasattr(av.VideoStream, "set_display_rotation"):
        pytest.skip("this PyAV cannot write turned videos")
    picture = scene(0)
    (moment, *_) = read_moments(write_video("a.mp4", [picture] * 3, turned=90), 1.0, BadFrames(skip=False))
    assert moment.frame.shape == (96, 64, 3)
    np.testing.assert_allclose(moment.frame.astype(int), np.rot90(picture).astype(int), atol=40)
    assert np.abs(moment.frame.astype(int) - np.rot90(picture)).mean() < 6


# Which frames are taken


def test_one_colour_is_blank_and_a_dark_scene_is_not():
    black = np.zeros((40, 60, 3), np.uint8)
    written = black.copy()
    written[20:22, 10:40] = 255  # a word on a black screen
    night = np.random.default_rng(0).integers(0, 50, (40, 60, 3), dtype=np.uint8)
    assert is_blank(black)
    assert is_blank(black + np.uint8(200))
    assert is_blank(written)
    assert not is_blank(night)


@pytest.mark.parametrize("end", [scene(1), np.zeros((64, 96, 3), np.uint8)], ids=["another scene", "black"])
def test_a_mixture_of_two_scenes_is_blended_and_its_ends_are_not(end: np.ndarray):
    start = scene(0)
    for half in faded(start, end, 3):
        assert is_blended(Moment(0, half, start, end))
    assert not is_blended(Moment(0, start, start, end))
    assert not is_blended(Moment(0, end, start, end))
    assert not is_blended(Moment(0, start, None, end))


@pytest.mark.parametrize("step", [1, 2, 4, 8, 16, 48])
def test_no_frame_of_a_camera_that_pans_is_blended(step: int):
    wide = np.concatenate([scene(seed) for seed in range(4)], axis=1)
    for left in range(step, 4 * 96 - 96 - step, 30):
        before, frame, after = (wide[:, at : at + 96] for at in (left - step, left, left + step))
        assert not is_blended(Moment(0, frame, before, after)), left


def test_no_frame_of_a_camera_that_nears_is_blended():
    for seed in range(20):
        image = Image.fromarray(scene(seed))
        boxes = [(edge * 1.5, edge, 96 - edge * 1.5, 64 - edge) for edge in (2, 5, 8)]
        before, frame, after = (np.asarray(image.resize((96, 64), Image.Resampling.BICUBIC, box=box)) for box in boxes)
        assert not is_blended(Moment(0, frame, before, after)), seed


def test_cross_fades_of_a_moving_camera_are_blended():
    wide = [np.concatenate([scene(seed), scene(seed + 1)], axis=1) for seed in (0, 2)]
    moments = []
    for left in range(2, 90, 8):
        views = [[picture[:, at : at + 96].astype(float) for at in (left - 2, left, left + 2)] for picture in wide]
        mixed = [(1 - share) * one + share * other for share, one, other in zip((0.3, 0.5, 0.7), *views, strict=True)]
        before, frame, after = (picture.round().astype(np.uint8) for picture in mixed)
        moments.append(Moment(0, frame, before, after))
    assert all(map(is_blended, moments))


def test_no_bundled_frame_is_blank():
    assert not any(is_blank(frame) for frame in load_frames("bundled:valid")[:])


def test_fades_and_black_are_left_out_of_a_video_and_cuts_are_not(write_video: WriteVideo, tmp_path: Path):
    black = np.zeros((64, 96, 3), np.uint8)
    frames = [*held([0], 2), *faded(scene(0), scene(1), 10), *held([1], 2), *[black] * FPS, *held([2], 2)]
    tally = import_recordings([write_video("a.mp4", frames)], tmp_path / "out", config(every_s=0.5, least_change=0))
    times = times_of(tmp_path / "out")
    assert tally.taken == len(times) == 12
    assert [time for time in times if 2.0 < time < 3.0 or 5.0 <= time < 6.0] == []
    assert tally.blended >= 1
    assert tally.blank == 2


def test_frames_like_the_last_one_are_left_out(write_video: WriteVideo, tmp_path: Path):
    path = write_video("a.mp4", held([0, 1, 1, 1, 0], 2))
    tally = import_recordings([path], tmp_path / "out", config())
    assert times_of(tmp_path / "out") == pytest.approx([0, 2, 8])
    assert (tally.taken, tally.alike) == (3, 7)


def test_sequences_are_parted_by_a_gap(write_video: WriteVideo, tmp_path: Path):
    path = write_video("a.mp4", held(range(20)))
    tally = import_recordings([path], tmp_path / "out", config(sequence_s=3, least_change=0))
    rows = rows_of(tmp_path / "out")
    assert [(float(row["time_s"]), row["race"]) for row in rows] == [
        (start + i, f"a-{number}") for number, start in ((1, 0), (2, 8), (3, 16)) for i in range(3)
    ]
    assert (tally.sequences, tally.between) == (3, 2 * GAP_S + 1)


# Where they go


def test_the_folder_is_read_and_split_by_sequence(write_video: WriteVideo, shots: Callable[..., Path], tmp_path: Path):
    sources = [write_video("ice.mp4", held(range(20))), shots("lava", held(range(20, 40), 0.1))]
    tally = import_recordings(sources, tmp_path / "out", config(sequence_s=3))
    train, valid = load_splits(tmp_path / "out")
    assert len(train) + len(valid) == tally.taken == 18
    assert (train.height, train.width) == SIZE
    assert train.classes == ("ice", "lava")
    assert train.groups is not None
    assert valid.groups is not None
    assert len(np.unique(train.groups)) + len(np.unique(valid.groups)) == tally.sequences == 6
    assert not set(train.groups) & set(valid.groups)


def test_a_frame_is_what_was_seen_cropped_and_resized(shots: Callable[..., Path], tmp_path: Path):
    wide = np.concatenate([np.zeros((64, 10, 3), np.uint8), scene(0), np.zeros((64, 10, 3), np.uint8)], axis=1)
    import_recordings([shots("lava", [wide])], tmp_path / "out", config())
    written = load_frames(tmp_path / "out")[0]
    wanted = Image.fromarray(scene(0)).resize(SIZE[::-1], Image.Resampling.LANCZOS)
    np.testing.assert_allclose(written[:, 3:-3].astype(int), np.asarray(wanted)[:, 3:-3].astype(int), atol=1)


@pytest.mark.parametrize("shape", [(64, 116), (70, 96), (64, 96), (33, 49), (32, 48), (7, 300)])
def test_any_frame_fits_any_size(shape: tuple[int, int]):
    assert fit_frame(np.zeros((*shape, 3), np.uint8), SIZE).shape == (*SIZE, 3)
    assert fit_frame(np.zeros((*shape, 3), np.uint8), (7, 3)).shape == (7, 3, 3)


def test_more_recordings_are_added_and_what_is_there_stays(shots: Callable[..., Path], tmp_path: Path):
    out = tmp_path / "out"
    import_recordings([shots("a/lava", [scene(0), scene(1)])], out, config())
    before = {path: path.read_bytes() for path in out.rglob("*.*")}
    import_recordings([shots("b/lava", [scene(2)]), shots("c/lava", [scene(3)])], out, config())
    import_recordings([shots("ice", [scene(4)])], out, config(), class_name="lava")
    assert all(path.read_bytes() == content for path, content in before.items())
    assert {path.name for path in (out / "lava").iterdir()} == {"lava", "lava-2", "lava-3", "ice"}
    frames = load_frames(out)
    assert frames.classes == ("lava",)
    assert frames.groups is not None
    assert sorted(np.bincount(frames.groups)) == [1, 1, 1, 2]


def test_a_source_is_not_added_twice(shots: Callable[..., Path], tmp_path: Path):
    source, out = shots("lava", [scene(0)]), tmp_path / "out"
    with pytest.raises(FrameError, match="given twice"):
        import_recordings([source, tmp_path / "." / "lava"], out, config())
    assert not out.exists()
    import_recordings([source], out, config())
    with pytest.raises(FrameError, match=r"lava is in .*out already"):
        import_recordings([source], out, config(), class_name="other")


def test_frames_of_another_size_are_not_added(shots: Callable[..., Path], tmp_path: Path):
    import_recordings([shots("lava", [scene(0)])], tmp_path / "out", config())
    with pytest.raises(FrameError, match="32x48: pass --size 32x48"):
        import_recordings([shots("ice", [scene(1)])], tmp_path / "out", ImportConfig())
    assert not (tmp_path / "out" / "ice").exists()


@pytest.mark.parametrize("name", ["notes.txt", "lava/1.png", "lava/lava/metadata.csv"])
def test_a_folder_of_something_else_is_not_added_to(shots: Callable[..., Path], tmp_path: Path, name: str):
    other = tmp_path / "out" / name
    other.parent.mkdir(parents=True)
    other.write_text("file_name,label\n")
    with pytest.raises(FrameError, match="which no import has written"):
        import_recordings([shots("ice", [scene(0)])], tmp_path / "out", config())
    assert [path for path in (tmp_path / "out").rglob("*") if path.is_file()] == [other]


def test_hidden_names_give_folders_that_are_read(shots: Callable[..., Path], tmp_path: Path):
    import_recordings([shots("__shots", [scene(0)])], tmp_path / "out", config(), class_name="lava")
    assert load_frames(tmp_path / "out").names == ("lava/shots/000000.png",)


def test_a_folder_inside_of_its_own_source_is_refused(shots: Callable[..., Path]):
    folder = shots("lava", [scene(0)])
    with pytest.raises(FrameError, match="name a folder elsewhere"):
        import_recordings([folder], folder / "out", config())
    assert not (folder / "out").exists()


@pytest.mark.parametrize("name", ["", "..", "a/b", ".lava", "__lava"])
def test_a_class_that_cannot_name_a_folder_is_refused(shots: Callable[..., Path], tmp_path: Path, name: str):
    with pytest.raises(ConfigError, match="cannot name a folder"):
        import_recordings([shots("ice", [scene(0)])], tmp_path / "out", config(), class_name=name)
    assert not (tmp_path / "out").exists()


# What is refused


def refused(tmp_path: Path, source: Path, *words: str) -> None:
    """Check that a source is refused in one line, and that neither it nor a sound one beside it leaves anything."""
    write_frame(scene(0), tmp_path / "sound" / "0.png")
    with pytest.raises(FrameError) as caught:
        import_recordings([tmp_path / "sound", source], tmp_path / "new" / "out", config())
    assert "\n" not in str(caught.value)
    for word in (str(source), *words):
        assert word in str(caught.value)
    assert not (tmp_path / "new").exists()


def test_what_is_no_video_is_refused(write_video: WriteVideo, tmp_path: Path):
    for name, content in (("a.mp4", b"no video\n" * 99), ("b.mkv", b""), ("c.txt", b"a text\n" * 99)):
        (tmp_path / name).write_bytes(content)
        refused(tmp_path, tmp_path / name, "no video")
    refused(tmp_path, tmp_path / "nowhere.mp4", "does not exist")


def test_sound_without_pictures_is_refused(tmp_path: Path):
    av = pytest.importorskip("av")
    path = tmp_path / "sound.wav"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    refused(tmp_path, path, "no video stream")


def test_a_cut_video_is_refused_and_its_beginning_can_be_taken(write_video: WriteVideo, tmp_path: Path):
    whole = write_video("whole.mkv", held(range(8)))
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    refused(tmp_path, cut, "has been cut", "of 8.0", "--skip-bad")
    tally = import_recordings([cut], tmp_path / "out", config(), skip_bad=True)
    assert 2 <= tally.taken < 8
    assert tally.skipped == (str(cut),)


def test_a_video_cut_before_its_index_is_refused(write_video: WriteVideo, tmp_path: Path):
    path = write_video("a.mp4", held(range(4)))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    refused(tmp_path, path, "cut")


def test_a_damaged_video_is_refused_and_the_rest_can_be_taken(write_video: WriteVideo, tmp_path: Path):
    noise = np.random.default_rng(0).integers(0, 256, (60, 64, 96, 3), dtype=np.uint8)
    path = write_video("a.mp4", list(noise))
    content = bytearray(path.read_bytes())
    third = len(content) // 3
    content[third : third + len(content) // 10] = bytes(len(content) // 10)
    path.write_bytes(content)
    refused(tmp_path, path, "is damaged", "--skip-bad")
    tally = import_recordings([path], tmp_path / "out", config(), skip_bad=True)
    assert 4 <= tally.taken <= 6
    assert tally.skipped == (str(path),)


def test_a_source_that_gives_no_frame_is_refused(write_video: WriteVideo, shots: Callable[..., Path], tmp_path: Path):
    black = [np.zeros((64, 96, 3), np.uint8)] * 2 * FPS
    refused(tmp_path, write_video("a.mp4", black), "gives no frame: 2 blank")
    refused(tmp_path, shots("dark", black[:3]), "gives no frame: 3 blank")


def test_folders_without_pictures_are_refused(tmp_path: Path, write_parquet: Any):
    (tmp_path / "empty").mkdir()
    refused(tmp_path, tmp_path / "empty", "holds no frames")
    write_parquet(tmp_path / "table" / "a.parquet", [scene(0)])
    refused(tmp_path, tmp_path / "table", "frames already")


def test_a_broken_picture_is_refused_or_left_out(shots: Callable[..., Path], tmp_path: Path):
    folder = shots("lava", [scene(0), scene(1)])
    (folder / "000.png").write_text("no picture")
    refused(tmp_path, folder, "000.png is no JPEG, PNG or WebP", "--skip-bad")
    tally = import_recordings([folder], tmp_path / "out", config(), skip_bad=True)
    assert (tally.taken, tally.skipped) == (1, (str(folder / "000.png"),))


def test_without_pyav_a_video_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setitem(sys.modules, "av", None)
    (tmp_path / "a.mp4").write_bytes(b"")
    refused(tmp_path, tmp_path / "a.mp4", "pip install 'bisquit[video]'")


@pytest.mark.parametrize(
    "changes", [{"every_s": 0.0}, {"every_s": float("nan")}, {"least_change": 2.0}, {"size": (0, 1)}]
)
def test_settings_out_of_range_are_refused(changes: dict[str, Any]):
    with pytest.raises(ConfigError, match=f"^{next(iter(changes))} is "):
        config(**changes)


def test_progress_goes_from_source_to_source(write_video: WriteVideo, shots: Callable[..., Path], tmp_path: Path):
    calls: list[tuple[int, int]] = []
    sources = [write_video("a.mp4", held(range(3))), shots("lava", [scene(8), scene(9)])]
    import_recordings(sources, tmp_path / "out", config(), progress=lambda done, total: calls.append((done, total)))
    shares = [done / total for done, total in calls]
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert 0.5 in shares
