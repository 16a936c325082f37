"""What can go wrong, as one tree; every message says what was given, what was wanted and what to do.

    BisquitError
    ├── ConfigError      a setting out of its range, or a name that does not exist
    ├── ShapeError       an array whose shape or type does not fit
    ├── FrameError       pictures that cannot be read, or do not belong together
    ├── TokenError       tokens that cannot be read, or are another tokenizer's
    ├── ModelError       model files that cannot be read: missing, cut, of another format version
    ├── ConditionError   a class or a prompt that a model cannot be asked for
    ├── CodecError       compressed pictures that cannot be read: damaged, cut, of another model or format version
    └── RunError         a training run that cannot start, or cannot go on
        ├── RunStopped   a training run that was asked to stop, saved its state, and can be resumed
        └── ProcessLost  a training run of several processes of which another one died; it can be resumed

The command line prints the one line of a `BisquitError` and exits with 2; a traceback is a bug.
"""

from __future__ import annotations


class BisquitError(Exception):
    """Base of every error that bisquit raises on purpose; its text is one line that a terminal can show.

    For it may quote what stood in a file that somebody else made.
    """

    def __str__(self) -> str:
        return "".join(character if character.isprintable() else " " for character in super().__str__())


class ConfigError(BisquitError):
    """A setting is out of its range, or a name does not exist."""


class ShapeError(BisquitError):
    """An array has a shape or type that does not fit."""


class FrameError(BisquitError):
    """Pictures cannot be read, or do not belong together."""


class TokenError(BisquitError):
    """Tokens cannot be read, or were made by another tokenizer."""


class ModelError(BisquitError):
    """Model files cannot be read: missing, cut, or of another format version."""


class ConditionError(BisquitError):
    """A model cannot be asked for this class or this prompt."""


class CodecError(BisquitError):
    """Compressed pictures cannot be read: damaged, cut, or of another model or format version."""


class RunError(BisquitError):
    """A training run cannot start, or cannot go on."""


class RunStopped(RunError):
    """A training run was asked to stop; its state is saved and `--resume` goes on from it."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.signal_number = signal_number


class ProcessLost(RunError):
    """Another process of a training run died; `--resume` goes on from the last saved state."""
