"""A run's folder: what is in it at the end, and what is refused at the start."""

from __future__ import annotations

import json
import re
import signal
import threading
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tests.training.conftest import USUAL
from torch import Tensor
from torch.nn import functional as F

from bisquit.autoencoder import to_float
from bisquit.checkpoint import load_prior, load_tokenizer
from bisquit.errors import BisquitError, ConfigError, FrameError, RunError, RunStopped, TokenError
from bisquit.features import FeatureNetwork
from bisquit.frames.augment import Augmentation
from bisquit.generate import load
from bisquit.priors import Prior, RasterConfig, RasterPrior
from bisquit.quantizers import BSQConfig, LFQConfig
from bisquit.tokenizer import Tokenizer
from bisquit.tokens import tokenize
from bisquit.training import FeaturesRecipe, PriorRecipe, TokenizerRecipe, train_features, train_prior, train_tokenizer
from bisquit.training.data import Batches
from bisquit.training.modules import PriorModule
from bisquit.transformer import TransformerConfig

STAGES = ["tokenizer", "prior", "features"]


def refusal(kind: type[BisquitError], run: Any, *arguments: Any, **named: Any) -> str:
    with pytest.raises(kind) as error:
        run(*arguments, **named)
    assert "\n" not in str(error.value)
    return str(error.value)


def best_loss(out: Path) -> float:
    callbacks = torch.load(out / "last.ckpt", weights_only=True)["callbacks"]
    return next(state["best_loss"] for state in callbacks.values() if "best_loss" in state)


@pytest.mark.parametrize("stage", STAGES)
def test_a_run_says_what_made_it(stage: str, train, tmp_path: Path):
    train(stage, tmp_path, epochs=1)
    record = json.loads((tmp_path / "run.json").read_text())
    assert (record["stage"], record["finished"], record["precision"]) == (stage, True, "float32")
    assert set(record["versions"]) == {"bisquit", "torch", "python"}
    recipes = {"tokenizer": TokenizerRecipe, "prior": PriorRecipe, "features": FeaturesRecipe}
    recipe = recipes[stage].from_dict(record["recipe"])
    assert recipe.training.epochs == 1
    assert recipe.training.ema_decay == 0.9


@pytest.mark.parametrize("stage", STAGES)
def test_training_lowers_the_valid_loss(stage: str, train, tmp_path: Path):
    train(stage, tmp_path / "short", epochs=1, learning_rate=1e-9)
    train(stage, tmp_path / "long", epochs=4)
    assert best_loss(tmp_path / "long") < 0.95 * best_loss(tmp_path / "short")


def test_a_tokenizers_valid_loss_is_the_squared_error_of_the_saved_model(train, data, tmp_path: Path):
    tokenizer = train("tokenizer", tmp_path, epochs=1)
    assert isinstance(tokenizer, Tokenizer)
    x = to_float(torch.from_numpy(data.valid_frames[:]))
    with torch.no_grad():
        error = F.mse_loss(tokenizer(x).frames.clamp(-0.5, 0.5), x)
    assert best_loss(tmp_path) == pytest.approx(error.item(), rel=1e-5)


def test_a_priors_valid_loss_is_that_of_the_saved_model_in_nats_a_token(train, data, tmp_path: Path):
    prior = train("prior", tmp_path, epochs=1)
    assert isinstance(prior, Prior)
    with torch.no_grad():
        loss = prior.loss(data.valid_tokens.batch(slice(None)))
    assert best_loss(tmp_path) == pytest.approx(loss.item(), rel=1e-5)


def test_a_feature_networks_valid_loss_weighs_each_frame_by_the_rarity_of_its_class(train, data, tmp_path: Path):
    network = train("features", tmp_path, epochs=1)
    assert isinstance(network, FeatureNetwork)
    valid, labels = data.valid_labelled, data.labelled.labels
    chosen = np.flatnonzero(valid.labels >= 0)
    assert network.classes == ("ice", "sand")
    losses = F.cross_entropy(
        network.describe(torch.from_numpy(valid[chosen])).logits,
        torch.from_numpy(valid.labels[chosen]),
        reduction="none",
    )
    weights = torch.tensor([(labels >= 0).sum() / (2 * (labels == kind).sum()) for kind in valid.labels[chosen]])
    assert best_loss(tmp_path) == pytest.approx(float((weights * losses).mean()), rel=1e-5)


