"""Frames on any storage become shards of tokens, each exactly once."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from bisquit import shards
from bisquit.atomic import PARTIAL
from bisquit.errors import ConfigError, FrameError, TokenError
from bisquit.frames import FrameSet, encode_png
from bisquit.frames.pieces import find_pieces
from bisquit.shards import Work, begin, collected, in_this_process, tokenize_piece, tokenize_shards
from bisquit.tokenizer import Tokenizer
from bisquit.tokens import tokenize

SIZE = (8, 12)


@pytest.fixture(params=["disk", "memory"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of an empty folder."""
    if request.param == "disk":
        yield f"file://{tmp_path}"
        return
    system = fsspec.filesystem("memory")
    yield "memory://shards"
    system.rm("/shards", recursive=True)


@pytest.fixture
def frames(make_noise) -> FrameSet:
    return make_noise(23)


@pytest.fixture
def tokenizer(make_tokenizer) -> Tokenizer:
    return make_tokenizer(bits=9)


def write(place: str, frames: FrameSet, files: int = 2, row_group: int = 5, broken: int | None = None) -> str:
    """Write frames to Parquet files, and return the URL of all of them."""
    for number, indices in enumerate(np.array_split(np.arange(len(frames)), files)):
        pictures = [b"no picture" if index == broken else encode_png(frames[int(index)]) for index in indices]
        labels = [frames.classes[frames.labels[index]] if frames.labels[index] >= 0 else None for index in indices]
        file = io.BytesIO()
        pq.write_table(pa.table({"image": pictures, "label": labels}), file, row_group_size=row_group)
        with fsspec.open(f"{place}/frames/{number}.parquet", "wb", auto_mkdir=True) as target:
            target.write(file.getvalue())
    return f"{place}/frames/*.parquet"


def test_shards_hold_the_tokens_of_the_frames_in_order(place: str, frames: FrameSet, tokenizer: Tokenizer):
    url, out = write(place, frames), f"{place}/tokens"
    work = begin(tokenizer, url, out, SIZE, piece_frames=3)
    assert [piece.rows for piece in work.pieces] == [3, 2, 3, 2, 2, 3, 2, 3, 2, 1]
    told: list[tuple[int, int]] = []
    assert tokenize_shards(tokenizer, work, progress=lambda done, total: told.append((done, total))) == 23
    assert told == [(done, 10) for done in range(1, 11)]
    found, wanted = collected(out), tokenize(tokenizer, frames)
    assert found.tokens.dtype == wanted.tokens.dtype
    assert np.array_equal(found.tokens, wanted.tokens)
    assert found.classes == frames.classes
    assert np.array_equal(found.labels, frames.labels)
    assert found.tokenizer.fingerprint() == tokenizer.fingerprint()
    assert found.frame_size == SIZE


def test_what_is_there_is_not_made_again(
    place: str, frames: FrameSet, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
):
    url, out = write(place, frames), f"{place}/tokens"
    work = begin(tokenizer, url, out, SIZE, piece_frames=5)
    done = in_this_process(tokenizer, work)
    for _ in range(2):
        next(done)
    with pytest.raises(TokenError, match="has 2 of 6 shards"):
        collected(out)
    made: list[str] = []
    tokenize_one = shards.tokenize_piece

    def watched(tokenizer: Tokenizer, work: Work, piece: shards.Piece) -> int:
        made.append(piece.name)
        return tokenize_one(tokenizer, work, piece)

    monkeypatch.setattr(shards, "tokenize_piece", watched)
    again = begin(tokenizer, url, out, SIZE, piece_frames=5)
    tokenize_shards(tokenizer, again)
    assert made == [piece.name for piece in work.pieces[2:]]
    assert not begin(tokenizer, url, out, SIZE, piece_frames=5).pieces
    assert np.array_equal(collected(out).tokens, tokenize(tokenizer, frames).tokens)


def test_a_piece_that_is_done_twice_is_there_once(place: str, frames: FrameSet, tokenizer: Tokenizer):
    work = begin(tokenizer, write(place, frames), f"{place}/tokens", SIZE, piece_frames=5)
    for piece in (*reversed(work.pieces), work.pieces[0]):
        tokenize_piece(tokenizer, work, piece)
    assert np.array_equal(collected(work.out).tokens, tokenize(tokenizer, frames).tokens)


def test_what_a_killed_process_left_half_made_is_no_shard(tmp_path: Path, frames: FrameSet, tokenizer: Tokenizer):
    work = begin(tokenizer, write(str(tmp_path), frames), str(tmp_path / "tokens"), SIZE, piece_frames=5)
    tokenize_shards(tokenizer, work)
    (tmp_path / "tokens" / f"{PARTIAL}000000-x.parquet").write_bytes(b"PAR1")
    assert len(collected(work.out)) == 23


