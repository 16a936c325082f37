"""From the figures of `compare_priors.py`'s runs to rows: of priors, of tokenizers, of heads, and of what was asked.

runs/compare-priors/<run>/seed-0/figures.json ──gather──> Figures ──rows──> tables, figure, JSON
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from priors_cost import flops, flops_a_picture
from priors_plan import (
    BITS,
    FAMILIES,
    HEAD_BITS,
    MANY_BITS,
    Budget,
    Painting,
    PriorRun,
    Timing,
    TokenizerRun,
    Way,
    families_of,
    from_scratch,
    heads,
    is_deeper,
)
from scaling_plan import Size
from trainings import Figures

FEWER_PASSES, TIMES_FASTER, MORE_DB, MORE_BY_PARTS = 10.0, 5.0, 1.5, 0.03
"""What was asked of pyramid and masked priors beside raster ones, of many bits beside 10, of parts beside a softmax."""
FEW_PASSES = ("pyramid", "masked", "flow")
"""Kinds of priors that need few passes of the network."""

Row = dict[str, Any]
"""What is known of something, None where it is not."""


def of_run(figures: Figures, name: str) -> Mapping[str, Any]:
    """Return what was measured of a run; nothing if it is not done."""
    return figures.get((name, 0), {})


def prior_rows(figures: Figures, budget: Budget, sizes: Sequence[Size]) -> list[Row]:
    """Return a row for each size, family there, and way to paint."""
    return [
        _prior_row(figures, budget, PriorRun(family, size), way)
        for size in sizes
        for family in families_of(size, sizes[0])
        for way in budget.ways(family, is_deeper(size, sizes[0]))
    ]


def _prior_row(figures: Figures, budget: Budget, run: PriorRun, way: Way) -> Row:
    trained, tokenizer = of_run(figures, run.name), of_run(figures, run.tokenizer.name)
    judged = of_run(figures, Painting(run).name).get("ways", {}).get(way.key, {})
    times = of_run(figures, Timing(run.size, ()).name).get("times", {})
    torch, engine = (times.get(f"{run.name}, {way.key}, {path}", {}) for path in ("torch", "engine"))
    is_taken = run.name in budget.taken
    return {
        "prior": run.family,
        "size": str(run.size),
        "layers": run.size.layers,
        "way": way.label,
        "passes": budget.passes(run.family, way),
        "tokens": sum(budget.scales(run.family)),
        "parameters": trained.get("parameters"),
        "flops_a_picture": flops_a_picture(run, budget),
        "training_flops": None if is_taken else flops(run, budget),
        "training_seconds": trained.get("seconds"),
        "taken": budget.taken.get(run.name),
        "bits": trained.get("bits"),
        "bits_stderr": trained.get("bits_stderr"),
        "bits_are": FAMILIES[run.family].bits_are,
        **{name: judged.get(name) for name in ("frechet", "frechet_interval", "precision", "recall")},
        **{name: judged.get(name) for name in ("density", "coverage")},
        "seconds_1": torch.get("1", {}).get("median_s"),
        "seconds_64": torch.get("64", {}).get("median_s"),
        "engine_seconds_1": engine.get("1", {}).get("median_s"),
        "engine_seconds_64": engine.get("64", {}).get("median_s"),
        "tokenizer_psnr_db": tokenizer.get("psnr_db"),
        "is_usual": way == budget.usual_way(run.family),
    }


def tokenizer_row(figures: Figures, run: TokenizerRun) -> Row:
    """Return what is known of a tokenizer."""
    found = of_run(figures, run.name)
    names = ("psnr_db", "ssim", "tokens_per_image", "codes", "codes_used", "count_baseline_bits_per_image", "seconds")
    return {
        "tokenizer": run.name,
        "quantizer": run.quantizer,
        "bits": run.bits,
        "is_from_scratch": run.is_from_scratch,
        **{name: found.get(name) for name in names},
        "real": found.get("real", {}).get("frechet"),
        "real_remade": found.get("real_remade", {}).get("frechet"),
    }


def tokenizer_rows(figures: Figures, bits: Sequence[int]) -> list[Row]:
    """Return a row for each number of bits, then for each tokenizer that learns from scratch."""
    runs = [*(TokenizerRun("bsq", count) for count in bits), *from_scratch(bits)]
    return [tokenizer_row(figures, run) for run in runs]


def head_rows(figures: Figures, size: Size, bits: Sequence[int]) -> list[Row]:
    """Return a row for each head over tokens of each number of bits; `more` is beyond the softmax's, as a share."""
    rows = []
    for count in bits:
        softmax = of_run(figures, PriorRun("raster", size, count).name).get("bits")
        for run in heads(count, size):
            found = of_run(figures, run.name)
            needed = found.get("bits")
            rows.append(
                {
                    "head": _head(run),
                    "run": run.name,
                    "bits_a_token": count,
                    "bits": needed,
                    "bits_stderr": found.get("bits_stderr"),
                    "more": needed / softmax - 1 if needed and softmax else None,
                    "parameters": found.get("parameters"),
                    "by_counts": tokenizer_row(figures, run.tokenizer)["count_baseline_bits_per_image"],
                }
            )
    return rows


def _head(run: PriorRun) -> str:
    if run.family == "raster":
        return "one softmax"
    if run.independent:
        return "independent bits"
    return "bit after bit" if run.parts == run.bits else f"{run.parts} parts of {run.bits // run.parts} bits"


