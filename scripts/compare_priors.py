"""Make docs/compare-priors.md: the families of priors side by side, and what larger codebooks give and cost.

    python scripts/compare_priors.py --frames 'FRAMES/train-0*.parquet' --valid-frames FRAMES/valid-00.parquet

`--dry` lists the runs and says how long they take: most of a day on two cores as it is; ten minutes, to see it all
work, with `--limit 200 --samples 70 --sizes 32x2x2 --epochs 1 --tokenizer-epochs 1 --masked-steps 4,8 --euler-steps 4`
and other `--runs` and `--docs`. `--part` and `--only` choose, and what is left out is gone on with later.

Every training is a `bisquit` command, printed before it runs; what is done already is not done again, a training that
was interrupted goes on, and the page is written anew after each run, from what there is. Beside it lies
docs/compare-priors.json with all figures, from which another checkout goes on. `--take NAME=MODEL` takes a finished
model in place of a run, and one that ships under a run's name is taken by itself. The last line is one JSON object with
a row for each prior, size and way to paint.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import trainings
from priors_cost import seconds
from priors_page import page, summary
from priors_plan import FAMILIES, PARTS, Budget, Run, plan
from priors_plot import plot
from priors_work import Source, Work
from scaling_plan import Size
from trainings import (
    Figures,
    gather,
    hold_to,
    keep_record,
    parquet_files,
    recall,
    require_counts,
    study_parser,
    work_through,
)

from bisquit.atomic import atomic_file
from bisquit.errors import BisquitError
from bisquit.frames import load_frames
from bisquit.generate import load, load_feature_network, shipped_models
from bisquit.sampling import SamplingConfig

T = TypeVar("T")

SIZES = (Size(128, 4, 4), Size(192, 6, 4))


def main() -> None:
    """Do run after run, and write the page after each."""
    options = parse()
    runs = planned(options)
    work = prepare(options)
    estimates = [seconds(run, work.budget, options.rounds) for run in runs]
    for run, estimate in zip(runs, estimates, strict=True):
        print(f"{run.name}: {'taken' if run.name in work.budget.taken else f'about {estimate / 60:.1f} min'}")
    print(f"{len(runs)} runs, about {sum(estimates) / 3600:.1f} hours", flush=True)
    if options.plan:
        return
    hold_to(work.budget.to_dict(), work.runs)
    recall(work.docs / "compare-priors.json", work.budget.to_dict(), work.runs)
    write(work, options)
    failed = work_through(
        runs,
        1,
        options.hours,
        is_done=lambda run, _: work.is_done(run),
        finish=lambda run, _: work.finish(run),
        write=lambda _: write(work, options),
    )
    print(json.dumps(summary(gather(work.runs), work.budget, options.sizes, options.bits)), flush=True)
    sys.exit(1 if failed else 0)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = study_parser(__doc__, "compare-priors")
    parser.add_argument("--features", type=Path, help="the network that judges new frames; else the one that ships")
    chosen = parser.add_argument_group("what is compared")
    chosen.add_argument("--part", action="append", choices=PARTS, help="this part alone; may be repeated")
    chosen.add_argument(
        "--only", action="append", choices=list(FAMILIES), help="this family, beside raster, alone; may be repeated"
    )
    sizes = ",".join(map(str, SIZES))
    chosen.add_argument(
        "--sizes",
        type=_list_of(Size.of),
        default=SIZES,
        help=f"of all families, as width x layers x heads; {sizes} by default",
    )
    chosen.add_argument(
        "--depths", type=_list_of(int), default=(), help="and the first size with so many layers, as 6,12"
    )
    chosen.add_argument("--bits", type=_list_of(int), default=(10, 12, 16), help="of a token, in the codebooks part")
    chosen.add_argument("--masked-steps", type=_list_of(int), default=(8, 16, 32), help="rounds of the masked family")
    chosen.add_argument(
        "--masked-noise",
        type=_list_of(float),
        default=(4.5,),
        help="confidence noises that the middle number is tried with too",
    )
    usual = SamplingConfig().confidence_noise
    chosen.add_argument("--confidence-noise", type=float, default=usual, help=f"of all other rounds; {usual:g}")
    chosen.add_argument("--euler-steps", type=_list_of(int), default=(8, 16), help="steps of flows, by Euler's way")
    chosen.add_argument("--heun-steps", type=_list_of(int), default=(8,), help="steps of flows, by Heun's way")
    chosen.add_argument("--top-p", type=float, default=0.95, help="of all families that choose among tokens")
    chosen.add_argument(
        "--take", action="append", default=[], metavar="NAME=MODEL", help="a finished model in place of that run"
    )
    spent = parser.add_argument_group("how much is spent")
    spent.add_argument("--limit", type=int, help="frames to train on, and as many to measure on, at most")
    spent.add_argument("--pictures", type=int, help="pictures that a prior is trained on; all frames if not given")
    spent.add_argument("--epochs", type=int, default=2, help="how often a prior sees them")
    spent.add_argument("--tokenizer-epochs", type=int, default=2, help="epochs of every tokenizer")
    spent.add_argument("--scratch-epochs", type=int, default=2, help="epochs of tokenizers that learn from scratch")
    spent.add_argument(
        "--start", default="", help="a model whose tokenizer all tokenizers begin with, as far as it fits"
    )
    spent.add_argument("--samples", type=int, default=1000, help="new frames that are judged")
    spent.add_argument("--masks", type=int, default=4, help="of each valid frame, for the bound of the masked family")
    spent.add_argument("--rounds", type=int, default=3, help="of timing 64 pictures; three times as many of one")
    spent.add_argument("--hours", type=float, default=float("inf"), help="start no run after so many hours")
    parser.add_argument(
        "--plan", "--dry", dest="plan", action="store_true", help="list the runs and how long they take, and stop"
    )
    options = parser.parse_args()
    require_counts(parser, options, "limit", "pictures", "samples", "masks", "rounds")
    require_counts(parser, options, "epochs", "tokenizer_epochs", "scratch_epochs")
    first = options.sizes[0]
    deep = [Size(first.width, depth, first.heads) for depth in options.depths]
    options.sizes = tuple(dict.fromkeys((*options.sizes, *deep)))
    return options


def _list_of(kind: Callable[[str], T]) -> Callable[[str], tuple[T, ...]]:
    """Return what reads some that are separated by commas."""

    def listed(text: str) -> tuple[T, ...]:
        return tuple(map(kind, text.split(",")))

    return listed


def planned(options: argparse.Namespace) -> list[Run]:
    """Return the runs that are asked for."""
    return plan(options.part or PARTS, options.only or list(FAMILIES), options.sizes, options.bits)


def prepare(options: argparse.Namespace) -> Work:
    """Look at what was given. Exits with 1 if it does not fit together."""
    frames, valid_frames = load_frames(options.frames), load_frames(options.valid_frames)
    if options.limit and not all(parquet_files(source) for source in (options.frames, options.valid_frames)):
        sys.exit("--limit takes some frames of Parquet files, and these do not lie in such")
    count, valid_count = (min(len(one), options.limit or len(one)) for one in (frames, valid_frames))
    pictures = options.pictures or count
    if pictures > count:
        sys.exit(f"--pictures is {pictures}: there are {count} frames")
    budget = Budget(
        frames=count,
        valid_frames=valid_count,
        height=frames.height,
        width=frames.width,
        pictures=pictures,
        epochs=options.epochs,
        tokenizer_epochs=options.tokenizer_epochs,
        start=options.start,
        taken=taken_models(options.take, plan(PARTS, list(FAMILIES), options.sizes, options.bits)),
        samples=options.samples,
        top_p=options.top_p,
        masks=options.masks,
        masked_steps=options.masked_steps,
        euler_steps=options.euler_steps,
        heun_steps=options.heun_steps,
        masked_noises=options.masked_noise,
        confidence_noise=options.confidence_noise,
        scratch_epochs=options.scratch_epochs,
        judge=load_feature_network(options.features).fingerprint() if options.features else "",
    )
    is_limited = options.limit is not None
    train = Source(options.frames, "train", count, is_limited)
    valid = Source(options.valid_frames, "valid", valid_count, is_limited)
    return Work(budget, train, valid, options.runs, options.docs, options.features, options.rounds)


def taken_models(given: Sequence[str], runs: Sequence[Run]) -> dict[str, str]:
    """Return the finished models by the names of the runs in whose place they are taken.

    given: as NAME=MODEL, beside which those are taken that ship under a run's name. Exits with 1 for a name of no run;
    raises ModelError if there is no such model.
    """
    names = [run.name for run in runs]
    taken = {name: name for name in names if name in shipped_models()}
    for text in given:
        name, _, model = text.partition("=")
        if name not in names:
            sys.exit(f"--take {text}: there is no run {name}; the runs are {', '.join(names)}")
        load(model)
        taken[name] = model
    return taken


def write(work: Work, options: argparse.Namespace) -> None:
    """Draw the figure and write the page and all figures, from what there is."""
    figures: Figures = gather(work.runs)
    plot(figures, work.budget, options.sizes, work.docs / "images" / "compare-priors.png")
    text = page(figures, work.budget, options.sizes, options.bits, command(options, work.budget))
    with atomic_file(work.docs / "compare-priors.md") as partial:
        partial.write_text(text)
    keep_record(work.docs / "compare-priors.json", work.budget.to_dict(), work.runs)


def command(options: argparse.Namespace, budget: Budget) -> str:
    """Return the command that makes the page, as the page says it."""
    frames, valid_frames = Path(options.frames).name, Path(options.valid_frames).name
    counts = (
        "pictures",
        "epochs",
        "tokenizer_epochs",
        "scratch_epochs",
        "samples",
        "top_p",
        "masks",
        "confidence_noise",
    )
    numbers = {name: getattr(budget, name) for name in counts}
    names = ("sizes", "bits", "masked_steps", "masked_noise", "euler_steps", "heun_steps")
    lists = {name: getattr(options, name) for name in names}
    words = [f"--{name.replace('_', '-')} {value}" for name, value in numbers.items()]
    words += [f"--{name.replace('_', '-')} {','.join(map(str, values))}" for name, values in lists.items()]
    words += [f"--rounds {options.rounds}"]
    words += [f"--features {options.features.name}"] if options.features else []
    words += [f"--limit {options.limit}"] if options.limit else []
    words += [f"--start {shlex.quote(budget.start)}"] if budget.start else []
    words += [f"--take {shlex.quote(f'{name}={model}')}" for name, model in budget.taken.items() if name != model]
    flags = " \\\n        ".join(textwrap.wrap(" ".join(words), width=100, break_on_hyphens=False))
    return (
        f"    python scripts/compare_priors.py --frames 'FRAMES/{frames}' \\\n"
        f"        --valid-frames 'FRAMES/{valid_frames}' \\\n        {flags}"
    )


if __name__ == "__main__":
    try:
        main()
    except (BisquitError, trainings.CommandFailedError) as error:
        sys.exit(str(error))
