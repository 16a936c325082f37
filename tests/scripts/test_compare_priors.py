"""The comparison of priors: nothing is done twice, costs are right by hand, and a small round goes to the page."""

from __future__ import annotations

import gc
import json
import math
import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import compare_priors
import numpy as np
import priors_plan
import pytest
import scaling_plan
import torch
import trainings
from PIL import Image
from priors_cost import flops, flops_a_picture, products, seconds
from priors_measure import gain_of_more_bits, sides_of, water_level
from priors_page import page, summary
from priors_plan import DEEPER, FAMILIES, PARTS, Budget, Painting, PriorRun, Timing, TokenizerRun, heads, plan
from priors_plot import plot
from priors_rows import bars, head_rows, prior_rows
from priors_work import Source, Work
from scaling_plan import Size
from tests.scripts.noise import write_parquet
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from trainings import save_json

from bisquit.checkpoint import save_features
from bisquit.errors import BisquitError
from bisquit.features import FeatureNetwork, FeatureNetworkConfig
from bisquit.priors import FlowConfig, FlowPrior, MaskedConfig, MaskedPrior, PartsConfig, PartsPrior, Prior
from bisquit.sampling import SamplingConfig

SIZES = (Size(128, 4, 4), Size(256, 6, 4))
BITS = (10, 12, 16)
BUDGET = Budget(
    frames=15200,
    valid_frames=2066,
    height=100,
    width=150,
    pictures=15200,
    epochs=2,
    tokenizer_epochs=4,
    start="",
    taken={},
    samples=2000,
    top_p=0.95,
    masks=4,
    masked_steps=(8, 16, 32),
    euler_steps=(8, 16),
    heun_steps=(8,),
    masked_noises=(4.5,),
)


def figures_of(better: str = "masked", sizes: Sequence[Size] = SIZES) -> dict[tuple[str, int], dict[str, Any]]:
    """Return figures such as all runs leave behind, with one family nearer to real frames than the others."""
    found: dict[tuple[str, int], dict[str, Any]] = {}
    for run in plan(PARTS, list(FAMILIES), sizes, BITS):
        if isinstance(run, TokenizerRun):
            judged = {"frechet": 1.0, "frechet_interval": 0.1, "precision": 0.9, "recall": 0.8}
            found[run.name, 0] = {
                "psnr_db": 24.0 + 0.3 * (run.bits - 10),
                "ssim": 0.7,
                "tokens_per_image": 600,
                "codes": 2**run.bits,
                "codes_used": 1000,
                "count_baseline_bits_per_image": 3000.0,
                "parameters": 10**6,
                "seconds": 9.0,
                "more_bits": {"signs_db": 0.7, "bound_db": 1.6},
                "real": judged,
                "real_remade": {**judged, "frechet": 1.5},
            }
        elif isinstance(run, PriorRun):
            bits = None if run.kind == "flow" else 2500.0 + 10 * run.parts * (run.family == "parts")
            found[run.name, 0] = {"bits": bits, "bits_stderr": bits and 20.0, "parameters": 10**6, "seconds": 60.0}
        elif isinstance(run, Painting):
            family = run.prior.family
            judged = {"frechet_interval": 0.1, "precision": 0.8, "recall": 0.6, "density": 0.9, "coverage": 0.7}
            ways = BUDGET.ways(family, run.is_usual_alone)
            found[run.name, 0] = {
                "ways": {
                    way.key: {**judged, "frechet": (2.0 if family == better else 3.0) + 0.1 * (family != "raster")}
                    for way in ways
                }
            }
        else:
            found[run.name, 0] = {"times": {}, "machine": {}}
            for prior in run.priors:
                for way in BUDGET.ways(prior.family, run.is_usual_alone):
                    taken = 0.001 * BUDGET.passes(prior.family, way)
                    name = f"{prior.name}, {way.key}, torch"
                    found[run.name, 0]["times"][name] = {"1": {"median_s": taken}, "64": {"median_s": 9 * taken}}
    return found


def test_nothing_is_planned_twice_and_all_that_a_run_needs_comes_before_it() -> None:
    runs = plan(PARTS, list(FAMILIES), SIZES, BITS)
    assert len({run.name for run in runs}) == len(runs) == len(set(runs))
    for place, run in enumerate(runs):
        before = runs[:place]
        assert not isinstance(run, PriorRun) or run.tokenizer in before
        assert not isinstance(run, Painting) or run.prior in before
        assert not isinstance(run, Timing) or set(run.priors) <= set(before)
    priors = [run for run in runs if isinstance(run, PriorRun)]
    assert {run.family for run in priors} == set(FAMILIES)
    assert {run.family for run in priors if run.size == SIZES[1]} == set(DEEPER)


