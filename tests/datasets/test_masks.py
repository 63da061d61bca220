import unicodedata

import numpy as np
import pytest
from PIL import Image

from okng.datasets.masks import (
    is_mask_folder,
    looks_like_mask,
    masks_beside,
    match_masks,
    one_or_several,
    read_mask,
)
from okng.errors import OkngError
from okng.inspection.reading.images import UnreadableImage

SQUARE = np.zeros((40, 60), bool)
SQUARE[9:24, 18:39] = True


@pytest.fixture
def photo(tmp_path):
    """A function that saves a noisy picture of 60 × 40 under a name."""
    rng = np.random.default_rng(0)

    def save(name):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40, 60, 3), np.uint8)).save(path)
        return path

    return save


@pytest.fixture
def mask(tmp_path):
    """A function that saves the square, or what else is marked, under a name."""

    def save(name, marked=SQUARE):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(marked.astype(np.uint8) * 255).save(path)
        return path

    return save


def rgba(colour, alpha):
    """(40, 60, 4) of one colour where the square is opaque."""
    pixels = np.zeros((40, 60, 4), np.uint8)
    pixels[..., :3] = colour
    pixels[..., 3] = alpha
    return Image.fromarray(pixels)


def palette():
    image = Image.fromarray(SQUARE.astype(np.uint8) * 8, "P")
    colours = [0] * 768
    colours[24:27] = [64, 0, 0]
    colours[27:30] = [255, 255, 255]  # a colour that is not in this mask
    image.putpalette(colours)
    return image


def coloured():
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[SQUARE] = (0, 0, 200)
    return Image.fromarray(pixels)


@pytest.mark.parametrize(
    ("name", "image"),
    [
        ("grey.png", lambda: Image.fromarray(SQUARE.astype(np.uint8) * 255)),
        ("numbers.png", lambda: Image.fromarray(SQUARE.astype(np.uint8) * 1)),
        ("one_bit.png", lambda: Image.fromarray(SQUARE)),
        ("one_bit.tif", lambda: Image.fromarray(SQUARE)),
        ("deep.png", lambda: Image.fromarray(SQUARE.astype(np.uint16) * 65535)),
        ("deep_low.png", lambda: Image.fromarray(SQUARE.astype(np.uint16))),
        ("float.tif", lambda: Image.fromarray(SQUARE.astype(np.float32))),
        ("palette.png", palette),
        ("blue.png", coloured),
        ("white_on_clear.png", lambda: rgba(255, SQUARE * 255)),
        ("black_on_clear.png", lambda: rgba(0, SQUARE * 255)),
        ("opaque.png", lambda: rgba(SQUARE[..., None] * 255, 255)),
        ("lossy.jpg", lambda: Image.fromarray(SQUARE.astype(np.uint8) * 255)),
    ],
)
def test_a_mask_marks_the_same_however_it_is_stored(tmp_path, name, image):
    image().save(tmp_path / name)
    assert (read_mask(tmp_path / name) == SQUARE).all()
    assert looks_like_mask(tmp_path / name)


def test_jpeg_marks_more_than_zero_around_the_edge(tmp_path):
    Image.fromarray(SQUARE.astype(np.uint8) * 255).save(tmp_path / "mask.jpg", quality=60)
    assert (np.asarray(Image.open(tmp_path / "mask.jpg")) > 0).sum() > SQUARE.sum()  # what the test above is about
    assert (read_mask(tmp_path / "mask.jpg") == SQUARE).all()
    noise = np.random.default_rng(0).integers(0, 12, SQUARE.shape)
    Image.fromarray(noise.astype(np.uint8)).save(
        tmp_path / "empty.jpg", quality=60
    )  # nothing is marked, and not quite black
    assert not read_mask(tmp_path / "empty.jpg").any()


def test_soft_edges_are_cut_in_their_middle(tmp_path):
    small = Image.fromarray(SQUARE.astype(np.uint8) * 255).resize((30, 20), Image.Resampling.BILINEAR)
    small.resize((60, 40), Image.Resampling.BILINEAR).save(tmp_path / "soft.png")
    assert (np.asarray(Image.open(tmp_path / "soft.png")) > 0).sum() > SQUARE.sum()
    assert abs(int(read_mask(tmp_path / "soft.png").sum()) - int(SQUARE.sum())) < 8


def test_all_classes_of_a_mask_of_numbers_are_marked(tmp_path):
    numbers = SQUARE.astype(np.uint8)
    numbers[30:38, 2:10] = 7  # as VisA's, where a number is a kind of defect
    Image.fromarray(numbers).save(tmp_path / "numbers.png")
    assert (read_mask(tmp_path / "numbers.png") == (numbers > 0)).all()