def test_a_feature_network_learns_to_tell_classes_apart(train, data, tmp_path: Path):
    network = train("features", tmp_path, epochs=8)
    chosen = np.flatnonzero(data.valid_labelled.labels >= 0)
    seen = network.describe(torch.from_numpy(data.valid_labelled[chosen])).logits.argmax(dim=1)
    assert seen.tolist() == data.valid_labelled.labels[chosen].tolist()


def test_a_class_that_is_not_trained_on_is_left_out(data, make_noise, tmp_path: Path):
    classes = ("fire", "ice", "sand")
    frames, valid = data.labelled.with_classes(classes), data.valid_labelled.with_classes(classes)
    valid = replace(valid, labels=np.where(valid.labels == 1, 0, valid.labels))
    recipe = FeaturesRecipe.from_dict(
        {"training": {"epochs": 1, "batch_size": 4, "precision": "float32"}, "network": {"widths": [8]}}
    )
    network = train_features(recipe, frames, valid, tmp_path)
    assert network.classes == ("ice", "sand")
    data_of_run = json.loads((tmp_path / "run.json").read_text())["data"]
    assert data_of_run["classes"] == ["ice", "sand"]
    assert data_of_run["frames"]["frames"] == 41
    assert data_of_run["valid_frames"]["frames"] == 3  # those of sand


def test_frames_without_two_classes_train_no_feature_network(data, tmp_path: Path):
    none = replace(data.frames, labels=np.full(41, -1))
    one = replace(data.frames, labels=np.zeros(41, dtype=np.int64))
    out = tmp_path / "run"
    assert "have 0 classes" in refusal(FrameError, train_features, FeaturesRecipe(), none, data.valid_frames, out)
    assert "have 1 classes" in refusal(FrameError, train_features, FeaturesRecipe(), one, data.valid_frames, out)
    unknown = replace(data.valid_frames, labels=np.full(6, -1))
    assert "no valid frame" in refusal(FrameError, train_features, FeaturesRecipe(), data.frames, unknown, out)
    assert not out.exists()


@pytest.mark.parametrize("stage", ["tokenizer", "prior"])
def test_a_run_gives_a_model_that_loads(stage: str, train, data, tmp_path: Path):
    train(stage, tmp_path, epochs=1)
    pipeline = load(tmp_path)
    assert pipeline.decode(pipeline.encode(data.frames[:2])).shape == (2, 8, 12, 3)
    if stage == "prior":
        assert pipeline.sample(1).shape == (1, 8, 12, 3)
        assert pipeline.tokenizer.fingerprint() == data.tokens.tokenizer.fingerprint()


def test_a_prior_paints_frames_of_the_size_of_those_it_saw(make_noise, make_tokenizer, train, tmp_path: Path):
    tokenizer = make_tokenizer(patch_size=4, bits=2)
    tokens, valid = (tokenize(tokenizer, make_noise(count, height=7, width=11)) for count in (10, 3))
    recipe = PriorRecipe().replace(training=PriorRecipe().training.replace(epochs=1, batch_size=1, precision="float32"))
    train_prior(recipe, tokens, valid, tmp_path)
    assert load_prior(tmp_path / "prior.safetensors").frame_size == (7, 11)
    assert load(tmp_path).sample(1).shape == (1, 7, 11, 3)


def test_frames_that_patches_do_not_divide_are_trained_on(make_noise, train, tmp_path: Path):
    recipe = TokenizerRecipe()
    recipe = recipe.replace(
        tokenizer=recipe.tokenizer.replace(autoencoder=recipe.tokenizer.autoencoder.replace(width=4)),
        training=recipe.training.replace(epochs=1, batch_size=1, precision="float32"),
    )
    tokenizer = train_tokenizer(recipe, make_noise(10, height=7, width=11), make_noise(3, 7, 11, seed=1), tmp_path)
    assert tokenizer.grid(7, 11) == (2, 3)


