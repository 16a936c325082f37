"""Put a trained feature network into the package: its weights as float16, and a card.

    python scripts/ship_features.py --run runs/features --valid-frames FRAMES/valid-00.parquet

The card's figures are measured on what ships.
"""

from __future__ import annotations

import argparse
from datetime import date
from pathlib import Path

import numpy as np
import torch
from torchmetrics.functional.classification import multiclass_accuracy

from bisquit.checkpoint import FEATURES_FILE, load_features, save_features
from bisquit.features import FeatureNetwork
from bisquit.frames import FrameSet, load_frames
from bisquit.record import RunRecord

FOLDER = Path(__file__).resolve().parent.parent / "src" / "bisquit" / "weights" / "features"


def main() -> None:
    """Round, save, measure, and write the card."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="the folder of a feature network's run")
    parser.add_argument("--valid-frames", required=True, help="frames of races that it has not seen")
    options = parser.parse_args()
    save_features(load_features(options.run / FEATURES_FILE), FOLDER / FEATURES_FILE, torch.float16)
    network, valid = load_features(FOLDER / FEATURES_FILE), load_frames(options.valid_frames)
    text = card(network, RunRecord.load(options.run), len(valid), accuracies(network, valid))
    (FOLDER / "README.md").write_text(text)


def accuracies(network: FeatureNetwork, valid: FrameSet) -> np.ndarray:
    """Return for each class the share of its frames in which it is seen."""
    seen = torch.cat(
        [
            network.describe(torch.from_numpy(valid[start : start + 64])).logits.argmax(dim=1)
            for start in range(0, len(valid), 64)
        ]
    )
    named = torch.tensor([network.classes.index(name) for name in valid.classes])
    found = multiclass_accuracy(seen, named[valid.labels], num_classes=len(network.classes), average="none")
    return found.numpy()


def card(network: FeatureNetwork, record: RunRecord, frames: int, accuracy: np.ndarray) -> str:
    """Return the network's card as Markdown."""
    parameters = sum(p.numel() for p in network.parameters())
    rows = "\n".join(f"| {name} | {share:.1%} |" for name, share in zip(network.classes, accuracy, strict=True))
    return f"""---
license: cc-by-sa-4.0
tags: [image-classification]
---

# bisquit: the feature network

Tells {len(network.classes)} tracks of SuperTuxKart apart; `bisquit evaluate --samples` judges new frames in its
{network.config.dimensions} features. {parameters:,} parameters. Shipped on {date.today():%d %B %Y}.

On {frames:,} frames of races that it has not seen it is right in {accuracy.mean():.1%}, the mean of the tracks':

| track | right |
| --- | --- |
{rows}

- **Trained** by the preset `{record.preset}` on {record.data["frames"]["frames"]:,} frames, with PyTorch
  {record.versions["torch"]}, {record.precision} forward passes and averaged weights. Shipped with
  `scripts/ship_features.py`, which rounds weights to float16; the figures are of the rounded ones.
- **Limits**: it has seen twenty tracks of one game. Distances in its features compare models of such frames with one
  another; they are no FID, and say nothing of other pictures.
- **Licence**: CC BY-SA 4.0, as the frames that it was trained on: SuperTuxKart and its contributors,
  [supertuxkart.net](https://supertuxkart.net).
"""


if __name__ == "__main__":
    main()
