"""Make docs/editing.md: holes in frames that no model has seen, filled by models and by what needs none.

    python scripts/editing_study.py --valid-frames FRAMES/valid-00.parquet --any-order edit --raster best

Half an hour on two cores. A hole of 40 x 60 pixels in the middle is filled by an any-order prior, by the same prior
kept to raster order, where it sees nothing below and right of what it paints, and by a raster prior; each once and with
the best of eight; by OpenCV's two ways, by the smoothest surface and by the mean colour of the rest. The last line is
one JSON object.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from trainings import filled, machine, made_on

from bisquit.atomic import atomic_file
from bisquit.editing import EditConfig, Editor, blended
from bisquit.evaluation.frechet import frechet_distance
from bisquit.evaluation.generation import described
from bisquit.features import FeatureNetwork
from bisquit.frames import contact_sheet, load_frames, spread, write_frame
from bisquit.generate import Pipeline, load, load_feature_network
from bisquit.membrane import membrane
from bisquit.priors import AnyOrderPrior
from bisquit.sampling import SamplingConfig

ROOT = Path(__file__).resolve().parent.parent
HOLE = (40, 60)  # pixels, down and across
RADIUS = 3  # pixels that OpenCV looks at around each
SHOWN = 6
SAMPLING = SamplingConfig(top_p=0.95)
CANDIDATES = (1, 8)
MODELS = ("any-order prior", "kept to raster order", "raster prior")
GREY = 128
Fill = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""From frames, uint8 (N, H, W, 3), and a mask, bool (H, W), to frames that are filled there."""
Figures = dict[str, float]


def main() -> None:
    """Fill, measure, draw, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--valid-frames", required=True, help="frames that no model has seen")
    parser.add_argument("--count", type=int, default=500, help="how many of them, evenly spread")
    parser.add_argument("--any-order", default="edit", help="the model that is to be good")
    parser.add_argument("--raster", default="best", help="the model that it is compared with")
    options = parser.parse_args()
    valid = load_frames(options.valid_frames)
    frames = valid[spread(options.count, len(valid))]
    mask = hole(frames.shape[1], frames.shape[2])
    network = load_feature_network()
    itself = measure(frames, frames, mask, network)
    figures: dict[str, Figures] = {"the frames themselves": {**itself, "unblended_step": itself["edge_step"]}}
    shown = [np.where(mask[..., None], GREY, frames[:: -(-len(frames) // SHOWN)]).astype(np.uint8)]
    for name, fill in ways(options.any_order, options.raster).items():
        print(f"filling {len(frames)} holes: {name}", flush=True)
        painted = fill(frames, mask)
        done = blended(frames, painted, mask) if name.startswith(MODELS) else painted
        pasted = np.where(mask[..., None], painted, frames)
        figures[name] = {**measure(done, frames, mask, network), "unblended_step": edge_step(pasted, mask)}
        shown.append(done[:: -(-len(frames) // SHOWN)])
    write_frame(contact_sheet(np.concatenate(shown), columns=len(shown[0])), ROOT / "docs" / "images" / "editing.jpg")
    with atomic_file(ROOT / "docs" / "editing.md") as partial:
        partial.write_text(page(figures, options))
    print(json.dumps({"frames": len(frames), "figures": figures, "machine": machine()}))


def hole(height: int, width: int) -> np.ndarray:
    """Return the mask of a hole in the middle, bool (H, W)."""
    mask = np.zeros((height, width), dtype=np.bool_)
    top, left = (height - HOLE[0]) // 2, (width - HOLE[1]) // 2
    mask[top : top + HOLE[0], left : left + HOLE[1]] = True
    return mask


def ways(any_order: str, raster: str) -> dict[str, Fill]:
    """Return all ways to fill holes, by what they are called."""
    found: dict[str, Fill] = {}
    models = ((any_order, load(any_order)), (any_order, in_rows(load(any_order))), (raster, load(raster)))
    for kind, (name, model) in zip(MODELS, models, strict=True):
        for candidates in CANDIDATES:
            best = f", the best of {candidates}" if candidates > 1 else ""
            editor = Editor(model, edit=EditConfig(candidates), settings=SAMPLING, precision="int8")
            found[f"{kind}, `{name}`{best}"] = editor.paint_hole
    return found | {
        "Telea (OpenCV)": lambda frames, mask: by_opencv(frames, mask, cv2.INPAINT_TELEA),
        "Navier-Stokes (OpenCV)": lambda frames, mask: by_opencv(frames, mask, cv2.INPAINT_NS),
        "the smoothest surface": lambda frames, mask: np.stack(
            [np.rint(membrane(frame.astype(np.float64), mask)).clip(0, 255).astype(np.uint8) for frame in frames]
        ),
        "the mean colour": by_mean,
    }


def in_rows(model: Pipeline) -> Pipeline:
    """Keep an any-order prior to raster order, whatever is known: so it sees what a raster prior of its size would."""
    prior = model.painting_prior()
    assert isinstance(prior, AnyOrderPrior), f"a {type(prior).__name__} has one order"
    rows = torch.arange(prior.length)
    prior.after = lambda known: prior.along(rows.expand(len(known), -1))  # type: ignore[method-assign]
    return model


def by_opencv(frames: np.ndarray, mask: np.ndarray, way: int) -> np.ndarray:
    """Fill holes by one of OpenCV's ways."""
    return np.stack([cv2.inpaint(frame, mask.astype(np.uint8), RADIUS, way) for frame in frames])