@pytest.mark.parametrize("decay", [0.35, 0.99])
def test_the_average_is_what_its_definition_says_and_what_is_saved(train, watch, tmp_path: Path, decay: float):
    before: list[dict[str, torch.Tensor]] = []
    watch.before_step = lambda module: before.append({k: v.clone() for k, v in module.state_dict().items()})
    train("tokenizer", tmp_path, epochs=1, ema_decay=decay)
    state = torch.load(tmp_path / "last.ckpt", weights_only=True)
    average, *later = [*before[1:], state["current_model_state"]]  # the weights after each step
    for n, weights in enumerate(later, start=1):
        keep = min(decay, (1 + n) / (10 + n))
        average = {name: keep * value + (1 - keep) * weights[name] for name, value in average.items()}
    saved = load_tokenizer(tmp_path / "tokenizer.safetensors").state_dict()
    for name, value in average.items():
        torch.testing.assert_close(state["state_dict"][name], value)
        assert torch.equal(saved[name.removeprefix("tokenizer.")], state["state_dict"][name])
    assert any(not torch.equal(value, state["current_model_state"][name]) for name, value in average.items())


def test_without_an_average_the_weights_are_saved_as_they_are(train, tmp_path: Path):
    train("tokenizer", tmp_path, epochs=1, ema_decay=0.0)
    state = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert "current_model_state" not in state
    saved = load_tokenizer(tmp_path / "tokenizer.safetensors").state_dict()
    assert all(
        torch.equal(saved[name.removeprefix("tokenizer.")], value) for name, value in state["state_dict"].items()
    )


def test_the_model_of_the_lowest_valid_loss_is_kept_and_snapshots_are_whole_models(
    train, set_valid_losses, data, tmp_path: Path
):
    set_valid_losses([3.0, 1.0, 2.0])
    prior = train("prior", tmp_path, epochs=3, snapshot_epochs=(1, 2, 3))
    snapshots = [(tmp_path / f"epoch-0{epoch}" / "prior.safetensors").read_bytes() for epoch in (1, 2, 3)]
    assert len(set(snapshots)) == 3
    assert (tmp_path / "prior.safetensors").read_bytes() == snapshots[1]
    assert all(torch.equal(a, b) for a, b in zip(prior.parameters(), load(tmp_path).prior.parameters(), strict=True))
    assert load(tmp_path / "epoch-03").sample(1).shape == (1, 8, 12, 3)


def test_epochs_without_a_snapshot_leave_none(train, tmp_path: Path):
    train("tokenizer", tmp_path, snapshot_epochs=(2,))
    assert [path.name for path in tmp_path.glob("epoch-*")] == ["epoch-02"]
    assert load_tokenizer(tmp_path / "epoch-02" / "tokenizer.safetensors").bits == 4


def test_a_run_stops_after_so_many_epochs_without_a_lower_valid_loss(train, watch, set_valid_losses, tmp_path: Path):
    set_valid_losses([2.0, 1.0, 1.5, 1.0, 0.5])
    train("prior", tmp_path, epochs=5, early_stopping_epochs=2)
    assert watch.steps == list(range(40))
    assert json.loads((tmp_path / "run.json").read_text())["finished"]


def test_a_valid_loss_that_is_no_number_ends_the_run(train, set_valid_losses, tmp_path: Path):
    set_valid_losses([1.0, float("nan")])
    assert "valid loss is nan after epoch 2" in refusal(RunError, train, "prior", tmp_path)
    assert not json.loads((tmp_path / "run.json").read_text())["finished"]


def test_a_prior_that_diverges_is_told_what_to_do(train, tmp_path: Path):
    told = refusal(RunError, train, "prior", tmp_path, learning_rate=1e20, gradient_clip=0.0)
    assert "try a lower --learning-rate" in told