def test_several_masks_are_united(tmp_path, mask):
    other = np.roll(SQUARE, 14, axis=0)
    both = (mask("a.png"), mask("b.png", other))
    assert (read_mask(both) == (SQUARE | other)).all()
    with pytest.raises(OkngError, match="differ in size"):
        read_mask((mask("a.png"), mask("c.png", SQUARE[:20])))


def test_an_empty_mask_marks_nothing_and_a_broken_one_is_told(tmp_path, mask):
    assert not read_mask(mask("none.png", ~SQUARE & SQUARE)).any()
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(UnreadableImage):
        read_mask(tmp_path / "broken.png")


def test_photographs_do_not_look_like_masks(tmp_path, photo):
    assert looks_like_mask(photo("x.png")) is False
    ramp = np.linspace(0, 255, 60).astype(np.uint8)[None].repeat(40, 0)
    Image.fromarray(ramp).save(tmp_path / "ramp.png")
    assert looks_like_mask(tmp_path / "ramp.png") is False


def test_masks_beside_their_images(tmp_path, photo, mask):
    images = [photo(name) for name in ("a.jpg", "b.png", "c.bmp", "d.jpg", "e.jpg", "f.jpg", "y/img.png")]
    masks = [mask(name) for name in ("a.png", "b_mask.png", "c_GT.png", "d_label.bmp", "e_mask1.png", "y/label.png")]
    masks += [mask("alone_mask.png"), mask("b.png.png")]
    masks += [mask("a_bin.png"), mask("c.m.png")]
    photographs = [photo("f_label.jpg"), photo("f.png"), photo("y/label_viz.png"), photo("a_left.png")]
    found = masks_beside([*images, *masks, *photographs])
    assert set(found) == {*masks, photographs[2]}  # photographs of labels, and a copy in another format, are none
    assert [found[one].name for one in masks[:6]] == ["a.jpg", "b.png", "c.bmp", "d.jpg", "e.jpg", "img.png"]
    assert found[masks[6]] is None and found[masks[7]].name == "b.png"
    assert [found[one].name for one in masks[8:]] == ["a.jpg", "c.bmp"]


def test_a_mask_of_another_size_is_no_pair_by_its_stem_alone(photo, mask):
    image, drawing = photo("logo.jpg"), mask("logo.png", SQUARE[:20])
    assert masks_beside([image, drawing]) == {}


def test_masks_are_matched_by_names_endings_and_folders(tmp_path):
    def under(folder, *names):
        return [(name, tmp_path / folder / name) for name in names]

    images = under("i", "1.png", "2.jpg", "3.png", "4.png", "5.png", "a/6.png", "straße.png", "7_mask.png")
    names = [
        "1_mask.png",
        "1.png",
        "2.png",
        "3_GT.bmp",
        "4.png.png",
        "5/000.png",
        "5/001.png",
        "a/6_MASK.png",
        "7_mask.png",
    ]
    names += ["9_mask.png", unicodedata.normalize("NFD", "straße_mask.png")]
    found = match_masks(images, under("m", *names))
    by_name = {image.relative_to(tmp_path / "i").as_posix(): [m.name for m in masks] for image, masks in found.items()}
    assert by_name.pop(images[6][0]) == [names[-1]]
    assert by_name == {
        "1.png": ["1_mask.png"],
        "2.jpg": ["2.png"],
        "3.png": ["3_GT.bmp"],
        "4.png": ["4.png.png"],
        "5.png": ["000.png", "001.png"],
        "a/6.png": ["6_MASK.png"],
        "7_mask.png": ["7_mask.png"],
    }
    several = found[images[4][1]]
    assert one_or_several(several) == several and one_or_several(several[:1]) == several[0]
    assert one_or_several(()) is None


def test_names_in_another_unicode_form_match(tmp_path):
    composed, apart = "Prüfling.png", unicodedata.normalize("NFD", "Prüfling_mask.png")
    assert composed[:4] != apart[:4]
    found = match_masks([(composed, tmp_path / composed)], [(apart, tmp_path / apart)])
    assert found == {tmp_path / composed: (tmp_path / apart,)}


def test_a_folder_of_photographs_of_labels_is_no_folder_of_masks(photo, mask):
    assert not is_mask_folder("labels", [photo("labels/1.png"), photo("labels/2.png")])
    assert is_mask_folder("labels", [mask("masks/1.png"), mask("masks/2.png")])
    assert not is_mask_folder("parts", [mask("masks/1.png")])


def test_a_black_mask_with_an_opaque_alpha_marks_nothing(tmp_path):
    """What is opaque is marked only where that tells something apart."""
    black = np.zeros((6, 8, 4), np.uint8)
    black[..., 3] = 255
    Image.fromarray(black).save(tmp_path / "opaque.png")
    black[2:4, 1:5, 3] = 0
    Image.fromarray(black).save(tmp_path / "holes.png")
    assert not read_mask(tmp_path / "opaque.png").any()
    assert (read_mask(tmp_path / "holes.png") == (black[..., 3] == 255)).all()
