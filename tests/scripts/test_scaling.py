"""Scaling: what runs cost, the law that is fitted to them, where it is least, and a page that says what is missing."""

from __future__ import annotations

import json
import sys
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scaling
from PIL import Image
from scaling_fit import Family, Law, Runs, fit, interval, optimum
from scaling_page import page, runs_table, summary
from scaling_plan import SIZES, Run, Scale, Size, parameters, products
from scaling_plot import plot_compute, plot_tokens
from scaling_study import Check, Study, rounded

from bisquit.checkpoint import save_tokenizer
from bisquit.frames import write_frame
from bisquit.frames.augment import Augmentation
from bisquit.presets import get_preset
from bisquit.priors import RasterConfig, RasterPrior

SCALE = Scale(
    grid=(20, 30), bits=10, batch=16, longest_warm_up=200, slowest_decay=0.999, frames=15200, valid_frames=2066
)
PLAN = SCALE.plan(SIZES, 15200)
FAMILY = Family.through([SCALE.parameters(size) for size in SIZES], [SCALE.products(size) for size in SIZES])
TRUTH = Law(*map(np.array, (3.5, 100.0, 300.0, 0.35, 0.4)))
CHECK = Check(
    name="runs/best/prior",
    shape="256x6x4",
    parameters=4_980_736,
    products=5_903_872,
    tokens=45_600_000,
    valid_bits_token=4.2,
    differs=("it sees each of 15,200 pictures 5 times, which the law takes for new ones",),
    command="bisquit train prior --preset best --out RUN",
)


def runs_of(law: Law, noise: float = 0.0) -> Runs:
    """Return what the planned runs would have given under a law."""
    n = np.array([SCALE.parameters(run.size) for run in PLAN], dtype=float)
    d = np.array([SCALE.tokens(run) for run in PLAN], dtype=float)
    return Runs(n, d, law.loss(n, d) * np.exp(noise * np.random.default_rng(0).standard_normal(len(n))))


def figures_of(runs: list[Run], seeds: int = 1) -> dict[tuple[str, int], dict[str, Any]]:
    """Return figures such as runs leave behind."""
    return {
        (run.name, seed): {
            "valid_bits_token": float(TRUTH.loss(SCALE.parameters(run.size), SCALE.tokens(run))) + 0.01 * seed,
            "valid_bits_token_stderr": 0.1,
            "seconds": SCALE.seconds(run),
        }
        for run in runs
        for seed in range(seeds)
    }


@pytest.fixture(scope="module")
def study() -> Study:
    """All runs of one seed, and a run to check against."""
    return Study.of(SCALE, PLAN, figures_of(PLAN), CHECK)


def test_costs_of_a_known_shape_are_right_by_hand() -> None:
    size = Size(64, 2, 2)
    assert SCALE.parameters(size) == 2 * (4 * 64 * 64 + 2 * 64 * 256) + 64 * 1024 == 163_840
    keys_of_all_steps = sum(range(1, 601))
    assert SCALE.products(size) == 163_840 + 2 * (2 * 64 * keys_of_all_steps) // 600 == 240_768
    run = Run(size, 950)
    assert SCALE.tokens(run) == 59 * 16 * 600 == 566_400  # six pictures fill no batch
    assert SCALE.flops(run) == 6 * 240_768 * 566_400
    preset = get_preset("best").prior.prior.transformer
    assert parameters(preset, 10) == CHECK.parameters
    assert products(preset, 10, (20, 30)) == CHECK.products


def test_parameters_are_those_of_the_models_matrices() -> None:
    size = Size(16, 3, 2)
    prior = RasterPrior(RasterConfig(transformer=size.transformer, neighbours=4), bits=5, grid=(2, 3))
    matrices = [p for p in (*prior.transformer.parameters(), *prior.head.parameters()) if p.ndim == 2]
    assert parameters(size.transformer, 5) == sum(matrix.numel() for matrix in matrices)


def test_seconds_are_those_that_were_measured_of_three_layers() -> None:
    run = Run(Size(128, 3, 4), 15200)
    assert replace(SCALE, valid_frames=0).seconds(run) == pytest.approx(15200 / 45, rel=0.01)


