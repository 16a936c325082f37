"""From what `scaling.py` has found so far to a page and to plain data."""

from __future__ import annotations

from dataclasses import asdict
from statistics import fmean
from typing import Any

import numpy as np
from scaling_fit import LEAST_RUNS, LEAST_VALUES, interval
from scaling_plan import HALVINGS
from scaling_study import MORE, Study, rounded
from trainings import filled, machine, made_on, spread


def page(study: Study, command: str, awaited: str) -> str:
    """Return the page as Markdown. command: what makes it; awaited: the run to check against, "" if none was named."""
    scale = study.scale
    seeds = sorted({seed for _, seed in study.figures})
    done = [
        f"{sum((r.name, k) in study.figures for r in study.plan)} of {len(study.plan)} runs of seed {k}" for k in seeds
    ]
    largest = max(run.pictures for run in study.plan)
    shortest = min(run.steps(scale.batch) for run in study.plan)
    introduction = (
        "Priors of the `best` preset's recipe (four neighbours, learned positions, Muon, a cosine to the end, averaged "
        "weights; the preset's rates), but smaller, are trained on fixed tokens: nothing is flipped or shifted, and "
        "each picture is seen once. Every run is a training of its own: each size on "
        f"{largest:,} pictures and on halves of them, {HALVINGS} times, the fewer always among the more, with a "
        "warm-up of a tenth of its steps (at most the preset's) and averages over a twentieth of them. Seeds change "
        f"first weights and order, not the pictures. Batches are of {scale.batch} pictures for all, so that the "
        f"shortest runs take {shortest} steps, for which the preset's rates were not chosen."
    )
    measures = (
        "N counts the parameters that multiply: the blocks' matrices and the head's; embedding tables and positions, "
        "which are looked up, are left out. D counts the tokens trained on. C, the FLOPs of training, is 6 (N + layers "
        "x width x (h w + 1)) D: beside N, attention has two products of each channel for each of the "
        f"{(scale.picture_tokens + 1) / 2:g} keys that the mean step sees in each layer; a product is 2 FLOPs, and a "
        f"backward pass two forward ones. Bits a token are those of all {scale.valid_frames:,} valid frames, of races "
        "that none has seen, in float32 with averaged weights; seconds those of the whole training command, on a "
        "machine that may have done other work."
    )
    return f"""# Scaling

How the prior's loss falls with parameters, tokens and compute, and what more of each would give.

{filled(introduction)}

{filled(measures)}

Done: {", ".join(done) or "nothing yet"}. What is not, is missing below.

{made_on()}

{command}

## The runs

{runs_table(study)}

{_images(study)}## The fit

{_fit_part(study)}

## Ten and a hundred times the compute

{_forecast_part(study)}

## A larger run

{_check_part(study, awaited)}
"""


def _images(study: Study) -> str:
    if not study.figures:
        return ""
    return (
        "![Bits a token against tokens, for each size](images/scaling-tokens.png)\n\n"
        "![Bits a token against compute](images/scaling-compute.png)\n\n"
    )


