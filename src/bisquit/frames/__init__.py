"""Pictures in and out: where they come from, how they are decoded and cached, how a set is split, how they are shown.

    source ──listing──> files ──tables | imagefolder──> records ──decode──> pixels ──cache──> FrameSet
    FrameSet ──split──> train, valid ──augment──> varied frames
    videos, screenshots ──video, recording──> a folder of pictures, which is a source

Everything outside this package sees uint8 (B, H, W, 3) RGB. Importing the package imports no torch; augmentation, which
needs it, is imported from `bisquit.frames.augment`.
"""

from __future__ import annotations

from bisquit.frames.frameset import FrameSet, relabelled, spread
from bisquit.frames.listing import BUNDLED
from bisquit.frames.loading import load_frames, load_splits
from bisquit.frames.pictures import contact_sheet, encode_png, fit_frame, paired_sheet, read_frame, write_frame
from bisquit.frames.split import split_by_group

__all__ = [
    "BUNDLED",
    "FrameSet",
    "contact_sheet",
    "encode_png",
    "fit_frame",
    "load_frames",
    "load_splits",
    "paired_sheet",
    "read_frame",
    "relabelled",
    "split_by_group",
    "spread",
    "write_frame",
]