def test_a_token_outside_of_the_codebook_is_refused(tmp_path: Path, frames: FrameSet, tokenizer: Tokenizer):
    work = begin(tokenizer, write(str(tmp_path), frames), str(tmp_path / "tokens"), SIZE, piece_frames=5)
    tokenize_shards(tokenizer, work)
    path = tmp_path / "tokens" / f"{work.pieces[0].name}.parquet"
    table = pq.read_table(path)
    cells = pa.array([b"\xff" * 12] * len(table), pa.binary(12))
    pq.write_table(table.set_column(0, "tokens", cells), path)
    with pytest.raises(TokenError, match="a token is outside of the codebook of 512"):
        collected(work.out)


def test_a_shard_that_cannot_be_written_whole_is_not_there(
    tmp_path: Path, frames: FrameSet, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
):
    work = begin(tokenizer, write(str(tmp_path), frames), str(tmp_path / "tokens"), SIZE, piece_frames=5)
    write_bytes = Path.write_bytes

    def full_disk(path: Path, content: bytes) -> int:
        write_bytes(path, content[: len(content) // 2])
        raise OSError(28, "no space left on the device")

    monkeypatch.setattr(Path, "write_bytes", full_disk)
    with pytest.raises(OSError, match="no space"):
        tokenize_shards(tokenizer, work)
    assert {path.name for path in (tmp_path / "tokens").iterdir()} == {"shards.json", "tokenizer.safetensors"}


def test_shards_of_another_tokenizer_or_of_other_frames_are_refused(
    place: str, frames: FrameSet, tokenizer: Tokenizer, make_tokenizer
):
    url, out = write(place, frames), f"{place}/tokens"
    begin(tokenizer, url, out, SIZE, piece_frames=5)
    for other in (
        (make_tokenizer(bits=9, seed=1), url, SIZE, 5),
        (tokenizer, url.replace("*", "0"), SIZE, 5),
        (tokenizer, url, (8, 8), 5),
        (tokenizer, url, SIZE, 4),
    ):
        other_tokenizer, other_url, size, piece_frames = other
        with pytest.raises(TokenError, match="pass another folder"):
            begin(other_tokenizer, other_url, out, size, piece_frames)


def test_broken_pictures_stop_the_work_or_are_left_out(place: str, frames: FrameSet, tokenizer: Tokenizer):
    url = write(place, frames, broken=7)
    work = begin(tokenizer, url, f"{place}/tokens", SIZE, piece_frames=5)
    with pytest.raises(FrameError, match="pass --skip-bad"):
        tokenize_shards(tokenizer, work)
    assert tokenize_shards(tokenizer, replace(work, skip_bad=True)) == 22
    wanted = tokenize(tokenizer, frames).tokens
    assert np.array_equal(collected(work.out).tokens, np.delete(wanted, 7, axis=0))


def test_frames_that_are_not_there_are_refused(tmp_path: Path, tokenizer: Tokenizer):
    with pytest.raises(FrameError, match="names no file"):
        find_pieces(f"{tmp_path}/*.parquet", 5)
    (tmp_path / "cut.parquet").write_bytes(b"PAR1")
    with pytest.raises(FrameError, match="no readable Parquet"):
        find_pieces(f"{tmp_path}/*.parquet", 5)
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "cut.parquet")
    with pytest.raises(FrameError, match="no column 'image'"):
        find_pieces(f"{tmp_path}/*.parquet", 5)
    with pytest.raises(FrameError, match="nowhere"):
        find_pieces("nowhere://frames/*.parquet", 5)
    with pytest.raises(ConfigError, match="piece_frames is 0"):
        begin(tokenizer, f"{tmp_path}/*.parquet", str(tmp_path), SIZE, 0)
    with pytest.raises(TokenError, match=r"no shards\.json"):
        collected(str(tmp_path))


@pytest.mark.filterwarnings("ignore::Warning:ray")  # of Ray about its own use of itself
def test_ray_makes_the_shards_that_one_process_makes(
    tmp_path: Path, frames: FrameSet, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
):
    ray = pytest.importorskip("ray", reason="the extra ray is not installed")
    pytest.importorskip("ray.data")
    from bisquit.on_ray import OnRay

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    url = write(str(tmp_path), frames)
    tokenize_shards(tokenizer, begin(tokenizer, url, str(tmp_path / "here"), SIZE, piece_frames=5))
    work = begin(tokenizer, url, str(tmp_path / "ray"), SIZE, piece_frames=5)
    try:
        assert tokenize_shards(tokenizer, work, OnRay(workers=2)) == 23
    finally:
        ray.shutdown()
    for path in (tmp_path / "here").iterdir():
        assert (tmp_path / "ray" / path.name).read_bytes() == path.read_bytes()
    assert torch.equal(
        torch.from_numpy(collected(work.out).tokens), torch.from_numpy(tokenize(tokenizer, frames).tokens)
    )
