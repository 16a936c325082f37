"""How long `bisquit sample -n 1` takes from the shell, cold, beside a bare `python -c "import torch"`.

    python benchmarks/cold_start.py [--rounds 7]

Both in alternation. The last line is one JSON object: the seconds of each, and of their difference.
"""

from __future__ import annotations

import argparse
import functools
import subprocess
import sys
import tempfile
from pathlib import Path

from measure import alternate, finish, machine


def main() -> None:
    """Time both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        picture = str(Path(folder) / "picture.png")
        commands = {
            "import_torch": [sys.executable, "-c", "import torch"],
            "sample": [sys.executable, "-m", "bisquit", "sample", "--model", "seed", "-n", "1", "-o", picture],
        }
        run = functools.partial(subprocess.run, check=True, capture_output=True)
        times = alternate({name: functools.partial(run, command) for name, command in commands.items()}, options.rounds)
    more = times["sample"].median_s - times["import_torch"].median_s
    print(f"a picture takes {more:.2f} s more than importing torch")
    finish(
        {
            "import_torch_s": times["import_torch"].summary(),
            "sample_s": times["sample"].summary(),
            "difference_s": more,
            "machine": machine(),
        }
    )


if __name__ == "__main__":
    main()