@pytest.fixture
def spoil(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], dict[str, Tensor]]:
    """A function that makes the loss of one step no number, and returns where the weights before it will be."""

    def spoil(step: int) -> dict[str, Tensor]:
        whole, before = PriorModule.training_step, {}

        def training_step(module: PriorModule, batch: Tensor, batch_idx: int) -> Tensor:
            loss = whole(module, batch, batch_idx)
            if module.global_step != step:
                return loss
            before.update({name: value.clone() for name, value in module.state_dict().items()})
            return loss * float("nan")

        monkeypatch.setattr(PriorModule, "training_step", training_step)
        return before

    return spoil


def test_a_loss_that_is_no_number_stops_at_its_step_and_names_its_pictures(train, spoil, data, tmp_path: Path):
    spoil(6)
    told = refusal(RunError, train, "prior", tmp_path)
    assert "norm is nan at step 7, of pictures " in told
    named = re.search(r"of pictures ([\d, ]+) of the training set", told)[1].split(", ")
    wanted = Batches((len(data.tokens.tokens), len), (1, len), 4, seed=0).indices(6)
    assert [*map(int, named)] == wanted.tolist()
    assert not json.loads((tmp_path / "run.json").read_text())["finished"]


def test_a_step_that_is_skipped_changes_no_weight(train, spoil, caplog, tmp_path: Path):
    before = spoil(19)  # the last of two epochs of ten
    train("prior", tmp_path, bad_steps="skip", ema_decay=0.0)
    assert "at step 20, of pictures" in caplog.text
    assert "it is left out, 1 so far" in caplog.text
    after = torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"]
    assert after.keys() == before.keys() != set()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert json.loads((tmp_path / "run.json").read_text())["finished"]


def test_a_model_that_cannot_be_built_leaves_no_run(data, make_tokenizer, tmp_path: Path):
    tokens = tokenize(make_tokenizer(bits=20), data.frames)
    assert "bits is 20" in refusal(ConfigError, train_prior, PriorRecipe(), tokens, tokens, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("ema_decay", [0.0, 0.9])
def test_dropout_is_on_in_every_step(train, watch, tmp_path: Path, ema_decay: float):
    """Validation and the drawing of pictures, which turn it off, come in between."""
    modes: list[bool] = []
    watch.before_step = lambda module: modes.extend(part.training for part in module.modules())
    train("prior", tmp_path, ema_decay=ema_decay)
    assert all(modes)


@pytest.mark.parametrize("stage", STAGES)
def test_bfloat16_trains_too(stage: str, train, watch, tmp_path: Path):
    train(stage, tmp_path / "half", epochs=1, precision="bf16")
    half = [loss for _, loss in watch.losses]
    watch.losses.clear()
    train(stage, tmp_path / "whole", epochs=1)
    whole = [loss for _, loss in watch.losses]
    assert half != whole
    assert half[0] == pytest.approx(whole[0], rel=0.05)
    assert json.loads((tmp_path / "half" / "run.json").read_text())["precision"] == "bf16"


@pytest.mark.parametrize("stage", STAGES)
def test_another_seed_trains_another_model(stage: str, train, watch, tmp_path: Path):
    train(stage, tmp_path / "a", epochs=1)
    train(stage, tmp_path / "b", epochs=1, seed=1)
    assert watch.losses[:10] != watch.losses[10:]


def test_a_run_in_the_folder_is_not_overwritten(train, tmp_path: Path):
    train("tokenizer", tmp_path, epochs=1)
    before = (tmp_path / "tokenizer.safetensors").read_bytes()
    assert "holds a run already: pass --resume" in refusal(RunError, train, "tokenizer", tmp_path, epochs=1)
    assert (tmp_path / "tokenizer.safetensors").read_bytes() == before


def test_settings_that_change_no_loss_may_change_when_a_run_is_resumed(train, watch, tmp_path: Path):
    watch.stop_at(2)
    with pytest.raises(RunStopped):
        train("prior", tmp_path)
    watch.stop_at()
    train("prior", tmp_path, resume=True, snapshot_epochs=(2,), checkpoint_minutes=7.0)
    assert watch.steps == list(range(20))
    assert (tmp_path / "epoch-02" / "prior.safetensors").exists()


def test_a_folder_with_other_files_is_left_alone(train, tmp_path: Path):
    (tmp_path / "last.ckpt").write_text("another program's")
    assert "holds files" in refusal(RunError, train, "prior", tmp_path, resume=True)
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]


