"""A run goes to the Hub with a card that is made of its record."""

from __future__ import annotations

import json
from pathlib import Path

import huggingface_hub
import pytest
from tests.cli.driver import Run, Trained
from tests.hub_driver import FakeApi

from bisquit.card import card_of_run, history
from bisquit.errors import ModelError


def test_the_card_of_a_run_says_what_its_record_does(trained: Trained):
    card = card_of_run(trained.model, name="mine")
    assert (trained.model / "README.md").read_text() == card.replace("`mine`", f"`{trained.model.name}`")
    assert "# bisquit: `mine`" in card
    assert "Paints frames of 16 x 12 pixels, each from\n12 tokens out of a codebook of 16." in card
    assert "**Trained** on 16 frames" in card
    assert history(trained.model)[0] in card
    assert "license: other" in card
    assert "|" not in card
    assert str(trained.model.parent) not in card
    assert "A tokenizer alone" in (trained.tokenizer / "README.md").read_text()


def test_figures_and_a_licence_come_onto_the_card(trained: Trained, frame_folder: Path, run: Run, tmp_path: Path):
    run("evaluate", "--model", trained.model, "--frames", frame_folder, "--json", tmp_path / "figures.json")
    figures = json.loads((tmp_path / "figures.json").read_text())
    card = card_of_run(trained.model, figures=figures, licence_id="cc0-1.0")
    assert f"| PSNR | {figures['psnr_db']:.2f} dB |" in card
    assert f"| bits an image | {figures['bits_per_image']:,.0f} |" in card
    assert "license: cc0-1.0" in card
    assert "| bits an image |" not in card_of_run(trained.model, figures={**figures, "bits_per_image": None})
    del figures["ssim"]
    with pytest.raises(ModelError, match=r"bisquit evaluate --json.*ssim"):
        card_of_run(trained.model, figures=figures)


def test_the_card_of_a_run_goes_up_with_it(run: Run, trained: Trained, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(huggingface_hub, "HfApi", FakeApi)
    done = run("push", trained.model, "me/castle", "--licence", "cc0-1.0")
    assert done.status == 0, done.err
    assert "https://hub/me/castle" in done.out
    assert "# bisquit: `castle`" in FakeApi.taken["card"]
    assert "license: cc0-1.0" in FakeApi.taken["card"]
    refused = run("push", "seed", "me/castle", "--licence", "cc0-1.0")
    assert refused.status == 2
    assert "folder of a run" in refused.err
