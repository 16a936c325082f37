"""Bytes from outside against the codec: each is the right picture, or one clear error.

    python fuzz/fuzz_codec.py [--runs 1000000] [--seconds 60] [--corpus fuzz/corpus/codec]
    python fuzz/fuzz_codec.py --random 50000

The first is libFuzzer through atheris, guided by coverage; the second mutates at random, without atheris, and so goes
under sanitizers too. An input's first byte says what it is: a picture file, the content of a sound one, changes to a
sound one, an archive, or changes to one. The model is tiny, so that millions of inputs are an hour's work. The last
line is one JSON object.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import inspect
import json
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FunctionType, ModuleType

import numpy as np
import torch
from torch import nn

from bisquit.autoencoder import AutoEncoderConfig
from bisquit.codec import Archive, Codec, CodecModel, RateConfig, Rung, archive, codec, coding, model, picture_file
from bisquit.errors import CodecError
from bisquit.priors import RasterConfig, build_prior
from bisquit.quantizers import BSQConfig
from bisquit.tokenizer import Tokenizer, TokenizerConfig
from bisquit.transformer import TransformerConfig

CORPUS = Path(__file__).parent / "corpus" / "codec"
GRID, BITS, PATCH_SIZE = (2, 3), 3, 4
LONGEST = 4096  # bytes of an input
MOST_GROWTH_MB = 200


@functools.cache
def tiny_codec() -> Codec:
    """Return the codec of a model of random weights, the same each time."""
    generator = torch.Generator().manual_seed(0)
    tokenizer = Tokenizer(TokenizerConfig(AutoEncoderConfig(PATCH_SIZE, 8, 1), BSQConfig(bits=BITS)))
    prior = build_prior(RasterConfig(transformer=TransformerConfig(8, 1, 2, 16), neighbours=2), BITS, GRID)
    modules: tuple[nn.Module, ...] = (tokenizer, prior)
    with torch.no_grad():
        for module in modules:
            for parameter in module.parameters():
                parameter.copy_(torch.randint(-48, 49, parameter.shape, generator=generator) / 64)
    return Codec([Rung(CodecModel(tokenizer.eval(), prior.eval(), None))])


@functools.cache
def sound() -> tuple[list[bytes], list[np.ndarray]]:
    """Return some picture files that are sound, and the pictures that they are of."""
    codec, rng = tiny_codec(), np.random.default_rng(0)
    sizes = ((8, 12), (8, 12), (7, 10), (5, 9))
    rate = RateConfig(effort=0)
    files = [codec.compress(rng.integers(0, 256, (1, *size, 3), dtype=np.uint8), rate)[0] for size in sizes]
    return files, codec.decompress(files)


@functools.cache
def sound_archive() -> bytes:
    """Return an archive of the sound files."""
    return archive.HEADER + b"".join(archive.record(f"folder/{i}.png", file) for i, file in enumerate(sound()[0]))


def changed(data: bytes, changes: bytes) -> bytes:
    """Return data with changes made: flips, cuts and insertions, three bytes each."""
    for kind, place, value in zip(changes[::3], changes[1::3], changes[2::3], strict=False):
        at = place * (len(data) + 1) // 256
        if kind % 4 == 0:
            data = data[:at] + bytes([data[at] ^ (value or 1)]) + data[at + 1 :] if at < len(data) else data
        elif kind % 4 == 1:
            data = data[:at]
        elif kind % 4 == 2:
            data = data[:at] + changes[: value % 32] + data[at:]
        else:
            data = data[:at] + data[at + value % 32 :]
    return data


def check(data: bytes) -> None:
    """Give one input to the codec. Raises AssertionError, or whatever the codec raises, if it does wrong."""
    if not data:
        return
    kind, rest = data[0] % 5, data[1:]
    files, pictures = sound()
    if kind == 0:
        decoded(rest)
    elif kind == 1:
        content = rest[: picture_file.MOST_CONTENT]
        picture = decoded(picture_file.pack(content, tiny_codec().models[0].fingerprint))
        assert picture is None or picture.shape == (8, 12, 3)
    elif kind == 2 and rest:
        number = rest[0] % len(files)
        file = changed(files[number], rest[1:])
        picture = decoded(file)
        assert picture is None or (file == files[number] and np.array_equal(picture, pictures[number]))
    elif kind == 3:
        read_archive(rest)
    else:
        for _, file in read_archive(changed(sound_archive(), rest)):
            picture = decoded(file)
            assert picture is None or np.array_equal(picture, pictures[files.index(file)])


def decoded(file: bytes) -> np.ndarray | None:
    """Return the picture of a file, None if it is refused."""
    try:
        return tiny_codec().decompress([file])[0]
    except CodecError:
        return None


def read_archive(data: bytes) -> list[tuple[str, bytes]]:
    """Return the names and files of an archive; none if it is refused."""
    with tempfile.NamedTemporaryFile(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as file:
        file.write(data)
        file.flush()
        try:
            with Archive(file.name) as opened:
                covered = sum(entry.end - entry.start for entry in opened)
                covered += sum(lost.end - lost.start for lost in opened.lost)
                assert covered == len(data) - len(archive.HEADER)
                return [(entry.name, opened.read(entry)) for entry in opened]
        except CodecError:
            return []


def seeds() -> Iterator[bytes]:
    """Yield inputs to begin with."""
    files = sound()[0]
    yield from (b"\0" + file for file in files)
    yield from (b"\1" + file[9:] for file in files)
    yield from (bytes([2, number, kind, 100, 7]) for number in range(len(files)) for kind in range(4))
    yield b"\3" + sound_archive()
    yield from (bytes([4, kind, place, 9]) for kind in range(4) for place in (0, 20, 60, 120, 200, 255))


def main() -> None:
    """Fuzz, and say how it went."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=-1, help="inputs; without, as many as there is time for")
    parser.add_argument("--seconds", type=int, default=0, help="how long; 0 for as long as it takes")
    parser.add_argument("--corpus", type=Path, default=CORPUS, help="where inputs of new coverage are kept")
    parser.add_argument("--random", type=int, help="so many random inputs, without atheris")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.worker:
        be_libfuzzer(options)
    begin = time.monotonic()
    runs, peak = fuzz_guided() if options.random is None else fuzz_at_random(options.random)
    seconds = round(time.monotonic() - begin)
    print(json.dumps({"target": "codec", "runs": runs, "failures": 0, "peak_mb": round(peak), "seconds": seconds}))