def test_a_run_that_was_killed_before_it_had_a_record_is_begun(train, watch, tmp_path: Path):
    """The record is what a run writes first: half-made, it is in a hidden file."""
    (tmp_path / ".partial-run-abc.json").write_text("{")
    train("prior", tmp_path, resume=True)
    assert watch.steps == list(range(20))
    assert not list(tmp_path.glob(".partial-*"))


@pytest.mark.parametrize("stage", STAGES)
def test_a_finished_run_is_not_run_again(stage: str, train, watch, tmp_path: Path):
    made = train(stage, tmp_path, epochs=1)
    watch.losses.clear()
    (tmp_path / "last.ckpt").unlink()
    again = train(stage, tmp_path, resume=True, epochs=1)
    assert watch.steps == []
    assert all(torch.equal(a, b) for a, b in zip(made.parameters(), again.parameters(), strict=True))


def test_resuming_where_there_is_nothing_starts_anew(train, watch, tmp_path: Path):
    train("prior", tmp_path / "new", resume=True, epochs=1)
    assert watch.steps == list(range(10))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"learning_rate": 0.5}, "recipe.training.learning_rate = 0.01, not 0.5"),
        ({"epochs": 3}, "recipe.training.epochs = 2, not 3"),
    ],
    ids=["rate", "epochs"],
)
def test_a_run_is_not_resumed_with_another_setting(train, watch, tmp_path: Path, change: dict[str, Any], named: str):
    watch.stop_at(2)
    with pytest.raises(RunStopped):
        train("prior", tmp_path)
    assert named in refusal(RunError, train, "prior", tmp_path, resume=True, **change)
    assert watch.steps == [0, 1, 2]


def test_a_run_is_not_resumed_as_another_stage_or_on_other_data(train, data, make_tokenizer, tmp_path: Path):
    train("prior", tmp_path, epochs=1)
    assert "stage = prior, not tokenizer" in refusal(RunError, train, "tokenizer", tmp_path, resume=True, epochs=1)
    recipe = PriorRecipe.from_dict(json.loads((tmp_path / "run.json").read_text())["recipe"])
    other = tokenize(make_tokenizer(bits=4, seed=1), data.frames)
    message = refusal(RunError, train_prior, recipe, other, other, tmp_path, resume=True)
    assert f"data.tokenizer = {data.tokens.tokenizer.fingerprint()}, not {other.tokenizer.fingerprint()}" in message


@pytest.mark.parametrize("text", ["", "not JSON", "[]", "{}"])
def test_a_record_that_is_none_is_refused(train, tmp_path: Path, text: str):
    (tmp_path / "run.json").write_text(text)
    assert "not the record of a run" in refusal(RunError, train, "tokenizer", tmp_path, resume=True)


