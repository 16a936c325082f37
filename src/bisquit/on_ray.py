"""Work on many machines, by Ray: the pieces of `bisquit.shards`, each done as one machine does it.

Ray Data hands the pieces to workers, each of which keeps the tokenizer, and hands a piece whose worker dies to another.
Machines join as Ray has it (`ray start`); without any, the workers are processes of this machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bisquit.config import require
from bisquit.errors import ConfigError
from bisquit.frames.pieces import Piece
from bisquit.shards import Work, tokenize_piece
from bisquit.tokenizer import Tokenizer


class OnRay:
    """Does the work of `tokenize_shards` by so many workers of one core each."""

    def __init__(self, workers: int, address: str | None = None) -> None:
        """address: of a cluster, such as auto or ray://host:10001; by default this machine is one.

        Raises ConfigError if workers are not at least 1, or if Ray is not installed.
        """
        require(workers >= 1, "workers", workers, "at least 1")
        try:
            import ray.data
        except ImportError as error:
            raise ConfigError("workers need Ray: pip install 'bisquit[ray]'") from error
        self._workers = workers
        if not ray.is_initialized():
            local = {} if address else {"num_cpus": workers, "include_dashboard": False}
            ray.init(address=address, log_to_driver=False, logging_level="error", **local)

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
