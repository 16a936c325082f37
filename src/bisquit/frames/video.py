"""A video as moments, one each so many seconds, every one with what is seen shortly before and after it.

    file ──PyAV──> all frames, in order ──> Moment(frame, before, after)

The one module that imports PyAV, which the extra `video` installs, and only when a video is opened. Frames are decoded
one after another, and no more than a few are held, so that memory does not grow with a video's length.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bisquit.errors import FrameError
from bisquit.frames.record import BadFrames
from bisquit.progress import Progress

AROUND_S = 0.2
"""How far from a moment the frames before and after it are, in seconds: half the time between moments at most."""

_TICK_S = 1e-3
"""Times are this coarse in some containers."""
_MISSING_S = 1.0
"""A video that ends this long before its declared end, and by a share of it, has been cut."""
_MISSING_SHARE = 0.02
_TEXT_FORMAT = "tty"  # FFmpeg draws any text file


class Moment(NamedTuple):
    """A frame, uint8 (H, W, 3) RGB, and those shortly before and after it, None where there is none."""

    time_s: float
    frame: np.ndarray
    before: np.ndarray | None
    after: np.ndarray | None


def read_moments(path: Path, every_s: float, bad: BadFrames, progress: Progress | None = None) -> Generator[Moment]:
    """Yield the moments of a video, the first frame of each `every_s` seconds; a frame is in one moment at most.

    progress: called with seconds. What is damaged, or cut short, is reported to `bad`. Raises FrameError if the file is
    no video, or PyAV is not installed.
    """
    try:
        import av
    except ImportError as error:
        raise FrameError(f"{path} is read by PyAV, which is not installed: pip install 'bisquit[video]'") from error
    if not path.is_file():
        raise FrameError(f"{path} does not exist: give a video, or a folder of pictures")
    try:
        with av.open(str(path.resolve())) as container:  # resolved, so that no name is taken for an address
            stream = _video_stream(container, path)
            yield from _moments(_frames(container, stream, path, bad, progress), every_s)
    except av.FFmpegError as error:
        raise FrameError(f"{path} is no video that can be read, or has been cut: {error.strerror}") from error


def _video_stream(container: Any, path: Path) -> Any:
    if container.format.name == _TEXT_FORMAT:
        raise FrameError(f"{path} is no video, but text")
    streams = [stream for stream in container.streams.video if not stream.disposition & stream.disposition.attached_pic]
    if not streams:
        raise FrameError(f"{path} holds no video stream")
    streams[0].thread_type = "AUTO"
    return streams[0]


def _frames(
    container: Any, stream: Any, path: Path, bad: BadFrames, progress: Progress | None
) -> Iterator[tuple[float, Any]]:
    """Yield all frames of a stream, as PyAV has them, and their times from the first one."""
    import av

    duration_s, start_s, end_s = _duration_s(container, stream), None, 0.0
    is_damaged = False
    for packet in container.demux(stream):
        try:
            decoded = packet.decode()
        except av.FFmpegError as error:
            if not is_damaged:
                bad.report(str(path), FrameError(f"{path} is damaged {end_s:.1f} s from its start: {error.strerror}"))
            is_damaged = True
            continue
        for frame in decoded:
            if frame.time is not None and start_s is None:
                start_s = frame.time
            time_s = end_s if frame.time is None or start_s is None else frame.time - start_s
            yield time_s, frame
            end_s = max(end_s, time_s + _length_s(frame, stream))
        if progress is not None and duration_s:
            progress(min(int(end_s), int(duration_s)), int(duration_s))
    missing_s = duration_s - end_s
    if missing_s > max(_MISSING_S, _MISSING_SHARE * duration_s) and not is_damaged:
        bad.report(str(path), FrameError(f"{path} has been cut: it ends after {end_s:.1f} s of {duration_s:.1f}"))


def _duration_s(container: Any, stream: Any) -> float:
    """Return how long a video says that it is, 0 if it does not."""
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    return (container.duration or 0) / 1e6  # FFmpeg's AV_TIME_BASE


def _length_s(frame: Any, stream: Any) -> float:
    """Return how long a frame is shown."""
    if frame.duration and frame.time_base:
        return float(frame.duration * frame.time_base)
    return float(1 / stream.average_rate) if stream.average_rate else 0.0


def _moments(frames: Iterable[tuple[float, Any]], every_s: float) -> Iterator[Moment]:
    around_s = min(AROUND_S, every_s / 2)
    number = 0  # of the moment that is looked for
    chosen: tuple[float, Any] | None = None
    before = previous = None
    for time_s, frame in frames:
        if chosen is not None and time_s >= chosen[0] + around_s - _TICK_S:
            yield _moment(*chosen, before, frame)
            number = max(number, int((chosen[0] + _TICK_S) / every_s)) + 1
            chosen = before = None
        if chosen is None:
            if before is None and time_s > number * every_s - around_s + _TICK_S:
                before = previous
            if time_s >= number * every_s - _TICK_S:
                chosen = time_s, frame
        previous = frame
    if chosen is not None:
        yield _moment(*chosen, before, None)


def _moment(time_s: float, frame: Any, before: Any, after: Any) -> Moment:
    return Moment(time_s, _pixels(frame), *(None if other is None else _pixels(other) for other in (before, after)))


def _pixels(frame: Any) -> np.ndarray:
    """Return a frame of PyAV as uint8 (H, W, 3) RGB, upright as the video's matrix says."""
    return np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90)
