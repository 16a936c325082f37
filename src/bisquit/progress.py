"""How work that takes long tells how far it is: a function called with what is done and what there is to do."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[int, int], None]