def test_plan_is_each_size_by_each_length_cheapest_first() -> None:
    assert len(set(PLAN)) == len({run.name for run in PLAN}) == 20
    assert {run.pictures for run in PLAN} == {950, 1900, 3800, 7600, 15200}
    costs = [SCALE.flops(run) for run in PLAN]
    assert costs == sorted(costs)
    assert {run.pictures for run in SCALE.plan(SIZES, 3)} == {1, 3}


def test_sizes_are_read_as_they_are_written() -> None:
    assert [Size.of(str(size)) for size in SIZES] == list(SIZES)
    for text in ("64x2", "64x2x3", "wide"):
        with pytest.raises(Exception, match=r"n_heads|unpack|invalid"):
            Size.of(text)


def test_warm_up_and_averaging_suit_the_steps() -> None:
    def said(pictures: int) -> tuple[str, str]:
        flags = SCALE.flags(Run(SIZES[0], pictures))
        return flags[flags.index("--warmup-steps") + 1], flags[flags.index("--ema-decay") + 1]

    assert said(15200) == ("95", "0.9789")  # of 950 steps: a tenth, and a horizon of 47.5
    assert said(950) == ("6", "0.6610")
    assert said(10**6) == ("200", "0.9990")  # the preset's
    assert said(1) == ("0", "0.0000")


@pytest.mark.parametrize("constants", [(3.5, 100.0, 300.0, 0.35, 0.4), (2.0, 30.0, 2000.0, 0.2, 0.6)])
def test_fit_recovers_the_constants_of_exact_runs(constants: tuple[float, ...]) -> None:
    law = Law(*map(np.array, constants))
    found = fit(runs_of(law), draws=10)
    assert found is not None
    assert [float(value) for value in astuple(found.law)] == pytest.approx(constants, rel=0.03)
    assert found.residual < 1e-4


def test_forecast_of_noisy_runs_has_the_truth_in_its_interval() -> None:
    found = fit(runs_of(TRUTH, noise=0.003))
    assert found is not None
    true = float(optimum(TRUTH, FAMILY, 1e15).loss)
    low, high = interval(optimum(found.draws, FAMILY, 1e15).loss)
    assert low < true < high
    assert 0.001 < (high - low) / true < 0.1
    assert float(optimum(found.law, FAMILY, 1e15).loss) == pytest.approx(true, rel=0.02)


def test_one_wild_run_hardly_moves_the_fit() -> None:
    runs = runs_of(TRUTH)
    runs.loss[7] *= 1.2
    found = fit(runs, draws=10)
    assert found is not None
    assert float(found.law.loss(1e7, 1e8)) == pytest.approx(float(TRUTH.loss(1e7, 1e8)), rel=0.01)


def test_too_few_runs_are_not_fitted() -> None:
    n, d, loss = runs_of(TRUTH)
    assert fit(Runs(n[:6], d[:6], loss[:6])) is None
    of_two_sizes = np.isin(n, np.unique(n)[:2])
    assert of_two_sizes.sum() == 10
    assert fit(Runs(n[of_two_sizes], d[of_two_sizes], loss[of_two_sizes])) is None


@pytest.mark.parametrize("flops", [1e13, 1e16])
def test_optimum_satisfies_its_equation_and_costs_its_budget(flops: float) -> None:
    n, d, loss = optimum(TRUTH, FAMILY, flops)
    assert float(6 * FAMILY.products(n) * d) == pytest.approx(flops)
    by_n = TRUTH.alpha * TRUTH.a * n**-TRUTH.alpha
    by_d = TRUTH.beta * TRUTH.b * d**-TRUTH.beta * FAMILY.elasticity(n)
    assert float(by_n) == pytest.approx(float(by_d))
    for near in (0.9 * n, 1.1 * n):
        assert TRUTH.loss(near, flops / (6 * FAMILY.products(near))) > loss


