"""Augmenting: so many of each class, the likely ones, no copies, and each can be painted again."""

from __future__ import annotations

import csv
import gc
from dataclasses import replace
from pathlib import Path

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from tests.conftest import roughen

from bisquit.augmenting import AugmentConfig, chosen_classes, paint_class, write_pictures
from bisquit.conditioning import Conditions
from bisquit.errors import ConditionError, ConfigError, FrameError, ModelError
from bisquit.frames import FrameSet, load_frames
from bisquit.generate import Pipeline
from bisquit.priors import RasterConfig, build_prior
from bisquit.sampling import SamplingConfig
from bisquit.transformer import TransformerConfig

TINY = TransformerConfig(width=8, n_layers=1, n_heads=2, feed_forward=12)


@pytest.fixture
def model(make_tokenizer) -> Pipeline:
    prior = build_prior(RasterConfig(transformer=TINY, condition_size=2), 3, (2, 3))
    roughen(prior, 1)
    return Pipeline(make_tokenizer(), prior, (8, 12), Conditions(("ice", "sand")))


def set_of(frames: np.ndarray) -> FrameSet:
    count = len(frames)
    names = tuple(f"real-{i}" for i in range(count))
    return FrameSet(frames, np.arange(count), names, (), np.full(count, -1), None)


def test_as_many_as_are_wanted_are_painted_and_each_can_be_painted_again(model: Pipeline):
    settings = SamplingConfig(guidance=2.0)
    taken = list(paint_class(model, "sand", AugmentConfig(per_class=10), seed=3, settings=settings))
    assert len(taken) == 10
    numbers = [picture.number for picture in taken]
    assert numbers == sorted(set(numbers))
    again = model.sample(max(numbers) + 1, seed=taken[0].seed, settings=settings, class_name="sand")
    for picture in taken:
        np.testing.assert_array_equal(again[picture.number], picture.frame)


def test_the_likeliest_are_taken(model: Pipeline):
    taken = list(paint_class(model, "ice", AugmentConfig(per_class=5, likely_share=0.25)))
    bits = model.paint(range(20), seed=taken[0].seed, class_name="ice").bits
    assert sorted(picture.bits for picture in taken) == pytest.approx(sorted(bits)[:5])


def test_bits_are_those_of_the_prior_told_of_the_class(model: Pipeline):
    painted = model.paint(range(3), seed=0, class_name="ice", batch_size=2)
    prior, condition = model.prior, model.conditions.of_class("ice").expand(3, -1)
    bits = prior.token_bits(torch.from_numpy(painted.tokens), prior.conditioned(condition, 3))
    np.testing.assert_allclose(painted.bits, bits.sum(dim=(1, 2)).detach().numpy(), rtol=1e-5)


def test_classes_and_seeds_have_pictures_of_their_own(model: Pipeline):
    config = AugmentConfig(per_class=3)
    seeds = {next(paint_class(model, name, config, seed=seed)).seed for name in ("ice", "sand") for seed in (0, 1)}
    assert len(seeds) == 4


def test_copies_of_real_frames_are_left_out_and_others_painted(model: Pipeline):
    config = AugmentConfig(per_class=6, likely_share=1.0, least_distance=0.001)
    plain = list(paint_class(model, "ice", config))
    copies = {2, 4}
    real = set_of(np.stack([picture.frame for picture in plain if picture.number in copies]))
    taken = list(paint_class(model, "ice", config, real=real))
    assert len(taken) == 6
    assert copies.isdisjoint(picture.number for picture in taken)
    assert all(picture.nearest_rms is not None and picture.nearest_rms >= 0.001 for picture in taken)
    assert {picture.nearest for picture in taken} <= {"real-0", "real-1"}


def test_a_model_that_paints_nothing_but_copies_is_refused(model: Pipeline):
    real = set_of(np.full((1, 8, 12, 3), 128, dtype=np.uint8))
    with pytest.raises(ModelError, match=r"of 60 pictures of ice, only 0 could be taken: 40 are within 1\.0 of"):
        list(paint_class(model, "ice", AugmentConfig(per_class=2, least_distance=1.0), real=real))


