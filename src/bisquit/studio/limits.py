"""How much of everything the studio takes: so that no request, however made, takes it all."""

from __future__ import annotations

from dataclasses import dataclass

from bisquit.config import Settings, require

MIB = 2**20
MOST_PICTURES = 64
"""The most pictures that one request is painted, which is also the most that are painted together."""
MOST_EDITS = 8
MOST_SEED = 2**53 - 1
"""The largest whole number that every reader of JSON reads exactly."""
LONGEST_NAME = 200
MOST_ADDED_PX = 1024
"""The most pixels that a picture is extended by on a side."""


@dataclass(frozen=True)
class Limits(Settings):
    """What the studio takes, and what it refuses."""

    body_mib: int = 16
    """Largest body of a request, in MiB."""
    megapixels: float = 4.0
    """Largest picture, in millions of pixels; one that has more is refused before it is decoded."""
    waiting: int = 32
    """Requests that may wait for the models; further ones are told to come back later."""
    timeout_s: float = 120.0
    """Seconds after which a request is given up, those that it waits included."""
    upload_s: float = 30.0
    """Seconds within which each part of a body must come."""
    gallery: int = 10_000
    """Pictures that the gallery holds."""

    def __post_init__(self) -> None:
        require(1 <= self.body_mib <= 1024, "body_mib", self.body_mib, "between 1 and 1024")
        require(0 < self.megapixels <= 64, "megapixels", self.megapixels, "above 0 and at most 64")
        require(1 <= self.waiting <= 10_000, "waiting", self.waiting, "between 1 and 10000")
        for name in ("timeout_s", "upload_s"):
            require(0 < getattr(self, name) <= 86_400, name, getattr(self, name), "above 0 and at most 86400")
        require(self.gallery >= 0, "gallery", self.gallery, "at least 0")

    @property
    def body_bytes(self) -> int:
        """Largest body in bytes."""
        return self.body_mib * MIB

    @property
    def pixels(self) -> int:
        """Largest picture in pixels."""
        return int(self.megapixels * 1e6)