def test_optimum_without_attention_is_hoffmanns() -> None:
    n, _, _ = optimum(TRUTH, Family(p=0.0, q=1.0), 6e14)
    ratio = float(TRUTH.alpha * TRUTH.a / (TRUTH.beta * TRUTH.b))
    exponent = 1 / float(TRUTH.alpha + TRUTH.beta)
    assert float(n) == pytest.approx(ratio**exponent * 1e14 ** (float(TRUTH.beta) * exponent))


def test_elasticity_is_the_slope_of_products() -> None:
    n, step = np.array(1e6), 1e-5
    slope = np.log(FAMILY.products(n * np.exp(step)) / FAMILY.products(n)) / step
    assert float(FAMILY.elasticity(n)) == pytest.approx(float(slope), rel=1e-4)
    for size in SIZES:
        assert float(FAMILY.products(np.array(SCALE.parameters(size)))) == pytest.approx(SCALE.products(size), rel=0.03)


def test_page_shows_runs_fit_forecasts_and_check(study: Study) -> None:
    text = page(study, "    make scaling", "runs/best/prior")
    flowing = " ".join(text.split())
    assert "Done: 20 of 20 runs of seed 0." in text
    assert "missing |" not in text
    assert "| 64x2x2 | 163,840 | 950 | 566,400 | 8.18e+11 |" in text
    assert "| E, bits a token | 3.500 |" in text
    assert "| 100x | 1.33e+16 |" in text
    assert "`runs/best/prior` (256x6x4: N = 4,980,736, D = 45,600,000, C = 1.62e+15) needs 4.200 bits" in flowing
    expected = float(TRUTH.loss(CHECK.parameters, CHECK.tokens))
    assert f"forecasts {expected:.3f} (" in flowing
    assert "Unlike the runs above, it sees each of 15,200 pictures 5 times" in flowing
    assert max(map(len, [line for line in text.splitlines() if not line.startswith("|")])) <= 120


def test_page_says_what_is_missing() -> None:
    empty = page(Study.of(SCALE, PLAN, {}, None), "    make scaling", "")
    assert "Done: nothing yet." in empty
    assert empty.count("| missing |") == 20
    assert "No fit yet" in empty
    assert "None was named" in empty
    assert "![" not in empty
    some = page(Study.of(SCALE, PLAN, figures_of(PLAN[:5]), None), "    make scaling", "runs/best/prior")
    assert "Done: 5 of 20 runs of seed 0." in some
    assert some.count("| missing |") == 15
    assert "No forecast without a fit." in some
    assert "`runs/best/prior` is not finished." in some


def test_runs_of_another_plan_are_left_out_and_seeds_have_a_spread() -> None:
    small = SCALE.plan(SIZES[:1], 15200)
    study = Study.of(SCALE, small, figures_of(PLAN, seeds=2), None)
    assert len(study.figures) == 10
    assert study.fit is None
    bits = float(TRUTH.loss(163_840, 566_400))
    assert f"| {bits + 0.005:.3f} ({bits:.3f} to {bits + 0.01:.3f}) |" in runs_table(study)


def test_summary_is_plain_data(study: Study) -> None:
    data = json.loads(json.dumps(summary(study)))
    assert len(data["runs"]) == data["planned"] == 20
    assert data["fit"]["alpha"] == pytest.approx(0.35, rel=0.03)
    assert [round(found["flops"] / data["forecasts"][0]["flops"]) for found in data["forecasts"]] == [1, 10, 100]
    assert data["check"]["forecast"] == pytest.approx(float(TRUTH.loss(CHECK.parameters, CHECK.tokens)), rel=0.01)


def test_large_numbers_have_two_digits() -> None:
    assert [rounded(x) for x in (7, 999.0, 2_450_000, 99_600_000, 1.234e11)] == ["7", "1k", "2.4M", "100M", "120G"]