def test_many_are_painted_some_at_a_time(model: Pipeline, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("bisquit.augmenting.MOST_AT_ONCE", 3)
    seen: list[tuple[int, int]] = []
    config = AugmentConfig(per_class=8, likely_share=0.5)
    taken = list(paint_class(model, "ice", config, progress=lambda done, total: seen.append((done, total))))
    bits = model.paint(range(16), seed=taken[0].seed, class_name="ice").bits
    for numbers, count in ((range(6), 3), (range(6, 12), 3), (range(12, 16), 2)):
        likeliest = sorted(numbers, key=lambda number: bits[number])[:count]
        assert {p.number for p in taken} & set(numbers) == set(likeliest)
    shares = [done / total for done, total in seen]
    assert shares == sorted(shares)
    assert shares[-1] == 1


def test_a_class_that_leads_elsewhere_names_no_folder(model: Pipeline, tmp_path: Path):
    (picture,) = paint_class(model, "ice", AugmentConfig(per_class=1))
    for name in ("../ice", "/ice", "..", ""):
        with pytest.raises(FrameError, match="cannot name a folder"):
            write_pictures(iter([replace(picture, class_name=name)]), tmp_path / "new", {})
    assert not list(tmp_path.rglob("*.*"))


def test_a_folder_and_a_file_hold_the_same_frames_with_where_they_come_from(model: Pipeline, tmp_path: Path):
    taken = [p for name in ("ice", "sand") for p in paint_class(model, name, AugmentConfig(per_class=4))]
    source = {"model": "mine", "sampling_guidance": 2.0}
    for output in (tmp_path / "folder", tmp_path / "file.parquet"):
        assert write_pictures(iter(taken), output, source) == 8
        frames = load_frames(str(output))
        assert frames.classes == ("ice", "sand")
        assert np.bincount(frames.labels).tolist() == [4, 4]
        ours = {(p.class_name, p.frame.tobytes()) for p in taken}
        assert {(frames.classes[frames.labels[i]], frames[i].tobytes()) for i in range(8)} == ours
    with (tmp_path / "folder" / "metadata.csv").open() as file:
        rows = list(csv.DictReader(file))
    for row, table_row, picture in zip(rows, pq.read_table(tmp_path / "file.parquet").to_pylist(), taken, strict=True):
        for known in (row, table_row):
            assert known["track"] == picture.class_name
            assert int(known["seed"]) == picture.seed
            assert int(known["number"]) == picture.number
            assert float(known["bits"]) == pytest.approx(picture.bits, abs=0.01)
            assert known["model"] == "mine"
            assert float(known["sampling_guidance"]) == 2.0


def test_a_folder_that_is_not_empty_is_left_alone(model: Pipeline, tmp_path: Path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(FrameError, match="not empty"):
        write_pictures(paint_class(model, "ice", AugmentConfig(per_class=1)), tmp_path, {})
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_classes_are_all_or_those_that_are_named(model: Pipeline):
    assert chosen_classes(model, None) == ("ice", "sand")
    assert chosen_classes(model, ["sand"]) == ("sand",)
    with pytest.raises(ConditionError, match="no class 'lava'"):
        chosen_classes(model, ["ice", "lava"])
    with pytest.raises(ConditionError, match="knows no classes"):
        chosen_classes(Pipeline(model.tokenizer, model.prior), None)


@pytest.mark.parametrize("fields", [{"per_class": 0}, {"likely_share": 0.0}, {"least_distance": -0.1}])
def test_settings_out_of_their_range_are_refused(fields: dict[str, float]):
    with pytest.raises(ConfigError, match=next(iter(fields))):
        AugmentConfig(**fields)


# datasets reads metadata.csv without closing it
@pytest.mark.filterwarnings(
    r"ignore:Exception ignored in. <_io.FileIO name=.*metadata\.csv:pytest.PytestUnraisableExceptionWarning"
)
@pytest.mark.parametrize("kind", ["imagefolder", "parquet"])
def test_what_is_written_is_read_by_datasets(
    model: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
):
    monkeypatch.setattr("datasets.config.HF_DATASETS_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    taken = list(paint_class(model, "ice", AugmentConfig(per_class=3), seed=1))
    output = tmp_path / ("new.parquet" if kind == "parquet" else "new")
    write_pictures(iter(taken), output, {"model": "mine"})
    where = {"data_files": str(output)} if kind == "parquet" else {"data_dir": str(output)}
    rows = datasets.load_dataset(kind, split="train", cache_dir=str(tmp_path / "cache"), **where)
    assert len(rows) == 3
    for row, picture in zip(rows, taken, strict=True):
        np.testing.assert_array_equal(np.asarray(row["image"]), picture.frame)
        assert (row["track"], row["seed"], row["number"], row["model"]) == ("ice", picture.seed, picture.number, "mine")
    gc.collect()  # so that what is left open is told of here, if at all
