"""Ablations: no run is trained twice, shares of the frames nest, and the page says what is missing."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import ablations
import numpy as np
import pyarrow.parquet as pq
import pytest
import trainings
from ablation_page import compared, page, plot, summary, table, values
from ablation_plan import AXES, BASE, Budget, PriorRun, TokenizerRun, chosen_rows, plan
from PIL import Image
from tests.scripts.noise import write_parquet
from trainings import spread

from bisquit.presets import get_preset
from bisquit.tokens import tokenize

BUDGET = Budget(frames=15200, valid_frames=2066, pictures=15200, tokenizer_epochs=2)


def figures_of(run: PriorRun | TokenizerRun, bits: float) -> dict[str, Any]:
    """Return figures such as a run leaves behind."""
    if isinstance(run, TokenizerRun):
        return {"mse": 0.004, "psnr_db": 24.0, "codes_used": 1000, "count_bits": 3000.0, "seconds": 240.0}
    epochs = {str(epoch): {"valid_bits": bits - epoch, "train_bits": bits - 100} for epoch in BUDGET.epochs(run)}
    return {"epochs": epochs, "count_bits": 3000.0, "seconds": 400.0}


@pytest.fixture
def figures() -> dict[tuple[str, int], dict[str, Any]]:
    """Figures of two seeds of all runs."""
    return {(run.name, seed): figures_of(run, 2701.0 + 10 * seed) for run in plan(AXES, BUDGET) for seed in (0, 1)}


def test_base_is_the_preset() -> None:
    recipe, tokenizer = get_preset("seed").prior, get_preset("seed").tokenizer.tokenizer
    shape = recipe.prior.transformer
    assert (BASE.positions, BASE.neighbours, BASE.layers) == (recipe.prior.positions, 0, shape.n_layers)
    assert (BASE.tokenizer.bits, BASE.tokenizer.patch_px) == (
        tokenizer.quantizer.bits,
        tokenizer.autoencoder.patch_size,
    )
    assert BASE.flags == ()


def test_axes_have_their_values() -> None:
    labels = {name: [point.label for point in axis.points] for name, axis in AXES.items()}
    assert labels == {
        "positions": ["none", "learned", "row-column", "rotary"],
        "neighbours": ["0", "1", "4"],
        "layers": ["1", "3", "6", "12"],
        "bits": ["8", "10", "12", "14", "16", "18"],
        "patch": ["5 px, 10 bits", "10 px, 10 bits", "10 px, 18 bits"],
        "data": ["10%", "30%", "100%"],
        "augmentation": ["off", "on"],
        "epochs": ["1", "2", "5", "20"],
        "optimiser": ["AdamW", "Muon"],
    }
    has_base = {name for name, axis in AXES.items() if any(point.run == BASE for point in axis.points)}
    assert has_base == set(AXES) - {"augmentation", "epochs"}  # those are about a share of the data


def test_no_run_is_planned_twice_and_tokenizers_come_before_their_priors() -> None:
    runs = plan(AXES, BUDGET)
    assert len({run.name for run in runs}) == len(runs) == len(set(runs))
    assert {point.run for axis in AXES.values() for point in axis.points} <= set(runs)
    for place, run in enumerate(runs):
        assert isinstance(run, TokenizerRun) or run.tokenizer in runs[:place]
    priors = [BUDGET.seconds(run) for run in runs if isinstance(run, PriorRun)]
    assert priors == sorted(priors)


def test_plan_of_one_axis_has_what_it_needs_and_no_more() -> None:
    assert {run.name for run in plan(["optimiser"], BUDGET)} == {"tokenizer-10-bits-5-px", "prior", "prior-muon-0.003"}


def test_nothing_is_augmented_without_parquet() -> None:
    left_out = set(plan(AXES, BUDGET)) - set(plan(AXES, BUDGET, from_parquet=False))
    assert left_out == {PriorRun(percent=10, augmented=True)}


def test_flags_say_what_differs_from_the_base() -> None:
    run = PriorRun(positions="rotary", layers=6, percent=10, augmented=True)
    assert run.flags == ("--positions", "rotary", "--n-layers", "6", "--flip", "--shift-px", "2")
    assert run.name == "prior-positions-rotary-layers-6-percent-10-augmented"


def test_runs_of_a_share_of_the_frames_see_as_many_pictures() -> None:
    assert BUDGET.epochs(PriorRun(percent=10, augmented=True)) == (10,)
    assert BUDGET.epochs(PriorRun(percent=30)) == (1,)  # of a file that is laid out to the budget


def test_shares_nest_and_have_no_frame_twice() -> None:
    tenth, third, whole = (chosen_rows(1000, percent) for percent in (10, 30, 100))
    assert [len(tenth), len(third), len(whole)] == [100, 300, 1000]
    assert set(tenth) < set(third) < set(whole) == set(range(1000))
    assert 35 < np.mean(tenth < 500) * 100 < 65  # spread over all


def test_taken_tokens_keep_what_is_known_of_them(make_tokenizer, make_noise) -> None:
    tokens = tokenize(make_tokenizer(), make_noise(6))
    taken = trainings.taken(tokens, np.resize(np.array([4, 1]), 5))
    assert (taken.tokens == tokens.tokens[[4, 1, 4, 1, 4]]).all()
    assert (taken.labels == tokens.labels[[4, 1, 4, 1, 4]]).all()
    assert taken.groups is not None
    assert taken.groups.tolist() == [2, 0, 2, 0, 2]


def test_rows_of_several_files_are_written_with_their_bytes(tmp_path: Path) -> None:
    encoded = write_parquet(tmp_path / "a.parquet", 0, 3) + write_parquet(tmp_path / "b.parquet", 1, 4)
    trainings.write_frames(str(tmp_path / "*.parquet"), np.array([5, 1, 3]), tmp_path / "share" / "c.parquet")
    written = pq.read_table(tmp_path / "share" / "c.parquet")
    assert [cell["bytes"] for cell in written["image"].to_pylist()] == [encoded[row] for row in (1, 3, 5)]
    assert written["race"].to_pylist() == [0, 0, 1]


def test_spread_is_left_out_where_there_is_none() -> None:
    assert spread([2700.0, 2710.0], "{:,.0f}") == "2,705 (2,700 to 2,710)"
    assert spread([2700.0], "{:,.0f}") == "2,700"
    assert spread([2700.1, 2700.2], "{:,.0f}") == "2,700"


def test_table_shows_means_and_spread_and_names_seeds_and_what_is_missing(figures) -> None:
    del figures["prior-layers-12", 0], figures["prior-layers-12", 1]
    header, rule, *rows = table(AXES["layers"], figures).splitlines()
    assert header == "| layers | bits an image, valid | train | gap | by counts | less by | seconds | seeds |"
    assert rule.count("---") == 8
    assert rows[1] == (
        "| 3 | 2,705 (2,700 to 2,710) | 2,606 (2,601 to 2,611) | 99 | 3,000 | 9.8% (9.7% to 10.0%) | 400 | 0, 1 |"
    )
    assert rows[2] == rows[1].replace("| 3 |", "| 6 |")
    assert rows[3] == "| 12 | missing |  |  |  |  |  |  |"


def test_only_seeds_that_all_points_have_are_compared(figures: dict[tuple[str, int], dict[str, Any]]) -> None:
    axis = AXES["optimiser"]
    some = {(name, seed): of for (name, seed), of in figures.items() if (name, seed) != ("prior-muon-0.003", 1)}
    assert ("prior", 1) in some
    shown = compared(axis, some)
    assert {point.label: list(by_seed) for point, by_seed in shown.items()} == {"AdamW": [0], "Muon": [0]}
    without = {key: of for key, of in some.items() if key[0] != "prior-muon-0.003"}
    assert list(next(iter(compared(axis, without).values()))) == [0, 1]  # a point without any holds nothing back


def test_tokenizers_without_a_prior_have_no_bits_but_by_counts(figures) -> None:
    measures = values(AXES["bits"].points[-1], figures)
    assert list(measures) == [0, 1]
    assert measures[0]["count_bits"] == 3000.0
    assert "valid_bits" not in measures[0]
    assert "| 18 |  |  |  | 3,000 |  |  | 0.00400 | 24.00 | 1,000 | 240 | 0, 1 |" in table(AXES["bits"], figures)


def test_epochs_of_one_run_are_rows_of_their_own(figures) -> None:
    by_epoch = [values(point, figures)[0] for point in AXES["epochs"].points]
    assert [measures["valid_bits"] for measures in by_epoch] == [2700.0, 2699.0, 2696.0, 2681.0]
    assert [measures["seconds"] for measures in by_epoch] == [20.0, 40.0, 100.0, 400.0]


def test_page_counts_what_is_done(figures) -> None:
    runs = plan(AXES, BUDGET)
    del figures["prior-layers-12", 1]
    text = page(figures, BUDGET, runs, "make ablations")
    assert f"Done: {len(runs)} of {len(runs)} runs of seed 0, {len(runs) - 1} of {len(runs)} runs of seed 1." in text
    assert max(map(len, [line for line in text.splitlines() if not line.startswith("|")])) <= 120
    empty = page({}, BUDGET, runs, "make ablations", from_parquet=False)
    assert "Done: nothing yet." in empty
    assert "Not run: these frames do not lie in Parquet files" in " ".join(empty.split())
    assert "![" not in empty


def test_summary_is_plain_data(figures) -> None:
    data = json.loads(json.dumps(summary(figures, BUDGET)))
    assert data["axes"]["optimiser"]["Muon"]["1"]["valid_bits"] == 2710.0
    assert data["budget"]["pictures"] == 15200


@pytest.mark.parametrize("axis", ["positions", "epochs", "bits"])
def test_plots_are_drawn_of_what_there_is(axis: str, figures, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    assert not plot(AXES[axis], {}, tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()
    assert plot(AXES[axis], figures, tmp_path / "images" / "some.png")
    with Image.open(tmp_path / "images" / "some.png") as picture:
        assert picture.height > 300


def test_an_axis_is_run_once_from_frames_to_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, commands: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setenv("BISQUIT_CACHE", str(tmp_path / "cache"))
    write_parquet(tmp_path / "train.parquet", 0, 20)
    write_parquet(tmp_path / "valid.parquet", 1, 4)
    arguments = {
        "frames": tmp_path / "train.parquet",
        "valid-frames": tmp_path / "valid.parquet",
        "runs": tmp_path / "runs",
        "docs": tmp_path / "docs",
        "pictures": 8,
        "seeds": 1,
        "tokenizer-epochs": 1,
        "only": "augmentation",
    }
    words = [word for name, value in arguments.items() for word in (f"--{name}", str(value))]

    def run_all(*more: str) -> tuple[int | str | None, str]:
        monkeypatch.setattr(sys, "argv", ["ablations.py", *words, *more])
        with pytest.raises(SystemExit) as exit_:
            ablations.main()
        return exit_.value.code, capsys.readouterr().out.splitlines()[-1]

    status, last_line = run_all()
    assert status == 0
    data = json.loads(last_line)
    assert [command[:2] for command in commands if command[0] == "train"] == [
        ["train", "tokenizer"],
        ["train", "prior"],
        ["train", "prior"],
    ]
    augmented = next(command for command in commands if "--flip" in command)
    assert augmented[augmented.index("--epochs") + 1] == "4"  # of the 2 frames that are a tenth of 20
    off, on = (data["axes"]["augmentation"][label]["0"] for label in ("off", "on"))
    assert 0 < off["valid_bits"] < 100  # six tokens
    assert off["valid_bits"] != on["valid_bits"]
    assert off["count_bits"] == on["count_bits"] > 0
    text = (tmp_path / "docs" / "ablations.md").read_text()
    assert "| on | " in text
    assert "| rotary | missing |" in text
    drawn = {path.stem for path in (tmp_path / "docs" / "images").iterdir()}
    assert drawn == {"ablations-augmentation", "ablations-data"}  # which share a run
    assert not list((tmp_path / "runs").rglob("last.ckpt"))

    done = len(commands)
    assert run_all() == (0, last_line)
    assert "holds runs of another budget" in str(run_all("--pictures", "9")[0])
    assert len(commands) == done

    shutil.rmtree(tmp_path / "runs")  # another checkout
    assert run_all() == (0, last_line)
    assert len(commands) == done
    assert "is of another budget" in str(run_all("--pictures", "9", "--runs", str(tmp_path / "others"))[0])
    figures = next((tmp_path / "runs").glob("prior-percent-10/*/figures.json"))
    figures.unlink()
    record = json.loads((tmp_path / "docs" / "ablations.json").read_text())
    del record["runs"]["prior-percent-10"]
    (tmp_path / "docs" / "ablations.json").write_text(json.dumps(record))
    assert run_all()[0] == 0
    retrained = [command[1] for command in commands[done:] if command[0] == "train"]
    assert retrained == ["tokenizer", "prior"]  # over its tokens, which are not there
