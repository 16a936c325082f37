"""Frames to compressed pictures and back, from few bytes to many, by one model or several.

    quality ──> which model, and what a bit is worth ──CodecModel──> picture file
                                                                         │
    frame <──CodecModel── the model that the file names <────────────────┘

A model is good for some range of bytes: beyond it, more bits buy little, and below it, fewer cost much. Several models,
coarse to fine, are a ladder, on which each quality stands on one rung.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from bisquit.codec import picture_file
from bisquit.codec.model import CodecModel, Coded
from bisquit.codec.rate import BEST_QUALITY, ROUNDS, RateConfig, Try, furthest, most_error, trades
from bisquit.config import require
from bisquit.errors import CodecError, ShapeError
from bisquit.progress import Progress, share_of

_log = logging.getLogger("bisquit")


class Rung(NamedTuple):
    """A model that writes, and from which quality on."""

    model: CodecModel
    quality: int = 0


class Codec:
    """One model or several that compress. Arrays in and out are NumPy's, wherever the models are."""

    def __init__(self, rungs: Sequence[Rung], readers: Iterable[CodecModel] = ()) -> None:
        """Make a codec that writes with the models of a ladder, and reads what they and others wrote.

        rungs: the first from quality 0, and each from a higher one than the one before. readers: taken one by one when
        a picture is of none so far. Raises ConfigError for rungs that are no ladder.
        """
        qualities = [rung.quality for rung in rungs]
        is_ladder = bool(rungs) and qualities[0] == 0 and qualities == sorted(set(qualities))
        is_ladder = is_ladder and qualities[-1] <= BEST_QUALITY
        require(is_ladder, "rungs", qualities, f"models from quality 0 up to {BEST_QUALITY}, each from a higher one")
        self.rungs = tuple(rungs)
        self.models = [rung.model for rung in rungs]
        self._readers = iter(readers)

    def compress(
        self, frames: np.ndarray, rate: RateConfig | None = None, progress: Progress | None = None
    ) -> list[bytes]:
        """Turn frames, uint8 (B, H, W, 3), into picture files.

        Where no quality meets a target, the one that comes nearest is taken, with a warning. progress: called with the
        steps done and to do. Raises ShapeError on other arrays, and for frames whose patches do not fill a model's
        grid.
        """
        rate = rate or RateConfig()
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or frames.size == 0:
            raise ShapeError(f"frames are {frames.dtype} {frames.shape}: they must be uint8 (B, H, W, 3), none empty")
        for rung in self.rungs:
            rung.model.check_size((frames.shape[1], frames.shape[2]))
        at_once = min(rung.model.at_once for rung in self.rungs) if rate.effort else len(frames)
        tries: list[Try] = []
        for part in torch.from_numpy(np.ascontiguousarray(frames)).split(at_once):
            tries += self._compress(part, rate, share_of(progress, len(tries), len(part), len(frames)))
        if missed := sum(not tried.is_good for tried in tries):
            _log.warning("%d of %d pictures miss the target: no quality of this codec meets it", missed, len(tries))
        return [tried.data for tried in tries]

    def _compress(self, frames: Tensor, rate: RateConfig, progress: Progress | None) -> list[Try]:
        """Compress frames (B, H, W, 3) that fit into memory together."""
        if rate.target_bytes is None and rate.target_psnr is None:
            coded = self._encode(frames, np.full(len(frames), rate.quality), rate, progress)
            return [Try(each.data, True) for each in coded]
        rounds = iter(range(ROUNDS))

        def attempt(numbers: np.ndarray, steps: np.ndarray) -> list[Try]:
            of_round = share_of(progress, next(rounds), 1, ROUNDS)
            qualities = steps if rate.target_psnr is None else BEST_QUALITY - steps
            pictures = frames[torch.from_numpy(numbers)]
            coded = self._encode(pictures, qualities, rate, of_round)
            return [Try(each.data, _is_good(each, rate, pictures[0].numel())) for each in coded]

        found = furthest(len(frames), attempt)
        if progress is not None:
            progress(1, 1)  # they may have settled in fewer rounds
        return found

    def _encode(
        self, frames: Tensor, qualities: np.ndarray, rate: RateConfig, progress: Progress | None
    ) -> list[Coded]:
        """Encode each of frames (B, H, W, 3) with the model of its quality."""
        starts = [rung.quality for rung in self.rungs]
        found: list[Coded | None] = [None] * len(frames)
        done = 0
        for index, numbers in _grouped(np.searchsorted(starts, qualities, side="right") - 1):
            of_group = share_of(progress, done, len(numbers), len(frames))
            coded = self.rungs[index].model.encode(
                frames[torch.from_numpy(numbers)],
                trades(qualities[numbers]),
                rate.effort,
                measures=rate.target_psnr is not None,
                progress=of_group,
            )
            for number, each in zip(numbers, coded, strict=True):
                found[number] = each
            done += len(numbers)
        assert None not in found
        return cast(list[Coded], found)

    def decompress(self, files: Sequence[bytes], progress: Progress | None = None) -> list[np.ndarray]:
        """Turn picture files into frames, each uint8 (H, W, 3).

        Raises CodecError if one is no picture file, damaged, or of a model that is not here; then none is decoded.
        """
        opened = [self._opened(data) for data in files]
        found: list[np.ndarray] = [np.empty(0)] * len(files)
        done = 0
        for index, numbers in _grouped(np.array([index for index, _ in opened], dtype=np.int64)):
            of_group = share_of(progress, done, len(numbers), len(files))
            frames = self.models[index].decode([opened[number][1] for number in numbers], of_group)
            for number, frame in zip(numbers, frames, strict=True):
                found[number] = frame
            done += len(numbers)
        return found

    def open(self, data: bytes) -> picture_file.PictureFile:
        """Take a picture file apart, and check that it is sound and of a model that is here.

        Raises CodecError if it is not.
        """
        return self._opened(data)[1]

    def knows(self, file: picture_file.PictureFile) -> bool:
        """Whether a picture file is of a model that is here, as far as it says so itself."""
        return any(model.fingerprint[:2] == file.model for model in self._each_model())

    def _opened(self, data: bytes) -> tuple[int, picture_file.PictureFile]:
        """Return the number of a file's model, and the file."""
        file = picture_file.unpack(data)
        failure: CodecError | None = None
        for number, model in enumerate(self._each_model()):
            if model.fingerprint[:2] != file.model:
                continue
            try:
                model.verify(file)
            except CodecError as error:  # perhaps it is of another model whose fingerprint begins alike
                failure = error
            else:
                return number, file
        here = ", ".join(model.fingerprint[:2].hex() for model in self.models)
        raise failure or CodecError(f"the picture is of model {file.model.hex()}, and here is {here}: name its model")

    def _each_model(self) -> Iterator[CodecModel]:
        """Yield all models, those that have been used first."""
        yield from self.models
        for model in self._readers:
            self.models.append(model)
            yield model


def _is_good(coded: Coded, rate: RateConfig, values: int) -> bool:
    """Whether a picture of so many values meets its target."""
    if rate.target_psnr is not None:
        return coded.error <= most_error(rate.target_psnr, values)
    return rate.target_bytes is None or len(coded.data) <= rate.target_bytes


def _grouped(keys: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Yield each key of (N,) with the places that it has."""
    for key in np.unique(keys).tolist():
        yield key, np.flatnonzero(keys == key)
