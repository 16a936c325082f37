"""Pages that show their pictures and nothing that they were not told, and pictures whose pixels are known."""

from __future__ import annotations

import base64
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image

from bisquit.errors import ConfigError, ShapeError
from bisquit.evaluation.page import bits_map_picture, bits_sheet, check_page, reconstruction_sheet, write_page
from bisquit.frames import read_frame

TITLE = 'seed on <script>alert("1")</script> & *frames*'
ROWS = [("bits <b>", "5 | 6"), ("PSNR", "20.00 dB")]
FIGURES = {"model": "</pre><script>", "psnr_db": 20.0, "bit_means": [0.5, 0.25], "bits_per_image": None}
DARK, BRIGHT = (68, 1, 84), (253, 231, 37)


class Page(HTMLParser):
    """What a browser would make of a page: its tags, its text, and the pictures and their descriptions."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.words = ""
        self.images: list[dict[str, str | None]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag == "img":
            self.images.append(dict(attrs))

    def handle_data(self, data: str) -> None:
        self.words += data


@pytest.fixture
def pictures() -> list[tuple[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    return [(f'caption "{index}" <i>', rng.integers(0, 256, (4, 6, 3), dtype=np.uint8)) for index in range(2)]


def noise(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 8, 12, 3), dtype=np.uint8)


def test_html_is_one_file_that_holds_the_pictures(tmp_path: Path, pictures):
    write_page(tmp_path / "report.html", TITLE, ROWS, FIGURES, pictures)
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    page = Page((tmp_path / "report.html").read_text())
    assert len(page.images) == len(pictures)
    for image, (caption, picture) in zip(page.images, pictures, strict=True):
        kind, data = image["src"].split(",")
        assert kind == "data:image/png;base64"
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))), picture)
        assert image["alt"] == caption


def test_html_shows_what_it_was_given_as_text(tmp_path: Path, pictures):
    write_page(tmp_path / "report.html", TITLE, ROWS, FIGURES, pictures)
    text = (tmp_path / "report.html").read_text()
    page = Page(text)
    assert not {"script", "b", "i"} & set(page.tags)
    assert page.words.count(TITLE) == 2  # on the tab and on the page
    assert all(measure in page.words and value in page.words for measure, value in ROWS)
    assert 'caption "1" <i>' in page.words
    assert json.loads(re.search(r"^\{.*^\}", page.words, re.DOTALL | re.MULTILINE)[0]) == FIGURES
    assert "http" not in text  # nothing is fetched


def test_markdown_links_to_pictures_beside_it(tmp_path: Path, pictures):
    write_page(tmp_path / "my (first) report.md", TITLE, ROWS, FIGURES, pictures)
    links = re.findall(r"\]\((.*)\)$", (tmp_path / "my (first) report.md").read_text(), re.MULTILINE)
    assert links == ["my%20%28first%29%20report/01.png", "my%20%28first%29%20report/02.png"]
    for link, (_, picture) in zip(links, pictures, strict=True):
        np.testing.assert_array_equal(read_frame(tmp_path / unquote(link)), picture)
    assert len(list((tmp_path / "my (first) report").iterdir())) == 2


def test_markdown_shows_what_it_was_given_as_text(tmp_path: Path, pictures):
    write_page(tmp_path / "report.md", "two\n# lines <b>", [("a|b", "*1*")], FIGURES, pictures[:1])
    lines = (tmp_path / "report.md").read_text().split("\n")
    assert lines[0] == r"# two \# lines \<b\>"
    assert r"| a\|b | \*1\* |" in lines
    figures = [line[4:] for line in lines if line.startswith("    ")]
    assert json.loads("\n".join(figures)) == FIGURES


def test_markdown_without_pictures_has_no_folder(tmp_path: Path):
    write_page(tmp_path / "report.md", TITLE, ROWS, FIGURES, [])
    assert [path.name for path in tmp_path.iterdir()] == ["report.md"]


def test_names_that_are_not_unicode_are_shown_and_do_not_fail(tmp_path: Path):
    for name in ("report.html", "report.md"):
        write_page(tmp_path / name, "frames-\udcff", ROWS, {"model": "\udcff"}, [])
        assert r"frames-\udcff" in (tmp_path / name).read_text()


def test_html_replaces_an_older_page(tmp_path: Path):
    for title in ("old", "new"):
        write_page(tmp_path / "report.html", title, ROWS, FIGURES, [])
    assert "<h1>new</h1>" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize("name", ["report.txt", "report", ".md"])
def test_other_suffixes_are_refused(tmp_path: Path, name: str):
    with pytest.raises(ConfigError, match=r"end its name in \.html, for one file, or in \.md"):
        write_page(tmp_path / name, TITLE, ROWS, FIGURES, [])
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_there_is_not_touched(tmp_path: Path, pictures):
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "weights").write_text("a")
    check_page(tmp_path / "report.html")
    with pytest.raises(ConfigError, match="report is there already"):
        check_page(tmp_path / "report.md")
    with pytest.raises(ConfigError, match="report is there already"):
        write_page(tmp_path / "report.md", TITLE, ROWS, FIGURES, pictures)
    assert [path.name for path in tmp_path.rglob("*")] == ["report", "weights"]


@pytest.mark.parametrize("name", ["report.md", "report.html"])
def test_an_unfit_picture_leaves_nothing(tmp_path: Path, pictures, name: str):
    with pytest.raises(ShapeError, match=r"float64 \(4, 6, 3\)"):
        write_page(tmp_path / name, TITLE, ROWS, FIGURES, [*pictures, ("grey", np.zeros((4, 6, 3)))])
    assert list(tmp_path.iterdir()) == []


def test_a_picture_that_cannot_be_written_leaves_nothing(tmp_path: Path, pictures, monkeypatch):
    def fail_on_second(path: Path, data: bytes) -> int:
        if path.name == "02.png":
            raise OSError("disk full")
        return write_bytes(path, data)

    write_bytes = Path.write_bytes
    monkeypatch.setattr(Path, "write_bytes", fail_on_second)
    with pytest.raises(OSError, match="disk full"):
        write_page(tmp_path / "report.md", TITLE, ROWS, FIGURES, pictures)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["report.md", "report.html"])
def test_a_page_that_cannot_be_put_in_place_leaves_nothing(tmp_path: Path, pictures, name: str):
    (tmp_path / name / "full").mkdir(parents=True)
    with pytest.raises(OSError, match=name):
        write_page(tmp_path / name, TITLE, ROWS, FIGURES, pictures)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_reconstructions_stand_under_their_frames_and_errors_under_them():
    frames, remade = noise(3), noise(3, seed=1)
    remade[2] = frames[2]
    sheet = reconstruction_sheet(frames, remade, columns=2)
    assert sheet.shape == (2 + 6 * 10, 2 + 2 * 14, 3)  # three frames in two columns: six rows
    error = np.minimum(4 * np.abs(frames[1].astype(int) - remade[1]), 255)
    for row, wanted in enumerate((frames[1], remade[1], error)):
        np.testing.assert_array_equal(sheet[2 + 10 * row : 10 + 10 * row, 16:28], wanted)
    assert sheet[52:60, 2:14].max() == 0  # the third frame came back whole
    assert sheet[32:, 16:].min() == 255  # there is no fourth


def test_bits_stand_under_their_frames_in_the_size_of_the_patches():
    frames = noise(2)[:, :7]  # 7 x 12 in patches of 4: the lower row of patches is cut
    token_bits = np.zeros((2, 2, 3))
    token_bits[1, 1, 2] = 10
    token_bits[1, 0, 0] = 25
    sheet = bits_sheet(frames, token_bits, bits=10, patch_size=4)
    np.testing.assert_array_equal(sheet[2:9, 16:28], frames[1])
    heat = sheet[11:18, 16:28]
    bright = (heat == BRIGHT).all(axis=2)
    assert bright[:4, :4].all()
    assert bright[4:, 8:].all()
    assert bright.sum() == 4 * 4 + 3 * 4
    assert (heat[~bright] == DARK).all()
    assert (sheet[11:18, 2:14] == DARK).all()


def test_a_map_shows_its_cells_over_the_whole_scale():
    picture = bits_map_picture(np.array([[0.0, 5.0], [10.0, 2.5]]), bits=10, cell_px=3)
    assert picture.shape == (2 + 6 + 2 + 8 + 2, 2 + 6 + 2, 3)
    assert [tuple(picture[y, x]) for y in (2, 7) for x in (2, 7)] == [DARK, (33, 145, 140), BRIGHT, (59, 82, 139)]
    np.testing.assert_array_equal(picture[10, 2], DARK)
    np.testing.assert_array_equal(picture[17, 7], BRIGHT)


def test_more_bits_are_lighter_and_never_the_same_colour():
    values = np.linspace(0, 8, 65)[None]
    colours = bits_map_picture(values, bits=8, cell_px=1)[2, 2:-2].astype(float)
    assert (np.diff(colours @ (0.2126, 0.7152, 0.0722)) > 0).all()


def test_arrays_that_do_not_belong_together_are_named():
    with pytest.raises(ShapeError, match="their reconstructions"):
        reconstruction_sheet(noise(2), noise(1))
    with pytest.raises(ShapeError, match=r"need \(2, 2, 3\)"):
        bits_sheet(noise(2), np.zeros((2, 2, 2)), bits=3, patch_size=4)
    with pytest.raises(ShapeError, match=r"must be \(N, H, W, 3\) and \(N, h, w\)"):
        bits_sheet(noise(2), np.zeros((2, 3)), bits=3, patch_size=4)
    with pytest.raises(ShapeError, match="not empty"):
        reconstruction_sheet(noise(0), noise(0))
    with pytest.raises(ShapeError, match=r"must be \(h, w\)"):
        bits_map_picture(np.zeros((0, 2)), bits=3)
    with pytest.raises(ConfigError, match="bits is 0"):
        bits_map_picture(np.zeros((1, 2)), bits=0)
    with pytest.raises(ConfigError, match="columns is 0"):
        reconstruction_sheet(noise(1), noise(1), columns=0)
