"""Make docs/ablations.md: one thing of the `seed` preset varied at a time, on a small budget, with several seeds.

    python scripts/ablations.py --frames 'FRAMES/train-0*.parquet' --valid-frames FRAMES/valid-00.parquet

Three to four hours a seed on two cores; `--plan` lists the runs and says how long they take. Seed 0 comes first, cheap
runs before dear ones. Every training is a `bisquit` command, printed before it runs; what is done already is not done
again, a training that was interrupted goes on, and the page is written anew after each run, from what there is. Beside
it lies docs/ablations.json with all figures, from which another checkout goes on. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import trainings
from ablation_page import page, plot, summary
from ablation_plan import AXES, TRAIN_PICK, Budget, PriorRun, Run, TokenizerRun, chosen_rows, plan
from trainings import (
    FIGURES_FILE,
    CommandFailedError,
    gather,
    hold_to,
    keep_record,
    parquet_files,
    recall,
    require_counts,
    save_json,
    study_parser,
    taken,
    work_through,
    write_frames,
)

from bisquit.atomic import atomic_file
from bisquit.errors import BisquitError
from bisquit.evaluation import CountModel, likelihood
from bisquit.frames import load_frames
from bisquit.generate import load
from bisquit.priors import SequentialPrior
from bisquit.tokens import TokenSet

VALIDATED_EVERY = 10  # valid frame, in training: no choice hangs on it
BATCH = 32


@dataclass(frozen=True)
class Work:
    """What all runs share."""

    frames: str
    valid_frames: str
    runs: Path
    docs: Path
    seeds: int
    budget: Budget
    from_parquet: bool

    def folder(self, run: Run, seed: int) -> Path:
        """Return where a run's files are: `run` is bisquit's own, its figures and tokens lie beside that."""
        return self.runs / run.name / f"seed-{seed}"

    @property
    def record(self) -> Path:
        """Where all figures are kept."""
        return self.docs / "ablations.json"

    def is_done(self, run: Run, seed: int) -> bool:
        """Whether a run is trained and measured."""
        return (self.folder(run, seed) / FIGURES_FILE).exists()


def main() -> None:
    """Do run after run, and write the page after each."""
    options = parse()
    frames, valid_frames = load_frames(options.frames), load_frames(options.valid_frames)
    budget = Budget(len(frames), len(valid_frames), options.pictures or len(frames), options.tokenizer_epochs)
    from_parquet = bool(parquet_files(options.frames))
    work = Work(options.frames, options.valid_frames, options.runs, options.docs, options.seeds, budget, from_parquet)
    runs = plan(options.only or AXES, budget, from_parquet)
    if not from_parquet:
        print("the frames do not lie in Parquet files: the augmentation axis is left out")
    for run in runs:
        print(f"{run.name}: about {budget.seconds(run) / 60:.0f} min a seed")
    print(f"{len(runs)} runs, about {sum(map(budget.seconds, runs)) / 3600:.1f} hours a seed", flush=True)
    if options.plan:
        return
    hold_to(asdict(budget), work.runs)
    recall(work.record, asdict(budget), work.runs)
    write(work, list(AXES))
    failed = work_through(
        runs,
        options.seeds,
        options.hours,
        is_done=work.is_done,
        finish=lambda run, seed: finish(run, seed, work),
        write=lambda run: write(work, axes_of(run)),
    )
    print(json.dumps(summary(gather(work.runs), budget)), flush=True)
    sys.exit(1 if failed else 0)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = study_parser(__doc__, "ablations")
    parser.add_argument("--seeds", type=int, default=2, help="how many seeds, from 0 on")
    parser.add_argument(
        "--pictures", type=int, help="pictures that a prior sees; as many as there are frames if not given"
    )
    parser.add_argument("--tokenizer-epochs", type=int, default=2, help="epochs of every tokenizer")
    parser.add_argument("--only", action="append", choices=list(AXES), help="run this axis alone; may be repeated")
    parser.add_argument("--hours", type=float, default=float("inf"), help="start no run after so many hours")
    parser.add_argument("--plan", action="store_true", help="list the runs and how long they take, and stop")
    options = parser.parse_args()
    require_counts(parser, options, "seeds", "pictures", "tokenizer_epochs")
    return options


def axes_of(run: Run) -> list[str]:
    """Return the axes on which a run has a point, its own or one over it."""
    return [name for name, axis in AXES.items() if any(run in (p.run, p.tokenizer) for p in axis.points)]


def finish(run: Run, seed: int, work: Work) -> None:
    """Train a run, or go on with it, measure it, and keep its figures; its training's state is then removed."""
    if isinstance(run, TokenizerRun):
        figures = finish_tokenizer(run, seed, work)
    else:
        figures = finish_prior(run, seed, work)
    folder = work.folder(run, seed)
    save_json(figures, folder / FIGURES_FILE)
    (folder / "run" / "last.ckpt").unlink(missing_ok=True)


def train_seeded(stage: str, run: Run, seed: int, work: Work, *data: str | Path) -> float:
    """Train a run to its end; return the seconds of all its commands together."""
    epochs = work.budget.epochs(run)
    return trainings.train(
        stage,
        work.folder(run, seed),
        *("--preset", "seed", *data, *run.flags, "--epochs", str(epochs[-1])),
        *("--snapshot-epochs", ",".join(map(str, epochs)), "--seed", str(seed)),
    )


