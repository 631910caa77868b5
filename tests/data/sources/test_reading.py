"""Sound files that a reader could take for damaged or dark, and texts in other encodings."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from fleetseg.config import SourceConfig
from fleetseg.data.check import CheckReport, check, report_lines
from fleetseg.data.sources import open_source
from fleetseg.data.sources.reading import read_image
from fleetseg.data.store.cache import open_store
from fleetseg.errors import BadSample, DataError

TOML = 'classes = ["sky", "road"]\n'


def a_set(root: Path, toml: str = TOML) -> Path:
    """A folder data set without images: labels 0 to 2, each of one row of sky and road."""
    (root / "images").mkdir(parents=True)
    (root / "masks").mkdir()
    (root / "classes.toml").write_text(toml)
    return root


def add(root: Path, name: str, image: Image.Image, **options: object) -> None:
    image.save(root / "images" / name, **options)  # type: ignore[arg-type]
    ids_HW = np.zeros((image.height, image.width), dtype=np.uint8)
    ids_HW[-1] = 1
    Image.fromarray(ids_HW).save(root / "masks" / f"{Path(name).stem}.png")


def checked(root: Path) -> CheckReport:
    return check(open_source(SourceConfig(kind="folder", root=str(root))))


def notes(root: Path) -> str:
    report = checked(root)
    assert report.bad == ()
    assert all(f"note: {note}" in report_lines(report) for note in report.notes)
    return "\n".join(report.notes)


# --- sound PNGs with large texts -------------------------------------------------------------


def chunk(kind: bytes, content: bytes) -> bytes:
    return (
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
    )


LARGE = zlib.compress(b"x" * 3_000_000)
TEXTS = {
    "zTXt": chunk(b"zTXt", b"meta\0\0" + LARGE),
    "iTXt": chunk(b"iTXt", b"meta\0\1\0\0\0" + LARGE),
    "iCCP": chunk(b"iCCP", b"profile\0\0" + LARGE),
    "tEXt": b"".join(chunk(b"tEXt", b"%d\0" % i + b"x" * 2_000_000) for i in range(40)),
}


@pytest.mark.parametrize("kind", TEXTS)
@pytest.mark.parametrize("at_the_end", [False, True])
def test_png_with_a_large_text_is_read(tmp_path: Path, kind: str, at_the_end: bool) -> None:
    pixels_HWC = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    Image.fromarray(pixels_HWC).save(file := io.BytesIO(), format="PNG")
    data = file.getvalue()
    at = len(data) - 12 if at_the_end and kind != "iCCP" else 33  # before IEND, or after IHDR
    path = tmp_path / "a.png"
    path.write_bytes(data[:at] + TEXTS[kind] + data[at:])
    assert (read_image(str(path)) == pixels_HWC).all()


def test_label_with_a_large_text_is_read(tmp_path: Path) -> None:
    add(root := a_set(tmp_path), "0.png", Image.new("RGB", (4, 4)))
    info = PngImagePlugin.PngInfo()
    info.add_text("meta", "x" * 3_000_000, zip=True)
    mask = Image.open(root / "masks/0.png")
    mask.load()
    mask.save(root / "masks/0.png", pnginfo=info)
    assert checked(root).num_labelled == 1


def test_damage_is_still_damage(tmp_path: Path) -> None:
    Image.new("RGB", (64, 64)).save(file := io.BytesIO(), format="PNG")
    data = file.getvalue()
    (tmp_path / "a.png").write_bytes(data[:33] + TEXTS["zTXt"] + data[33:60])
    with pytest.raises(BadSample, match="truncated or damaged"):
        read_image(str(tmp_path / "a.png"))


# --- 10, 12 and 14 bits in 16 ----------------------------------------------------------------


@pytest.mark.parametrize("bits", [8, 10, 12, 14])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_few_bits_in_16_are_noted_and_scaled_once_stated(
    tmp_path: Path, bits: int, suffix: str
) -> None:
    root, top = a_set(tmp_path), (1 << bits) - 1
    grey_HW = np.linspace(0, top, 24).astype(np.uint16).reshape(4, 6)
    add(root, f"0.{suffix}", Image.fromarray(grey_HW))
    text = notes(root)
    assert "nearly black (dark)" in text
    assert f"`bits = {bits}`" in text
    (root / "classes.toml").write_text(f"{TOML}bits = {bits}\n")
    assert "dark" not in notes(root)
    source = open_source(SourceConfig(kind="folder", root=str(root)))
    image_HWC, _ = source.read(source.samples[0])
    assert (image_HWC[..., 0] == grey_HW >> (bits - 8)).all()
    assert image_HWC.max() == 255


def test_a_store_is_not_asked_for_once_files_are_read_otherwise(tmp_path: Path) -> None:
    root = a_set(tmp_path / "set")
    add(root, "0.png", Image.fromarray(np.full((4, 6), 4095, dtype=np.uint16)))
    found = []
    for keys in ("", "bits = 12\n", "values = [1, 0]\n"):
        (root / "classes.toml").write_text(TOML + keys)
        source = open_source(SourceConfig(kind="folder", root=str(root)))
        store = open_store(
            source,
            size_hw=(4, 6),
            space=source.space,
            cache_dir=tmp_path / "cache",
            native_labels=False,
        )
        found.append((int(store.pair(0)[0].max()), store.histograms_NC[0].tolist()))
    assert found == [(15, [18, 6]), (255, [18, 6]), (15, [6, 18])]


def test_brighter_than_the_stated_bits_is_bad(tmp_path: Path) -> None:
    root = a_set(tmp_path, f"{TOML}bits = 10\n")
    add(root, "0.png", Image.fromarray(np.full((4, 6), 1024, dtype=np.uint16)))
    assert (
        "brighter than 10 bits allow; got 1024, expected at most 1023" in checked(root).bad[0].text
    )


def rgb_16(value: int) -> bytes:
    """A PNG of 4x2 pixels in 16-bit colour, which PIL cannot write."""
    rows = (b"\0" + struct.pack(">H", value) * 3 * 4) * 2
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 2, 16, 2, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + header + body


def test_few_bits_in_16_bit_colour_are_noted(tmp_path: Path) -> None:
    root = a_set(tmp_path)
    add(root, "0.png", Image.new("RGB", (4, 2)))
    (root / "images/0.png").write_bytes(rgb_16(4095))
    assert "16-bit files and nearly black (dark): their brightest value is 15" in notes(root)
    (root / "classes.toml").write_text(f"{TOML}bits = 12\n")
    assert "Convert it to 8 bits: divide by 16" in checked(root).bad[0].text


def test_dark_images_of_8_bits_are_counted(tmp_path: Path) -> None:
    root = a_set(tmp_path)
    for number, value in enumerate((0, 31, 32)):
        add(root, f"{number}.png", Image.new("RGB", (4, 4), (value,) * 3))
    assert "2 of 3 images are nearly black (dark)" in notes(root)


def test_bright_16_bit_images_are_not_dark(tmp_path: Path) -> None:
    add(root := a_set(tmp_path), "0.png", Image.fromarray(np.full((4, 4), 60000, dtype=np.uint16)))
    assert notes(root) == ""


# --- turned images ---------------------------------------------------------------------------


def test_exif_turns_are_counted_by_kind(tmp_path: Path) -> None:
    root = a_set(tmp_path)
    square = Image.new("RGB", (4, 4), (200, 0, 0))
    for number, orientation in enumerate((1, 2, 3, 3, 6, 8)):
        exif = Image.Exif()
        exif[0x0112] = orientation
        add(root, f"{number}.jpg", square, exif=exif)
    text = notes(root)
    assert "5 of 6 images have an EXIF orientation" in text
    assert "(1 mirrored, 2 turned by 180 degrees, 2 turned by 90 degrees), no label has one" in text


def test_turned_images_are_counted_where_their_labels_do_not_fit_too(tmp_path: Path) -> None:
    root = a_set(tmp_path)
    exif = Image.Exif()
    exif[0x0112] = 6
    add(root, "0.jpg", Image.new("RGB", (6, 4), (200, 0, 0)), exif=exif)
    add(root, "1.png", Image.new("RGB", (6, 4), (200, 0, 0)))
    report = checked(root)
    assert "EXIF rotation" in report.bad[0].text
    assert any("1 of 2 images have an EXIF" in note for note in report.notes)


def test_labels_with_a_turn_of_their_own_are_counted(tmp_path: Path) -> None:
    add(root := a_set(tmp_path), "0.png", Image.new("RGB", (4, 4), (200, 0, 0)))
    exif = Image.Exif()
    exif[0x0112] = 3
    mask = Image.open(root / "masks/0.png")
    mask.load()
    mask.save(root / "masks/0.png", exif=exif)
    assert "no image has an EXIF orientation, 1 labels have one" in notes(root)


# --- texts -----------------------------------------------------------------------------------


def test_classes_toml_with_a_byte_order_mark(tmp_path: Path) -> None:
    add(root := a_set(tmp_path), "0.png", Image.new("RGB", (4, 4)))
    (root / "classes.toml").write_bytes(b"\xef\xbb\xbf" + TOML.replace("\n", "\r\n").encode())
    assert checked(root).classes == ("sky", "road")


@pytest.mark.parametrize(
    ("encoding", "what"), [("utf-16", "UTF-16"), ("utf-16-le", "UTF-16"), ("latin-1", "line 1")]
)
def test_classes_toml_in_another_encoding(tmp_path: Path, encoding: str, what: str) -> None:
    root = a_set(tmp_path)
    (root / "classes.toml").write_bytes('classes = ["Straße"]'.encode(encoding))
    with pytest.raises(DataError, match=f"not valid TOML .*{what}.*as UTF-8"):
        open_source(SourceConfig(kind="folder", root=str(root)))


# --- files in place of pictures --------------------------------------------------------------


def test_a_label_in_a_format_that_is_not_read_is_not_missing(tmp_path: Path) -> None:
    root = a_set(tmp_path)
    add(root, "0.png", Image.new("RGB", (4, 4), 200))
    (root / "masks" / "0.png").unlink()
    Image.new("L", (4, 4)).save(root / "masks" / "0.GIF")
    assert "file not found; got 0.GIF, which is not read. Save 0.GIF as PNG" in (
        checked(root).bad[0].text
    )
