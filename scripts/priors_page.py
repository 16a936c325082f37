"""From the rows of `compare_priors.py` to a page and to plain data, of whatever there is of them so far."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from priors_plan import (
    BITS,
    DEEPER,
    FAMILIES,
    GROWN_RATES,
    HEAD_BITS,
    MANY_BITS,
    PRESET,
    Budget,
    Painting,
    PriorRun,
    TokenizerRun,
    is_deeper,
    plan,
    tokenizers_of_families,
)
from priors_rows import (
    Row,
    bars,
    gained_db,
    head_rows,
    is_surely_apart,
    name_of,
    of_run,
    prior_rows,
    raster_of,
    tokenizer_row,
    tokenizer_rows,
)
from scaling_plan import Size
from scaling_study import rounded
from trainings import Figures, filled, machine, made_on


class Column(NamedTuple):
    """A column of a table: its title, and a cell of a row, "" for what is not known."""

    title: str
    cell: Callable[[Row], str]


def _number(name: str, form: str) -> Callable[[Row], str]:
    """Return what writes a figure of a row."""
    return lambda row: "" if row[name] is None else form.format(row[name])


def _with_error(name: str, error: str, form: str) -> Callable[[Row], str]:
    """Return what writes a figure and how sure it is."""

    def cell(row: Row) -> str:
        if row[name] is None:
            return ""
        sure = row[error]
        return form.format(row[name]) + ("" if sure is None else f" ± {form.format(sure)}")

    return cell


def _bits(row: Row) -> str:
    """Write the bits of a frame as what is known of them."""
    if row["bits_are"] == "not known":
        return "–"
    said = _with_error("bits", "bits_stderr", "{:,.0f}")(row)
    return f"≤ {said}" if said and row["bits_are"] == "a bound" else said


def _seconds(name: str) -> Callable[[Row], str]:
    return _number(name, "{:.3g}")


PRIOR_COLUMNS = (
    Column("prior", lambda row: f"`{row['prior']}`"),
    Column("paints in", lambda row: row["way"]),
    Column("Fréchet distance", _with_error("frechet", "frechet_interval", "{:.2f}")),
    Column("precision", _number("precision", "{:.3f}")),
    Column("recall", _number("recall", "{:.3f}")),
    Column("bits a frame", _bits),
    Column("passes", _number("passes", "{:,}")),
    Column("s for 1", _seconds("seconds_1")),
    Column("s for 64", _seconds("seconds_64")),
    Column("engine, s for 1", _seconds("engine_seconds_1")),
    Column("s for 64", _seconds("engine_seconds_64")),
    Column("parameters", lambda row: "" if row["parameters"] is None else rounded(row["parameters"])),
    Column("GFLOP a picture", lambda row: f"{row['flops_a_picture'] / 1e9:.2f}"),
    Column("FLOP of training", lambda row: "" if row["training_flops"] is None else f"{row['training_flops']:.2e}"),
)
DEPTH_COLUMNS = (
    PRIOR_COLUMNS[0],
    Column("layers", _number("layers", "{}")),
    *PRIOR_COLUMNS[2:6],
    *PRIOR_COLUMNS[7:12],
    PRIOR_COLUMNS[13],
)
TOKENIZER_COLUMNS = (
    Column("quantizer", lambda row: f"`{row['quantizer']}`"),
    Column("bits", _number("bits", "{}")),
    Column("tokens", _number("tokens_per_image", "{:,}")),
    Column("PSNR, dB", _number("psnr_db", "{:.2f}")),
    Column("SSIM", _number("ssim", "{:.3f}")),
    Column("codes in use", _number("codes_used", "{:,}")),
    Column("bits a frame, by counts", _number("count_baseline_bits_per_image", "{:,.0f}")),
    Column("real frames through it", _number("real_remade", "{:.2f}")),
    Column("seconds", _number("seconds", "{:,.0f}")),
)
HEAD_COLUMNS = (
    Column("bits a token", _number("bits_a_token", "{}")),
    Column("head", _number("head", "{}")),
    Column("bits a frame", _with_error("bits", "bits_stderr", "{:,.0f}")),
    Column("more than one softmax", _number("more", "{:+.1%}")),
    Column("by counts", _number("by_counts", "{:,.0f}")),
    Column("parameters", lambda row: "" if row["parameters"] is None else rounded(row["parameters"])),
)


def table(columns: Sequence[Column], rows: Sequence[Row], measure: str) -> str:
    """Return rows as a table, in Markdown; one whose `measure` is not known is said to be missing."""
    lines = ["| " + " | ".join(column.title for column in columns) + " |", "|" + " --- |" * len(columns)]
    for row in rows:
        cells = [column.cell(row) for column in columns]
        if row[measure] is None:
            cells[cells.index("")] = "missing"
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def page(figures: Figures, budget: Budget, sizes: Sequence[Size], bits: Sequence[int], command: str) -> str:
    """Return the page as Markdown. bits: those of the codebooks part; command: what makes the page."""
    rows = prior_rows(figures, budget, sizes)
    runs = plan(("families", "codebooks"), list(FAMILIES), sizes, bits)
    done = sum((run.name, 0) in figures for run in runs)
    return f"""# Priors compared

