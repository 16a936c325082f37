"""How work that takes long tells how far it is: a function called with what is done and what there is to do."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[int, int], None]


def part_of(progress: Progress | None, done_before: int, total: int) -> Progress | None:
    """Return a progress for one part of the work that counts on from `done_before` towards `total`."""
    if progress is None:
        return None
    return lambda done, _: progress(done_before + done, total)


def share_of(progress: Progress | None, before: int, parts: int, total: int) -> Progress | None:
    """Return a progress for work that is `parts` of a `total`, of which as many as `before` are done."""
    if progress is None:
        return None
    return lambda done, of: progress(before * of + parts * done, total * of)