def test_one_family_is_planned_beside_raster_alone() -> None:
    runs = plan(["families"], ["pyramid"], SIZES[:1], BITS)
    assert [run.name for run in runs] == [
        "tokenizer-bsq-10-bits",
        "raster-128x4x4-10-bits",
        "painted-raster-128x4x4-10-bits",
        "tokenizer-pyramid-10-bits",
        "pyramid-128x4x4-10-bits",
        "painted-pyramid-128x4x4-10-bits",
        "times-128x4x4",
    ]


def test_heads_are_all_compared_at_ten_and_twelve_bits_and_parts_alone_beyond() -> None:
    assert [run.name for run in heads(10, SIZES[0])] == [
        "raster-128x4x4-10-bits",
        "2-parts-128x4x4-10-bits",
        "10-parts-128x4x4-10-bits",
        "10-independent-parts-128x4x4-10-bits",
    ]
    assert [run.name for run in heads(16, SIZES[0])] == ["2-parts-128x4x4-16-bits"]
    assert "--independent" in heads(10, SIZES[0])[-1].flags


def test_passes_are_those_of_each_family() -> None:
    passes = {family: [BUDGET.passes(family, way) for way in BUDGET.ways(family)] for family in FAMILIES}
    assert passes == {
        "raster": [600],
        "any-order": [600],
        "parts": [600],
        "pyramid": [5],
        "mending pyramid": [5],
        "masked": [8, 16, 32, 16],
        "flow": [8, 16, 15],
        "flow of levels": [8, 16, 15],
    }
    usual, tried = BUDGET.usual_way("masked"), BUDGET.ways("masked")[-1]
    assert (usual.steps, tried.steps, tried.label) == (16, 16, "16 rounds, noise 4.5")
    assert BUDGET.sampling("masked", usual) == SamplingConfig(top_p=0.95, steps=16)
    assert BUDGET.sampling("masked", tried) == SamplingConfig(top_p=0.95, steps=16, confidence_noise=4.5)
    assert tried not in BUDGET.distinct_ways("masked")
    assert BUDGET.sampling("flow", BUDGET.usual_way("flow")).top_p == 1
    assert BUDGET.scales("pyramid") == (1, 6, 24, 150, 600)


def test_costs_of_a_causal_prior_are_those_of_the_study_of_scaling() -> None:
    run = PriorRun("raster", SIZES[0])
    assert products(run, BUDGET) == 600 * scaling_plan.products(SIZES[0].transformer, 10, (20, 30))
    assert flops(run, BUDGET) == 6 * products(run, BUDGET) * 15200 * 2


def built(run: PriorRun, bits: int, grid: tuple[int, int]) -> Prior:
    shape = run.size.transformer
    if run.family == "masked":
        return MaskedPrior(MaskedConfig(transformer=shape), bits, grid)
    if run.family == "flow":
        return FlowPrior(FlowConfig(transformer=shape, self_conditioning=False), bits, grid)
    return PartsPrior(PartsConfig(transformer=shape, parts=run.parts), bits, grid)


@pytest.mark.parametrize("family", ["masked", "flow", "parts"])
def test_products_are_what_a_pass_is_counted_to_take(family: str) -> None:
    run, bits = PriorRun(family, Size(64, 2, 2), bits=6), 6
    budget = Budget(**{**vars(BUDGET), "height": 40, "width": 40})  # 64 tokens
    prior, tokens = built(run, bits, (8, 8)).eval(), torch.zeros(1, 8, 8, dtype=torch.int64)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        if isinstance(prior, MaskedPrior):
            prior.logits(tokens, torch.zeros(1, 8, 8, dtype=torch.bool))
        elif isinstance(prior, FlowPrior):
            prior.estimate(torch.zeros(1, bits, 8, 8), torch.zeros(1))
        else:
            prior.logits(tokens)
    counted = counter.get_total_flops() / 2
    if family == "masked":
        counted -= (64 - (64 + 1) / 2) * 64 * 2**bits  # the head of places that are not masked in training
    if family == "parts":
        counted -= 2 * 2 * 64 * (64**2 - 64 * 65 / 2)  # scores that causal attention makes and masks
    assert products(run, budget) == pytest.approx(counted, rel=0.02)
    assert flops_a_picture(run, budget) == (7 if family == "flow" else 6) * products(run, budget)


