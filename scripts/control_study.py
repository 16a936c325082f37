"""Make docs/control.md: whether a model paints what it is asked for, by class and in words, and what guidance does.

    python scripts/control_study.py --model told --valid-frames FRAMES/valid-00.parquet

Half an hour on two cores. A network that knows the tracks says which one it sees in each picture. Figures are measured
once for a model and kept in --runs. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from trainings import filled, machine, made_on, save_json

from bisquit.atomic import atomic_file
from bisquit.captions import load_captions
from bisquit.engine import Precision
from bisquit.evaluation.frechet import frechet_distance
from bisquit.evaluation.generation import described
from bisquit.evaluation.neighbours import manifold
from bisquit.features import FeatureNetwork
from bisquit.frames import FrameSet, contact_sheet, load_frames, spread, write_frame
from bisquit.generate import Pipeline, load, load_feature_network
from bisquit.sampling import SamplingConfig

ROOT = Path(__file__).resolve().parent.parent
IMAGES = ROOT / "docs" / "images"
SCALES = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
SCHEDULES = ("linear", "cosine")
STRONG = 3.0
"""Guidance that schedules lead up to; and, beside the best, for prompts: words leave some doubt."""
TOP_P = 0.95
PRECISION: Precision = "int8"
SHOWN_CLASSES = 5
Figures = dict[str, float]


@dataclass(frozen=True)
class Study:
    """What all figures are of."""

    model: Pipeline
    network: FeatureNetwork
    real: np.ndarray
    """Frames of races that the model has not seen, as many of each class, uint8 (N, H, W, 3)."""
    runs: Path

    def kept(self, name: str, measure: Any) -> Figures:
        """Return figures, measured if they are not there yet."""
        path = self.runs / f"{name}.json"
        if not path.exists():
            print(f"measuring {name}", flush=True)
            save_json(measure(), path)
        found: Figures = json.loads(path.read_text())
        return found


def main() -> None:
    """Paint, measure, draw, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="a model that knows the tracks, and words for them")
    parser.add_argument("--valid-frames", required=True, help="frames of races that it has not seen")
    parser.add_argument("--per-class", type=int, default=25, help="pictures of each track for each setting")
    parser.add_argument("--per-prompt", type=int, default=5, help="pictures of each prompt")
    parser.add_argument("--captions", default="supertuxkart", help="the table that it learnt words from")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "control", help="where figures are kept")
    options = parser.parse_args()
    model = load(options.model)
    assert model.prior is not None
    network, valid = load_feature_network(), load_frames(options.valid_frames)
    folder = options.runs / f"{model.prior.fingerprint()}-{options.per_class}-{options.per_prompt}"
    study = Study(model, network, balanced(valid, options.per_class), folder)
    figures: dict[str, Figures] = {"valid frames": study.kept("valid", lambda: seen(network, valid))}
    for scale in SCALES:
        settings = SamplingConfig(top_p=TOP_P, guidance=scale)
        figures[f"guidance {scale:g}"] = study.kept(
            f"class-{scale:g}", lambda settings=settings: by_class(study, settings, options.per_class)
        )
    best = min(SCALES, key=lambda scale: figures[f"guidance {scale:g}"]["frechet_track"])
    for schedule in SCHEDULES:
        settings = SamplingConfig(top_p=TOP_P, guidance=STRONG, guidance_schedule=schedule)
        figures[f"guidance {STRONG:g}, {schedule}"] = study.kept(
            f"class-{STRONG:g}-{schedule}", lambda settings=settings: by_class(study, settings, options.per_class)
        )
    captions = load_captions(options.captions)
    tables = {"held back": captions.held_back, "learnt": learnt_like(captions.learnt, captions.held_back)}
    for name, scale in itertools.product(tables, dict.fromkeys((best, STRONG))):
        settings = SamplingConfig(top_p=TOP_P, guidance=scale)
        figures[f"prompts {name}, guidance {scale:g}"] = study.kept(
            f"prompts-{name}-{scale:g}",
            lambda table=tables[name], settings=settings: by_prompt(study, settings, table, options.per_prompt),
        )
    settings, in_words = (SamplingConfig(top_p=TOP_P, guidance=scale) for scale in (best, STRONG))
    draw_curve(figures, IMAGES / "control-guidance.png")
    write_frame(classes_sheet(model, settings), IMAGES / "control-classes.jpg")
    prompts = shown_prompts(captions.held_back)
    write_frame(prompts_sheet(model, in_words, list(prompts.values())), IMAGES / "control-prompts.jpg")
    with atomic_file(ROOT / "docs" / "control.md") as partial:
        partial.write_text(page(figures, best, prompts, options))
    print(json.dumps({"figures": figures, "best_guidance": best, "machine": machine()}))


