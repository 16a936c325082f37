"""How far a figure would be off on other data: it is worked out anew on data drawn from the data (Efron 1979).

Frames are drawn as they were recorded. Frames of one race are alike, so that whole races are drawn; and of each class
(a track) as many as there are, for other races would have been of the same tracks. Of a class that has but one race the
frames are drawn singly: what another race on it would have changed, nothing tells, and the interval leaves it out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

Z_95 = 1.96
"""Standard deviations on either side that hold 95% of a normal distribution."""

Units = Sequence[Tensor | Sequence[Tensor]]
"""For each class what is drawn of it: rows (int64) singly, or groups of rows."""


def units(size: int, groups: np.ndarray | None = None, classes: np.ndarray | None = None) -> Units:
    """Return what is drawn of `size` rows. groups, classes: (size,) integers; None where there is but one class.

    Without groups, and in a class of a single group, rows are drawn singly.
    """
    strata = np.zeros(size, dtype=np.int64) if classes is None else classes
    drawn: list[Tensor | Sequence[Tensor]] = []
    for stratum in np.unique(strata):
        rows = np.flatnonzero(strata == stratum)
        names = () if groups is None else np.unique(groups[rows])
        if groups is None or len(names) < 2:
            drawn.append(torch.from_numpy(rows))
        else:
            drawn.append([torch.from_numpy(rows[groups[rows] == name]) for name in names])
    return drawn


def resamples(drawn: Units, rounds: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Yield the rows, int64, of `rounds` sets, of each class as many units as it has, drawn with replacement."""
    for _ in range(rounds):
        parts = []
        for stratum in drawn:
            chosen = torch.randint(len(stratum), (len(stratum),), generator=generator)
            if isinstance(stratum, Tensor):
                parts.append(stratum[chosen])
            else:
                parts += [stratum[unit] for unit in chosen.tolist()]
        yield torch.cat(parts)


def half_width(values: Sequence[float]) -> float:
    """Return half the width of the 95% interval of a figure that came out as these values in as many rounds."""
    return Z_95 * float(np.std(values, ddof=1))
