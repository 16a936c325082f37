"""The record of a run: what must be the same for a run to be resumed, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from bisquit.errors import RunError
from bisquit.record import RunRecord


def record(**changes: object) -> RunRecord:
    fields: dict[str, object] = {
        "stage": "prior",
        "preset": "seed",
        "recipe": {"prior": {"layers": 3}, "training": {"epochs": 5, "checkpoint_minutes": 3.0}},
        "data": {"tokens": {"pictures": 12}},
        "precision": "float32",
        "versions": {},
    }
    return RunRecord(**{**fields, **changes})  # type: ignore[arg-type]


def test_a_record_comes_back_as_it_was_saved(tmp_path: Path):
    record(sources={"tokens": "/a/b"}).save(tmp_path)
    assert RunRecord.load(tmp_path) == record(sources={"tokens": "/a/b"})


def test_opening_a_new_folder_makes_the_run(tmp_path: Path):
    assert record().open(tmp_path / "new", resume=True) == record()
    assert RunRecord.load(tmp_path / "new") == record()


def test_a_resumed_run_keeps_what_its_beginning_decided(tmp_path: Path):
    record(precision="bf16", finished=True).save(tmp_path)
    assert record().open(tmp_path, resume=True) == record(precision="bf16", finished=True)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"stage": "tokenizer"}, "stage = prior, not tokenizer"),
        ({"data": {"tokens": {"pictures": 13}}}, "data.tokens.pictures = 12, not 13"),
        ({"data": {}}, "data.tokens = {'pictures': 12}, not None"),
        ({"recipe": {"prior": {"layers": 4}}}, "recipe.prior.layers = 3, not 4"),
    ],
)
def test_another_run_is_refused_with_where_it_differs(tmp_path: Path, changes: dict[str, object], named: str):
    record().save(tmp_path)
    with pytest.raises(RunError) as error:
        record(**changes).open(tmp_path, resume=True)
    assert named in str(error.value)


def test_settings_that_a_run_is_older_than_are_as_by_default(tmp_path: Path):
    record().save(tmp_path)
    newer = record(recipe={"prior": {"layers": 3, "depth": 0}, "training": {"epochs": 5}, "shift": {"px": 0}})
    defaults = {"prior": {"layers": 7, "depth": 0}, "training": {"epochs": 9}, "shift": {"px": 0}}
    assert newer.open(tmp_path, resume=True, defaults=defaults).recipe["prior"] == {"layers": 3, "depth": 0}
    changed = newer.replace(recipe={**newer.recipe, "shift": {"px": 4}})
    with pytest.raises(RunError, match=r"recipe\.shift\.px = 0, not 4"):
        changed.open(tmp_path, resume=True, defaults=defaults)


@pytest.mark.parametrize("text", ["", "[1]", "{}", '{"stage": "neither"}'])
def test_a_file_that_is_no_record_is_refused(tmp_path: Path, text: str):
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(RunError, match="not the record of a run"):
        record().open(tmp_path, resume=True)