def test_plots_are_drawn_of_what_there_is(study: Study, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    for draw in (plot_tokens, plot_compute):
        assert not draw(Study.of(SCALE, PLAN, {}, None), tmp_path / "none.png")
        for name, found in (("all", study), ("some", Study.of(SCALE, PLAN, figures_of(PLAN[:2]), None))):
            path = tmp_path / "images" / f"{draw.__name__}-{name}.png"
            assert draw(found, path)
            with Image.open(path) as picture:
                assert picture.height > 300
    assert not (tmp_path / "none.png").exists()


def test_differences_name_repetition_augmentation_and_other_settings() -> None:
    ours = get_preset("best").prior
    fixed = ours.replace(augmentation=Augmentation(), training=ours.training.replace(epochs=1, warmup_steps=7))
    assert scaling.differences(fixed, 100) == ()
    said = "; ".join(scaling.differences(ours.replace(prior=ours.prior.replace(neighbours=1)), 15200))
    assert "each of 15,200 pictures 5 times" in said
    assert "mirrored at random, shifted by up to 2 pixels" in said
    assert said.endswith("its neighbours is 1, not 4")


def test_runs_go_from_frames_to_page_once(
    tmp_path: Path,
    make_tokenizer,
    make_noise,
    monkeypatch: pytest.MonkeyPatch,
    commands: list[list[str]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setenv("BISQUIT_CACHE", str(tmp_path / "cache"))
    (tmp_path / "tokenizer").mkdir()
    save_tokenizer(make_tokenizer(), tmp_path / "tokenizer" / "tokenizer.safetensors")
    for part, count in (("train", 4), ("valid", 2)):
        frames = make_noise(count, seed=count)
        (tmp_path / part).mkdir()
        for i in range(count):
            write_frame(frames[np.array([i])][0], tmp_path / part / f"{i}.png")
    arguments = {
        "tokenizer": tmp_path / "tokenizer",
        "frames": tmp_path / "train",
        "valid-frames": tmp_path / "valid",
        "runs": tmp_path / "runs",
        "docs": tmp_path / "docs",
        "sizes": "8x1x2",
        "largest": 3,
        "check": tmp_path / "runs" / "prior-8x1x2-pictures-3" / "seed-0" / "run",
    }
    words = [word for name, value in arguments.items() for word in (f"--{name}", str(value))]

    def run_all(*more: str) -> tuple[int | str | None, str]:
        monkeypatch.setattr(sys, "argv", ["scaling.py", *words, *more])
        with pytest.raises(SystemExit) as exit_:
            scaling.main()
        return exit_.value.code, (capsys.readouterr().out.splitlines() or [""])[-1]

    status, last_line = run_all()
    assert status == 0
    data = json.loads(last_line)
    assert [command[:2] for command in commands if command[0] == "train"] == [["train", "prior"]] * 2
    assert [(row["run"], row["tokens"]) for row in data["runs"]] == [
        ("prior-8x1x2-pictures-1", 6),
        ("prior-8x1x2-pictures-3", 18),
    ]
    assert all(0 < row["valid_bits_token"] < 20 for row in data["runs"])
    assert data["check"]["valid_bits_token"] == pytest.approx(data["runs"][1]["valid_bits_token"])
    assert data["check"]["tokens"] == 18
    assert data["check"]["differs"] == []
    command = data["check"]["command"].replace(" \\\n       ", "").split()
    assert command[:3] == ["bisquit", "train", "prior"]
    for flag, value in (("--width", "8"), ("--n-layers", "1"), ("--n-heads", "2"), ("--epochs", "1")):
        assert command[command.index(flag) + 1] == value
    assert {"--no-flip", "--tokens", "--valid-tokens", "--warmup-steps"} <= {*command}
    assert "Done: 2 of 2 runs of seed 0." in (tmp_path / "docs" / "scaling.md").read_text()
    assert {path.name for path in (tmp_path / "docs" / "images").iterdir()} == {
        "scaling-tokens.png",
        "scaling-compute.png",
    }
    assert not list((tmp_path / "runs").rglob("last.ckpt"))

    done = len(commands)
    assert run_all() == (0, last_line)
    assert "each is seen but once" in str(run_all("--largest", "5")[0])
    assert len(commands) == done
    save_tokenizer(make_tokenizer(seed=1), tmp_path / "tokenizer" / "tokenizer.safetensors")
    assert "their bits do not compare" in str(run_all()[0])
    del words[words.index("--check") : words.index("--check") + 2]
    assert "holds runs of another budget" in str(run_all()[0])
