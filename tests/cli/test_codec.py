"""`compress`, `decompress` and `archive`: pictures come back under their names, and what is damaged is named."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.cli.driver import Run, Trained

from bisquit.codec import Archive, Codec, CodecModel, Rung, archive, picture_file
from bisquit.frames import load_frames, read_frame
from bisquit.generate import load


@pytest.fixture
def packed(run: Run, trained: Trained, frame_folder: Path, tmp_path: Path) -> Path:
    outcome = run("compress", frame_folder, "-o", tmp_path / "all.bisq", "--model", trained.model)
    assert outcome.status == 0, outcome.err
    assert outcome.out.startswith(f"16 pictures in {(tmp_path / 'all.bisq').stat().st_size} bytes")
    return tmp_path / "all.bisq"


def codec_of(trained: Trained) -> Codec:
    pipeline = load(trained.model)
    return Codec([Rung(CodecModel(pipeline.tokenizer, pipeline.prior, pipeline.frame_size, backend="torch"))])


def test_a_folder_comes_back_under_its_names(
    run: Run, trained: Trained, frame_folder: Path, packed: Path, tmp_path: Path
) -> None:
    assert run("decompress", packed, "-o", tmp_path / "back", "--model", trained.model).status == 0
    names = sorted(path.relative_to(frame_folder) for path in frame_folder.rglob("*.png"))
    assert sorted(path.relative_to(tmp_path / "back") for path in (tmp_path / "back").rglob("*.png")) == names
    codec = codec_of(trained)
    wanted = codec.decompress(codec.compress(load_frames(frame_folder)[:3]))  # by PyTorch alone
    for name, frame in zip(names, wanted, strict=False):
        assert (read_frame(tmp_path / "back" / name) == frame).all()


def test_one_picture_is_a_file_of_its_own(run: Run, trained: Trained, frame_folder: Path, tmp_path: Path) -> None:
    picture, model = frame_folder / "noon" / "3.png", ("--model", trained.model)
    assert run("compress", picture, "-o", tmp_path / "one.bisq", *model).status == 0
    assert (tmp_path / "one.bisq").read_bytes()[:2] == b"bq"
    assert run("decompress", tmp_path / "one.bisq", "-o", tmp_path / "back.png", *model).status == 0
    assert run("decompress", tmp_path / "one.bisq", "-o", tmp_path / "folder", *model).status == 0
    assert (read_frame(tmp_path / "back.png") == read_frame(tmp_path / "folder" / "one.png")).all()
    assert run("compress", picture, "-o", tmp_path / "all.bisq", "--archive", *model).status == 0
    with Archive(tmp_path / "all.bisq") as opened:
        assert [entry.name for entry in opened] == ["3.png"]
        assert opened.read(opened[0]) == (tmp_path / "one.bisq").read_bytes()


def test_standard_input_and_output(trained: Trained, frame_folder: Path) -> None:
    def pipe(data: bytes, *arguments: str | Path) -> bytes:
        command = [sys.executable, "-m", "bisquit", *map(str, arguments), "--model", str(trained.model)]
        return subprocess.run(command, input=data, capture_output=True, check=True).stdout

    stored = pipe((frame_folder / "night" / "0.png").read_bytes(), "compress", "-", "-o", "-")
    codec = codec_of(trained)
    assert codec.compress(read_frame(frame_folder / "night" / "0.png")[None]) == [stored]
    back = np.array(Image.open(io.BytesIO(pipe(stored, "decompress", "-", "-o", "-"))))
    assert (back == codec.decompress([stored])[0]).all()


def test_archives_are_listed_and_grown_and_single_pictures_taken_out(
    run: Run, trained: Trained, frame_folder: Path, packed: Path, tmp_path: Path
) -> None:
    model = ("--model", trained.model)
    before = packed.read_bytes()
    twice = run("archive", "append", packed, frame_folder, *model)
    assert (twice.status, "already" in twice.err) == (2, True)
    assert packed.read_bytes() == before
    assert run("archive", "append", packed, frame_folder / "noon" / "3.png", *model).status == 0
    assert packed.read_bytes().startswith(before)
    lines = run("archive", "list", packed).out.splitlines()
    assert len(lines) == 17
    assert lines[0].endswith("  night/0.png")
    assert lines[-1].endswith("  3.png")
    assert run("archive", "get", packed, "3.png", "noon/3.png", "-o", tmp_path / "some", *model).status == 0
    assert (read_frame(tmp_path / "some" / "3.png") == read_frame(tmp_path / "some" / "noon" / "3.png")).all()
    unknown = run("archive", "get", packed, "4.png", "-o", tmp_path / "some", *model)
    assert (unknown.status, "holds no picture 4.png" in unknown.err) == (2, True)


def test_damage_is_found_and_left_out(run: Run, trained: Trained, packed: Path, tmp_path: Path) -> None:
    model = ("--model", trained.model)
    assert run("archive", "verify", packed, *model).out == "16 pictures, all sound\n"
    with Archive(packed) as opened:
        content, frame = opened[2].end - 1, opened[5].start
    data = bytearray(packed.read_bytes())
    data[content] ^= 1
    data[frame] ^= 1
    packed.write_bytes(data)
    found = run("archive", "verify", packed, *model)
    assert found.status == 2
    assert "night/2.png: the picture is damaged" in found.err
    assert "1 of 15 pictures are not sound, and 1 parts are lost" in found.err
    decompressed = run("decompress", packed, "-o", tmp_path / "back", *model)
    assert (decompressed.status, "night/2.png" in decompressed.err, "are lost" in decompressed.err) == (2, True, True)
    assert len(list((tmp_path / "back").rglob("*.png"))) == 14
    assert run("archive", "repair", packed, "-o", tmp_path / "new.bisq", *model).status == 0
    assert run("archive", "verify", tmp_path / "new.bisq", *model).out == "14 pictures, all sound\n"
    assert run("archive", "repair", packed, "-o", packed, *model).status == 2
    assert packed.read_bytes() == data


def test_names_that_would_be_one_file_are_numbered(run: Run, trained: Trained, packed: Path, tmp_path: Path) -> None:
    with Archive(packed) as opened:
        data = [opened.read(opened[number]) for number in range(4)]
    names = ["a#b.png", "a-b.png", "c.png", "c.jpg"]
    archive.write(packed, zip(names, data, strict=True))
    packed.write_bytes(packed.read_bytes() + archive.record("c.png", data[0]))  # as no writer of ours does
    assert run("decompress", packed, "-o", tmp_path / "back", "--model", trained.model).status == 0
    found = sorted(path.name for path in (tmp_path / "back").iterdir())
    assert found == ["a-b.png-2.png", "a-b.png.png", "c.jpg.png", "c.png-2.png", "c.png.png"]


def test_one_crafted_picture_costs_no_other(run: Run, trained: Trained, packed: Path, tmp_path: Path) -> None:
    codec = codec_of(trained)
    archive.append(packed, [("crafted.png", picture_file.pack(b"\xff" * 20, codec.models[0].fingerprint))])
    outcome = run("decompress", packed, "-o", tmp_path / "back", "--model", trained.model, "--batch-size", "5")
    assert (outcome.status, "1 of 17 are not readable: crafted.png" in outcome.err) == (2, True)
    assert len(list((tmp_path / "back").rglob("*.png"))) == 16


def test_pictures_of_another_model_survive_a_repair(run: Run, trained: Trained, packed: Path, tmp_path: Path) -> None:
    mended = run("archive", "repair", packed, "-o", tmp_path / "new.bisq", "--model", "seed")
    assert "16 pictures" in mended.out
    assert "16 of other models could not be checked" in mended.out
    assert (tmp_path / "new.bisq").read_bytes() == packed.read_bytes()


def test_what_cannot_be_is_one_line(
    run: Run, trained: Trained, frame_folder: Path, packed: Path, tmp_path: Path
) -> None:
    model = ("--model", trained.model)
    (tmp_path / "noise.bisq").write_bytes(b"nothing of the kind")
    for arguments, said in (
        (("decompress", tmp_path / "noise.bisq", "-o", tmp_path / "back", *model), "no compressed picture"),
        (("decompress", tmp_path / "nowhere.bisq", "-o", tmp_path / "back", *model), "nowhere.bisq"),
        (("decompress", packed, "-o", tmp_path / "back.png", *model), "is an archive"),
        (("decompress", packed, "-o", tmp_path / "back", "--model", "seed"), "of model"),
        (("compress", frame_folder, "-o", tmp_path / "x.bisq", "--size", "40x40", *model), "--size 12x16"),
        (("compress", frame_folder, frame_folder, "-o", tmp_path / "x.bisq", *model), "two pictures are named"),
        (("compress", frame_folder, "-o", tmp_path / "x.bisq", "--model", trained.tokenizer), "raster prior"),
        (("archive", "list", tmp_path / "noise.bisq"), "no archive"),
        (("compress", frame_folder, "-o", tmp_path, *model), "is a folder"),
    ):
        outcome = run(*arguments)
        assert (outcome.status, outcome.err.count("\n"), said in outcome.err) == (2, 1, True), outcome
    assert not (tmp_path / "back").exists()
    assert not (tmp_path / "x.bisq").exists()
