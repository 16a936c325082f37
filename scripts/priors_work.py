"""How `compare_priors.py` does its runs: what each needs is made before it, wherever it is not there yet.

runs/compare-priors/<run>/seed-0/   run                   bisquit's own folder, of a training
                                    train.safetensors     of a tokenizer: its tokens, and those of valid frames
                                    figures.json          what was measured: it is done
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import trainings
from priors_measure import (
    Judge,
    check_taken,
    measure_bits,
    measure_times,
    measure_tokenizer,
    paint_and_judge,
    sides_of,
)
from priors_plan import GROWN_RATES, PRESET, Budget, Painting, PriorRun, Run, Timing, TokenizerRun
from scaling_plan import suited
from trainings import FIGURES_FILE, machine, nested_rows, save_json, taken, write_frames

from bisquit.evaluation import check_judgeable
from bisquit.frames import FrameSet, contact_sheet, load_frames, write_frame
from bisquit.generate import Pipeline, load, load_feature_network
from bisquit.presets import get_preset
from bisquit.tokens import TokenSet

VALIDATED_EVERY = 10  # valid frame, in training: no choice hangs on it
SHOWN, COLUMNS = 8, 4  # new frames on a sheet, and in a row of it
STAGED = 2  # of them, shown while they are painted


@dataclass(frozen=True)
class Source:
    """Frames to train on or to measure on, or as many of them as there are to be."""

    frames: str
    part: str
    count: int
    is_limited: bool

    def name(self, runs: Path) -> str:
        """Return where the frames are: a file of some of them, in the runs' folder, is made if it is not there."""
        if not self.is_limited:
            return self.frames
        path = runs / f"{self.part}-{self.count}.parquet"
        if not path.exists():
            write_frames(self.frames, nested_rows(len(load_frames(self.frames)), self.count), path)
        return str(path)


