"""Masks as tools write them: palettes, alpha, sentinels, smooth edges, 16 bits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fleetseg.config import SourceConfig
from fleetseg.data.check import check
from fleetseg.data.sample import Label_HW
from fleetseg.data.sources import open_source
from fleetseg.errors import BadSample, DataError

ROAD, CAR, BLACK = (128, 64, 128), (0, 0, 142), (0, 0, 0)
COLOURS = f"colours = [{list(ROAD)}, {list(CAR)}]\n"


def a_set(root: Path, *masks: Image.Image, toml: str = "") -> Path:
    (root / "images").mkdir(parents=True)
    (root / "masks").mkdir()
    classes = "" if "classes = " in toml or "space = " in toml else 'classes = ["road", "car"]\n'
    (root / "classes.toml").write_text(classes + toml)
    for number, mask in enumerate(masks):
        Image.new("RGB", mask.size, (200, 200, number)).save(root / f"images/{number}.png")
        mask.save(root / f"masks/{number}.png")
    return root


def palette(indices: list[list[int]], colours: dict[int, tuple[int, int, int]]) -> Image.Image:
    image = Image.fromarray(np.array(indices, dtype=np.uint8))
    flat = [v for i in range(256) for v in colours.get(i, (i, 99, 1))]
    image.putpalette(flat)
    assert image.mode == "P"
    return image


def grey(rows: list[list[int]], dtype: type = np.uint8) -> Image.Image:
    return Image.fromarray(np.array(rows, dtype=dtype))


def label(root: Path) -> list[list[int]]:
    source = open_source(SourceConfig(kind="folder", root=str(root)))
    label_HW: Label_HW | None = source.read(source.samples[0])[1]
    assert label_HW is not None
    return label_HW.tolist()


def bad(root: Path) -> str:
    with pytest.raises(BadSample) as error:
        label(root)
    return str(error.value)


def notes(root: Path) -> str:
    return "\n".join(check(open_source(SourceConfig(kind="folder", root=str(root)))).notes)


# --- palettes --------------------------------------------------------------------------------


def test_a_palette_of_class_colours_in_another_order_goes_by_colour(tmp_path: Path) -> None:
    mask = palette([[0, 1, 1]], {0: CAR, 1: ROAD})
    assert label(a_set(tmp_path, mask, toml=COLOURS)) == [[1, 0, 0]]


def test_a_palette_in_the_order_of_the_classes_goes_by_index(tmp_path: Path) -> None:
    mask = palette([[0, 1, 255]], {0: ROAD, 1: CAR})
    assert label(a_set(tmp_path, mask, toml=COLOURS)) == [[0, 1, 255]]


def test_a_palette_of_other_colours_goes_by_index(tmp_path: Path) -> None:
    assert label(a_set(tmp_path, palette([[1, 0, 255]], {}), toml=COLOURS)) == [[1, 0, 255]]


def test_without_colours_in_classes_toml_a_palette_goes_by_index(tmp_path: Path) -> None:
    assert label(a_set(tmp_path, palette([[0, 1, 1]], {0: CAR, 1: ROAD}))) == [[0, 1, 1]]


def test_colours_of_a_built_in_space_rule_as_well(tmp_path: Path) -> None:
    mask = palette([[5, 6]], {5: (70, 130, 180), 6: (128, 64, 128)})  # sky and drivable
    assert label(a_set(tmp_path, mask, toml='space = "idd7"\n')) == [[6, 0]]


def test_a_palette_that_contradicts_the_ids_is_refused(tmp_path: Path) -> None:
    mask = palette([[0, 1, 2]], {0: BLACK, 1: ROAD, 2: CAR})
    text = bad(a_set(tmp_path, mask, toml=COLOURS))
    assert "the palette contradicts the ids" in text
    assert "0 (0, 0, 0)" in text
    assert "under `ignore`" in text


def test_the_cure_of_a_contradiction_works(tmp_path: Path) -> None:
    mask = palette([[0, 1, 2]], {0: BLACK, 1: ROAD, 2: CAR})
    root = a_set(tmp_path, mask, toml=COLOURS + "ignore = [[0, 0, 0]]\n")
    assert label(root) == [[255, 0, 1]]


def test_a_transparent_palette_entry_is_void(tmp_path: Path) -> None:
    mask = palette([[0, 1, 2]], {0: (9, 9, 9), 1: ROAD, 2: CAR})
    mask.info["transparency"] = 0
    root = a_set(tmp_path, toml=COLOURS)
    Image.new("RGB", (3, 1)).save(root / "images/0.png")
    mask.convert("RGBA").save(root / "masks/0.png")
    assert label(root) == [[255, 0, 1]]


# --- colours ---------------------------------------------------------------------------------


def rgba(*pixels: tuple[int, ...]) -> Image.Image:
    return Image.fromarray(np.array([pixels], dtype=np.uint8))


def test_alpha_does_not_matter_where_the_colour_is_a_class(tmp_path: Path) -> None:
    mask = rgba((*ROAD, 255), (*CAR, 128), (*CAR, 0), (0, 0, 0, 0))
    assert label(a_set(tmp_path, mask, toml=COLOURS)) == [[0, 1, 1, 255]]


def test_a_void_colour_is_listed_under_ignore(tmp_path: Path) -> None:
    mask = rgba(ROAD, BLACK)
    text = bad(a_set(tmp_path / "a", mask, toml=COLOURS))
    assert "of no class; got (0, 0, 0) (1 px)" in text
    assert "write `ignore = [[0, 0, 0]]`" in text
    root = a_set(tmp_path / "b", mask, toml=COLOURS + "ignore = [7, [0, 0, 0]]\n")
    assert label(root) == [[0, 255]]


def test_smooth_edges_of_a_colour_mask_are_named(tmp_path: Path) -> None:
    blend = [tuple((np.array(ROAD) * k + np.array(CAR) * (9 - k)) // 9) for k in range(10)]
    text = bad(a_set(tmp_path, rgba(*blend), toml=COLOURS))
    assert "smooth" in text
    assert "JPEG" in text


def test_grey_ids_with_a_whole_alpha_channel_are_ids(tmp_path: Path) -> None:
    assert label(a_set(tmp_path, grey([[0, 1]]).convert("LA"))) == [[0, 1]]


def test_ids_in_three_equal_channels_are_named(tmp_path: Path) -> None:
    text = bad(a_set(tmp_path, grey([[0, 1]]).convert("RGB")))
    assert "got mode RGB with equal channels" in text
    assert text.endswith("Save one of the channels as 8-bit grey, if its values are ids")


# --- ids and sentinels -----------------------------------------------------------------------


def test_masks_of_0_and_255_are_noted_with_what_to_write(tmp_path: Path) -> None:
    root = a_set(tmp_path, grey([[0, 255, 255]]))
    text = notes(root)
    assert "class 1 car never occurs in a label, while 66.7% of the pixels are void" in text
    assert "`values = [0, 255]`" in text
    (root / "classes.toml").write_text('classes = ["road", "car"]\nvalues = [0, 255]\n')
    assert label(root) == [[0, 1, 1]]
    assert "never" not in notes(root)


def test_masks_of_0_1_and_255_in_a_space_of_three(tmp_path: Path) -> None:
    root = a_set(tmp_path, grey([[0, 1, 255]]), toml='classes = ["a", "b", "c"]\n')
    assert "`values = [0, 1, 255]`" in notes(root)
    (root / "classes.toml").write_text('classes = ["a", "b", "c"]\nvalues = [0, 1, 255]\n')
    assert label(root) == [[0, 1, 2]]


def test_masks_of_0_and_255_in_a_space_of_three(tmp_path: Path) -> None:
    root = a_set(tmp_path, grey([[0, 255]]), toml='classes = ["a", "b", "c"]\n')
    assert "classes 1 b, 2 c never occur" in notes(root)
    assert "masks of 0 and 255" in notes(root)


def test_other_sentinels_are_refused_with_what_to_write(tmp_path: Path) -> None:
    root = a_set(tmp_path / "a", grey([[0, 128]]))
    assert "write `values = [0, 128]` in classes.toml" in bad(root)
    (root / "classes.toml").write_text('classes = ["road", "car"]\nvalues = [0, 128]\n')
    assert label(root) == [[0, 1]]
    root = a_set(tmp_path / "b", grey([[0, 128, 255]]))
    assert "all but 255 are the classes in their order, write `values = [0, 128]`" in bad(root)


def test_ids_that_start_at_1(tmp_path: Path) -> None:
    root = a_set(tmp_path, grey([[1, 2]]))
    assert "if ids start at 1, `values = [1, 2]`" in bad(root)


def test_values_and_ignored_ids_go_together(tmp_path: Path) -> None:
    toml = "values = [10, 255]\nignore = [0]\n"
    assert label(a_set(tmp_path, grey([[10, 255, 0]]), toml=toml)) == [[0, 1, 255]]


def test_one_bit_masks_are_ids_0_and_1_and_noted(tmp_path: Path) -> None:
    root = a_set(tmp_path, grey([[0, 255]]).convert("1"))
    assert label(root) == [[0, 1]]
    assert "one bit per pixel: black is read as id 0 road, white as id 1 car" in notes(root)


def test_smoothly_resized_ids_are_named(tmp_path: Path) -> None:
    assert "smooth" in bad(a_set(tmp_path, grey([list(range(0, 250, 5))])))


@pytest.mark.parametrize(("step", "dtype"), [(257, np.uint16), (256, np.uint16)])
def test_ids_stretched_to_16_bits_are_named(tmp_path: Path, step: int, dtype: type) -> None:
    text = bad(a_set(tmp_path, grey([[0, step]], dtype)))
    assert f"stretched to 16 bits: save id / {step}" in text


def test_16_bit_ids_in_range_are_ids(tmp_path: Path) -> None:
    assert label(a_set(tmp_path, grey([[0, 1, 255]], np.uint16))) == [[0, 1, 255]]


def test_depth_maps_are_not_instance_ids(tmp_path: Path) -> None:
    text = bad(a_set(tmp_path, grey([[0, 40123]], np.uint16)))
    assert "is this a depth map" in text


@pytest.mark.parametrize(
    ("toml", "what"),
    [
        ("values = [0]", "1 values for 2 classes"),
        ("values = [0, 0]", "distinct"),
        ("values = [0, 256]", "0-255"),
        ("values = [0, 9]\nignore = [9]", "none of them listed under `ignore`"),
        ("ignore = [[0, 0]]", "a colour is"),
        (COLOURS + f"ignore = [{list(ROAD)}]", "lists the colour of a class"),
        ("bits = 7", "`bits` must be 8-16"),
    ],
)
def test_wrong_keys_are_explained(tmp_path: Path, toml: str, what: str) -> None:
    root = a_set(tmp_path, grey([[0, 1]]), toml=toml)
    with pytest.raises(DataError, match=what):
        open_source(SourceConfig(kind="folder", root=str(root)))


def test_values_that_are_swapped_are_noted_as_they_are_read(tmp_path: Path) -> None:
    root = a_set(tmp_path, grey([[0, 255]]).convert("1"), toml="values = [1, 0]\n")
    assert label(root) == [[1, 0]]
    assert "black is read as id 1 car, white as id 0 road" in notes(root)


def test_channels_in_the_order_of_opencv_are_named(tmp_path: Path) -> None:
    turned = np.array([[ROAD, CAR, CAR]], np.uint8)[..., ::-1]
    assert "save mask[..., ::-1]" in bad(a_set(tmp_path, Image.fromarray(turned), toml=COLOURS))


def test_negative_ids_are_told_what_void_is(tmp_path: Path) -> None:
    root = a_set(tmp_path, grey([[0, 1]]))
    (root / "masks" / "0.png").unlink()
    grey([[-1, 1]], np.int32).save(root / "masks" / "0.tif")
    assert "got -1 (1 px)" in bad(root)
    assert "Write 255 for pixels without a class" in bad(root)


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        (grey([[0, 1]], np.float32), "label map in floating point; got mode F"),
        (Image.new("LA", (2, 1), (1, 9)), "label map with transparent pixels; got mode LA"),
    ],
)
def test_what_is_neither_ids_nor_colours_is_called_what_it_is(
    tmp_path: Path, mask: Image.Image, words: str
) -> None:
    root = a_set(tmp_path, grey([[0, 1]]))
    (root / "masks" / "0.png").unlink()
    mask.save(root / "masks" / "0.tif")
    assert words in bad(root)


@pytest.mark.parametrize("ending", ["tif", "png"])
def test_a_label_file_of_several_pictures_is_bad_and_an_image_is_noted(
    tmp_path: Path, ending: str
) -> None:
    root = a_set(tmp_path, grey([[0, 1]]), grey([[0, 1]]))
    several = {"save_all": True, "append_images": [grey([[1, 0]])]}
    (root / "masks" / "0.png").unlink()
    grey([[0, 1]]).save(root / "masks" / f"0.{ending}", **several)
    assert "label file with several pictures" in bad(root)
    assert "got 2 pages or frames" in bad(root)
    (root / "images" / "1.png").unlink()
    grey([[9, 1]]).save(root / "images" / f"1.{ending}", **several)
    assert "1 of 2 images are files of several pages or frames: the first is read" in notes(root)


def test_a_single_class_is_noted(tmp_path: Path) -> None:
    assert "road is the only class, so every labelled pixel has it" in notes(
        a_set(tmp_path, grey([[0, 255]]), toml='classes = ["road"]\n')
    )
