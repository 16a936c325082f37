from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

def kernels() -> list[str]: ...

class Race:
    def __init__(self, temperature: float, top_k: int, top_p: float, min_p: float, doubt: float) -> None: ...

class Model:
    def __init__(
        self,
        *,
        is_int8: bool,
        width: int,
        n_layers: int,
        n_heads: int,
        feed_forward: int,
        codebook: int,
        length: int,
        neighbours: int,
        score_unit: float,
        epsilon: float,
        arrays: dict[str, np.ndarray],
    ) -> None: ...
    def read_logits(
        self,
        tokens: NDArray[np.int64],
        threads: int,
        kernels: str = "",
        places: NDArray[np.float32] | None = None,
        around: NDArray[np.int32] | None = None,
    ) -> NDArray[np.float32]: ...
    def read_bits(
        self,
        tokens: NDArray[np.int64],
        threads: int,
        kernels: str = "",
        places: NDArray[np.float32] | None = None,
        around: NDArray[np.int32] | None = None,
    ) -> NDArray[np.float32]: ...
    def read_intervals(
        self,
        tokens: NDArray[np.int64],
        threads: int,
        kernels: str = "",
        places: NDArray[np.float32] | None = None,
        around: NDArray[np.int32] | None = None,
    ) -> NDArray[np.int64]: ...

class Tokenizer:
    def __init__(
        self,
        *,
        patch_size: int,
        width: int,
        channels: int,
        encoder_blocks: int,
        decoder_blocks: int,
        code_step: float,
        arrays: dict[str, np.ndarray],
    ) -> None: ...
    def project(self, frames: NDArray[np.uint8], threads: int, kernels: str = "") -> NDArray[np.float32]: ...
    def decode(
        self, vectors: NDArray[np.int8], height: int, width: int, threads: int, kernels: str = ""
    ) -> NDArray[np.uint8]: ...
    def slopes(
        self, vectors: NDArray[np.int8], frames: NDArray[np.uint8], threads: int, kernels: str = ""
    ) -> NDArray[np.float32]: ...

class Session:
    def __init__(
        self, model: Model, batch: int, threads: int, kernels: str = "", scales: Sequence[float] = ()
    ) -> None: ...
    def go(self, places: NDArray[np.float32], around: NDArray[np.int32]) -> None: ...
    def seed(self, seeds: NDArray[np.uint32]) -> None: ...
    def give(self, tokens: NDArray[np.int64], known: NDArray[np.uint8] | None = None) -> None: ...
    def advance(self, until: int, race: Race | None = None) -> list[int]: ...
    def decide(self, picture: int, token: int) -> None: ...
    def take(self, tokens: NDArray[np.int64]) -> None: ...
    def all_logits(self) -> NDArray[np.float32]: ...
    def decode(self, choose: Callable[[int, NDArray[np.int32]], NDArray[np.int64]]) -> None: ...
    def done(self, picture: int) -> int: ...
    def logits(self, picture: int) -> NDArray[np.float32]: ...
    def words(self, picture: int) -> NDArray[np.uint32]: ...
    @property
    def is_finite(self) -> bool: ...
    @property
    def tokens(self) -> NDArray[np.int64]: ...