def test_a_pyramid_is_asked_for_its_own_scale_and_those_before() -> None:
    run = PriorRun("pyramid", Size(64, 1, 2))
    pairs = 1 * 1 + 6 * 7 + 24 * 31 + 150 * 181 + 600 * 781
    matrices = 12 * 64**2 + 64 * 1024
    assert products(run, BUDGET) == 781 * matrices + 2 * 64 * pairs


def test_taken_models_are_not_trained() -> None:
    run = PriorRun("raster", SIZES[1])
    taken = Budget(**{**vars(BUDGET), "taken": {run.name: "best"}})
    assert 0 < seconds(run, taken, 3) < 0.1 * seconds(run, BUDGET, 3)
    assert all(seconds(run, BUDGET, 3) > 0 for run in plan(PARTS, list(FAMILIES), SIZES, BITS))


def test_what_was_asked_is_judged_by_the_figures() -> None:
    found = bars(figures_of(), BUDGET, SIZES, BITS)
    assert [bar.is_met for bar in found] == [True] * 5
    assert "pyramid at 128x4x4: 120.0 times" in found[0].found
    assert "masked, 16 rounds, at 256x6x4: 37.5 times" in found[1].found
    assert found[3].found == "; ".join(
        f"{how}: +1.80 dB"
        for how in (
            "`bsq`, both from scratch",
            "`fsq`, both from scratch",
            "`fsq` beside `bsq`, both from scratch",
            "`bsq`, grown from a finished one",
        )
    )
    assert found[4].found == "10 bits: +0.8%, 12 bits: +0.8%"
    assert found[2].found.startswith("masked, 8 rounds, at 128x4x4: 2.10 ± 0.10, raster 3.00 ± 0.10; masked")
    others = bars(figures_of(better="any-order"), BUDGET, SIZES, BITS)[2]
    assert not others.is_met  # it takes as many passes as raster
    assert "any-order" not in others.found
    worse = bars(figures_of(better="raster"), BUDGET, SIZES, BITS)
    assert [bar.is_met for bar in worse] == [True, True, False, True, True]
    assert [bar.is_met for bar in bars({}, BUDGET, SIZES, BITS)] == [True, None, None, None, None]
    some = {key: of for key, of in figures_of().items() if "12-bits" not in key[0]}
    assert bars(some, BUDGET, SIZES, BITS)[4].is_met is None
    some["2-parts-128x4x4-10-bits", 0]["bits"] *= 1.1
    assert bars(some, BUDGET, SIZES, BITS)[4].is_met is False  # whatever 12 bits will show


def test_many_bits_are_held_against_few_of_the_same_quantizer() -> None:
    found, gains = figures_of(), {"bsq": 1.0, "fsq": 1.2}
    for kind, gain in gains.items():
        few, many = (TokenizerRun(kind, count, True).name for count in (10, 16))
        found[few, 0]["psnr_db"] = 25.0 if kind == "bsq" else 25.8
        found[many, 0]["psnr_db"] = found[few, 0]["psnr_db"] + gain
    found[TokenizerRun("bsq", 16).name, 0]["psnr_db"] = found[TokenizerRun().name, 0]["psnr_db"] + 0.2
    bar = bars(found, BUDGET, SIZES, BITS)[3]
    assert "`fsq` beside `bsq`, both from scratch: +2.00 dB" in bar.found
    assert bar.is_met is False
    found[TokenizerRun("fsq", 16, True).name, 0]["psnr_db"] = 27.3
    assert bars(found, BUDGET, SIZES, BITS)[3].is_met is True


def test_page_shows_rows_bounds_and_what_is_missing() -> None:
    text, runs = page(figures_of(), BUDGET, SIZES, BITS, "    make compare-priors"), plan(PARTS, FAMILIES, SIZES, BITS)
    flowing = " ".join(text.split())
    assert f"Done: {len(runs)} of {len(runs)} runs." in text
    assert "missing |" not in text
    assert "| `masked` | 16 rounds | 2.10 ± 0.10 | 0.800 | 0.600 | ≤ 2,500 ± 20 | 16 | 0.016 |" in text
    assert "| `flow` | 8 steps, Heun | 3.10 ± 0.10 | 0.800 | 0.600 | – | 15 |" in text
    assert "781 in 5 scales where the others have 600" in flowing
    assert "over 10 numbers a place of 8 levels each, in place of continuous latents: frames come back" in flowing
    assert "nearer to real frames than raster (3.00) are: masked, 8 rounds (-0.90)" in flowing
    assert "any-order (+0.10, within the intervals)" in flowing
    assert "scratch, 16 bits come back +1.80 dB with `bsq` and +1.80 dB with `fsq` beside 10. What other" in flowing
    assert "would give +0.70 dB; and codes of many patches at once" in flowing
    assert "| 12 | independent bits | 2,620 ± 20 | +4.8% | 3,000 |" in text
    assert "![New frames of flow](images/compare-priors-flow-256x6x4-10-bits.jpg)" in text
    assert max(map(len, [line for line in text.splitlines() if not line.startswith("|")])) <= 120
    empty = page({}, BUDGET, SIZES, BITS, "    make compare-priors")
    assert f"Done: 0 of {len(runs)} runs." in empty
    assert empty.count("| missing |") == 15 + 10 + 5 + 6 + 9
    assert "![" not in empty


