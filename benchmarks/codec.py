"""Bytes against quality: bisquit's codec beside JPEG, WebP, AVIF and JPEG XL, on frames that no model has seen.

    python benchmarks/codec.py --frames FRAMES/valid-00.parquet [--count 100] [--model best]

Every codec at many settings (`other_codecs`), also on pictures of half and a third of the size, enlarged again: an hour
or more on all frames. Settings of the others are tried on some frames first, and those go no further that another size
of picture beats in everything there. What a setting gives is measured once for the same frames, models and code, and
kept in --record beside the page, so that a run that was stopped goes on, in another checkout too; --count takes as many
frames, evenly spread, and --others measures the other codecs alone. Then the times of encoding and decoding, in
alternation. docs/codec.md and its pictures are written anew, and the last line is one JSON object with the BD-rates.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from measure import Timing, alternate, finish, machine
from other_codecs import OTHER_CODECS, SCALES, OtherCodec

from bisquit.atomic import atomic_file
from bisquit.codec import Codec, RateConfig, search
from bisquit.codec.rate import BEST_QUALITY
from bisquit.engine import arithmetic
from bisquit.errors import ConfigError
from bisquit.evaluation.rate_distortion import Curve, Setting, bd_rate
from bisquit.evaluation.reconstruction import ReconstructionMeter
from bisquit.frames import contact_sheet, load_frames, spread, write_frame
from bisquit.generate import load_codec

ROOT = Path(__file__).resolve().parent.parent
IMAGES = ROOT / "docs" / "images"
OURS = "bisquit"
QUALITIES = (0, 10, 20, 30, 40, 50, 60, 70, 80, BEST_QUALITY)
BATCH = 64
FEWEST_BYTES, MOST_BYTES = 200, 800
MEASURES = {"psnr_db": "PSNR", "ssim": "SSIM", "ms_ssim": "MS-SSIM"}
TRIED = 64  # frames, evenly spread, that the others' settings are tried on
MOST_TRIED = 1000  # bytes: of settings in order of quality, none is tried after the first that takes more
MARGIN = 0.05  # by how much fewer bytes another size of picture must do with in the trial
SHOWN = 5  # frames on the sheet

Result = dict[str, float]
"""The means of one setting: file_bytes, payload_bytes, psnr_db, ssim, ms_ssim."""


class Stored(NamedTuple):
    """A batch of frames as one setting of a codec stores them."""

    files: list[bytes]
    payloads: list[int]
    decoded: np.ndarray


@dataclass(frozen=True)
class Point:
    """One setting of a codec."""

    codec: str
    label: str
    """The name that its figures are kept under."""
    ladder: str
    """What it shares with its codec's settings that differ in quality alone."""
    store: Callable[[np.ndarray], Stored]
    """Takes frames, uint8 (B, H, W, 3)."""


def main() -> None:
    """Measure what is not measured yet, then write the page."""
    options = parse()
    frames = load_frames(options.frames)
    pixels = frames[spread(options.count or len(frames), len(frames))]
    ours = load_codec(options.model)
    trial = Record(ROOT / "docs" / "codec-trial.json", frames[spread(TRIED, len(frames))])
    points = [*(() if options.others else our_points(ours)), *worth_measuring(other_points(), trial)]
    record = Record(options.record, pixels, points)
    results: dict[str, dict[str, Result]] = {}
    for number, point in enumerate(points, 1):
        print(f"{number} of {len(points)}: {point.label}", flush=True)
        results.setdefault(point.codec, {})[point.label] = record.measured(point)
    if options.others:
        finish({"frames": len(pixels), "settings": len(points), "machine": machine("pillow", "pillow-jxl-plugin")})
        return
    rates = {measure: bd_rates(results, measure) for measure in MEASURES}
    times = timed(ours, pixels)
    draw_curves(results, IMAGES / "codec.png")
    write_frame(sheet(points, pixels), IMAGES / "codec-frames.png")
    with atomic_file(ROOT / "docs" / "codec.md") as partial:
        partial.write_text(page(results, rates, times, options, len(pixels)))
    finish(
        {
            "frames": len(pixels),
            "bd_rates": rates,
            "times": {name: timing.summary() for name, timing in times.items()},
            "machine": machine("pillow", "pillow-jxl-plugin", "constriction"),
        }
    )


