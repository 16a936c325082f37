"""A report with pictures: the figures of an evaluation, what came back of frames, and where their bits lie.

    rows, figures, pictures ──write_page──> report.html                     one file, pictures within
                                            report.md, report/01.png, ...   pictures beside it
    frames, reconstructions ──reconstruction_sheet──> picture
    frames, token bits ──bits_sheet──> picture
    mean bits of each grid cell ──bits_map_picture──> picture

Bits are shown in the colours of viridis (van der Walt and Smith 2015, CC0), whose lightness grows evenly, on a scale
that always runs from 0 to the bits of a token, so that pictures of two models can be compared. All pictures are uint8
(H, W, 3).
"""

from __future__ import annotations

import base64
import html
import io
import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from PIL import Image

from bisquit.atomic import atomic_file, atomic_folder
from bisquit.config import require
from bisquit.errors import ConfigError, ShapeError
from bisquit.frames import contact_sheet

ERROR_GAIN = 4
"""How many times the differences in `reconstruction_sheet` are enlarged."""

_GAP_PX = 2
_SCALE_PX = 8
_PAPER = 255
_VIRIDIS = np.array(  # nine colours at even steps
    [
        (68, 1, 84),
        (71, 45, 123),
        (59, 82, 139),
        (44, 114, 142),
        (33, 145, 140),
        (40, 174, 128),
        (94, 201, 98),
        (173, 220, 48),
        (253, 231, 37),
    ]
)
_MARKDOWN_SIGNS = re.compile(r"([\\`*_\[\]<>|&#~!])")
_STYLE = """
:root { color-scheme: light dark; --text: #1b1f24; --faint: #57606a; --paper: #ffffff; --line: #d0d7de; }
@media (prefers-color-scheme: dark) {
  :root { --text: #e6edf3; --faint: #9198a1; --paper: #0d1117; --line: #30363d; }
}
body { margin: 2rem auto; max-width: 60rem; padding: 0 1rem; color: var(--text); background: var(--paper);
  font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; overflow-wrap: anywhere; }
table { border-collapse: collapse; }
th, td { padding: 0.25rem 1.5rem 0.25rem 0; border-bottom: 1px solid var(--line); text-align: left; }
th { font-weight: normal; color: var(--faint); }
td { font-variant-numeric: tabular-nums; }
figure { margin: 2rem 0; }
figcaption { color: var(--faint); }
img { display: block; max-width: 100%; height: auto; }
pre { overflow-x: auto; font-size: 0.85rem; }
"""