def test_the_first_size_is_tried_with_more_layers_by_some_families_and_their_usual_ways() -> None:
    sizes = (*SIZES, Size(128, 12, 4))
    added = [run for run in plan(PARTS, list(FAMILIES), sizes, BITS) if "128x12x4" in run.name]
    assert [run.name for run in added if isinstance(run, PriorRun)] == [
        f"{family}-128x12x4-10-bits" for family in ("raster", "any-order", "pyramid", "masked", "flow")
    ]
    masked = next(run for run in added if isinstance(run, Painting) and run.prior.family == "masked")
    assert [way.label for way in BUDGET.ways("masked", masked.is_usual_alone)] == ["16 rounds"]
    text = page(figures_of(sizes=sizes), BUDGET, sizes, BITS, "")
    depth = text.split("## Depth")[1].split("## Codebooks")[0]
    assert "Priors 128 wide, of 4 layers and of more" in depth
    assert depth.count("\n| `") == 2 * 5
    assert "| `masked` | 4 | 2.10 ± 0.10 | 0.800 | 0.600 | ≤ 2,500 ± 20 | 0.016 | 0.144 |" in depth
    assert "| `masked` | 12 | 2.10 ± 0.10 |" in depth
    assert "### 128x12x4" not in text
    assert "missing |" not in text
    assert "## Depth" not in page(figures_of(), BUDGET, SIZES, BITS, "")
    assert "masked, 16 rounds, at 128x12x4: 37.5 times" in text  # what was asked holds of all sizes


def test_none_nearer_than_raster_is_said_with_what_tokens_alone_lose() -> None:
    flowing = " ".join(page(figures_of("raster"), BUDGET, SIZES, BITS, "").split())
    assert "nearer to real frames than raster (2.00) is none." in flowing
    assert "the floor; through the pyramid's tokens 1.50, through the others' 1.50" in flowing


def test_summary_is_plain_data_with_a_row_for_each_way() -> None:
    data = json.loads(json.dumps(summary(figures_of(), BUDGET, SIZES, BITS)))
    assert len(data["priors"]) == 15 + 10 == len(prior_rows({}, BUDGET, SIZES))
    assert data["priors"][0]["training_flops"] == flops(PriorRun("raster", SIZES[0]), BUDGET)
    assert data["heads"][3]["head"] == "independent bits"
    assert len(data["heads"]) == len(head_rows({}, SIZES[0], BITS)) == 9


def test_what_more_bits_could_give_is_right_by_hand() -> None:
    """Of patches of four pixels, two numbers are off, by 8 and by 4 either way, each of the four as often."""
    real = np.full((4, 4, 2, 3), 100, dtype=np.uint8)
    remade = real.copy()
    for number, (first, second) in enumerate([(8, 4), (8, -4), (-8, 4), (-8, -4)]):
        remade[number, ::2, 0, 0] += np.uint8(first % 256)
        remade[number, 1::2, 1, 2] += np.uint8(second % 256)
    gain = gain_of_more_bits(real, remade, 2, 1)
    assert gain["signs_db"] == pytest.approx(10 * math.log10((64 + 16) / 16))
    assert gain["bound_db"] == pytest.approx(10 * math.log10((64 + 16) / (16 + 16)))  # a bit takes 64 to 16
    assert water_level(np.array([64.0, 16.0, 1.0]), 1) == pytest.approx(16)
    assert water_level(np.array([64.0, 16.0, 1.0]), 2) == pytest.approx(8)  # 64 / 8 and 16 / 8 are 2**3 and 2
    assert water_level(np.array([4.0, 4.0]), 10) == pytest.approx(4 / 2**10)


