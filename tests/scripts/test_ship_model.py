"""What ships: the commands on a card are those of its runs, and a decoder of its own is one over the same tokens."""

from __future__ import annotations

from pathlib import Path

import pytest
import ship_model
import torch

from bisquit.presets import get_preset
from bisquit.priors import of_kind
from bisquit.quantizers import FSQConfig, VQConfig, default_quantizer
from bisquit.record import RunRecord


def record(folder: Path, changes: dict[str, object], *, finished: bool = True, **sources: str) -> None:
    """Leave a run's record behind, of the `small` preset's prior with other training settings."""
    recipe = get_preset("small").prior
    changed = recipe.replace(training=recipe.training.replace(**changes))
    data = {"tokens": {"pictures": 9}}
    RunRecord("prior", "small", changed.to_dict(), data, "bf16", {"torch": "2"}, sources, finished).save(folder)


def test_the_commands_are_those_of_the_runs_and_of_the_one_that_it_started_from(tmp_path: Path) -> None:
    record(tmp_path / "first", {}, frames="anywhere")
    record(tmp_path / "next", {"epochs": 3, "snapshot_epochs": (1, 3)}, tokens="any", start=str(tmp_path / "first"))
    assert ship_model.history(tmp_path / "next") == [
        "bisquit train prior --preset small --frames FRAMES --out first",
        "bisquit train prior --preset small --epochs 3 --snapshot-epochs 1,3 --tokens TOKENS --start first --out next",
    ]


def test_the_commands_name_a_shipped_model_to_start_from_and_captions_but_nothing_of_the_data(tmp_path: Path) -> None:
    recipe = get_preset("small").prior
    told = recipe.replace(classes=True, prior=recipe.prior.replace(condition_size=404))
    sources = {"frames": "any", "start": "best", "captions": "/somewhere/supertuxkart"}
    RunRecord("prior", "small", told.to_dict(), {}, "bf16", {}, sources, True).save(tmp_path / "told")
    assert ship_model.history(tmp_path / "told") == [
        "bisquit train prior --preset small --classes --frames FRAMES --captions supertuxkart --start best --out told"
    ]


def test_the_commands_name_another_kind_of_prior_than_the_presets(tmp_path: Path) -> None:
    recipe = get_preset("small").prior
    pyramid = recipe.replace(prior=of_kind(recipe.prior, "pyramid").replace(scales=((1, 1), (2, 2))))
    RunRecord("prior", "small", pyramid.to_dict(), {}, "bf16", {}, {"frames": "any"}, True).save(tmp_path / "scaled")
    assert ship_model.history(tmp_path / "scaled") == [
        "bisquit train prior --preset small --prior pyramid --frames FRAMES --out scaled"
    ]
    other = recipe.replace(prior=of_kind(recipe.prior, "parts").replace(parts=5))
    RunRecord("prior", "small", other.to_dict(), {}, "bf16", {}, {"frames": "any"}, True).save(tmp_path / "new")
    assert ship_model.history(tmp_path / "new") == [
        "bisquit train prior --preset small --prior parts --parts 5 --frames FRAMES --out new"
    ]


def test_a_run_that_was_stopped_says_so_and_its_snapshots_are_its_own(tmp_path: Path) -> None:
    record(tmp_path / "first", {}, finished=False, frames="anywhere")
    record(tmp_path / "next", {}, tokens="any", start=str(tmp_path / "first" / "epoch-04"))
    assert ship_model.history(tmp_path / "next") == [
        "bisquit train prior --preset small --frames FRAMES --out first  # stopped before its end",
        "bisquit train prior --preset small --tokens TOKENS --start first --out next",
    ]


def test_a_prior_over_a_shipped_tokenizer_keeps_what_trained_that_one() -> None:
    card = (ship_model.WEIGHTS / "best" / "README.md").read_text()
    commands = ship_model.commands_on_card(card)
    assert commands
    assert all(command.startswith("bisquit train tokenizer --preset best") for command in commands)


def test_flags_say_what_differs() -> None:
    preset = {"a_b": 1, "inner": {"flip": True, "loud": False, "steps": [1]}}
    assert ship_model.changed_flags(preset, preset) == []
    recipe = {"a_b": 2.5, "inner": {"flip": False, "loud": True, "steps": []}}
    assert ship_model.changed_flags(recipe, preset) == ["--a-b 2.5", "--no-flip", "--loud", "--steps "]


def test_a_quantizer_of_another_kind_is_named_and_then_what_differs_of_its_own() -> None:
    preset = {"quantizer": {"kind": "bsq", "bits": 9}}
    for config, flags in (
        (default_quantizer("lfq", 9), ["--quantizer lfq"]),
        (VQConfig(bits=12, restart_steps=7), ["--quantizer vq", "--bits 12", "--restart-steps 7"]),
        (FSQConfig((4, 2)), ["--quantizer fsq", "--levels 4,2"]),
    ):
        assert ship_model.changed_flags({"quantizer": config.to_dict()}, preset) == flags


@pytest.mark.parametrize(
    ("name", "alike"),
    [
        ("autoencoder.encoder.1.weight", False),
        ("quantizer.down.bias", False),
        ("quantizer.up.bias", True),
        ("autoencoder.decoder.1.weight", True),
    ],
)
def test_only_what_leads_to_tokens_must_be_equal(make_tokenizer, name: str, alike: bool) -> None:
    one, other = make_tokenizer(), make_tokenizer()
    with torch.no_grad():
        other.state_dict()[name].flatten()[0].add_(1)
    assert ship_model.encode_alike(one, other) is alike


def test_a_codebook_leads_to_tokens(make_tokenizer) -> None:
    one, other = (make_tokenizer(quantizer=VQConfig(bits=4)) for _ in range(2))
    other.quantizer.idle_steps += 1
    assert ship_model.encode_alike(one, other)
    with torch.no_grad():
        other.quantizer.codebook[0, 0] += 1
    assert not ship_model.encode_alike(one, other)