def parse() -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", required=True, help="frames that no model has seen")
    parser.add_argument("--count", type=int, default=0, help="how many of them; 0 for all")
    parser.add_argument("--model", help="one model, in place of all that ship for compression")
    parser.add_argument("--record", type=Path, help="where figures are kept; beside the page by default")
    parser.add_argument("--others", action="store_true", help="measure the other codecs alone, and write no page")
    options = parser.parse_args()
    options.record = options.record or ROOT / "docs" / (
        f"codec-{options.count}.json" if options.count else "codec.json"
    )
    return options


def our_points(codec: Codec) -> Iterator[Point]:
    """Yield our settings: each quality."""
    code = [path for package in (search, arithmetic) for path in sorted(Path(package.__file__).parent.glob("*.py"))]
    ladder = [f"{rung.model.fingerprint.hex()} {rung.quality}" for rung in codec.rungs]
    identity = [*(path.read_bytes() for path in code), *map(str.encode, ladder), version("constriction").encode()]
    name = hashlib.sha256(b"".join(identity)).hexdigest()[:12]  # what was kept is of this code and these models
    for quality in QUALITIES:
        rate = RateConfig(quality=quality)

        def store(frames: np.ndarray, rate: RateConfig = rate) -> Stored:
            files = codec.compress(frames, rate)
            payloads = [len(codec.open(file).content) for file in files]
            return Stored(files, payloads, np.stack(codec.decompress(files)))

        yield Point(OURS, f"{OURS}-{name}-{quality}-{rate.effort}", OURS, store)


def other_points() -> Iterator[Point]:
    """Yield the settings of the others."""
    for codec in OTHER_CODECS:
        for scale in SCALES:
            for quality in codec.qualities:

                def store(
                    frames: np.ndarray, codec: OtherCodec = codec, quality: int = quality, scale: int = scale
                ) -> Stored:
                    with ThreadPoolExecutor() as pool:  # the codecs work outside of Python's lock
                        files = list(pool.map(lambda frame: codec.encode(frame, quality, scale), frames))
                        decoded = list(pool.map(lambda file: codec.decode(file, frames.shape[1:3]), files))
                    return Stored(files, [codec.payload(file) for file in files], np.stack(decoded))

                label = f"{codec.name}-{version(codec.package)}-{quality}-of-1-{scale}".replace(" ", "-")
                yield Point(codec.name, label, f"{codec.name} {scale}", store)


class Record:
    """What was measured of settings on the same frames, kept in a file; of ours, those that are still there."""

    def __init__(self, path: Path, frames: np.ndarray, points: Sequence[Point] = ()) -> None:
        """frames: uint8 (N, H, W, 3). Figures of other frames are not taken, and are written over."""
        self.path, self.frames = path, frames
        self.name = hashlib.sha256(frames.tobytes()).hexdigest()[:16]
        kept = json.loads(path.read_text()) if path.exists() else {}
        found: dict[str, Result] = kept.get("settings", {}) if kept.get("frames") == self.name else {}
        others = {label: result for label, result in found.items() if not label.startswith(OURS)}
        self.settings = others | {point.label: found[point.label] for point in points if point.label in found}

    def measured(self, point: Point) -> Result:
        """Return a setting's figures, measured if they are not kept yet."""
        if point.label not in self.settings:
            self.settings[point.label] = measured(point, self.frames)
            with atomic_file(self.path) as partial:
                partial.write_text(json.dumps({"frames": self.name, "settings": self.settings}, indent=1) + "\n")
        return self.settings[point.label]


def worth_measuring(points: Iterable[Point], trial: Record) -> list[Point]:
    """Return the settings that may lie on their codec's curve, by what they give of the frames of a trial."""
    ladders: dict[str, dict[str, dict[str, Result]]] = {}
    tried = []
    for point in points:
        ladder = ladders.setdefault(point.codec, {}).setdefault(point.ladder, {})
        if all(result["file_bytes"] <= MOST_TRIED for result in ladder.values()):
            ladder[point.label] = trial.measured(point)
            tried.append(point)
    return [
        point
        for point in tried
        if not is_beaten(
            ladders[point.codec][point.ladder][point.label],
            [ladder for name, ladder in ladders[point.codec].items() if name != point.ladder and len(ladder) > 1],
        )
    ]


def is_beaten(result: Result, ladders: Sequence[Mapping[str, Result]]) -> bool:
    """Whether some of the ladders give no less in every measure, for bytes that are fewer by a margin, however told."""
    return all(
        any(
            curve(ladder, measure, size).log_bytes_at(np.array([result[measure]]))[0] < np.log(result[size]) - MARGIN
            for ladder in ladders
        )
        for measure in MEASURES
        for size in ("file_bytes", "payload_bytes")
    )