def epoch_folder(run: Run, seed: int, work: Work, epoch: int) -> Path:
    """Return the folder of a run's model as it was after an epoch, which need not be the one with the lowest loss."""
    return work.folder(run, seed) / "run" / f"epoch-{epoch:02d}"


def finish_tokenizer(run: TokenizerRun, seed: int, work: Work) -> dict[str, Any]:
    """Return the figures of a tokenizer, trained; its tokens of all frames lie in its folder."""
    seconds = train_seeded("tokenizer", run, seed, work, "--frames", work.frames, "--valid-frames", work.valid_frames)
    folder, model = work.folder(run, seed), epoch_folder(run, seed, work, work.budget.tokenizer_epochs)
    for part, frames in (("train", work.frames), ("valid", work.valid_frames)):
        if not (folder / f"{part}.safetensors").exists():
            trainings.bisquit(
                "tokenize", "--tokenizer", model, "--frames", frames, "-o", folder / f"{part}.safetensors"
            )
    evaluation = folder / "evaluation.json"
    trainings.bisquit(
        *("evaluate", "--model", model, "--frames", work.valid_frames),
        *("--count-tokens", folder / "train.safetensors", "--json", evaluation),
    )
    measured = json.loads(evaluation.read_text())
    kept = {name: measured[name] for name in ("mse", "psnr_db", "ssim", "codes", "codes_used", "joint_entropy_bits")}
    return {**kept, "count_bits": measured["count_baseline_bits_per_image"], "seconds": seconds}


def finish_prior(run: PriorRun, seed: int, work: Work) -> dict[str, Any]:
    """Return the figures of a prior, trained on the tokens of its tokenizer."""
    source = work.folder(run.tokenizer, seed)
    if not work.is_done(run.tokenizer, seed):  # it failed
        raise CommandFailedError(f"{run.tokenizer.name} is not there")
    if not (source / "valid.safetensors").exists():  # only its figures are, and stay
        finish_tokenizer(run.tokenizer, seed, work)
    tokens, valid = (TokenSet.load(source / f"{part}.safetensors") for part in ("train", "valid"))
    rows = chosen_rows(len(tokens), run.percent)
    shown = source / "valid-shown.safetensors"
    if not shown.exists():
        taken(valid, np.arange(0, len(valid), VALIDATED_EVERY)).save(shown)
    seconds = train_seeded(
        "prior", run, seed, work, *training_data(run, source, tokens, rows, work), "--valid-tokens", shown
    )
    pick = taken(tokens, chosen_rows(len(tokens), 10)[:TRAIN_PICK])  # every share has them
    epochs = {}
    for epoch in work.budget.epochs(run):
        model = epoch_folder(run, seed, work, epoch)
        print(f"measuring {model}", flush=True)
        epochs[str(epoch)] = bits(model, valid, pick)
    counted = json.loads((source / FIGURES_FILE).read_text())["count_bits"]
    if run.percent < 100:
        counts = CountModel.fit(tokens.tokens[rows], tokens.tokenizer.codebook_size)
        counted = float(counts.bits(valid.tokens).mean())
    return {"epochs": epochs, "count_bits": counted, "seconds": seconds}


def bits(model: Path, valid: TokenSet, pick: TokenSet) -> dict[str, float | None]:
    """Return the bits an image that a model's prior needs for valid and for training tokens."""
    prior = load(model).prior
    assert isinstance(prior, SequentialPrior)
    of_valid = likelihood(prior, valid.tokens, BATCH, groups=valid.groups)
    return {
        "valid_bits": of_valid.bits_per_image,
        "valid_bits_stderr": of_valid.bits_per_image_stderr,
        "train_bits": likelihood(prior, pick.tokens, BATCH).bits_per_image,
    }


def training_data(
    run: PriorRun, source: Path, tokens: TokenSet, rows: np.ndarray, work: Work
) -> tuple[str | Path, ...]:
    """Return the flag for what a prior is trained on, and its file, which is made if it is not there.

    source: the tokenizer's folder; rows: which frames. Tokens are laid out to the whole budget, each frame as often as
    any other, so that one epoch of the file is the budget to the picture, however many passes over the frames that is.
    """
    if run.augmented:
        path = work.runs / f"frames-{run.percent}-percent.parquet"
        if not path.exists():
            write_frames(work.frames, rows, path)
        return "--frames", path
    laid_out = "frames" if run.epochs else "budget"
    path = source / f"train-{run.percent}-percent-{laid_out}.safetensors"
    if not path.exists():
        taken(tokens, rows if run.epochs else np.resize(rows, work.budget.pictures)).save(path)
    return "--tokens", path


def write(work: Work, axes: list[str]) -> None:
    """Draw some axes and write the page, from what there is."""
    figures = gather(work.runs)
    for name in axes:
        plot(AXES[name], figures, work.docs / "images" / f"ablations-{name}.png")
    budget = work.budget
    command = (
        f"python scripts/ablations.py --frames 'FRAMES/{Path(work.frames).name}' \\\n"
        f"        --valid-frames FRAMES/{Path(work.valid_frames).name} \\\n"
        f"        --pictures {budget.pictures} --tokenizer-epochs {budget.tokenizer_epochs} --seeds {work.seeds}"
    )
    text = page(figures, budget, plan(AXES, budget, work.from_parquet), command, work.from_parquet)
    with atomic_file(work.docs / "ablations.md") as partial:
        partial.write_text(text)
    keep_record(work.record, asdict(budget), work.runs)


if __name__ == "__main__":
    try:
        main()
    except BisquitError as error:
        sys.exit(str(error))
