"""Pictures as short sequences of binary tokens, and one small model over them.

    import bisquit

    model = bisquit.load("seed")               # or a folder that `bisquit train` made
    frames = model.sample(16, seed=0)          # uint8 (16, 100, 150, 3)
    tokens = model.encode(frames)              # int64 (16, 20, 30)
    frames = model.decode(tokens)
    images = model(num_images_per_prompt=16, seed=0).images     # as Diffusers' pipelines are called

    codec = bisquit.load_codec()
    files = codec.compress(frames)             # bytes, a few hundred each
    frames = codec.decompress(files)

Names are imported when they are first used, so that importing the package takes no time.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from typing import TYPE_CHECKING, Any

from bisquit.errors import BisquitError

if TYPE_CHECKING:
    from bisquit.frames import load_frames, read_frame, write_frame
    from bisquit.generate import Pipeline, load, load_codec
    from bisquit.sampling import SamplingConfig

_HOMES = {
    "Pipeline": "bisquit.generate",
    "SamplingConfig": "bisquit.sampling",
    "load": "bisquit.generate",
    "load_codec": "bisquit.generate",
    "load_frames": "bisquit.frames",
    "read_frame": "bisquit.frames",
    "write_frame": "bisquit.frames",
}

__all__ = [
    "BisquitError",
    "Pipeline",
    "SamplingConfig",
    "load",
    "load_codec",
    "load_frames",
    "read_frame",
    "write_frame",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.metadata.version("bisquit")
    if name not in _HOMES:
        raise AttributeError(f"module 'bisquit' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
