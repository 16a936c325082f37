"""The codec's exactness on real frames: every way to compute it gives the same bytes and the same pixels.

    python benchmarks/exactness.py --frames FRAMES/valid-00.parquet [--count 256] [--only low]

For each model that compresses: the engine with every kind of kernel that the processor has, on one thread and on two,
and PyTorch, each with pictures in batches and alone. Each way encodes all frames and decodes what it encoded, and its
bytes and pixels, a hash for every 16 frames, must be those that docs/exactness.json holds: since the bytes are the
same, each way also decodes what any other encoded, on other machines too. What is slow, PyTorch and the engine without
wide instructions, takes the first --slow frames; the search for better tokens, and slow ways with pictures alone, the
first 16. Hashes of a model that the file does not know are added.

It also compares each picture's bytes with what the model itself says it is worth, in float32. It exits with an error if
anything differs, or if a picture takes more than 1% and 4 bytes beyond its worth. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import finish, machine
from torch import Tensor

from bisquit.atomic import atomic_file
from bisquit.codec import RateConfig, coding, search
from bisquit.codec.rate import trades
from bisquit.engine import EnginePrior, EngineTokenizer, IntegerPrior, IntegerTokenizer, prepare, usable_kernels
from bisquit.evaluation.likelihood import likelihood
from bisquit.frames import load_frames
from bisquit.generate import LADDER, Pipeline, load

DOCS = Path(__file__).resolve().parent.parent / "docs"
CHUNK = 16
"""Frames of one hash."""
BATCH = 64
PLAIN = "baseline"
"""The kernels without wide instructions."""
MOST_BEYOND, MOST_BYTES_BEYOND = 0.01, 4

Digests = dict[str, list[str]]
"""Of a model: a hash of every 16 pictures' `bytes` and `pixels`, and one of the `searched` bytes."""


@dataclass(frozen=True)
class Way:
    """A way to compute a model in integers."""

    backend: str
    threads: int
    batch: int
    kernels: str = ""

    def __str__(self) -> str:
        of = f"engine, {self.kernels}" if self.backend == "engine" else "PyTorch"
        return f"{of}, {self.threads} thread{'s' * (self.threads > 1)}, batches of {self.batch}"

    def frames(self, count: int, slow: int) -> int:
        """Return how many of `count` frames it takes."""
        if self.backend == "engine" and self.kernels != PLAIN:
            return count
        return min(count, slow if self.batch > 1 else CHUNK)

    def models(self, pipeline: Pipeline) -> tuple[IntegerTokenizer | EngineTokenizer, IntegerPrior | EnginePrior]:
        """Return the tokenizer and the prior in the form that computes them so."""
        tokenizer, prior = IntegerTokenizer(pipeline.tokenizer), IntegerPrior(pipeline.painting_prior())
        if self.backend == "torch":
            return tokenizer, prior
        return EngineTokenizer(tokenizer, self.threads, self.kernels), EnginePrior(prior, self.threads, self.kernels)


def ways() -> Iterator[Way]:
    """Yield all ways; the first is what users have."""
    for kernels in usable_kernels():
        for threads in (2, 1):
            for batch in (BATCH, 1):
                yield Way("engine", threads, batch, kernels)
    for threads, batch in ((2, BATCH), (1, BATCH), (2, 1)):
        yield Way("torch", threads, batch)


@dataclass(frozen=True)
class Told:
    """What one way made of frames."""

    digests: Digests
    content_bytes: list[int]
    seconds: float


def told(way: Way, pipeline: Pipeline, frames: Tensor) -> Told:
    """Encode and decode frames, uint8 (N, H, W, 3), one way; those that it encodes must come back as they were."""
    tokenizer, prior = way.models(pipeline)
    torch.set_num_threads(way.threads)
    begin = time.monotonic()
    contents: list[bytes] = []
    pixels: list[bytes] = []
    searched: list[bytes] = []
    for batch in frames.split(way.batch):
        tokens = tokenizer.encode(batch)
        coded = coding.encode(prior, tokens)
        if not torch.equal(coding.decode(prior, coded), tokens):
            raise SystemExit(f"{way}: tokens do not come back as they were")
        contents += coded
        pixels += [frame.numpy().tobytes() for frame in tokenizer.decode(tokens, (frames.shape[1], frames.shape[2]))]
    for batch in frames[:CHUNK].split(way.batch):
        trade = trades(np.full(len(batch), RateConfig().quality))
        found = search.improve(tokenizer, prior, batch, tokenizer.encode(batch), trade, RateConfig().effort)
        searched += coding.encode(prior, found)
    digests = {name: hashed(parts) for name, parts in (("bytes", contents), ("pixels", pixels), ("searched", searched))}
    return Told(digests, [*map(len, contents)], time.monotonic() - begin)


def hashed(parts: list[bytes]) -> list[str]:
    """Return a hash of every 16 parts and of where each ends."""
    return [digest(parts[start : start + CHUNK]) for start in range(0, len(parts), CHUNK)]


