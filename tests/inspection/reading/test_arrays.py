"""Whatever a person has pixels in is the same image, or is refused with the way out."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.inspection.reading.test_images import NOISE_16, deep_png

from okng.errors import OkngError
from okng.inspection.inspector import each_image
from okng.inspection.reading.formats import UnreadableImage
from okng.inspection.reading.images import Preprocess, fingerprint

COLOUR = np.random.default_rng(0).integers(0, 256, (16, 20, 3), dtype=np.uint8)
GREY = COLOUR[:, :, 0]
ALPHA = np.dstack([COLOUR, np.full((16, 20), 255, np.uint8)])


def png(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def seen(images: object) -> list[np.ndarray]:
    """What a detector would see of each image."""
    return [Preprocess("RGB", (16, 20)).load(image)[0] for image in each_image(images)]  # type: ignore[arg-type]


ONE = {
    "array": COLOUR,
    "array with alpha": ALPHA,
    "floats": COLOUR / 255,
    "half floats": (COLOUR / 255).astype(np.float16),
    "Pillow": Image.fromarray(COLOUR),
    "Pillow with alpha": Image.fromarray(ALPHA),
    "CHW tensor": torch.from_numpy(COLOUR).permute(2, 0, 1),
    "HWC tensor": torch.from_numpy(COLOUR),
    "float tensor with a gradient": (torch.from_numpy(COLOUR).permute(2, 0, 1) / 255).requires_grad_(),
    "RGBA tensor": torch.from_numpy(ALPHA).permute(2, 0, 1),
    "bytes": png(COLOUR),
    "bytearray": bytearray(png(COLOUR)),
    "memoryview": memoryview(png(COLOUR)),
    "BytesIO": io.BytesIO(png(COLOUR)),
}


@pytest.mark.parametrize("name", ONE)
def test_one_image_in_many_forms(name: str) -> None:
    for images in ([ONE[name]], ONE[name]):
        if name == "BytesIO":
            ONE[name].seek(0)  # type: ignore[attr-defined]
        (pixels,) = seen(images)
        np.testing.assert_array_equal(pixels, COLOUR)


@pytest.mark.parametrize(
    "grey",
    [
        GREY,
        GREY[:, :, None],
        GREY[None],
        GREY / 255,
        Image.fromarray(GREY),
        Image.fromarray(np.dstack([GREY, np.full((16, 20), 255, np.uint8)]), "LA"),
        torch.from_numpy(GREY.copy()),
        torch.from_numpy(GREY.copy())[None],
    ],
    ids=["HW", "HW1", "1HW", "floats", "Pillow", "Pillow with alpha", "HW tensor", "1HW tensor"],
)
def test_one_grey_image(grey: object) -> None:
    (image,) = each_image(grey)  # type: ignore[arg-type]
    np.testing.assert_array_equal(image, GREY)


@pytest.mark.parametrize(
    "several",
    [
        np.stack([COLOUR] * 5),
        np.stack([COLOUR] * 5).transpose(0, 3, 1, 2),
        np.stack([ALPHA] * 5),
        torch.from_numpy(np.stack([COLOUR] * 5)).permute(0, 3, 1, 2),
        torch.from_numpy(np.stack([COLOUR] * 5)),
        (COLOUR for _ in range(5)),
        [[COLOUR, Image.fromarray(COLOUR)], np.stack([COLOUR] * 2), png(COLOUR)],
    ],
    ids=["NHWC", "NCHW", "NHWA", "NCHW tensor", "NHWC tensor", "generator", "nested"],
)
def test_several_images(several: object) -> None:
    images = seen(several)
    assert len(images) == 5
    for image in images:
        np.testing.assert_array_equal(image, COLOUR)


def test_transparency_is_laid_on_black_as_in_files() -> None:
    faint = np.dstack([COLOUR, np.random.default_rng(1).integers(0, 256, (16, 20), dtype=np.uint8)])
    (file,) = seen(png(faint))
    assert not np.array_equal(file, COLOUR)
    forms = (faint, Image.fromarray(faint), torch.from_numpy(faint).permute(2, 0, 1), np.stack([faint] * 5)[3:4])
    for images in forms:
        np.testing.assert_array_equal(seen(images)[0], file)
    (deep,) = each_image(faint.astype(np.uint16) * 257)  # type: ignore[arg-type]
    assert deep.shape == (16, 20, 3)  # type: ignore[union-attr]
    np.testing.assert_allclose(deep // 257, file, atol=1)  # type: ignore[operator]


def test_grey_stacks() -> None:
    assert [image.shape for image in each_image(np.stack([GREY] * 7))] == [(16, 20)] * 7  # type: ignore[union-attr]
    assert [image.shape for image in each_image(np.stack([GREY] * 3)[:, None])] == [(16, 20)] * 3  # type: ignore[union-attr]
    assert [image.shape for image in each_image(np.zeros((9, 8, 8), np.uint8))] == [(8, 8)] * 9  # type: ignore[union-attr]
    assert [image.shape for image in each_image(list(np.stack([GREY] * 3)))] == [(16, 20)] * 3  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (np.stack([GREY] * 3), r"3 grey images or one with its channels first; give list\(array\)"),
        ([np.stack([GREY] * 4)], r"4 grey images .*transpose\(1, 2, 0\)"),
        (np.zeros((3, 160, 3), np.uint8), "may be first or last; give Image.fromarray of it$"),
        (np.zeros((5, 3, 160, 3), np.uint8), "may be first or last; give Image.fromarray of each$"),
        (torch.zeros(7, 16, 20), r"give tensor.unsqueeze\(1\)"),
        (torch.zeros(3, 160, 4), "may be first or last"),
        (np.zeros((5, 2, 16, 20), np.uint8), "is no image"),
        (np.zeros((2, 5, 3, 16, 20), np.uint8), "is no image"),
        (COLOUR[:, :, :2], r"one image of 2 channels, where okng takes 1, 3 or 4.*array\[:, :, 0\]"),
        (np.zeros((96, 96, 5), np.uint8), "one image of 5 channels"),
        (Image.fromarray(np.zeros((9, 9), np.float32) + 7), r"^an array of float32 .* floats lie between 0 and 1"),
        (COLOUR.astype(np.float32), r"floats lie between 0 and 1; give array.astype\('uint8'\)"),
        (torch.from_numpy(COLOUR).long(), r"give array.astype\('uint8'\)"),
        (GREY > 100, "a mask has no brightness"),
        (None, "NoneType is no image"),
        (3.5, "float is no image"),
        (io.StringIO("text"), "opened with 'rb'"),
    ],
)
def test_what_is_no_image_or_may_be_two_is_refused_with_the_way_out(images: object, words: str) -> None:
    with pytest.raises(OkngError, match=words) as raised:
        list(each_image(images))  # type: ignore[arg-type]
    assert "\n" not in str(raised.value)


def test_an_open_file_and_an_array_of_paths(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(COLOUR))
    with (tmp_path / "a.png").open("rb") as file:
        np.testing.assert_array_equal(seen(file)[0], COLOUR)
    assert len(seen(np.array([str(tmp_path / "a.png")] * 2))) == 2
    assert len(seen(np.array([tmp_path / "a.png"] * 2, object))) == 2


def test_pillow_images_are_taken_as_they_are_at_that_moment() -> None:
    """`ImageSequence.Iterator` gives one object, turned to each page in its turn."""
    pages = Image.open(io.BytesIO(tif_of([GREY, 255 - GREY])))

    def turned() -> object:
        for page in range(2):
            pages.seek(page)
            yield pages

    first, second = list(each_image(turned()))  # type: ignore[arg-type]
    np.testing.assert_array_equal(first, GREY)
    np.testing.assert_array_equal(second, 255 - GREY)


def test_a_pillow_image_that_would_lose_bits_is_refused() -> None:
    opened = Image.open(io.BytesIO(deep_png(NOISE_16[:, :, :3])))
    with pytest.raises(UnreadableImage, match="drop 8 of its 16 bits; give the file's path"):
        list(each_image(opened))
    (deep,) = each_image(Image.fromarray(NOISE_16[:, :, 0].copy()))
    np.testing.assert_array_equal(deep, NOISE_16[:, :, 0])


def test_the_pages_of_bytes() -> None:
    pages = list(each_image(tif_of([GREY, 255 - GREY, GREY])))
    assert [str(page) for page in pages] == ["bytes[0]", "bytes[1]", "bytes[2]"]
    np.testing.assert_array_equal(seen(pages)[1][:, :, 0], 255 - GREY)
    assert len({fingerprint(page) for page in pages}) == 3


def test_bytes_are_known_by_the_file_they_are_of(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(COLOUR))
    (held,) = each_image(png(COLOUR))
    assert fingerprint(held) == fingerprint(tmp_path / "a.png")
    (pillow,), (tensor,) = each_image(Image.fromarray(COLOUR)), each_image(ONE["CHW tensor"])  # type: ignore[arg-type]
    assert fingerprint(pillow) == fingerprint(tensor) == fingerprint(COLOUR) != fingerprint(held)


def test_pixels_are_known_in_whatever_form_they_come() -> None:
    """An evaluation leaves out what was learnt by this, also where the same images were given as floats both times."""
    opaque = np.dstack([COLOUR, np.full(COLOUR.shape[:2], 255, np.uint8)])
    for given in (COLOUR, COLOUR / 255, (COLOUR / 255).astype(np.float32), np.asfortranarray(COLOUR), opaque):
        assert fingerprint(given) == fingerprint(COLOUR)
    assert fingerprint(GREY[:, :, None]) == fingerprint(GREY / 255) == fingerprint(GREY) != fingerprint(255 - GREY)


def tif_of(pages: list[np.ndarray]) -> bytes:
    file = io.BytesIO()
    first, *others = map(Image.fromarray, pages)
    first.save(file, "TIFF", save_all=True, append_images=others)
    return file.getvalue()