def by_mean(frames: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Fill holes with the mean colour of what is known."""
    done = frames.copy()
    done[:, mask] = np.rint(frames[:, ~mask].mean(axis=1, keepdims=True)).astype(np.uint8)
    return done


def measure(done: np.ndarray, frames: np.ndarray, mask: np.ndarray, network: FeatureNetwork) -> Figures:
    """Return how near frames without a hole are to what they were. Raises AssertionError if the rest has changed."""
    assert np.array_equal(done[:, ~mask], frames[:, ~mask]), "pixels outside of the hole have changed"
    errors = np.square((done[:, mask].astype(np.float64) - frames[:, mask]) / 255).mean(axis=(1, 2))
    return {
        "psnr_db": float(np.mean(-10 * np.log10(np.maximum(errors, 1e-10)))),
        "frechet_track": frechet_distance(described(network, done)[0], described(network, frames)[0]),
        "edge_step": edge_step(done, mask),
    }


def edge_step(frames: np.ndarray, mask: np.ndarray) -> float:
    """Return the mean step, in levels, from the pixels outside of the hole to those inside."""
    levels = frames.astype(np.float64)
    down = mask[1:] != mask[:-1]
    across = mask[:, 1:] != mask[:, :-1]
    steps = (np.abs(np.diff(levels, axis=1))[:, down], np.abs(np.diff(levels, axis=2))[:, across])
    return float(np.concatenate(steps, axis=1).mean())


def page(figures: dict[str, Figures], options: argparse.Namespace) -> str:
    """Return the page as Markdown."""
    rows = "\n".join(
        f"| {name} | {'' if of['psnr_db'] > 90 else format(of['psnr_db'], '.2f')} | {of['frechet_track']:.2f} "
        f"| {of['edge_step']:.2f} | {of['unblended_step']:.2f} |"
        for name, of in figures.items()
    )
    about = filled(
        f"A hole of {HOLE[0]} x {HOLE[1]} pixels, {HOLE[0] * HOLE[1] / 15000:.0%} of the picture, in the middle of "
        f"{options.count} frames of races that no model has seen. Models see nothing of what was there: the hole is "
        "smoothed over before a frame is tokenized. They paint with top-p 0.95, in whole numbers; where the painted "
        "meets the known, the difference is spread over the hole. Of eight, an any-order prior's filling is taken that "
        "its decoder joins best to the pixels around, and a raster prior's that makes the tokens which come after it "
        "likeliest. Kept to raster order, the same weights see of the frame only what is above and left of each token: "
        "what they lose so is what seeing all around is worth. "
        "Pixels outside of the hole are the frames', to the bit, which is checked for every frame and way."
    )
    meaning = filled(
        "PSNR is of the hole, the mean of the frames': it favours what is smooth, for what was there cannot be known. "
        "The Fréchet distance is that of the whole frames to those without a hole, in the features of the network that "
        "tells tracks apart. The step at the edge is the mean difference, in levels of 255, of neighbouring pixels of "
        "which one is in the hole: the nearer to the frames' own, the less of a seam. Unblended is that step as the "
        "models have painted it, with nothing spread: whether they know what they are to meet."
    )
    return f"""# Filling holes

Frames in all pictures: SuperTuxKart and its contributors, [supertuxkart.net](https://supertuxkart.net), CC BY-SA 4.0.

{about}

{made_on()}

    python scripts/editing_study.py --valid-frames FRAMES/{Path(options.valid_frames).name} --count {options.count}

| filled by | PSNR, dB | Fréchet distance | step at the edge | unblended |
| --- | --- | --- | --- | --- |
{rows}

{meaning}

Frames with the hole, and under them what fills it, in the order of the table:

![Holes and what fills them](images/editing.jpg)
"""


if __name__ == "__main__":
    main()
