"""Tables of captions: what is learnt, what is held back, and what is no table."""

from __future__ import annotations

from pathlib import Path

import pytest

from bisquit.captions import load_captions
from bisquit.errors import FrameError

TABLE = """
[icy]
weather = ["snow"]
time = ["at night"]
ground = ["ice"]
surroundings = ["hills", "firs"]
sentences = ["a cold road", "a cold road"]
held_back = ["the arctic"]

[sand]
sentences = ["dunes"]
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "captions.toml"
    path.write_text(text)
    return path


def test_sentences_are_taken_and_others_composed(tmp_path: Path):
    captions = load_captions(written(tmp_path, TABLE))
    assert captions.of("icy") == (
        "a cold road",
        "snow, ice",
        "snow, hills",
        "snow, firs",
        "at night, ice",
        "at night, hills",
        "at night, firs",
        "ice, hills",
        "ice, firs",
        "snow, at night, ice, hills",
        "snow, at night, ice, firs",
    )
    assert captions.of("sand") == ("dunes",)
    assert captions.of("none such") == ()
    assert captions.held_back == {"icy": ("the arctic",), "sand": ()}


def test_what_is_held_back_changes_nothing_that_is_learnt(tmp_path: Path):
    one = load_captions(written(tmp_path, TABLE)).fingerprint()
    assert load_captions(written(tmp_path, TABLE.replace("the arctic", "the pole"))).fingerprint() == one
    assert load_captions(written(tmp_path, TABLE.replace("dunes", "a dune"))).fingerprint() != one


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[icy\n", "no table of captions"),
        ("icy = 3\n", "must hold lists"),
        ('[icy]\nsentences = "one"\n', "must hold lists"),
        ('[icy]\nsentences = ["one", ""]\n', "must hold lists"),
        ("[icy]\nsentences = [3]\n", "must hold lists"),
        ('[icy]\nheld_back = ["one"]\n', "no sentence to learn from"),
        ('[icy]\nsentence = ["one"]\n', "sentence"),
    ],
)
def test_what_is_no_table_is_refused(tmp_path: Path, text: str, message: str):
    with pytest.raises(FrameError, match=message):
        load_captions(written(tmp_path, text))


def test_a_table_that_is_not_there_is_refused(tmp_path: Path):
    with pytest.raises(FrameError, match="no table of captions"):
        load_captions(tmp_path / "none.toml")


def test_the_shipped_table_says_something_of_every_track_and_holds_phrasings_back():
    captions = load_captions("supertuxkart")
    assert len(captions.learnt) == 20
    assert all(len(sentences) >= 20 for sentences in captions.learnt.values())
    assert all(len(sentences) >= 4 for sentences in captions.held_back.values())
    learnt = {sentence for sentences in captions.learnt.values() for sentence in sentences}
    for sentences in captions.held_back.values():
        assert not learnt & set(sentences)