def gained_db(figures: Figures, few: TokenizerRun, many: TokenizerRun) -> float | None:
    """Return by how many dB frames come back better from a tokenizer of many bits than from one of few."""
    found = [tokenizer_row(figures, run)["psnr_db"] for run in (few, many)]
    return None if None in found else found[1] - found[0]


class Bar(NamedTuple):
    """Something that was asked for, and what was found."""

    asked: str
    found: str
    is_met: bool | None
    """None where it is not measured yet."""


def bars(figures: Figures, budget: Budget, sizes: Sequence[Size], bits: Sequence[int]) -> list[Bar]:
    """Hold what was found against what was asked for."""
    rows = prior_rows(figures, budget, sizes)
    parts = {row["bits_a_token"]: row["more"] for row in head_rows(figures, sizes[0], bits) if "parts" in row["head"]}
    asked = {count: parts.get(count) for count in HEAD_BITS}
    new = {(kind, count): TokenizerRun(kind, count, True) for kind in ("bsq", "fsq") for count in (BITS, MANY_BITS)}
    gains = {
        "`bsq`, both from scratch": gained_db(figures, new["bsq", BITS], new["bsq", MANY_BITS]),
        "`fsq`, both from scratch": gained_db(figures, new["fsq", BITS], new["fsq", MANY_BITS]),
        "`fsq` beside `bsq`, both from scratch": gained_db(figures, new["bsq", BITS], new["fsq", MANY_BITS]),
        "`bsq`, grown from a finished one": gained_db(figures, TokenizerRun(), TokenizerRun("bsq", MANY_BITS)),
    }
    known = {how: gain for how, gain in gains.items() if gain is not None}
    of_one_kind = [gain for how, gain in known.items() if "beside" not in how]
    return [
        _times_bar(f"pyramid and masked take {FEWER_PASSES:g} times fewer passes than raster", rows, "passes"),
        _times_bar(
            f"on PyTorch's path they paint one picture {TIMES_FASTER:g} times as fast", rows, "seconds_1", TIMES_FASTER
        ),
        _frechet_bar(rows),
        Bar(
            f"{MANY_BITS} bits a token come back {MORE_DB:g} dB better than {BITS}",
            "; ".join(f"{how}: {gain:+.2f} dB" for how, gain in known.items()),
            any(gain >= MORE_DB for gain in of_one_kind) if of_one_kind else None,
        ),
        Bar(
            f"in two parts a frame takes at most {MORE_BY_PARTS:.0%} more bits than by one softmax, at 10 and 12 bits",
            ", ".join(f"{count} bits: {more:+.1%}" for count, more in asked.items() if more is not None),
            _all_met([None if more is None else more <= MORE_BY_PARTS for more in asked.values()]),
        ),
    ]


def _times_bar(asked: str, rows: Sequence[Row], measure: str, wanted: float = FEWER_PASSES) -> Bar:
    """Return by how many times raster's figure is more than those of pyramid and masked, at each size."""
    found, said = [], []
    for row in rows:
        if FAMILIES[row["prior"]].kind in ("pyramid", "masked") and row["is_usual"]:
            own, others = row[measure], raster_of(rows, row["size"])[measure]
            found.append(others / own if own and others else None)
            if found[-1] is not None:
                said.append(f"{name_of(row)} at {row['size']}: {found[-1]:,.1f} times")
    return Bar(asked, "; ".join(said), _all_met([None if times is None else times >= wanted for times in found]))


def _all_met(each: Sequence[bool | None]) -> bool | None:
    """Return whether all are met: one that is not is enough to tell, and None of those that are not known yet."""
    return False if False in each else None if None in each else True


def _frechet_bar(rows: Sequence[Row]) -> Bar:
    """Return whether any family of few passes is nearer to real frames than raster of its size, and which is nearest.

    Both with their intervals, for they may overlap.
    """
    said, is_better = [], []
    for size in dict.fromkeys(row["size"] for row in rows):
        raster = raster_of(rows, size)
        others = [row for row in rows if row["size"] == size and FAMILIES[row["prior"]].kind in FEW_PASSES]
        judged = [row for row in others if row["frechet"] is not None]
        if raster["frechet"] is None or not judged:
            continue
        best = min(judged, key=lambda row: row["frechet"])
        is_better.append(best["frechet"] < raster["frechet"])
        sure = "" if is_surely_apart(best, raster) else " (within the intervals)"
        said.append(f"{name_of(best)} at {size}: {_distance(best)}, raster {_distance(raster)}{sure}")
    asked = "pyramid, masked or flow has a lower Fréchet distance than raster of equal size"
    return Bar(asked, "; ".join(said), any(is_better) if is_better else None)


def _distance(row: Row) -> str:
    return f"{row['frechet']:.2f} ± {row['frechet_interval']:.2f}"


def is_surely_apart(row: Row, other: Row) -> bool:
    """Return whether the Fréchet distances of two rows differ by more than both intervals."""
    apart: float = abs(row["frechet"] - other["frechet"])
    return apart > row["frechet_interval"] + other["frechet_interval"]


def raster_of(rows: Sequence[Row], size: str) -> Row:
    """Return the raster prior's row of a size."""
    return next(row for row in rows if row["prior"] == "raster" and row["size"] == size)


def name_of(row: Row) -> str:
    """Return how a row is called."""
    return f"{row['prior']}, {row['way']}," if row["way"] else str(row["prior"])