def test_figure_is_drawn_of_what_there_is(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    assert not plot({}, BUDGET, SIZES, tmp_path / "none.png")
    untimed = {key: of for key, of in figures_of().items() if not key[0].startswith("times")}
    for name, figures in (("all", figures_of()), ("untimed", untimed)):
        assert plot(figures, BUDGET, SIZES, tmp_path / f"{name}.png")
        with Image.open(tmp_path / f"{name}.png") as picture:
            assert picture.height > 300
    assert not (tmp_path / "none.png").exists()


@pytest.mark.parametrize(
    ("run", "start", "has_lower_rates"),
    [
        (TokenizerRun("bsq", 16), "best", True),
        (TokenizerRun("bsq", 10), "best", False),  # nothing of it is new
        (TokenizerRun("fsq", 16), "best", False),  # another kind: what decides on its tokens is all new
        (TokenizerRun("bsq", 16), "", False),
        (TokenizerRun("bsq", 16, is_from_scratch=True), "best", False),
    ],
)
def test_a_tokenizer_that_grows_from_the_one_it_begins_with_learns_more_slowly(
    run: TokenizerRun, start: str, has_lower_rates: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(trainings, "train", lambda stage, folder, *flags: said.extend(map(str, flags)) or math.nan)
    frames = Source("frames.parquet", "train", 8, is_limited=False)
    work = Work(replace(BUDGET, start=start), frames, frames, tmp_path, tmp_path, None, 1)
    with pytest.raises(BisquitError):  # nothing was trained that could be measured
        work.finish(run)
    assert ("--start" in said) == (bool(start) and not run.is_from_scratch)
    assert said[said.index("--epochs") + 1] == ("2" if run.is_from_scratch else "4")
    lower = [said[said.index(name) + 1] for name in ("--learning-rate", "--muon-learning-rate") if name in said]
    assert lower == (["0.0005", "0.001"] if has_lower_rates else [])


def test_times_are_kept_where_some_of_their_models_are_elsewhere(tmp_path: Path) -> None:
    priors = tuple(PriorRun(family, SIZES[0]) for family in ("raster", "pyramid"))
    frames, run = Source("frames.parquet", "train", 8, is_limited=False), Timing(SIZES[0], priors)
    work = Work(BUDGET, frames, frames, tmp_path, tmp_path, None, 1)
    names = [side.name for side in sides_of(priors[:1], BUDGET)]
    assert work.is_done(run)  # there is nothing that could be timed
    lay(work, priors[0])
    assert not work.is_done(run)
    save_json({"times": {name: {} for name in names}}, work.folder(run) / "figures.json")
    assert work.is_done(run)
    lay(work, priors[1])
    assert not work.is_done(run)
    shutil.rmtree(work.folder(priors[0]))
    assert work.is_done(run)  # to time the pyramid alone would lose what is known of raster


def lay(work: Work, run: PriorRun) -> None:
    """Have what looks like a finished model in a run's folder."""
    (work.folder(run) / "run").mkdir(parents=True)
    save_json({}, work.folder(run) / "figures.json")


@pytest.fixture
def words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The arguments of a pass over frames of noise of 10 x 15 pixels, by priors as small as they can be."""
    monkeypatch.setenv("BISQUIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(priors_plan.TokenizerRun, "flags", property(_small_flags))
    write_parquet(tmp_path / "train.parquet", 0, 24)
    write_parquet(tmp_path / "valid.parquet", 1, 14)
    network = FeatureNetwork(FeatureNetworkConfig(widths=(8, 8), dimensions=4), ("a", "b"))
    (tmp_path / "features").mkdir()
    save_features(network.eval(), tmp_path / "features" / "features.safetensors")
    arguments = {
        "frames": tmp_path / "train.parquet",
        "valid-frames": tmp_path / "valid.parquet",
        "runs": tmp_path / "runs",
        "docs": tmp_path / "docs",
        "features": tmp_path / "features",
        "sizes": "8x1x2",
        "bits": "4",
        "epochs": 1,
        "tokenizer-epochs": 1,
        "scratch-epochs": 1,
        "limit": 16,
        "samples": 8,
        "masks": 1,
        "rounds": 1,
        "masked-steps": "2",
        "euler-steps": "2",
        "heun-steps": "2",
        "masked-noise": "3",
    }
    return [word for name, value in arguments.items() for word in (f"--{name}", str(value))]


def _small_flags(run: TokenizerRun) -> tuple[str, ...]:
    flags = ("--quantizer", run.quantizer, "--bits", str(run.bits), "--width", "8", "--batch-size", "8")
    return (*flags, "--decoder-depth", "1")


def run_all(words: list[str], monkeypatch: pytest.MonkeyPatch) -> int | str | None:
    monkeypatch.setattr(sys, "argv", ["compare_priors.py", *words])
    with pytest.raises(SystemExit) as exit_:
        compare_priors.main()
    return exit_.value.code


def test_a_round_goes_from_frames_to_the_page_once(
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    commands: list[list[str]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(gc, "collect", lambda: 0)  # between what is timed, of all that the tests hold
    monkeypatch.setattr(compare_priors, "plot", lambda found, *rest: len(found) < 25 or plot(found, *rest))
    assert run_all(words, monkeypatch) == 0
    last_line = capsys.readouterr().out.splitlines()[-1]
    data = json.loads(last_line)
    rows = {(row["prior"], row["way"]): row for row in data["priors"]}
    assert len(rows) == 11
    assert [name for name, row in rows.items() if row["frechet"] is None] == []
    assert [name for name, row in rows.items() if row["seconds_64"] is None] == [("masked", "2 rounds, noise 3")]
    assert all(row["bits"] > 0 or row["prior"].startswith("flow") for row in rows.values() if row["bits"] is not None)
    assert rows["flow", "2 steps, Euler"]["bits"] is None
    assert math.isfinite(rows["masked", "2 rounds"]["bits"])
    assert {row["quantizer"] for row in data["tokenizers"]} == {"bsq", "lfq", "fsq", "vq", "pyramid"}
    assert data["heads"][0]["bits"] > 0
    trained = [command[1] for command in commands if command[0] == "train"]
    assert (trained.count("tokenizer"), trained.count("prior")) == (10, 9)
    text = (tmp_path / "docs" / "compare-priors.md").read_text()
    assert "missing" not in text.replace("is missing below", "")
    shown = {path.name for path in (tmp_path / "docs" / "images").iterdir()}
    assert {"compare-priors.png", "compare-priors-masked-8x1x2-10-bits.jpg"} <= shown
    assert not list((tmp_path / "runs").rglob("last.ckpt"))

    done = len(commands)
    assert run_all(words, monkeypatch) == 0
    assert "holds runs of another budget" in str(run_all([*words, "--samples", "9"], monkeypatch))
    shutil.rmtree(tmp_path / "runs")  # another checkout
    assert run_all(words, monkeypatch) == 0
    assert capsys.readouterr().out.splitlines()[-1] == last_line
    other = [*words, "--samples", "9", "--runs", str(tmp_path / "others")]
    assert "is of another budget" in str(run_all(other, monkeypatch))
    assert len(commands) == done


def test_a_finished_model_is_taken_for_a_run_if_it_fits(
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    commands: list[list[str]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("matplotlib")
    only = [*words, "--part", "families", "--only", "raster"]
    assert run_all(only, monkeypatch) == 0
    runs, done = tmp_path / "runs", len(commands)
    tokenizer, raster = (runs / name / "seed-0" / "run" for name in ("tokenizer-bsq-10-bits", "raster-8x1x2-10-bits"))
    elsewhere = [*only, "--runs", str(tmp_path / "others"), "--docs", str(tmp_path / "other-docs")]
    take = ["--take", f"raster-8x1x2-10-bits={raster}"]
    assert run_all([*elsewhere, "--take", f"tokenizer-bsq-10-bits={tokenizer}", *take], monkeypatch) == 0
    assert [command[0] for command in commands[done:]] == ["tokenize", "tokenize"]
    row = json.loads(capsys.readouterr().out.splitlines()[-1])["priors"][0]
    assert row["taken"] == str(raster)
    assert (row["training_flops"], row["training_seconds"]) == (None, None)
    assert row["frechet"] is not None
    assert "there is no run rastr" in str(run_all([*elsewhere, "--take", "rastr=best"], monkeypatch))


def test_a_plan_and_a_single_family_are_printed_and_nothing_is_done(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["compare_priors.py", *words, "--part", "families", "--only", "flow", "--dry"])
    compare_priors.main()
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].startswith("6 runs, about ")
    assert not any("masked" in line for line in lines)
    assert not (tmp_path / "runs").exists()
    monkeypatch.setattr(sys, "argv", ["compare_priors.py", *words, "--depths", "3", "--dry"])
    compare_priors.main()
    assert any(line.startswith("flow-8x3x2-10-bits: about") for line in capsys.readouterr().out.splitlines())
