"""Cards: the commands on them are those of the runs, and they say what the record and the figures do, and no more."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import pytest

from bisquit.card import card_of_run, changed_flags, commands_on_card, history, subject_of
from bisquit.errors import RunError
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
    assert history(tmp_path / "next") == [
        "bisquit train prior --preset small --frames FRAMES --out first",
        "bisquit train prior --preset small --epochs 3 --snapshot-epochs 1,3 --tokens TOKENS --start first --out next",
    ]


def test_the_commands_name_a_shipped_model_to_start_from_and_captions_but_nothing_of_the_data(tmp_path: Path) -> None:
    recipe = get_preset("small").prior
    told = recipe.replace(classes=True, prior=recipe.prior.replace(condition_size=404))
    sources = {"frames": "any", "start": "best", "captions": "/somewhere/supertuxkart"}
    RunRecord("prior", "small", told.to_dict(), {}, "bf16", {}, sources, True).save(tmp_path / "told")
    assert history(tmp_path / "told") == [
        "bisquit train prior --preset small --classes --frames FRAMES --captions supertuxkart --start best --out told"
    ]


def test_the_commands_name_another_kind_of_prior_than_the_presets(tmp_path: Path) -> None:
    recipe = get_preset("small").prior
    pyramid = recipe.replace(prior=of_kind(recipe.prior, "pyramid").replace(scales=((1, 1), (2, 2))))
    RunRecord("prior", "small", pyramid.to_dict(), {}, "bf16", {}, {"frames": "any"}, True).save(tmp_path / "scaled")
    assert history(tmp_path / "scaled") == [
        "bisquit train prior --preset small --prior pyramid --frames FRAMES --out scaled"
    ]
    other = recipe.replace(prior=of_kind(recipe.prior, "parts").replace(parts=5))
    RunRecord("prior", "small", other.to_dict(), {}, "bf16", {}, {"frames": "any"}, True).save(tmp_path / "new")
    assert history(tmp_path / "new") == [
        "bisquit train prior --preset small --prior parts --parts 5 --frames FRAMES --out new"
    ]


def test_a_run_that_was_stopped_says_so_and_its_snapshots_are_its_own(tmp_path: Path) -> None:
    record(tmp_path / "first", {}, finished=False, frames="anywhere")
    record(tmp_path / "next", {}, tokens="any", start=str(tmp_path / "first" / "epoch-04"))
    assert history(tmp_path / "next") == [
        "bisquit train prior --preset small --frames FRAMES --out first  # stopped before its end",
        "bisquit train prior --preset small --tokens TOKENS --start first --out next",
    ]


def test_a_prior_over_a_shipped_tokenizer_keeps_what_trained_that_one() -> None:
    card = (files("bisquit") / "weights" / "best" / "README.md").read_text()
    commands = commands_on_card(card)
    assert commands
    assert all(command.startswith("bisquit train tokenizer --preset best") for command in commands)


def test_flags_say_what_differs() -> None:
    preset = {"a_b": 1, "inner": {"flip": True, "loud": False, "steps": [1]}}
    assert changed_flags(preset, preset) == []
    recipe = {"a_b": 2.5, "inner": {"flip": False, "loud": True, "steps": []}}
    assert changed_flags(recipe, preset) == ["--a-b 2.5", "--no-flip", "--loud", "--steps "]


def test_a_quantizer_of_another_kind_is_named_and_then_what_differs_of_its_own() -> None:
    preset = {"quantizer": {"kind": "bsq", "bits": 9}}
    for config, flags in (
        (default_quantizer("lfq", 9), ["--quantizer lfq"]),
        (VQConfig(bits=12, restart_steps=7), ["--quantizer vq", "--bits 12", "--restart-steps 7"]),
        (FSQConfig((4, 2)), ["--quantizer fsq", "--levels 4,2"]),
    ):
        assert changed_flags({"quantizer": config.to_dict()}, preset) == flags


def test_bundled_frames_bring_their_licence_and_nothing_is_claimed_of_others(tmp_path: Path) -> None:
    record(tmp_path / "bundled", {}, frames="bundled:train")
    record(tmp_path / "own", {}, frames="/somewhere/bundled")
    assert subject_of(RunRecord.load(tmp_path / "bundled"), "cc0-1.0").licence_id == "cc-by-sa-4.0"
    own = subject_of(RunRecord.load(tmp_path / "own"))
    assert "SuperTuxKart" not in f"{own.frames}{own.limits}{own.flaws}{own.licence}"


def test_a_run_by_no_preset_lists_no_commands(tmp_path: Path) -> None:
    RunRecord("prior", None, {}, {}, "bf16", {}, {}, True).save(tmp_path)
    assert history(tmp_path) == []


def test_what_is_no_run_of_a_model_has_no_card(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="not the record of a run"):
        card_of_run(tmp_path)
    RunRecord("features", "demo", {}, {}, "bf16", {}, {}, True).save(tmp_path)
    with pytest.raises(RunError, match="feature network"):
        card_of_run(tmp_path)