def measured(point: Point, frames: np.ndarray) -> Result:
    """Return a setting's figures."""
    meter, sizes, payloads = ReconstructionMeter(), 0, 0
    begin = time.monotonic()
    for start in range(0, len(frames), BATCH):
        batch = frames[start : start + BATCH]
        stored = point.store(batch)
        sizes += sum(map(len, stored.files))
        payloads += sum(stored.payloads)
        meter.update(torch.from_numpy(batch), torch.from_numpy(stored.decoded))
        if sys.stderr.isatty():
            left = (time.monotonic() - begin) * (len(frames) / min(start + BATCH, len(frames)) - 1)
            print(f"\r{left:6.0f} s left", end="\r", file=sys.stderr, flush=True)
    means = meter.compute()
    assert means.ms_ssim is not None
    return {
        "file_bytes": sizes / len(frames),
        "payload_bytes": payloads / len(frames),
        "psnr_db": means.psnr_db,
        "ssim": means.ssim,
        "ms_ssim": means.ms_ssim,
    }


def curve(settings: Mapping[str, Result], measure: str, size: str = "file_bytes") -> Curve:
    """Return a codec's curve."""
    return Curve([Setting(result[size], result[measure]) for result in settings.values()])


def bd_rates(results: Mapping[str, Mapping[str, Result]], measure: str) -> dict[str, float | None]:
    """Return our BD-rate against each codec and against the best of all, whole files and payloads.

    None where our best quality is below what it is to be compared with.
    """
    found: dict[str, float | None] = {}
    for size, suffix in (("file_bytes", ""), ("payload_bytes", ", payloads")):
        ours = curve(results[OURS], measure, size)
        others = {name: curve(settings, measure, size) for name, settings in results.items() if name != OURS}
        for name, of in {
            **{name: [one] for name, one in others.items()},
            "the best of all": [*others.values()],
        }.items():
            try:
                found[name + suffix] = bd_rate(ours, of, FEWEST_BYTES, MOST_BYTES)
            except ConfigError as error:
                print(f"{MEASURES[measure]} against {name}{suffix}: {error}", flush=True)
                found[name + suffix] = None
    return found


