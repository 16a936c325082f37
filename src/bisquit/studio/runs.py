"""Training runs as they go: what their folders say of them, their curves and their latest pictures.

    RUNS/**/run.json               what is trained: `bisquit.record`
    RUNS/**/logs/events.*          TensorBoard's files: curves and pictures

A run is asked for by its folder's name below RUNS, and only those are looked at that a walk finds there.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bisquit.errors import RunError
from bisquit.record import RECORD_FILE, RunRecord

if TYPE_CHECKING:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

DEEPEST = 4
"""Folders below that of all runs in which runs are looked for."""
MOST_RUNS = 200
MOST_POINTS = 2000
"""Points of a curve; of more, some are left out evenly."""
_PNG = b"\x89PNG"


@dataclass(frozen=True)
class Run:
    """A run's folder, and what its record says."""

    name: str
    folder: Path
    record: RunRecord
    changed: float
    """When its record, its logs or its state last changed, in seconds since 1970."""


class Runs:
    """The runs below a folder; of none, there are none. All of it may be called from any thread."""

    def __init__(self, root: Path | None) -> None:
        self._root, self._lock = root, threading.Lock()
        self._read: dict[Path, EventAccumulator] = {}

    def all(self) -> list[Run]:
        """Return the runs, the latest first; what is no run's record is left out."""
        found = []
        for folder in self._folders():
            try:
                record = RunRecord.load(folder)
                changed = max(path.stat().st_mtime for path in (folder / RECORD_FILE, *_event_files(folder)))
            except (RunError, OSError):  # another program's, or on its way out
                continue
            found.append(Run(folder.relative_to(self._root or folder).as_posix(), folder, record, changed))
        return sorted(found, key=lambda run: -run.changed)

    def get(self, name: str) -> Run:
        """Return a run. Raises KeyError if there is none of this name."""
        return {run.name: run for run in self.all()}[name]

    def curves(self, run: Run) -> dict[str, list[tuple[int, float, float | None]]]:
        """Return step, time and value of each point of each curve so far; None for what is not finite."""
        with self._lock:
            events = self._events(run.folder)
            scalars = {tag: events.Scalars(tag) for tag in events.Tags()["scalars"]} if events else {}
        return {tag: [_point(event) for event in events] for tag, events in scalars.items()}

    def picture_tags(self, run: Run) -> list[str]:
        """Return the names of the pictures that a run drew."""
        with self._lock:
            events = self._events(run.folder)
            return list(events.Tags()["images"]) if events else []

    def picture(self, run: Run, tag: str) -> bytes:
        """Return the latest picture of a name, a PNG. Raises KeyError if there is none."""
        with self._lock:
            events = self._events(run.folder)
            if events is None or tag not in events.Tags()["images"]:
                raise KeyError(tag)
            data: bytes = events.Images(tag)[-1].encoded_image_string
        if not data.startswith(_PNG):
            raise KeyError(tag)
        return data

    def _folders(self) -> Iterator[Path]:
        """Yield the folders that may be runs; links are not followed."""
        if self._root is None:
            return
        count = 0
        for place, below, files in os.walk(self._root):
            folder = Path(place)
            below[:] = sorted(name for name in below if not name.startswith("."))
            if len(folder.relative_to(self._root).parts) >= DEEPEST:
                below.clear()
            if RECORD_FILE in files:
                count += 1
                yield folder
            if count == MOST_RUNS:
                return

    def _events(self, folder: Path) -> EventAccumulator | None:
        """Return what TensorBoard reads of a run, up to what is written now; None if nothing is."""
        if not any(_event_files(folder)):
            return None
        from tensorboard.backend.event_processing import event_accumulator as accumulator  # which takes its time

        if folder not in self._read:
            kept = {accumulator.SCALARS: MOST_POINTS, accumulator.IMAGES: 1, accumulator.TENSORS: 1}
            self._read[folder] = accumulator.EventAccumulator(str(folder / "logs"), size_guidance=kept)
        return self._read[folder].Reload()


def _point(event: Any) -> tuple[int, float, float | None]:
    return event.step, event.wall_time, event.value if math.isfinite(event.value) else None


def _event_files(folder: Path) -> Iterator[Path]:
    return (folder / "logs").glob("events.*")
