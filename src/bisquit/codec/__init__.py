"""The codec: frames in a few hundred bytes each, the same pixels on every machine.

`Codec` turns frames into picture files and back, by one model or by several; an archive holds many of them.
"""

from __future__ import annotations

from bisquit.codec.archive import Archive
from bisquit.codec.codec import Codec, Rung
from bisquit.codec.model import CodecModel
from bisquit.codec.rate import RateConfig

__all__ = ["Archive", "Codec", "CodecModel", "RateConfig", "Rung"]
