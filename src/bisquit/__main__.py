"""`python -m bisquit`: the command line."""

from __future__ import annotations

from bisquit.cli.main import main

main()