def check_page(path: str | os.PathLike[str]) -> None:
    """Raise ConfigError if `write_page` would refuse this path; to be called before work that takes long.

    It ends in .html or .md, and beside a .md its folder of pictures is not there yet: pages do not touch a folder that
    they have not made.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in (".html", ".md"):
        raise ConfigError(f"{path} is no page: end its name in .html, for one file, or in .md")
    folder = path.with_suffix("")
    if suffix == ".md" and os.path.lexists(folder):
        raise ConfigError(f"{folder} is there already: remove it, or end the page in .html, or give it another name")


def write_page(
    path: str | os.PathLike[str],
    title: str,
    rows: Sequence[tuple[str, str]],
    figures: Mapping[str, Any],
    pictures: Sequence[tuple[str, np.ndarray]],
) -> None:
    """Write a page to read, whole or not at all: .html with its pictures within, or .md with a folder of them.

    rows: the table, a measure and its value each. figures: everything as plain data, shown as JSON. pictures: a caption
    and a uint8 (H, W, 3) each; report.md has them as report/01.png and so on. Raises ConfigError as `check_page` does,
    ShapeError for a picture of another type or shape, and OSError as the file system does.
    """
    path = Path(path)
    check_page(path)
    shown = [(_one_line(caption), _png(picture)) for caption, picture in pictures]
    table = [(_one_line(measure), _one_line(value)) for measure, value in rows]
    data = json.dumps(dict(figures), indent=2, ensure_ascii=False)
    if path.suffix.lower() == ".html":
        with atomic_file(path) as partial:
            _write_text(partial, _html(_one_line(title), table, data, shown))
    else:
        _write_markdown(path, _markdown(path.stem, _one_line(title), table, data, shown), [png for _, png in shown])


def _write_markdown(path: Path, text: str, pngs: Sequence[bytes]) -> None:
    folder = path.with_suffix("")  # not there yet, as `check_page` saw
    try:
        with atomic_file(path) as page:
            _write_text(page, text)
            if pngs:
                with atomic_folder(folder) as partial:
                    for number, png in enumerate(pngs, start=1):
                        (partial / _picture_name(number)).write_bytes(png)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", errors="backslashreplace")  # names of files may not be Unicode


def _html(title: str, rows: Sequence[tuple[str, str]], data: str, pictures: Sequence[tuple[str, bytes]]) -> str:
    table = [f'<tr><th scope="row">{html.escape(name)}</th><td>{html.escape(value)}</td></tr>' for name, value in rows]
    return "\n".join(
        (
            "<!DOCTYPE html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{html.escape(title)}</title>",
            f"<style>{_STYLE}</style>",
            "</head>",
            "<body>",
            f"<h1>{html.escape(title)}</h1>",
            "<table>",
            *table,
            "</table>",
            *(_html_figure(caption, png) for caption, png in pictures),
            "<details>",
            "<summary>All figures</summary>",
            f"<pre>{html.escape(data)}</pre>",
            "</details>",
            "</body>",
            "</html>\n",
        )
    )


def _html_figure(caption: str, png: bytes) -> str:
    text = html.escape(caption)
    source = f"data:image/png;base64,{base64.b64encode(png).decode()}"
    return f'<figure>\n<img src="{source}" alt="{text}">\n<figcaption>{text}</figcaption>\n</figure>'


def _markdown(
    folder: str, title: str, rows: Sequence[tuple[str, str]], data: str, pictures: Sequence[tuple[str, bytes]]
) -> str:
    table = [f"| {_markdown_text(name)} | {_markdown_text(value)} |" for name, value in rows]
    blocks = [f"# {_markdown_text(title)}", "\n".join(("| measure | value |", "| --- | --- |", *table))]
    for number, (caption, _) in enumerate(pictures, start=1):
        text = _markdown_text(caption)
        blocks += [f"![{text}]({quote(folder)}/{_picture_name(number)})", f"*{text}*"]
    blocks += ["All figures:", "\n".join(f"    {line}" for line in data.split("\n"))]  # indented: nothing to escape
    return "\n\n".join(blocks) + "\n"


def _markdown_text(text: str) -> str:
    return _MARKDOWN_SIGNS.sub(r"\\\1", text)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _picture_name(number: int) -> str:
    return f"{number:02d}.png"


def _png(picture: np.ndarray) -> bytes:
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or picture.size == 0:
        raise ShapeError(f"a picture is {picture.dtype} {picture.shape}: it must be uint8 (H, W, 3), not empty")
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def reconstruction_sheet(frames: np.ndarray, reconstructions: np.ndarray, columns: int = 4) -> np.ndarray:
    """Lay out frames, under each its reconstruction, and under that the difference of the two, 4 times enlarged.

    frames, reconstructions: uint8 (N, H, W, 3). The difference is that of each channel without its sign: black is none,
    and 64 or more is 255. Raises ShapeError for other arrays or none at all.
    """
    if frames.shape != reconstructions.shape:
        raise ShapeError(f"frames are {frames.shape}, their reconstructions {reconstructions.shape}")
    differences = np.abs(frames.astype(np.int16) - reconstructions)
    enlarged = (ERROR_GAIN * differences).clip(max=255).astype(np.uint8)
    return _stacks((frames, reconstructions, enlarged), columns)


def bits_sheet(frames: np.ndarray, token_bits: np.ndarray, bits: int, patch_size: int, columns: int = 4) -> np.ndarray:
    """Lay out frames, under each the bits of its tokens as colours, and at the bottom the scale, from 0 to `bits`.

    frames: uint8 (N, H, W, 3). token_bits: float (N, h, w), what each token costs; one above `bits`, which is more than
    if all codes were as likely, has the colour of `bits`. bits: of a token. patch_size: the pixels of a token's side,
    such that h = ceil(H / patch_size). Raises ShapeError for other arrays or none at all.
    """
    require(patch_size >= 1, "patch_size", patch_size, "at least 1")
    if token_bits.ndim != 3 or frames.ndim != 4:
        raise ShapeError(f"frames are {frames.shape}, bits {token_bits.shape}: they must be (N, H, W, 3) and (N, h, w)")
    count, height, width, _ = frames.shape
    wanted = (count, -(-height // patch_size), -(-width // patch_size))
    if token_bits.shape != wanted:
        raise ShapeError(f"bits are {token_bits.shape}: frames {frames.shape} in patches of {patch_size} need {wanted}")
    heat = _cells(_colours(token_bits, bits), patch_size)[:, :height, :width]  # as the frames were padded, so cropped
    return _with_scale(_stacks((frames, heat), columns), bits)


def bits_map_picture(bits_map: np.ndarray, bits: int, cell_px: int = 16) -> np.ndarray:
    """Show the mean bits of each grid cell as colours, and under them the scale, from 0 to `bits`.

    bits_map: float (h, w), such as `Likelihood.bits_by_position`. bits: of a token. cell_px: the side of a cell.
    Raises ShapeError for another array.
    """
    require(cell_px >= 1, "cell_px", cell_px, "at least 1")
    if bits_map.ndim != 2 or bits_map.size == 0:
        raise ShapeError(f"the map of bits is {bits_map.shape}: it must be (h, w), not empty")
    heat = _cells(_colours(bits_map[None], bits), cell_px)
    return _with_scale(contact_sheet(heat, columns=1, gap_px=_GAP_PX), bits)


def _colours(values: np.ndarray, bits: int) -> np.ndarray:
    """Return the colours of values (...) on the scale from 0 to `bits`, uint8 (..., 3); what is outside is clipped."""
    require(bits >= 1, "bits", bits, "at least 1")
    steps = np.linspace(0, bits, len(_VIRIDIS))
    return np.stack([np.interp(values, steps, channel) for channel in _VIRIDIS.T], axis=-1).round().astype(np.uint8)


def _cells(colours: np.ndarray, cell_px: int) -> np.ndarray:
    """Enlarge each cell of (N, h, w, 3) to a square of `cell_px` pixels."""
    return colours.repeat(cell_px, axis=1).repeat(cell_px, axis=2)


def _with_scale(sheet: np.ndarray, bits: int) -> np.ndarray:
    """Lay the scale under a sheet, over its whole width: 0 at the left, `bits` at the right."""
    steps = np.linspace(0, bits, sheet.shape[1] - 2 * _GAP_PX)
    scale = np.tile(_colours(steps, bits), (1, _SCALE_PX, 1, 1))
    return np.concatenate((sheet, contact_sheet(scale, columns=1, gap_px=_GAP_PX)[_GAP_PX:]))


def _stacks(rows: Sequence[np.ndarray], columns: int) -> np.ndarray:
    """Lay out pictures, uint8 (N, H, W, 3) in each row, so that the n-th of all rows stand over one another."""
    require(columns >= 1, "columns", columns, "at least 1")
    count, *shape = rows[0].shape
    columns = min(columns, count) or 1
    blank = np.full((-count % columns, *shape), _PAPER, dtype=np.uint8)
    blocks = [np.concatenate((row, blank)).reshape(-1, columns, *shape) for row in rows]
    return contact_sheet(np.stack(blocks, axis=1).reshape(-1, *shape), columns, _GAP_PX)