@pytest.mark.parametrize("damage", ["cut in half", "cut at its end", "empty", "text", "another"])
def test_a_damaged_state_is_refused(train, watch, tmp_path: Path, damage: str):
    watch.stop_at(2)
    with pytest.raises(RunStopped):
        train("prior", tmp_path)
    state = tmp_path / "last.ckpt"
    content = state.read_bytes()
    torch.save({"weights": torch.zeros(1)}, state)
    if damage != "another":
        damaged = {"cut in half": content[: len(content) // 2], "cut at its end": content[:-9], "text": b"text\n" * 99}
        state.write_bytes(damaged.get(damage, b""))
    assert f"{state} cannot be read" in refusal(RunError, train, "prior", tmp_path, resume=True)
    assert watch.steps == [0, 1, 2]


def test_a_state_that_is_a_pickle_of_code_is_not_run(train, watch, tmp_path: Path):
    class Trap:
        def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
            return (Path.touch, (tmp_path / "sprung",))

    watch.stop_at(2)
    with pytest.raises(RunStopped):
        train("prior", tmp_path)
    torch.save({"global_step": Trap()}, tmp_path / "last.ckpt")
    assert "last.ckpt cannot be read" in refusal(RunError, train, "prior", tmp_path, resume=True)
    assert not (tmp_path / "sprung").exists()


def test_tokens_of_two_tokenizers_are_not_mixed(train, data, make_tokenizer, tmp_path: Path):
    other = tokenize(make_tokenizer(bits=4, seed=1), data.valid_frames)
    message = refusal(TokenError, train_prior, PriorRecipe(), data.tokens, other, tmp_path)
    assert data.tokens.tokenizer.fingerprint() in message
    assert other.tokenizer.fingerprint() in message
    assert list(tmp_path.iterdir()) == []


def test_a_prior_starts_from_another(train, watch, tmp_path: Path):
    begun = train("prior", tmp_path / "first")
    last = watch.losses[-1][1]
    watch.losses.clear()
    still = {"learning_rate": 1e-6, "muon_learning_rate": 1e-6}
    train("prior", tmp_path / "second", epochs=1, start=begun, **still)
    losses = [loss for _, loss in watch.losses]
    assert np.mean(losses) == pytest.approx(last, rel=0.1)
    assert json.loads((tmp_path / "second" / "run.json").read_text())["data"]["start"] == begun.fingerprint()


def test_a_prior_may_begin_from_bits(data, watch, tmp_path: Path):
    recipe = PriorRecipe(RasterConfig(transformer=TransformerConfig(8, 1, 2, 12)), from_bits=True)
    recipe = recipe.replace(training=recipe.training.replace(epochs=1, batch_size=4, learning_rate=1e-9, ema_decay=0))
    prior = train_prior(recipe, data.tokens, data.valid_tokens, tmp_path)
    assert isinstance(prior, RasterPrior)
    table = prior.embedding.weight.detach()
    assert (table[0] - table[1] - table[2] + table[3]).abs().max() < 1e-5  # bits add up
    assert table.std() > 0.05


def test_a_prior_takes_what_fits_of_one_of_another_shape(data, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    shape = TransformerConfig(8, 1, 2, 12)
    recipe = PriorRecipe(RasterConfig(transformer=shape))
    recipe = recipe.replace(training=recipe.training.replace(epochs=1, learning_rate=1e-9, ema_decay=0))
    start = RasterPrior(RasterConfig(transformer=shape.replace(n_layers=2)), data.tokens.tokenizer.bits + 1, (1, 2))
    prior = train_prior(recipe, data.tokens, data.valid_tokens, tmp_path, start=start)
    own, others = prior.state_dict(), start.state_dict()
    block = "transformer.blocks.0.attention.qkv.weight"
    torch.testing.assert_close(own[block], others[block], rtol=0, atol=1e-6)
    assert own["embedding.weight"].shape != others["embedding.weight"].shape
    assert "n_layers=2" in caplog.text
    assert "arrays begin anew" in caplog.text


def test_a_tokenizer_of_more_bits_begins_with_what_the_other_makes_of_frames(
    data, make_tokenizer, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    start = make_tokenizer(bits=4)
    config = start.config.replace(quantizer=BSQConfig(bits=6))
    recipe = TokenizerRecipe(config, training=USUAL.replace(epochs=1, learning_rate=1e-9, muon_learning_rate=0))
    tokenizer = train_tokenizer(recipe, data.frames, data.valid_frames, tmp_path, start=start)
    frames = torch.from_numpy(data.valid_frames[:])
    tokens = tokenizer.encode(frames)
    assert torch.equal(tokens % 16, start.encode(frames))
    wanted = start.decode(start.encode(frames), (8, 12)).int()
    assert (tokenizer.decode(tokens, (8, 12)).int() - wanted).abs().max() <= 1
    assert "its 6 bits begin with the other's 4" in caplog.text


def test_a_tokenizer_takes_nothing_of_another_kind_of_quantizer(
    data, make_tokenizer, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    start = make_tokenizer(bits=4)
    config = start.config.replace(quantizer=LFQConfig(bits=4))  # its arrays are of the same names and shapes
    recipe = TokenizerRecipe(config, training=USUAL.replace(epochs=1, learning_rate=1e-9, muon_learning_rate=0))
    tokenizer = train_tokenizer(recipe, data.frames, data.valid_frames, tmp_path, start=start)
    own, others = tokenizer.state_dict(), start.state_dict()
    for name, array in own.items():
        is_taken = torch.allclose(array, others[name], atol=1e-6)
        assert is_taken == name.startswith("autoencoder."), name
    assert "4 of its" in caplog.text


def test_a_prior_does_not_start_from_one_without_an_array_alike(train, tmp_path: Path):
    start = RasterPrior(RasterConfig(transformer=TransformerConfig(24, 1, 2, 20)), bits=2, grid=(1, 2))
    assert "start from" in refusal(ConfigError, train, "prior", tmp_path, start=start)


@pytest.mark.parametrize("stage", ["tokenizer", "prior", "prior on frames", "features"])
def test_balanced_classes_train_on_other_batches(stage, train, watch, tmp_path: Path):
    train(stage, tmp_path / "plain", epochs=1)
    plain = list(watch.losses)
    watch.losses.clear()
    train(stage, tmp_path / "balanced", epochs=1, balance_classes=True)
    assert watch.losses[0] != plain[0]


def test_tokens_are_not_flipped(data, tmp_path: Path):
    recipe = PriorRecipe(augmentation=Augmentation(flip=True))
    message = refusal(TokenError, train_prior, recipe, data.tokens, data.valid_tokens, tmp_path)
    assert "train on frames" in message


def test_frames_give_other_tokens_at_each_step(data, watch, train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    seen: list[bytes] = []
    loss = RasterPrior.loss

    def kept(prior: RasterPrior, tokens: Tensor, condition: Tensor | None) -> Tensor:
        if prior.training:
            seen.extend(picture.numpy().tobytes() for picture in tokens)
        return loss(prior, tokens, condition)

    monkeypatch.setattr(RasterPrior, "loss", kept)
    train("prior on frames", tmp_path)
    plain = {picture.tobytes() for picture in data.tokens.batch(slice(None)).numpy()}
    assert len(seen) == 80  # two epochs
    assert len(set(seen)) > 70
    assert len(plain.intersection(seen)) < 20


def test_tokens_of_two_grids_are_not_mixed(data, make_noise, tmp_path: Path):
    other = tokenize(data.tokens.tokenizer, make_noise(3, height=8, width=8))
    message = refusal(TokenError, train_prior, PriorRecipe(), data.tokens, other, tmp_path)
    assert "grid is (2, 3), the valid tokens' (2, 2)" in message


@pytest.mark.parametrize("stopped", [False, True])
def test_signals_are_handled_as_before_after_a_run(train, watch, tmp_path: Path, stopped: bool):
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(number) for number in numbers]
    watch.stop_at(2 if stopped else -1)
    with pytest.raises(RunStopped) if stopped else nullcontext():
        train("prior", tmp_path, epochs=1)
    assert [signal.getsignal(number) for number in numbers] == before


def test_a_run_in_a_thread_needs_no_signals(train, watch, tmp_path: Path):
    thread = threading.Thread(target=train, args=("prior", tmp_path), kwargs={"epochs": 1})
    thread.start()
    thread.join()
    assert watch.steps == list(range(10))


def test_curves_and_pictures_are_logged(train, tmp_path: Path):
    wanted = {
        "tokenizer": (
            {"train/loss", "train/psnr_db", "valid/psnr_db", "valid/codes_used", "valid/token_entropy_bits"},
            "reconstructions",
        ),
        "prior": ({"train/loss", "train/bits_per_image", "valid/bits_per_image", "valid/bits_per_token"}, "samples"),
        "features": ({"train/loss", "train/accuracy", "valid/accuracy"}, None),
    }
    for stage, (scalars, picture) in wanted.items():
        train(stage, tmp_path / stage)
        events = EventAccumulator(str(tmp_path / stage / "logs"))
        events.Reload()
        tags = events.Tags()
        assert scalars | {"valid/loss", "train/frames_per_s"} <= set(tags["scalars"])
        assert len(events.Scalars("valid/loss")) == 2
        assert tags["images"] == ([picture] if picture else [])
        assert min(event.value for event in events.Scalars("train/frames_per_s")) > 0
