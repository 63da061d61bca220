"""Pages of one file, and files that must not be opened."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from okng.inspection.inspector import each_image
from okng.inspection.reading.decoding import decode, each_page, header
from okng.inspection.reading.formats import UnreadableImage, exists
from okng.inspection.reading.images import Preprocess, fingerprint, image_size, is_grey

PAGES = [np.full((8, 12, 3), 60 * i, np.uint8) for i in range(4)]


def many(path: Path, **options: object) -> Path:
    first, *others = map(Image.fromarray, PAGES)
    first.save(path, save_all=True, append_images=others, **options)  # type: ignore[arg-type]
    return path


@pytest.mark.parametrize("name", ["a.tif", "a.gif", "a.webp", "a.png"])
def test_every_page_is_an_image_of_its_own(tmp_path: Path, name: str) -> None:
    """Of several pages only the first was judged."""
    path = many(tmp_path / name, **({"lossless": True} if name == "a.webp" else {}))
    pages = [Path(f"{path}[{i}]") for i in range(4)]
    assert list(each_image(tmp_path)) == list(each_image(path)) == list(each_image([path])) == pages
    assert list(each_image(pages[2])) == [pages[2]]
    for i, page in enumerate(pages):
        pixels, _ = Preprocess("RGB", image_size(page)).load(page)
        assert (pixels == 60 * i).all()
    assert len({fingerprint(page) for page in pages}) == 4


def test_pages_have_headers_of_their_own(tmp_path: Path) -> None:
    pages = [np.zeros((4, 5), np.uint8), np.full((6, 7), 9, np.uint16), np.zeros((8, 9, 3), np.uint16)]
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        for page in pages:
            writer.write(page, photometric="rgb" if page.ndim == 3 else "minisblack")
    found = each_page(tmp_path / "a.tif")
    assert [image_size(page) for page in found] == [(4, 5), (6, 7), (8, 9)]
    assert [is_grey(page) for page in found] == [True, True, False]
    assert [header(page).deep for page in found] == [False, True, True]
    for page, pixels in zip(found, pages, strict=True):
        np.testing.assert_array_equal(np.asarray(decode(page)), pixels)


def test_reduced_copies_and_masks_in_a_tiff_are_no_pages(tmp_path: Path) -> None:
    pixels = np.arange(64, dtype=np.uint8).reshape(8, 8)
    for kinds, pages in (((0, 1, 0), [0, 2]), ((0, 1, 1), None), ((1, 0), None)):
        with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
            for i, kind in enumerate(kinds):
                writer.write(pixels + i, subfiletype=kind, photometric="minisblack", metadata=None)
        expected = [tmp_path / "a.tif"] if pages is None else [Path(f"{tmp_path}/a.tif[{i}]") for i in pages]
        assert each_page(tmp_path / "a.tif") == expected
        np.testing.assert_array_equal(decode(tmp_path / "a.tif"), pixels + kinds.index(0))
        (tmp_path / "a.tif").unlink()


def test_what_a_telephone_puts_behind_a_jpeg_is_no_page(tmp_path: Path) -> None:
    first, *others = map(Image.fromarray, PAGES)
    first.save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=others)
    assert each_page(tmp_path / "a.jpg") == [tmp_path / "a.jpg"]
    assert header(tmp_path / "a.jpg").format == "JPEG"


def test_no_page_is_lost_with_the_end_of_a_file(tmp_path: Path) -> None:
    """However much is cut off, some page, or the whole file, is said to be unreadable."""
    whole = many(tmp_path / "whole.tif").read_bytes()
    for length in range(0, len(whole) - 1, 61):
        path = tmp_path / f"{length}.tif"
        path.write_bytes(whole[:length])
        with pytest.raises(UnreadableImage):
            for page in each_image(path):
                decode(page)  # type: ignore[arg-type]


def test_a_page_that_is_not_there(tmp_path: Path) -> None:
    path = many(tmp_path / "a.tif")
    with pytest.raises(UnreadableImage, match=r"a\.tif\[4\]: can't be read \(it has no page 4, but 4, counted from 0"):
        decode(Path(f"{path}[4]"))
    assert exists(Path(f"{path}[4]")) and not exists(tmp_path / "b.tif[0]")


def test_a_file_really_called_so(tmp_path: Path) -> None:
    Image.fromarray(PAGES[3]).save(tmp_path / "a.png")
    Image.fromarray(PAGES[1]).save(tmp_path / "a.png[0]", "PNG")
    assert each_page(tmp_path / "a.png[0]") == [tmp_path / "a.png[0]"]
    np.testing.assert_array_equal(decode(tmp_path / "a.png[0]"), PAGES[1])


def test_a_pipe_is_not_opened(tmp_path: Path) -> None:
    """Opening one waits for somebody who writes."""
    os.mkfifo(tmp_path / "a.png")
    assert list(each_image(tmp_path)) == []
    for read in (decode, image_size, fingerprint):
        with pytest.raises(UnreadableImage, match="a pipe or a device, not a file"):
            read(tmp_path / "a.png")