def timed(codec: Codec, frames: np.ndarray) -> dict[str, Timing]:
    """Return the seconds for a picture: encoding with and without the search, and decoding, alone and in a batch."""
    batch, one = frames[:BATCH], frames[:1]
    rates = {"nearest tokens": RateConfig(effort=0), "searched": RateConfig()}
    files, file = codec.compress(batch, rates["nearest tokens"]), codec.compress(one, rates["nearest tokens"])
    sides: dict[str, Callable[[], object]] = {}
    for name, rate in rates.items():
        sides[f"encode one, {name}"] = lambda rate=rate: codec.compress(one, rate)
        sides[f"encode {len(batch)}, {name}"] = lambda rate=rate: codec.compress(batch, rate)
    sides["decode one"] = lambda: codec.decompress(file)
    sides[f"decode {len(batch)}"] = lambda: codec.decompress(files)
    for other in OTHER_CODECS:
        quality = other.qualities[len(other.qualities) // 2]
        sides[f"encode one, {other.name}"] = lambda other=other, quality=quality: other.encode(one[0], quality, 1)
    seconds = alternate(sides, rounds=3)
    return {name: timing.scaled(1 / len(batch) if f" {len(batch)}" in name else 1) for name, timing in seconds.items()}


def draw_curves(results: Mapping[str, Mapping[str, Result]], path: Path) -> None:
    """Draw every codec's curve, bytes against each measure, into a PNG."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(1, len(MEASURES), figsize=(5.2 * len(MEASURES), 4.2))
    for panel, (measure, title) in zip(panels, MEASURES.items(), strict=True):
        for name, settings in results.items():
            of = curve(settings, measure)
            style = {"color": "black", "linewidth": 2.5} if name == OURS else {}
            panel.plot(np.exp(of.log_bytes), of.qualities, marker=".", label=name, **style)
        panel.set(xlim=(100, 1000), xlabel="bytes", ylabel=title)
        inside = [
            q for s in results.values() for q in (r[measure] for r in s.values() if 100 <= r["file_bytes"] <= 1000)
        ]
        panel.set_ylim(min(inside), max(inside))
        panel.grid(alpha=0.3)
    panels[0].legend()
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def sheet(points: Sequence[Point], frames: np.ndarray) -> np.ndarray:
    """Return frames above what each codec makes of them in no fewer bytes than ours: the best of all its settings."""
    shown = frames[spread(SHOWN, len(frames))]
    ours = next(point for point in points if f"-{RateConfig().quality}-" in point.label).store(shown)
    rows = [shown, ours.decoded]
    for codec in dict.fromkeys(point.codec for point in points if point.codec != OURS):
        tries = [point.store(shown) for point in points if point.codec == codec]
        rows.append(np.stack([nearest_above(tries, i, len(ours.files[i]), shown[i]) for i in range(SHOWN)]))
    return contact_sheet(np.concatenate(rows), SHOWN)


def nearest_above(tries: Sequence[Stored], picture: int, size: int, frame: np.ndarray) -> np.ndarray:
    """Return the best decoding of a picture among the smallest three files of at least `size` bytes, or the largest."""
    by_size = sorted((len(stored.files[picture]), n) for n, stored in enumerate(tries))
    enough = [n for length, n in by_size if length >= size] or [by_size[-1][1]]
    decoded = [tries[n].decoded[picture] for n in enough[:3]]
    return min(decoded, key=lambda other: float(np.square(other.astype(np.float64) - frame).sum()))


def page(
    results: Mapping[str, Mapping[str, Result]],
    rates: Mapping[str, Mapping[str, float | None]],
    times: Mapping[str, Timing],
    options: argparse.Namespace,
    count: int,
) -> str:
    """Return the page as Markdown."""
    on = machine("pillow", "pillow-jxl-plugin", "constriction")
    names = list(rates["psnr_db"])
    arguments = f"--count {options.count}" + (f" --model {options.model}" if options.model else "")
    rate_rows = "\n".join(
        f"| {name} | " + " | ".join(percent(rates[measure][name]) for measure in MEASURES) + " |" for name in names
    )
    our_rows = "\n".join(
        f"| {label.split('-')[-2]} | {r['file_bytes']:.0f} | {r['psnr_db']:.2f} |"
        f" {r['ssim']:.3f} | {r['ms_ssim']:.3f} |"
        for label, r in sorted(results[OURS].items(), key=lambda item: item[1]["file_bytes"])
    )
    time_rows = "\n".join(f"| {name} | {timing.median_s * 1e3:.0f} |" for name, timing in times.items())
    return f"""# The codec beside others

Frames in all pictures: SuperTuxKart and its contributors, [supertuxkart.net](https://supertuxkart.net), CC BY-SA 4.0.

Bytes against quality on {count:,} frames of races that no model has seen, whole files, means over the frames. Made on
{on["date"]}, on {on["cores"]} cores ({on["processor"]}), by

    make bench-codec FRAMES={Path(options.frames).name} ARGS='{arguments}'

![Curves](images/codec.png)

JPEG with optimised tables, WebP at method 6, AVIF at its slowest, JPEG XL at effort 9; each also with pictures of half
and a third of the size, enlarged again, of which a curve takes the best. (Settings that another size of picture beats
in every measure by {MARGIN:.0%} of the bytes, on {TRIED} of the frames, were not measured on all.) How many bytes more
(+) or fewer (−) the codec needs for the same quality (BD-rate, between {FEWEST_BYTES} and {MOST_BYTES} bytes; a dash:
it does not reach their best):

| against | {" | ".join(MEASURES.values())} |
| --- |{" --- |" * len(MEASURES)}
{rate_rows}

"Payloads" leaves out containers: our header with its checksum, JFIF's, RIFF's and AVIF's boxes; a JPEG's tables and all
of a bare JPEG XL count.

| quality | bytes | PSNR, dB | SSIM | MS-SSIM |
| --- | --- | --- | --- | --- |
{our_rows}

Frames; what the codec makes of them at quality {RateConfig().quality}; and what JPEG, WebP, AVIF and JPEG XL make of
them in no fewer bytes:

![Frames](images/codec-frames.png)

Milliseconds for a picture, the model loaded:

| | ms |
| --- | --- |
{time_rows}
"""


def percent(rate: float | None) -> str:
    """Return a rate as it is written."""
    return "—" if rate is None else f"{rate:+.1%}".replace("-", "−")


if __name__ == "__main__":
    main()
