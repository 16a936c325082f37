"""The pipeline: pictures that depend on the seed alone, previews, and models as folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.conftest import roughen
from tests.engine.driver import needs_engine

from bisquit import checkpoint, generate
from bisquit.checkpoint import PRIOR_FILE, TOKENIZER_FILE, SavedPrior, save_prior, save_tokenizer
from bisquit.conditioning import Conditions
from bisquit.engine import Backend
from bisquit.errors import CodecError, ConditionError, ConfigError, ModelError, ShapeError, TokenError
from bisquit.generate import Pipeline, load, load_codec
from bisquit.priors import AnyOrderConfig, AnyOrderPrior, RasterConfig, build_prior
from bisquit.sampling import SamplingConfig
from bisquit.shipped import write_sums
from bisquit.text import learn_to_read
from bisquit.tokenizer import GREY
from bisquit.transformer import TransformerConfig


@pytest.fixture
def pipeline(make_tokenizer, make_prior) -> Pipeline:
    """Paints 7 x 11 frames, which are not whole patches."""
    return Pipeline(make_tokenizer(patch_size=4, bits=3), make_prior(bits=3, grid=(2, 3)), (7, 11))


@pytest.fixture
def model_folder(pipeline: Pipeline, tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    save_tokenizer(pipeline.tokenizer, folder / TOKENIZER_FILE)
    saved = SavedPrior(pipeline.prior, (7, 11), pipeline.tokenizer.fingerprint())
    save_prior(saved, folder / PRIOR_FILE)
    return folder


def refusal(folder: Path) -> str:
    with pytest.raises(ModelError) as error:
        load(folder)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_pictures_are_the_same_in_any_batch(pipeline: Pipeline):
    alone = pipeline.sample(5, seed=1, batch_size=1)
    assert alone.shape == (5, 7, 11, 3)
    assert alone.dtype == np.uint8
    np.testing.assert_array_equal(pipeline.sample(5, seed=1, batch_size=4), alone)
    np.testing.assert_array_equal(pipeline.sample(3, seed=1), alone[:3])


def test_pictures_differ_from_one_another_and_from_those_of_other_seeds(pipeline: Pipeline):
    frames = np.concatenate([pipeline.sample(3, seed=seed) for seed in (0, 1)])
    assert len(np.unique(frames.reshape(6, -1), axis=0)) == 6


def test_sampling_settings_are_heard(pipeline: Pipeline):
    frames = pipeline.sample(3, settings=SamplingConfig(temperature=0.0))
    np.testing.assert_array_equal(frames[1:], frames[:-1])


def test_without_a_frame_size_whole_patches_are_painted(make_tokenizer, make_prior):
    assert Pipeline(make_tokenizer(patch_size=4), make_prior(grid=(2, 3))).sample(1).shape == (1, 8, 12, 3)


def test_settings_are_heard_by_every_backend_alike(pipeline: Pipeline):
    settings = SamplingConfig(temperature=0.8, top_k=3)
    frames = [pipeline.sample(5, seed=1, settings=settings, backend=backend) for backend in ("torch", "auto")]
    np.testing.assert_array_equal(*frames)


def test_a_precision_paints_its_own_frames_on_every_backend(pipeline: Pipeline):
    frames = [pipeline.sample(200, backend=backend, precision="int8") for backend in ("torch", "auto")]
    np.testing.assert_array_equal(*frames)
    assert not np.array_equal(frames[0], pipeline.sample(200))
    np.testing.assert_array_equal(pipeline.sample(5, batch_size=2, precision="int8"), frames[0][:5])


@pytest.mark.parametrize(("backend", "precision"), [("tpu", "float32"), ("torch", "int4"), ("auto", "bfloat16")])
def test_backends_and_precisions_that_cannot_be_are_refused(pipeline: Pipeline, backend: str, precision: str):
    with pytest.raises(ConfigError, match=f"{backend}|{precision}"):
        pipeline.sample(1, backend=backend, precision=precision)


@pytest.mark.parametrize("backend", ["torch", pytest.param("engine", marks=needs_engine)])
def test_progress_counts_tokens_over_all_batches(pipeline: Pipeline, backend: Backend):
    told: list[tuple[int, int]] = []
    pipeline.sample(3, batch_size=2, backend=backend, progress=lambda *counts: told.append(counts))
    assert told == [(done, 18) for done in (6, 12, 15, 18)]  # rows of three tokens, of two pictures and of one


@pytest.mark.parametrize("backend", ["torch", pytest.param("engine", marks=needs_engine)])
def test_a_preview_is_grey_where_nothing_is_painted_yet(pipeline: Pipeline, backend: Backend):
    shown: list[np.ndarray] = []
    frames = pipeline.sample(2, batch_size=2, backend=backend, preview=shown.append)
    assert [picture.shape for picture in shown] == [(2, 7, 11, 3)] * 2
    first, last = shown
    assert (first[:, 4:] == GREY).all()
    assert (first[:, :4] != GREY).any()
    np.testing.assert_array_equal(last, frames)


def test_a_call_paints_what_sample_paints(pipeline: Pipeline):
    frames = pipeline.sample(3, seed=4)
    called = pipeline(num_images_per_prompt=3, seed=4)
    assert all(isinstance(image, Image.Image) for image in called.images)
    np.testing.assert_array_equal(np.stack([np.asarray(image) for image in called.images]), frames)
    np.testing.assert_array_equal(pipeline(num_images_per_prompt=3, seed=4, output_type="np").images, frames)
    tokens = pipeline(num_images_per_prompt=3, seed=4, output_type="tokens").images
    np.testing.assert_array_equal(pipeline.decode(tokens, (7, 11)), frames)
    np.testing.assert_array_equal(pipeline(output_type="np").images, pipeline.sample(1, seed=0))


def test_a_generator_draws_the_seed_and_several_one_for_each_picture(pipeline: Pipeline):
    def generators() -> list[torch.Generator]:
        return [torch.Generator().manual_seed(i) for i in range(3)]

    each = pipeline(num_images_per_prompt=3, generator=generators(), output_type="np")
    alone = [pipeline(generator=generator, output_type="np") for generator in generators()]
    np.testing.assert_array_equal(each.images, np.concatenate([one.images for one in alone]))
    assert each.numbers == [0, 0, 0]
    together = pipeline(num_images_per_prompt=3, generator=generators()[0], output_type="np")
    assert together.seeds == each.seeds[:1] * 3
    assert together.numbers == [0, 1, 2]
    np.testing.assert_array_equal(together.images, pipeline.sample(3, seed=together.seeds[0]))
    generator = generators()[0]
    assert pipeline(generator=generator).seeds != pipeline(generator=generator).seeds  # as it goes on


def test_a_call_paints_so_many_of_each_prompt(make_tokenizer, letters: str):
    conditions = Conditions(("ice", "sand"), learn_to_read(letters, [("ice", "cold"), ("sand",)]))
    config = RasterConfig(transformer=TransformerConfig(8, 1, 2, 12), condition_size=conditions.size)
    prior = build_prior(config, 3, (2, 3))
    roughen(prior, 0)
    pipeline = Pipeline(make_tokenizer(), prior, conditions=conditions)
    called = pipeline(["a sea", "io"], num_images_per_prompt=2, guidance_scale=3.0, seed=5, output_type="np").images
    settings = SamplingConfig(guidance=3.0)
    for i, prompt in enumerate(["a sea", "a sea", "io", "io"]):
        np.testing.assert_array_equal(called[i], pipeline.sample(4, seed=5, settings=settings, prompt=prompt)[i])
    classes = pipeline(class_label="ice", num_images_per_prompt=2, output_type="np").images
    np.testing.assert_array_equal(classes, pipeline.sample(2, class_name="ice"))
    generators = [torch.Generator().manual_seed(i) for i in range(2)]
    mixed = pipeline(class_label=["ice", "sand"], generator=generators, output_type="np")
    for i, name in enumerate(("ice", "sand")):
        np.testing.assert_array_equal(mixed.images[i], pipeline.sample(1, seed=mixed.seeds[i], class_name=name)[0])
    for asked in (7, ["ice", 7]):
        with pytest.raises(ConditionError, match="classes and prompts are text"):
            pipeline(class_label=asked)


def test_a_call_tells_how_far_it_is(pipeline: Pipeline):
    told: list[tuple[int, int]] = []
    generators = [torch.Generator().manual_seed(i) for i in range(2)]
    pipeline(num_images_per_prompt=2, generator=generators, callback=lambda *counts: told.append(counts))
    assert told == [(3, 12), (6, 12), (9, 12), (12, 12)]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"output_type": "pt"}, "pil or np or tokens"),
        ({"num_images_per_prompt": 0}, "at least 1"),
        ({"seed": 1, "generator": torch.Generator()}, "either a seed or a generator"),
        ({"generator": [torch.Generator()] * 2}, "2 generators"),
        ({"guidance_scale": -1.0}, "guidance is"),
    ],
)
def test_a_call_that_makes_no_sense_is_refused(pipeline: Pipeline, given: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        pipeline(**given)


def test_frames_go_to_tokens_and_back(pipeline: Pipeline):
    frames = np.random.default_rng(0).integers(0, 256, (2, 7, 11, 3), dtype=np.uint8)
    tokens = pipeline.encode(frames)
    assert tokens.dtype == np.int64
    assert tokens.shape == (2, 2, 3)
    assert pipeline.decode(tokens).shape == (2, 8, 12, 3)
    np.testing.assert_array_equal(pipeline.decode(tokens, (7, 11)), pipeline.decode(tokens)[:, :7, :11])
    np.testing.assert_array_equal(pipeline.decode(tokens.astype(np.uint8)), pipeline.decode(tokens))


def test_frames_that_may_not_be_written_or_are_a_view_are_taken(pipeline: Pipeline):
    frames = np.random.default_rng(0).integers(0, 256, (2, 7, 11, 3), dtype=np.uint8)
    frozen = frames.copy()
    frozen.flags.writeable = False  # as NumPy's view of a Pillow image is
    np.testing.assert_array_equal(pipeline.encode(frozen), pipeline.encode(frames))
    np.testing.assert_array_equal(pipeline.encode(frames[:, :, ::-1]), pipeline.encode(frames[:, :, ::-1].copy()))


def test_no_tokens_are_no_frames(pipeline: Pipeline):
    assert pipeline.decode(np.zeros((0, 2, 3), dtype=np.int64), (7, 11)).shape == (0, 7, 11, 3)


def test_arrays_that_do_not_fit_are_refused(pipeline: Pipeline):
    with pytest.raises(ShapeError, match="uint8"):
        pipeline.encode(np.zeros((1, 7, 11, 3)))
    with pytest.raises(ShapeError, match=r"\(B, h, w\)"):
        pipeline.decode(np.zeros((2, 3), dtype=np.int64))
    with pytest.raises(TokenError, match="8"):
        pipeline.decode(np.full((1, 2, 3), 8))


@pytest.mark.parametrize(("n", "batch_size"), [(0, 1), (1, 0), (-1, 1)])
def test_no_pictures_are_refused(pipeline: Pipeline, n: int, batch_size: int):
    with pytest.raises(ConfigError, match="must be at least 1"):
        pipeline.sample(n, batch_size=batch_size)
    with pytest.raises(ConfigError, match="must be at least 1"):
        pipeline.paint(range(n), batch_size=batch_size)
    with pytest.raises(ConditionError, match="nothing is asked for"):
        pipeline.sample(1, class_name=[])


def test_a_prior_over_tokens_of_other_bits_is_refused(make_tokenizer, make_prior):
    with pytest.raises(ModelError, match="4 bits, the tokenizer's have 3"):
        Pipeline(make_tokenizer(bits=3), make_prior(bits=4))


def test_a_folder_gives_the_model_that_was_saved(pipeline: Pipeline, model_folder: Path):
    loaded = load(model_folder)
    assert loaded.frame_size == (7, 11)
    np.testing.assert_array_equal(loaded.sample(2, seed=3), pipeline.sample(2, seed=3))
    np.testing.assert_array_equal(load(str(model_folder)).sample(1, seed=3), pipeline.sample(1, seed=3))


def test_a_prior_beside_another_tokenizer_is_refused(make_tokenizer, pipeline: Pipeline, model_folder: Path):
    other = make_tokenizer(patch_size=4, bits=3, seed=9)
    save_tokenizer(other, model_folder / TOKENIZER_FILE)
    message = refusal(model_folder)
    assert pipeline.tokenizer.fingerprint() in message
    assert other.fingerprint() in message


def test_a_tokenizer_alone_encodes_but_does_not_paint(pipeline: Pipeline, model_folder: Path):
    (model_folder / PRIOR_FILE).unlink()
    loaded = load(model_folder)
    frames = np.zeros((1, 7, 11, 3), dtype=np.uint8)
    np.testing.assert_array_equal(loaded.encode(frames), pipeline.encode(frames))
    with pytest.raises(ModelError, match="no prior to paint with"):
        loaded.sample(1)


def test_a_folder_without_a_tokenizer_or_with_a_damaged_file_is_refused(model_folder: Path):
    content = (model_folder / PRIOR_FILE).read_bytes()
    (model_folder / PRIOR_FILE).write_bytes(content[: len(content) // 2])
    assert PRIOR_FILE in refusal(model_folder)
    (model_folder / TOKENIZER_FILE).unlink()
    assert TOKENIZER_FILE in refusal(model_folder)


def test_a_name_that_nothing_has_is_refused(tmp_path: Path):
    assert "neither a folder nor a model that ships" in refusal(tmp_path / "nothing")
    assert "no-such-model" in refusal(Path("no-such-model"))


def test_loading_a_model_saved_by_another_version_is_refused(
    pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(checkpoint, "FORMAT_VERSION", 2)
    save_tokenizer(pipeline.tokenizer, tmp_path / TOKENIZER_FILE)
    monkeypatch.undo()
    assert "format version 2" in refusal(tmp_path)


def test_a_model_that_ships_may_share_anothers_tokenizer(
    make_tokenizer, make_prior, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(generate, "_WEIGHTS", tmp_path)
    monkeypatch.setattr(generate, "SHARED_TOKENIZERS", {"second": "first"})
    monkeypatch.setattr(generate, "LADDER", {"first": 0})
    tokenizer = make_tokenizer()
    save_tokenizer(tokenizer, tmp_path / "first" / "tokenizer.safetensors")
    any_order = build_prior(AnyOrderConfig(transformer=TransformerConfig(8, 1, 2, 12)), 3, (2, 3))
    for name, prior in (("first", make_prior()), ("second", any_order)):
        save_prior(SavedPrior(prior, (8, 12), tokenizer.fingerprint()), tmp_path / name / "prior.safetensors")
    write_sums(tmp_path)
    assert generate.shipped_models() == ["first", "second"]
    second = load("second")
    assert isinstance(second.prior, AnyOrderPrior)
    assert second.tokenizer.fingerprint() == tokenizer.fingerprint()
    assert second.sample(1).shape == (1, 8, 12, 3)
    codec = load_codec()  # which the second has no part in, for it is no raster prior
    (data,) = codec.compress(second.sample(1))
    assert codec.decompress([data])[0].shape == (8, 12, 3)
    with pytest.raises(CodecError):
        codec.decompress([data[:2] + bytes([data[2] ^ 1]) + data[3:]])