def digest(parts: list[bytes]) -> str:
    """Return a hash of parts and of where each ends."""
    found = hashlib.sha256()
    for part in parts:
        found.update(len(part).to_bytes(8, "big") + part)
    return found.hexdigest()[:16]


def differences(digests: Digests, wanted: Digests) -> int:
    """Return how many hashes differ; those of more frames than were taken are left out."""
    return sum(
        one != other for name, hashes in digests.items() for one, other in zip(hashes, wanted[name], strict=False)
    )


def main() -> None:
    """Compare all ways of all models, and write the page."""
    options = parse()
    frames = torch.from_numpy(load_frames(options.frames)[: options.count or None])
    if options.slow % CHUNK:
        raise SystemExit(f"--slow is {options.slow}: it must be a multiple of {CHUNK}")
    of = hashlib.sha256(frames.numpy().tobytes()).hexdigest()[:16]
    record: Path = options.record or (DOCS / "exactness.json" if not options.count else None)
    kept: dict[str, Digests] = json.loads(record.read_text()) if record and record.exists() else {}
    rows: list[dict[str, Any]] = []
    for name in [options.only] if options.only else LADDER:
        pipeline = load(name)
        key = f"{name} {pipeline.tokenizer.fingerprint()} {pipeline.painting_prior().fingerprint()} {of}"
        for way in ways():
            print(f"{name}: {way}", flush=True)
            made = told(way, pipeline, frames[: way.frames(len(frames), options.slow)])
            wanted = kept.setdefault(key, made.digests)
            row = {
                "model": name,
                "way": str(way),
                "frames": len(made.content_bytes),
                "differences": differences(made.digests, wanted),
                "ms_a_picture": made.seconds / len(made.content_bytes) * 1e3,
            }
            if not rows or rows[-1]["model"] != name:
                row |= beyond_worth(pipeline, frames, made.content_bytes)
            rows.append(row)
        if record:
            with atomic_file(record) as partial_file:
                partial_file.write_text(json.dumps(kept, indent=1) + "\n")
    if not options.count:
        with atomic_file(DOCS / "exactness.md") as partial_file:
            partial_file.write_text(page(rows, Path(options.frames).name))
    finish({"ways": rows, "machine": machine("constriction")})
    sys.exit(any(row["differences"] or row.get("dear", 0) for row in rows))


def beyond_worth(pipeline: Pipeline, frames: Tensor, content_bytes: list[int]) -> dict[str, float]:
    """Return how much more than the model's own bits pictures take: the mean's share, and how many are dear."""
    tokenizer = EngineTokenizer(IntegerTokenizer(pipeline.tokenizer))
    tokens = torch.cat([tokenizer.encode(batch) for batch in frames.split(BATCH)])
    worth = likelihood(prepare(pipeline.painting_prior()), tokens, BATCH).per_image_bits / 8
    taken = np.array(content_bytes)
    is_dear = taken > worth * (1 + MOST_BEYOND) + MOST_BYTES_BEYOND
    return {
        "worth_bytes": float(worth.mean()),
        "beyond": float(taken.mean() / worth.mean() - 1),
        "most_beyond_bytes": float((taken - worth).max()),
        "dear": int(is_dear.sum()),
    }


def parse() -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", required=True, help="frames that no model has seen")
    parser.add_argument("--count", type=int, default=0, help="how many of them, the first; 0 for all")
    parser.add_argument("--only", help="one model, in place of all that pictures are compressed with")
    parser.add_argument("--slow", type=int, default=128, help="frames that slow ways take, a multiple of 16")
    parser.add_argument(
        "--record", type=Path, help="where hashes are kept; docs/exactness.json if they are of all frames"
    )
    return parser.parse_args()


def page(rows: list[dict[str, Any]], frames: str) -> str:
    """Return the page as Markdown."""
    on = machine("constriction")
    ways_rows = "\n".join(
        f"| `{row['model']}` | {row['way']} | {row['frames']:,} | {row['differences']} |" for row in rows
    )
    worth_rows = "\n".join(
        f"| `{row['model']}` | {row['worth_bytes']:.1f} | {row['beyond']:+.2%} | {row['most_beyond_bytes']:.1f} |"
        f" {row['dear']} |".replace("-", "−")
        for row in rows
        if "dear" in row
    )
    return f"""# The codec gives the same bytes and pixels, however it is computed

Each model that compresses, on frames of races that no model has seen. Every way encodes the frames' nearest tokens,
decodes them again, and is compared by its hashes with what [exactness.json](exactness.json) holds of the first way, so
that each decodes what any other encoded; on some frames also the tokens that the search finds. Made on {on["date"]}, on
{on["cores"]} cores ({on["processor"]}), by

    make exact FRAMES={frames}

| model | way | frames | differences |
| --- | --- | --- | --- |
{ways_rows}

The bytes of a picture beside what the model itself, in float32, says that its tokens are worth; a picture is dear if it
takes more than {MOST_BEYOND:.0%} and {MOST_BYTES_BEYOND} bytes beyond:

| model | worth, bytes | taken beyond, mean | taken beyond, most, bytes | dear |
| --- | --- | --- | --- | --- |
{worth_rows}
"""


if __name__ == "__main__":
    main()
