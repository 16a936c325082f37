"""Work on many machines, by Ray, each part done as one machine does it.

    pieces of frames ──OnRay───────────> shards of tokens        `bisquit.shards`
    numbers of a seed ──PipelineOnRay──> tokens of pictures      what samples, augments and is evaluated

Workers keep the model, and what a worker that dies was doing another does. Machines join as Ray has it (`ray start`);
without any, the workers are processes of this machine.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bisquit.config import require
from bisquit.engine import Backend, Precision
from bisquit.errors import BisquitError, ConfigError
from bisquit.frames.pieces import Piece
from bisquit.generate import Pipeline, Preview, check_asked, told_part
from bisquit.painting import Painter
from bisquit.priors import Prior
from bisquit.progress import Progress
from bisquit.sampling import SamplingConfig
from bisquit.shards import Work, tokenize_piece
from bisquit.tokenizer import Tokenizer


def _connect(workers: int, address: str | None) -> None:
    """Join a cluster, such as auto or ray://host:10001, or begin one of this machine, unless that is done already.

    Raises ConfigError if workers are not at least 1, or if Ray is not installed.
    """
    require(workers >= 1, "workers", workers, "at least 1")
    try:
        import ray.data
    except ImportError as error:
        raise ConfigError("workers need Ray: pip install 'bisquit[ray]'") from error
    if not ray.is_initialized():
        local = {} if address else {"num_cpus": workers, "include_dashboard": False}
        ray.init(address=address, log_to_driver=False, logging_level="error", **local)


class OnRay:
    """Does the work of `tokenize_shards` by so many workers of one core each."""

    def __init__(self, workers: int, address: str | None = None) -> None:
        """address: of a cluster; by default this machine is one. Raises ConfigError as `_connect` does."""
        _connect(workers, address)
        self._workers = workers

    def __call__(self, tokenizer: Tokenizer, work: Work) -> Iterator[int]:
        """Do work, yielding the number of frames of each piece as it is done."""
        import ray.data

        ray.data.DataContext.get_current().enable_progress_bars = False
        if not work.pieces:
            return
        done = ray.data.from_items([vars(piece) for piece in work.pieces], override_num_blocks=len(work.pieces)).map(
            _Worker,
            fn_constructor_args=(tokenizer, work.without_pieces()),
            compute=ray.data.ActorPoolStrategy(size=self._workers),
            num_cpus=1,
        )
        for row in done.iter_rows():
            yield int(row["frames"])


class _Worker:
    """A process that does pieces one after another."""

    def __init__(self, tokenizer: Tokenizer, work: Work) -> None:
        self._tokenizer, self._work = tokenizer, work

    def __call__(self, piece: dict[str, Any]) -> dict[str, int]:
        return {"frames": tokenize_piece(self._tokenizer, self._work, Piece(**piece))}


class PipelineOnRay(Pipeline):
    """A pipeline whose tokens are painted by so many workers of one core each; what they show is decoded here.

    A picture's tokens follow from its seed and its number, whatever paints them. Its pixels do so but for rounding,
    which another number of threads changes: decoded where they would be without workers, they are the same ones.
    """

    def __init__(self, model: Pipeline, workers: int, address: str | None = None) -> None:
        """address: of a cluster; by default this machine is one.

        Raises ConfigError as `_connect` does, and for a model that is on another device than the CPU.
        """
        require(model.tokenizer.device.type == "cpu", "device", model.tokenizer.device, "cpu where there are workers")
        super().__init__(model.tokenizer, model.prior, model.frame_size, model.conditions, model.card)
        _connect(workers, address)
        import ray

        kind = ray.remote(num_cpus=1, max_restarts=-1, max_task_retries=-1)(_PaintingWorker)
        self._workers = [kind.remote() for _ in range(workers)]
        self._shared_prior = ray.put(self.prior)

    def _batches(
        self,
        painter: Painter,
        numbers: range,
        seed: int,
        settings: SamplingConfig | None,
        condition: Tensor | None,
        batch_size: int,
        progress: Progress | None = None,
        preview: Preview | None = None,
    ) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Yield what `Pipeline` yields; progress is called with the tokens of whole parts, preview never."""
        check_asked(numbers, condition, batch_size)
        size = min(batch_size, -(-len(numbers) // len(self._workers)))  # so that each worker has some
        parts = [slice(start, start + size) for start in range(0, len(numbers), size)]
        way = Way(seed, settings, painter.backend, painter.precision)
        tokens: list[Tensor] = []
        for painted in self._painted([(numbers[part], told_part(condition, part)) for part in parts], way):
            tokens.append(painted)
            if progress:
                done = min(len(tokens) * size, len(numbers))
                progress(done * painter.prior.length, len(numbers) * painter.prior.length)
        for number, batch in enumerate(torch.cat(tokens).split(batch_size)):  # bits are rounded by what is in a batch
            yield batch, told_part(condition, slice(number * batch_size, (number + 1) * batch_size))

    def _painted(self, parts: Sequence[tuple[range, Tensor | None]], way: Way) -> Iterator[Tensor]:
        """Yield the tokens of parts in order, as workers paint them. Raises what one of them does, if that is ours."""
        import ray
        from ray.util import ActorPool

        try:
            yield from ActorPool(self._workers).map(
                lambda worker, part: worker.paint.remote(self._shared_prior, *part, way), parts
            )
        except ray.exceptions.RayTaskError as error:
            raise error.cause if isinstance(error.cause, BisquitError) else error from None


class Way(NamedTuple):
    """How pictures are painted."""

    seed: int
    settings: SamplingConfig | None
    backend: Backend
    precision: Precision


class _PaintingWorker:
    """A process that paints pictures, some at a time. It is given the prior each time, for it may have died between."""

    def __init__(self) -> None:
        self._painters: dict[tuple[Backend, Precision], Painter] = {}

    def paint(self, prior: Prior, numbers: range, condition: Tensor | None, way: Way) -> Tensor:
        kind = way.backend, way.precision
        if kind not in self._painters:
            self._painters[kind] = Painter(prior, *kind)
        return self._painters[kind].paint(numbers, seed=way.seed, settings=way.settings, condition=condition)