def peak_mb() -> float:
    """Return the most memory that this process had, in 10**6 bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def fuzz_at_random(count: int) -> tuple[int, float]:
    """Check the seeds, and random changes to them; return how many inputs that were, and the most MB at once."""
    rng, inputs = np.random.default_rng(0), list(seeds())
    one = watched()
    for data in inputs:
        one(data)
    for number in range(count):
        data = inputs[rng.integers(len(inputs))]
        rest = rng.bytes(rng.integers(300)) if number % 7 == 0 else changed(data[1:], rng.bytes(3 * rng.integers(1, 5)))
        one(data[:1] + rest)
        if number % 10_000 == 0:
            print(f"{number:,} of {count:,}", flush=True)
    return count + len(inputs), peak_mb()


def fuzz_guided() -> tuple[int, float]:
    """Run libFuzzer in a process of its own; return how many inputs it tried, and the most MB at once."""
    command = [sys.executable, __file__, *sys.argv[1:], "--worker"]
    said = []
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        for line in process.stderr or ():
            said.append(line)
            sys.stderr.write(line)
    if process.returncode:
        raise SystemExit(process.returncode)
    found = dict(re.findall(r"stat::(\w+):\s+(\d+)", "".join(said)))
    return int(found["number_of_executed_units"]), float(found["peak_rss_mb"])


def be_libfuzzer(options: argparse.Namespace) -> None:
    """Be the process that libFuzzer runs in; it exits by itself."""
    import atheris

    for module in (archive, coding, codec, model, picture_file):
        for function in functions_of(module):
            atheris.instrument_func(function)
    options.corpus.mkdir(parents=True, exist_ok=True)
    for data in seeds():
        (options.corpus / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)
    flags = [f"-runs={options.runs}", f"-max_total_time={options.seconds}", f"-max_len={LONGEST}", "-timeout=10"]
    atheris.Setup([sys.argv[0], *flags, "-print_final_stats=1", str(options.corpus)], watched())
    atheris.Fuzz()


def functions_of(module: ModuleType) -> Iterator[FunctionType]:
    """Yield the functions and methods that a module defines."""
    for owner in (module, *(kind for kind in vars(module).values() if isinstance(kind, type))):
        for value in vars(owner).values():
            function = inspect.unwrap(value) if callable(value) else None
            if isinstance(function, FunctionType) and function.__module__ == module.__name__:
                yield function


def watched() -> Callable[[bytes], None]:
    """Return `check`, which then also fails where memory grows by more than MOST_GROWTH_MB."""
    sound(), sound_archive()
    before = peak_mb()

    def one(data: bytes) -> None:
        check(data)
        assert peak_mb() - before < MOST_GROWTH_MB, "memory grew beyond bounds"

    return one


if __name__ == "__main__":
    main()
