"""How many fewer bytes a codec needs for the same quality: the Bjontegaard delta of rate.

A codec is a curve of settings, each the mean bytes and the mean quality of the same pictures. Between settings the
logarithm of the bytes is taken to be linear in the quality; beyond the first and the last there is nothing.
Bjontegaard, "Calculation of average PSNR differences between RD-curves", 2001, VCEG-M33, with lines in place of a
cubic, which on curves of few points or with steps overshoots.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from bisquit.errors import ConfigError

STEPS = 1000


class Setting(NamedTuple):
    """What a codec does at one setting, means over pictures."""

    file_bytes: float
    quality: float
    """In whatever rises as pictures get better, such as PSNR in dB."""


class Curve:
    """The settings of a codec that none of its others beats, from the fewest bytes to the most."""

    def __init__(self, settings: Sequence[Setting]) -> None:
        """Raises ConfigError for fewer than two settings, bytes that are not above 0, or a quality without bounds."""
        is_sound = all(setting.file_bytes > 0 and np.isfinite(setting.quality) for setting in settings)
        if len(settings) < 2 or not is_sound:
            raise ConfigError(
                f"a curve of {settings}: it takes two settings at least, of some bytes and finite quality"
            )
        best: list[Setting] = []
        for setting in sorted(settings):
            if not best or setting.quality > best[-1].quality:
                best.append(setting)
        self.qualities = np.array([setting.quality for setting in best])
        self.log_bytes = np.log([setting.file_bytes for setting in best])

    def log_bytes_at(self, qualities: np.ndarray) -> np.ndarray:
        """Return the logarithm of the bytes that qualities (N,) take; infinite outside of what the codec reaches."""
        found = np.interp(qualities, self.qualities, self.log_bytes, right=np.inf)
        return np.where(qualities < self.qualities[0], self.log_bytes[0], found)


def bd_rate(curve: Curve, others: Sequence[Curve], fewest_bytes: float, most_bytes: float) -> float:
    """Return by how much a codec's bytes differ from the best of some others at each quality; -0.25 is a quarter fewer.

    The mean is over the qualities that the best of the others has between `fewest_bytes` and `most_bytes`. A quality
    below a codec's first is had for the bytes of that. Raises ConfigError unless the codec reaches all of them.
    """
    highest = max(other.qualities[-1] for other in others)
    lowest = min(other.qualities[0] for other in others)
    qualities = np.linspace(lowest, highest, STEPS)
    of_others = np.min([other.log_bytes_at(qualities) for other in others], axis=0)
    is_inside = (of_others >= np.log(fewest_bytes)) & (of_others <= np.log(most_bytes))
    if not is_inside.any():
        raise ConfigError(f"the others have no quality between {fewest_bytes:g} and {most_bytes:g} bytes")
    ours = curve.log_bytes_at(qualities[is_inside])
    if not np.isfinite(ours).all():
        raise ConfigError(
            f"the codec's best quality is {curve.qualities[-1]:.2f}, the others have "
            f"{qualities[is_inside][-1]:.2f} within {most_bytes:g} bytes: add a setting"
        )
    return float(np.expm1((ours - of_others[is_inside]).mean()))
