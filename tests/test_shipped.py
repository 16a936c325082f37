"""The weights that ship: each file is the one that was shipped, and no other is loaded by a model's name."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import bisquit
from bisquit import generate
from bisquit.errors import ModelError
from bisquit.generate import load, load_feature_network
from bisquit.shipped import SUMS_FILE, write_sums

WEIGHTS = Path(bisquit.__file__).parent / "weights"


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the folder of all that ships, from which models are loaded."""
    copy = shutil.copytree(WEIGHTS, tmp_path / "weights")
    monkeypatch.setattr(generate, "_WEIGHTS", copy)
    return copy


def test_each_file_that_ships_has_the_digest_that_is_committed(weights: Path) -> None:
    write_sums(weights)
    assert (weights / SUMS_FILE).read_bytes() == (WEIGHTS / SUMS_FILE).read_bytes()
    assert len((WEIGHTS / SUMS_FILE).read_text().splitlines()) == len([*WEIGHTS.rglob("*.safetensors")]) > 0


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("small", "small/prior.safetensors"),
        ("small", "small/tokenizer.safetensors"),
        ("edit", "best/tokenizer.safetensors"),
        (None, "features/features.safetensors"),
    ],
)
def test_a_changed_byte_is_refused_and_its_file_is_named(weights: Path, name: str | None, changed: str) -> None:
    data = bytearray((weights / changed).read_bytes())
    data[-1] ^= 1  # the last bit of one weight: the file can still be read
    (weights / changed).write_bytes(data)
    with pytest.raises(ModelError) as caught:
        load(name) if name else load_feature_network()
    assert str(caught.value).startswith(f"{weights / changed} is not the file that ships")


@pytest.mark.parametrize("text", [None, ""], ids=["no list", "not in the list"])
def test_a_file_that_is_not_listed_is_refused(weights: Path, text: str | None) -> None:
    (weights / SUMS_FILE).unlink()
    if text is not None:
        (weights / SUMS_FILE).write_text(text)
    with pytest.raises(ModelError, match="is not the file that ships"):
        load("seed")