def balanced(frames: FrameSet, per_class: int) -> np.ndarray:
    """Return so many frames of each class, evenly out of its own."""
    rows = [np.flatnonzero(frames.labels == label) for label in range(len(frames.classes))]
    return frames[np.concatenate([of[spread(per_class, len(of))] for of in rows])]


def seen(network: FeatureNetwork, frames: FrameSet) -> Figures:
    """Return in how many of real frames the network sees their class."""
    _, classes = described(network, frames)  # type: ignore[arg-type]  # a set of frames is as good as an array
    wanted = np.array([network.classes.index(name) for name in frames.classes])[frames.labels]
    return {"accuracy": float((classes.numpy() == wanted).mean()), "pictures": float(len(frames))}


def by_class(study: Study, settings: SamplingConfig, per_class: int) -> Figures:
    """Return how pictures of all classes look."""
    asked = [name for name in study.model.conditions.classes for _ in range(per_class)]
    frames = study.model.sample(len(asked), seed=0, settings=settings, class_name=asked, precision=PRECISION)
    features, classes = described(study.network, frames)
    real, _ = described(study.network, study.real)
    spread = manifold(features, real)
    return {
        "accuracy": accuracy(study.network, classes.numpy(), asked),
        "frechet_track": frechet_distance(features, real),
        "precision": spread.precision,
        "recall": spread.recall,
        "pictures": float(len(asked)),
    }


def by_prompt(study: Study, settings: SamplingConfig, table: Mapping[str, Sequence[str]], per_prompt: int) -> Figures:
    """Return in how many of pictures by prompts the network sees the class that the prompt describes."""
    pairs = [(name, text) for name, texts in table.items() for text in texts for _ in range(per_prompt)]
    frames = study.model.sample(
        len(pairs), seed=1, settings=settings, prompt=[text for _, text in pairs], precision=PRECISION
    )
    _, classes = described(study.network, frames)
    asked = [name for name, _ in pairs]
    return {"accuracy": accuracy(study.network, classes.numpy(), asked), "pictures": float(len(pairs))}


def accuracy(network: FeatureNetwork, classes: np.ndarray, asked: Sequence[str]) -> float:
    """Return the share of pictures in which the network sees what was asked for."""
    return float(np.mean([network.classes[found] == name for found, name in zip(classes, asked, strict=True)]))