@dataclass(frozen=True)
class Work:
    """What all runs share."""

    budget: Budget
    train: Source
    valid: Source
    runs: Path
    docs: Path
    features: Path | None
    """The network that judges; None for the one that ships."""
    rounds: int
    """Of timing."""

    def folder(self, run: Run) -> Path:
        """Return where a run's files are."""
        return self.runs / run.name / "seed-0"

    def model(self, run: TokenizerRun | PriorRun) -> str | Path:
        """Return what a run leaves, or what is taken in its place."""
        return self.budget.taken.get(run.name) or self.folder(run) / "run"

    def sheet(self, run: Painting) -> Path:
        """Return where the new frames of a prior are shown."""
        return self.docs / "images" / f"compare-priors-{run.prior.name}.jpg"

    @functools.cached_property
    def valid_frames(self) -> FrameSet:
        """The frames to measure on."""
        return load_frames(self.valid.name(self.runs))

    @functools.cached_property
    def real(self) -> np.ndarray:
        """As many of the training frames as there are to be new ones."""
        frames = load_frames(self.train.name(self.runs))
        return frames[np.sort(nested_rows(len(frames), self.budget.samples))]

    @functools.cached_property
    def judge(self) -> Judge:
        """What judges new frames. Raises ConfigError or FrameError if so many cannot be judged by these."""
        network, frames = load_feature_network(self.features), load_frames(self.train.name(self.runs))
        check_judgeable(self.budget.samples, self.valid_frames, frames, network)
        return Judge(network, self.valid_frames)

    def is_done(self, run: Run) -> bool:
        """Whether a run is measured; of times, whether all are there whose models lie here.

        Times of models that do not lie here are not thrown away to time some others: one machine is to have made all.
        """
        path = self.folder(run) / FIGURES_FILE
        if not isinstance(run, Timing):
            return path.exists()
        models = [prior for prior in run.priors if self._has_model(prior)]
        here = {side.name for side in sides_of(models, self.budget, run.is_usual_alone)}
        known = set(json.loads(path.read_text())["times"]) if path.exists() else set()
        return here <= known or not known <= here

    def finish(self, run: Run) -> None:
        """Do a run, or go on with it, and keep its figures."""
        if isinstance(run, TokenizerRun):
            figures = self._finish_tokenizer(run)
        elif isinstance(run, PriorRun):
            figures = self._finish_prior(run)
        elif isinstance(run, Painting):
            figures = self._finish_painting(run)
        else:
            figures = self._finish_timing(run)
        save_json(figures, self.folder(run) / FIGURES_FILE)

    def _finish_tokenizer(self, run: TokenizerRun) -> dict[str, Any]:
        trained_s = self._train_tokenizer(run)
        print(f"measuring {run.name}", flush=True)
        tokenizer, tokens = load(self.model(run)).tokenizer, self._tokens(run, "train")
        found = measure_tokenizer(tokenizer, tokens, self.valid_frames, self.real, self.judge)
        return {**found, "seconds": trained_s}

    def _finish_prior(self, run: PriorRun) -> dict[str, Any]:
        trained_s = self._train_prior(run)
        print(f"measuring {run.name}", flush=True)
        prior = load(self.model(run)).prior
        assert prior is not None
        return {**measure_bits(prior, self._tokens(run.tokenizer, "valid"), self.budget.masks), "seconds": trained_s}

    def _finish_painting(self, run: Painting) -> dict[str, Any]:
        self._train_prior(run.prior)
        model = load(self.model(run.prior))
        found = paint_and_judge(model, run, self.budget, self.judge)
        if not run.is_usual_alone:
            self.show(run, model)
        return found

    def show(self, run: Painting, model: Pipeline) -> None:
        """Draw the sheet of a prior's new frames, and under them the first ones at a few stages, to the last."""
        settings = self.budget.sampling(run.prior.family, self.budget.usual_way(run.prior.family))
        stages: list[np.ndarray] = []
        frames = model.sample(SHOWN, seed=0, settings=settings, preview=stages.append)
        chosen = [stages[stage] for stage in np.linspace(0, len(stages) - 1, COLUMNS).round().astype(int)]
        on_their_way = np.stack(chosen, axis=1)[:STAGED].reshape(-1, *frames.shape[1:])
        write_frame(contact_sheet(np.concatenate((frames, on_their_way)), columns=COLUMNS), self.sheet(run))

    def _finish_timing(self, run: Timing) -> dict[str, Any]:
        priors = [prior for prior in run.priors if self._has_model(prior)]
        loaded = {prior: load(self.model(prior)).prior for prior in priors}
        models = {prior: model for prior, model in loaded.items() if model is not None}
        sides = sides_of(priors, self.budget, run.is_usual_alone)
        times = measure_times(sides, models, self.budget, self.rounds)
        return {"times": times, "machine": machine()}

    def _has_model(self, run: PriorRun) -> bool:
        """Whether the finished model of a run lies here."""
        is_measured = (self.folder(run) / FIGURES_FILE).exists()
        return is_measured and (run.name in self.budget.taken or (self.folder(run) / "run").exists())

    def _train_tokenizer(self, run: TokenizerRun) -> float | None:
        """Train a tokenizer, or go on with it; return the seconds of all its commands, None for one that is taken."""
        if run.name in self.budget.taken:
            return None
        return self._train(
            "tokenizer",
            run,
            *("--preset", PRESET, *run.flags, *self._start(run), "--epochs", str(self.budget.tokenizer_epochs_of(run))),
            *("--frames", self.train.name(self.runs), "--valid-frames", self.valid.name(self.runs)),
        )

    def _start(self, run: TokenizerRun) -> list[str]:
        """Return what a tokenizer begins with, and its rates if it grows from that."""
        if not self.budget.start or run.is_from_scratch:
            return []
        flags, first = ["--start", self.budget.start], load(self.budget.start).tokenizer
        if run.quantizer == first.config.quantizer.kind and run.bits > first.bits:
            recipe = get_preset(PRESET).tokenizer.training
            for name in ("learning_rate", "muon_learning_rate"):
                flags += [f"--{name.replace('_', '-')}", f"{GROWN_RATES * getattr(recipe, name):g}"]
        return flags

    def _train_prior(self, run: PriorRun) -> float | None:
        """Train a prior on the tokens of its tokenizer, likewise."""
        tokens, budget, training = self._tokens(run.tokenizer, "train"), self.budget, get_preset(PRESET).prior.training
        if run.name in budget.taken:
            check_taken(load(self.model(run)), run, tokens.tokenizer.fingerprint())
            return None
        source, valid = self.folder(run.tokenizer), self._tokens(run.tokenizer, "valid")
        pictures, shown = source / f"train-{budget.pictures}.safetensors", source / "valid-shown.safetensors"
        if not pictures.exists():
            taken(tokens, nested_rows(len(tokens), budget.pictures)).save(pictures)
        if not shown.exists():
            taken(valid, np.arange(0, len(valid), VALIDATED_EVERY)).save(shown)
        learnt: tuple[str | Path, ...] = ("--tokens", pictures)
        if "--flipped" in run.flags:  # tokens do not tell what would mend them
            frames = Source(self.train.name(self.runs), "learnt", budget.pictures, budget.pictures < len(tokens))
            learnt = ("--frames", frames.name(self.runs))
        steps = budget.epochs * max(1, budget.pictures // training.batch_size)
        return self._train(
            "prior",
            run,
            *(*run.flags, "--no-flip", "--shift-px", "0", "--epochs", str(budget.epochs)),
            *suited(steps, training.warmup_steps, training.ema_decay),
            *(*learnt, "--valid-tokens", shown),
        )

    def _train(self, stage: str, run: Run, *flags: str | Path) -> float:
        trained_s = trainings.train(stage, self.folder(run), *flags, "--seed", "0")
        (self.folder(run) / "run" / "last.ckpt").unlink(missing_ok=True)
        return trained_s

    def _tokens(self, run: TokenizerRun, part: str) -> TokenSet:
        """Return what a tokenizer, which is trained if it is not there, makes of the frames of a part."""
        path = self.folder(run) / f"{part}.safetensors"
        if not path.exists():
            self._train_tokenizer(run)
            frames = {"train": self.train, "valid": self.valid}[part].name(self.runs)
            trainings.bisquit("tokenize", "--tokenizer", self.model(run), "--frames", frames, "-o", path)
        return TokenSet.load(path)