def runs_table(study: Study) -> str:
    """Return all planned runs as a table, in Markdown; what is not done is said to be missing."""
    lines = [
        "| width x layers x heads | N | pictures | D | C, FLOPs | bits a token | by the fit | seconds |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for run in sorted(study.plan, key=lambda run: (study.scale.parameters(run.size), run.pictures)):
        parameters, tokens = study.scale.parameters(run.size), study.scale.tokens(run)
        bits = study.of_run(run, "valid_bits_token")
        cells = [
            str(run.size),
            f"{parameters:,}",
            f"{run.pictures:,}",
            f"{tokens:,}",
            f"{study.scale.flops(run):.2e}",
            spread(bits, "{:.3f}") if bits else "missing",
            f"{study.fit.law.loss(parameters, tokens):.3f}" if study.fit else "",
            f"{fmean(study.of_run(run, 'seconds')):,.0f}" if bits else "",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _fit_part(study: Study) -> str:
    law_said = (
        "L(N, D) = E + A / N^α + B / D^β ([Hoffmann et al. 2022](https://arxiv.org/abs/2203.15556), approach 3): the "
        "Huber loss of log L's residuals, at 0.001, is least."
    )
    if study.fit is None:
        lacking = (
            f"No fit yet: it has five constants, and takes {LEAST_RUNS} runs at least, of {LEAST_VALUES} sizes and "
            f"{LEAST_VALUES} lengths."
        )
        return f"{filled(law_said)}\n\n{filled(lacking)}"
    law, draws = study.fit.law, study.fit.draws
    how = (
        "Intervals hold 95% of the fits to as many runs drawn with replacement. They tell how sure the law's constants "
        "are if the law holds; that it does beyond the runs, nothing here tells. The fit is off by "
        f"{study.fit.residual:.2%} of the loss in the root mean square."
    )
    rows = [("E, bits a token", "e", "{:.3f}"), ("A", "a", "{:.3g}"), ("α", "alpha", "{:.3f}")]
    rows += [("B", "b", "{:.3g}"), ("β", "beta", "{:.3f}")]
    lines = [
        f"| {title} | {form.format(float(getattr(law, name)))} | {_range(getattr(draws, name), form)} |"
        for title, name, form in rows
    ]
    table = "\n".join(["| constant | fit | 95% |", "| --- | --- | --- |", *lines])
    return f"{filled(law_said)}\n\n{table}\n\n{filled(how)}"


def _range(draws: np.ndarray, form: str) -> str:
    return " to ".join(map(form.format, interval(draws)))


def _forecast_part(study: Study) -> str:
    if not (forecasts := study.forecasts()):
        return "No forecast without a fit."
    scale, family = study.scale, study.family
    about = (
        "The least loss for a budget, and the size and the tokens that give it, each with its 95% interval; the first "
        "row is for the dearest run's budget. Attention is taken to grow as along the sizes above: a token takes "
        f"P = N + {family.p:.3g} N^{family.q:.2f} products. At the optimum α A / N^α = β B / D^β x d log P / d log N."
    )
    lines = ["| compute | C, FLOPs | bits a token | N | D | in pictures |", "| --- | --- | --- | --- | --- | --- |"]
    for times, found in zip(MORE, forecasts, strict=True):
        low, high = found.loss
        lines.append(
            f"| {times}x | {found.flops:.2e} | {found.best.loss:.3f} ({low:.3f} to {high:.3f}) "
            f"| {rounded(found.best.parameters)} ({rounded(found.parameters[0])} to {rounded(found.parameters[1])}) "
            f"| {rounded(found.best.tokens)} ({rounded(found.tokens[0])} to {rounded(found.tokens[1])}) "
            f"| {rounded(found.best.tokens / scale.picture_tokens)} |"
        )
    pictures = f"All of them would be new pictures: {scale.frames:,} are at hand."
    return f"{filled(about)}\n\n" + "\n".join(lines) + f"\n\n{pictures}"


def _check_part(study: Study, awaited: str) -> str:
    check = study.check
    if check is None:
        return f"`{awaited}` is not finished." if awaited else "None was named: `--check RUN` does."
    measured = (
        f"`{check.name}` ({check.shape}: N = {check.parameters:,}, D = {check.tokens:,}, C = {check.flops:.2e}) needs "
        f"{check.valid_bits_token:.3f} bits a token of the same valid frames."
    )
    if study.fit is None:
        forecast = "There is no forecast without a fit."
    else:
        expected = float(study.fit.law.loss(check.parameters, check.tokens))
        low, high = interval(study.fit.draws.loss(check.parameters, check.tokens))
        off = check.valid_bits_token - expected
        place = "within" if low <= check.valid_bits_token <= high else "outside of"
        forecast = (
            f"The fit, which has not seen it, forecasts {expected:.3f} ({low:.3f} to {high:.3f}) for its N and D: it "
            f"needs {abs(off):.3f} bits, {abs(off) / expected:.1%}, {'more' if off > 0 else 'less'}, {place} the "
            "interval, which leaves out how much the valid frames themselves say. "
            f"It took {check.flops / study.largest_flops:.2g} times the compute of the dearest run above."
        )
    unlike = (
        f"Unlike the runs above, {'; '.join(check.differs)}." if check.differs else "Its recipe is that of the runs."
    )
    return f"{filled(f'{measured} {forecast} {unlike}')}\n\nIt was trained by\n\n    {check.command}"


def summary(study: Study) -> dict[str, Any]:
    """Return everything as plain data."""
    scale, runs = study.scale, {run.name: run for run in study.plan}
    rows = [
        {
            "run": name,
            "seed": seed,
            "parameters": scale.parameters(runs[name].size),
            "tokens": scale.tokens(runs[name]),
            "flops": scale.flops(runs[name]),
            **found,
        }
        for (name, seed), found in study.figures.items()
    ]
    forecasts = [
        {
            "flops": found.flops,
            "parameters": float(found.best.parameters),
            "tokens": float(found.best.tokens),
            "valid_bits_token": float(found.best.loss),
            "valid_bits_token_95": found.loss,
        }
        for found in study.forecasts()
    ]
    constants = ("e", "a", "alpha", "b", "beta")
    law = {name: float(getattr(study.fit.law, name)) for name in constants} if study.fit else None
    check = asdict(study.check) if study.check else None
    if check and study.check and study.fit:
        check["forecast"] = float(study.fit.law.loss(study.check.parameters, study.check.tokens))
        check["forecast_95"] = interval(study.fit.draws.loss(study.check.parameters, study.check.tokens))
    return {
        "runs": rows,
        "planned": len(study.plan),
        "fit": law,
        "forecasts": forecasts,
        "check": check,
        "machine": machine(),
    }