def learnt_like(learnt: Mapping[str, Sequence[str]], held_back: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Return as many learnt sentences of each class as are held back, evenly out of all."""
    return {
        name: [sentences[i] for i in np.linspace(0, len(sentences) - 1, len(held_back[name])).astype(int)]
        for name, sentences in learnt.items()
    }


def shown_prompts(held_back: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Return a prompt for each of a few classes."""
    names = sorted(held_back)[:: -(-len(held_back) // SHOWN_CLASSES)]
    return {name: held_back[name][0] for name in names}


def classes_sheet(model: Pipeline, settings: SamplingConfig) -> np.ndarray:
    """Return a picture of each class, in their order."""
    names = model.conditions.classes
    return contact_sheet(
        model.sample(len(names), seed=2, settings=settings, class_name=list(names), precision=PRECISION), columns=5
    )


def prompts_sheet(model: Pipeline, settings: SamplingConfig, prompts: Sequence[str], columns: int = 5) -> np.ndarray:
    """Return a row of pictures for each prompt."""
    asked = [prompt for prompt in prompts for _ in range(columns)]
    return contact_sheet(
        model.sample(len(asked), seed=3, settings=settings, prompt=asked, precision=PRECISION), columns=columns
    )


def draw_curve(figures: Mapping[str, Figures], path: Path) -> None:
    """Draw accuracy and distance against guidance."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(1, 3, figsize=(12, 3.4))
    for panel, (measure, title) in zip(
        panels,
        (
            ("accuracy", "right track"),
            ("frechet_track", "Fréchet distance in track features"),
            ("recall", "recall and precision"),
        ),
        strict=True,
    ):
        values = [figures[f"guidance {scale:g}"] for scale in SCALES]
        panel.plot(SCALES, [of[measure] for of in values], "o-", color="#4c72b0", label=measure)
        if measure == "recall":
            panel.plot(SCALES, [of["precision"] for of in values], "o-", color="#dd8452", label="precision")
            panel.legend(frameon=False)
        panel.set(xlabel="guidance", title=title)
        panel.grid(alpha=0.3)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def page(figures: Mapping[str, Figures], best: float, prompts: Mapping[str, str], options: argparse.Namespace) -> str:
    """Return the page as Markdown."""
    of_guidance = {
        name.removeprefix("guidance "): found for name, found in figures.items() if name.startswith("guidance")
    }
    rows = "\n".join(
        "| {} | {accuracy:.1%} | {frechet_track:.2f} | {precision:.3f} | {recall:.3f} |".format(name, **found)
        for name, found in of_guidance.items()
    )
    valid = figures["valid frames"]
    said = {
        (name, scale): figures[f"prompts {name}, guidance {scale:g}"]
        for name in ("held back", "learnt")
        for scale in dict.fromkeys((best, STRONG))
    }
    by_words = "\n".join(
        f"| {name} | {scale:g} | {of['pictures']:,.0f} | {of['accuracy']:.1%} |" for (name, scale), of in said.items()
    )
    about = filled(
        f"`{options.model}` is asked for each of the tracks, {options.per_class} pictures of each, and a network that "
        f"was trained on real frames says which track it sees; of {valid['pictures']:,.0f} frames of races that "
        f"neither has seen, it is right in {valid['accuracy']:.2%}. Guidance goes from what the model would paint "
        "untold, 0, to what it paints when told, 1, and on. Distances are to as many real frames of each track. "
        f"Pictures are nearest to real ones, as a whole, at guidance {best:g}; beyond, more of them are of the track "
        "that was asked for, and they are less various."
    )
    words = filled(
        "By sentences in place of classes: phrasings that neither the prior nor what reads words has learnt from, and "
        "as many of those that they have. A sentence is read as the chance of each track, which the prior is then told."
    )
    listed = "\n".join(f'- "{prompt}" (of {name})' for name, prompt in prompts.items())
    return f"""# Asking for pictures

Frames in all pictures: SuperTuxKart and its contributors, [supertuxkart.net](https://supertuxkart.net), CC BY-SA 4.0.

{about}

{made_on()}

    python scripts/control_study.py --model {options.model} --valid-frames FRAMES/{Path(options.valid_frames).name} \\
        --per-class {options.per_class} --per-prompt {options.per_prompt}

| guidance | right track | Fréchet distance | precision | recall |
| --- | --- | --- | --- | --- |
{rows}

All in whole numbers and with top-p {TOP_P:g}; guidance is the same for all tokens, but for the last rows, where it
grows from 1.

![What guidance does](images/control-guidance.png)

One picture of each track, none picked, in the order of their names:

![Tracks](images/control-classes.jpg)

## Words

{words}

| sentences | guidance | pictures | right track |
| --- | --- | --- | --- |
{by_words}

A row of pictures for each of these, held back, at guidance {STRONG:g}, none picked:

{listed}

![Prompts](images/control-prompts.jpg)
"""


if __name__ == "__main__":
    main()