Frames in all pictures: SuperTuxKart and its contributors, [supertuxkart.net](https://supertuxkart.net), CC BY-SA 4.0.

The families of [priors](extending.md#a-prior) side by side, and what larger codebooks give and cost.

Done: {done} of {len(runs)} runs. What is not, is missing below.

{made_on()}

{command}

## What was asked

{_bars_part(figures, budget, sizes, bits)}

## Families

{_families_part(figures, budget, sizes, rows)}
{_sheets_part(figures, sizes)}{_depth_part(budget, sizes, rows)}
## Codebooks

{_codebooks_part(figures, budget, sizes[0], bits)}
"""


def _bars_part(figures: Figures, budget: Budget, sizes: Sequence[Size], bits: Sequence[int]) -> str:
    said = {True: "yes", False: "no", None: "not measured yet"}
    lines = ["| asked | found | met |", "| --- | --- | --- |"]
    lines += [f"| {bar.asked} | {bar.found} | {said[bar.is_met]} |" for bar in bars(figures, budget, sizes, bits)]
    about = (
        "In the first two rows `masked` stands with the middle one of its numbers of rounds; in the third the nearest "
        "way of all stands for each size."
    )
    return "\n".join(lines) + f"\n\n{filled(about)}"


def _families_part(figures: Figures, budget: Budget, sizes: Sequence[Size], rows: Sequence[Row]) -> str:
    tables = [
        f"### {size}\n\n{table(PRIOR_COLUMNS, [row for row in rows if row['size'] == str(size)], 'frechet')}\n"
        for size in sizes
        if not is_deeper(size, sizes[0])
    ]
    has_figure = any(row["frechet"] is not None for row in rows)
    image = "\n![Fréchet distance by passes and by seconds](images/compare-priors.png)\n" if has_figure else ""
    paragraphs = (
        *(_trained_said(budget), _measured_said(budget), _cost_said()),
        *(_pyramid_said(figures, budget), _levels_said(figures)),
    )
    text = "\n\n".join(filled(paragraph) for paragraph in paragraphs)
    return f"{text}\n\n{chr(10).join(tables)}{image}\n{filled(_nearest_said(figures, rows))}\n"


def _trained_said(budget: Budget) -> str:
    taken = "; ".join(f"`{name}` is the finished model `{model}`" for name, model in budget.taken.items())
    return (
        f"All priors of a size (width x layers x heads, feed-forward four times as wide) see the same "
        f"{budget.pictures:,} pictures {_times(budget.epochs)}, as fixed tokens: nothing is flipped or shifted. "
        f"Recipes are those of the preset `{PRESET}` (`any-order`: `edit`), rates too, chosen for raster priors; "
        "warm-up and averaging suit the steps. A raster or parts prior sees the four tokens above a place in its "
        "input, one in any order and a masked one the twelve around it that are known. `parts` predicts a token in two "
        f"parts. One seed each.{f' Taken, and not trained here: {taken}.' if taken else ''}"
    )


def _times(epochs: int) -> str:
    return {1: "once", 2: "twice"}.get(epochs, f"{epochs} times")


def _measured_said(budget: Budget) -> str:
    return (
        f"{budget.samples:,} new frames of seed 0 are painted by each way (top-p {budget.top_p:g}, but for flows, "
        f"which have no choice among tokens) and judged by the {budget.valid_frames:,} valid frames, of races that "
        "none has seen: Fréchet distance in the features of the network that tells tracks apart, ± half of a 95% "
        "interval, precision and recall there. Bits a frame are those of the valid frames, ± the standard error, "
        "exact but for two: in any order they are those of raster order alone; of a masked prior they are at most so "
        f"many (≤), the mean over orders, estimated by {budget.masks} masks of each frame, for tokens painted one by "
        "one at random: painted in rounds, tokens of a round are taken as independent, of which this says nothing. A "
        "flow tells none (–). Rounds keep what is surest, with noise in confidences that fades: "
        f"{budget.confidence_noise:g}, where a row names no other, of which seconds hardly depend. Seconds are medians "
        "in alternation, for one picture and for a batch of 64, on PyTorch's path for all and by the engine where it "
        "runs a family; they compare within a size alone, for sizes were timed apart, on a machine that others share. "
        "A flow's pictures go through the network one by one."
    )


def _cost_said() -> str:
    return (
        "Passes are those of one picture through the transformer; a causal pass is of one token, a pyramid's of one "
        "scale, a masked prior's and a flow's of all tokens. GFLOP a picture are those of training: six for each "
        "product of matrices, heads and attention that is needed (a causal step sees those before it, a pyramid's its "
        "scale and those before, a masked head the masked places); seven in a flow, of whose pictures half pass "
        "through once more."
    )


def _pyramid_said(figures: Figures, budget: Budget) -> str:
    """Say in what the pyramid's tokens are others."""
    scales = budget.scales("pyramid")
    grid, pyramid = (tokenizer_row(figures, TokenizerRun(kind)) for kind in ("bsq", "pyramid"))
    said = (
        f"The pyramid is over tokens of another tokenizer: {sum(scales):,} in {len(scales)} scales where the others "
        f"have {sum(budget.scales('raster')):,}, so that its bits a frame do not compare."
    )
    if grid["psnr_db"] is None or pyramid["psnr_db"] is None:
        return said
    return (
        f"{said} Frames come back from them at {pyramid['psnr_db']:.2f} dB, from the others' at {grid['psnr_db']:.2f}. "
        f"As many real frames of other races have a Fréchet distance of {grid['real']:.2f}, the floor; through the "
        f"pyramid's tokens {pyramid['real_remade']:.2f}, through the others' {grid['real_remade']:.2f}: what a prior "
        "adds is beyond that."
    )


def _levels_said(figures: Figures) -> str:
    """Say what the flow of levels is over."""
    run = FAMILIES["flow of levels"].tokenizer()
    found = tokenizer_row(figures, run)["psnr_db"]
    return (
        f"The flow of levels is over {run.numbers} numbers a place of {2 ** (run.bits // run.numbers)} levels each, in "
        f"place of continuous latents{'' if found is None else f': frames come back from them at {found:.2f} dB'}."
    )


def _nearest_said(figures: Figures, rows: Sequence[Row]) -> str:
    """Say of each size which families are nearer to real frames than raster, and by how much others are farther."""
    said = []
    for size in dict.fromkeys(row["size"] for row in rows):
        raster = raster_of(rows, size)
        own = [row for row in rows if row["size"] == size and row["frechet"] is not None]
        others = sorted((row for row in own if row["prior"] != "raster"), key=lambda row: row["frechet"])
        if raster["frechet"] is None or not others:
            continue
        nearer = [_apart(row, raster) for row in others if row["frechet"] < raster["frechet"]]
        farther = [_apart(row, raster) for row in others if row["frechet"] >= raster["frechet"]]
        said.append(
            f"At {size}, nearer to real frames than raster ({raster['frechet']:.2f}) "
            f"{'are' if nearer else 'is none'}{': ' if nearer else ''}{'; '.join(nearer)}. "
            f"{'Farther: ' + '; '.join(farther) + '.' if farther else ''}"
        )
    return " ".join(said)


def _apart(row: Row, raster: Row) -> str:
    """Say how far a row is from raster, and whether by more than both intervals."""
    off = row["frechet"] - raster["frechet"]
    sure = "" if is_surely_apart(row, raster) else ", within the intervals"
    return f"{name_of(row).rstrip(',')} ({off:+.2f}{sure})"


def _sheets_part(figures: Figures, sizes: Sequence[Size]) -> str:
    """Return the new frames of each family, of the largest size that there is of it."""
    parts = []
    for family in FAMILIES:
        painted = [Painting(PriorRun(family, size)) for size in sizes if not is_deeper(size, sizes[0])]
        there = [run for run in painted if of_run(figures, run.name)]
        if there:
            image = Path(f"images/compare-priors-{there[-1].prior.name}.jpg")
            parts.append(f"`{family}`, {there[-1].prior.size}:\n\n![New frames of {family}]({image})\n")
    if not parts:
        return ""
    about = (
        "Pictures 0 to 7 of seed 0, none picked; under them the first two while they are painted: of a pyramid what "
        "its scales show so far, of a flow where it stands, of others what is there. A masked prior's and a flow's are "
        "by the middle one of their ways."
    )
    return f"\n### New frames\n\n{filled(about)}\n\n{chr(10).join(parts)}"


def _depth_part(budget: Budget, sizes: Sequence[Size], rows: Sequence[Row]) -> str:
    """Return how priors of the first size do with more layers; "" if none are asked for."""
    first, depths = sizes[0], [str(size) for size in sizes if is_deeper(size, sizes[0])]
    if not depths:
        return ""
    compared = [row for row in rows if row["size"] in (str(first), *depths) and row["is_usual"]]
    by_family = [row for family in DEEPER for row in compared if row["prior"] == family]
    ways = [f"`{family}` in {way.label}" for family in DEEPER if (way := budget.usual_way(family)).label]
    about = (
        f"Priors {first.width} wide, of {first.layers} layers and of more, as above but for that: as many pictures, "
        f"the same rates. Each paints by the usual way of its family, {' and '.join(ways)}."
    )
    return f"\n## Depth\n\n{filled(about)}\n\n{table(DEPTH_COLUMNS, by_family, 'frechet')}\n"


def _codebooks_part(figures: Figures, budget: Budget, size: Size, bits: Sequence[int]) -> str:
    grown = (
        f" All begin with what fits of the tokenizer of `{budget.start}`; those that grow from it, of its kind but of "
        f"more bits, learn at {GROWN_RATES:g} of the preset's rates."
        if budget.start
        else ""
    )
    tokenizers = (
        f"What the priors above and below are over: the preset `{PRESET}`'s tokenizer with other quantizers, which saw "
        f"{budget.frames:,} frames {_times(budget.tokenizer_epochs)}.{grown} Bits by counts are those of a left-and-up "
        "count model ([how](seed.md#the-prior)). The Fréchet distance of real frames of other races that went through "
        "the tokens is in the column before the last."
    )
    scratch = (
        "And to compare quantizers, the same tokenizer with each of them, from the same start and with the same "
        f"recipe, which saw those frames {_times(budget.scratch_epochs)}:"
    )
    heads = (
        f"Priors of {size} that differ in their head alone, over the tokens of `bsq` above, of as many pictures and "
        f"steps. At {' and '.join(map(str, HEAD_BITS))} bits one softmax over all codes, two parts, bit after bit, and "
        "bits that are independent of one another given the tokens before, each with a network of the same size; at "
        "more bits, two parts alone. Bits of different tokenizers mean nothing without the error beside them."
    )
    rows = tokenizer_rows(figures, bits)
    others = [tokenizer_row(figures, run) for run in tokenizers_of_families()]
    begun = [*(row for row in rows if not row["is_from_scratch"]), *others]
    return f"""### Bits and quantizers

{filled(tokenizers)}

{table(TOKENIZER_COLUMNS, begun, "psnr_db")}

{filled(scratch)}

{table(TOKENIZER_COLUMNS, [row for row in rows if row["is_from_scratch"]], "psnr_db")}

{filled(_more_bits_said(figures, budget, bits))}

### Heads

{filled(heads)}

{table(HEAD_COLUMNS, head_rows(figures, size, bits), "bits")}"""


def _more_bits_said(figures: Figures, budget: Budget, bits: Sequence[int]) -> str:
    """Say what bits give, and how far tokenizers are alike but for them."""
    by_bits = {count: tokenizer_row(figures, TokenizerRun("bsq", count))["psnr_db"] for count in bits}
    known = {count: found for count, found in by_bits.items() if found is not None}
    said = "What other numbers of bits give from scratch is in [tokenizers](tokenizers.md)."
    if len(known) < 2:
        return said
    few, most = min(known), max(known)
    told = f"{most} bits come back {known[most] - known[few]:+.2f} dB beside {few}"
    if TokenizerRun("bsq", few).name in budget.taken:
        told += f", of a finished tokenizer; new bits have seen the frames {_times(budget.tokenizer_epochs)}"
    gains = {
        kind: gained_db(figures, *(TokenizerRun(kind, count, is_from_scratch=True) for count in (BITS, max(bits))))
        for kind in ("bsq", "fsq")
    }
    found = [f"{gain:+.2f} dB with `{kind}`" for kind, gain in gains.items() if gain is not None]
    if found:
        told += f". Where both learn from scratch, {max(bits)} bits come back {' and '.join(found)} beside {BITS}"
    return f"{told}. {said}{_could_add_said(figures)}"


def _could_add_said(figures: Figures) -> str:
    """Say what more bits could give at all, where it is known."""
    gain = of_run(figures, TokenizerRun().name).get("more_bits")
    if not gain:
        return ""
    return (
        f" {MANY_BITS - BITS} bits more, each the sign of what {BITS} lose of a patch along one of its principal "
        f"directions, would give {gain['signs_db']:+.2f} dB; and codes of many patches at once, which no quantizer of "
        f"a token is, at most {gain['bound_db']:+.2f} dB, by the rate-distortion function of a Gaussian of that "
        "covariance."
    )


def summary(figures: Figures, budget: Budget, sizes: Sequence[Size], bits: Sequence[int]) -> dict[str, Any]:
    """Return everything as plain data."""
    return {
        "priors": prior_rows(figures, budget, sizes),
        "tokenizers": [
            *tokenizer_rows(figures, bits),
            *(tokenizer_row(figures, run) for run in tokenizers_of_families()),
        ],
        "heads": head_rows(figures, sizes[0], bits),
        "asked": [bar._asdict() for bar in bars(figures, budget, sizes, bits)],
        "budget": budget.to_dict(),
        "machine": machine(),
    }
