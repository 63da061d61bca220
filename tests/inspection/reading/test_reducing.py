"""Images much larger than the input are read at a reduced scale; older models go on reading them whole."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from okng.inspection.reading.decoding import UPRIGHT, decode_reduced
from okng.inspection.reading.formats import Encoded, UnreadableImage
from okng.inspection.reading.images import GAP, Preprocess, image_size
from okng.inspection.reading.reducing import rows_reduced
from okng.training.images.data import TrainingImages

SIZE = (403, 530)  # multiples of no step
NEW = Preprocess("RGB", (24, 32))
OLD = Preprocess.from_json({"mode": "RGB", "size": [24, 32], "multiple": 1, "white": 255})  # as manifests were


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    """uint8 (403, 530, 3): smooth, and different at every edge."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]] / 100
    channels = [np.sin(2 * x + y), np.cos(x - 3 * y), x / 3 - y / 4]
    return np.stack([np.rint(127 + 60 * channel) for channel in channels], 2).clip(0, 255).astype(np.uint8)


def jpeg(pixels: np.ndarray, mode: str = "RGB", orientation: int = 1, **options: Any) -> Encoded:
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, "JPEG", exif=exif, **{"quality": 95, **options})
    return Encoded(file.getvalue())


def off(seen: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(seen.astype(int) - expected.astype(int)).max())


def test_an_older_model_reads_as_it_did(photo: np.ndarray) -> None:
    """Its manifest knows no gap: the whole image, resized in one step."""
    assert OLD.gap is None and NEW.gap == GAP and Preprocess.from_json(OLD.to_json()) == OLD
    for source in (jpeg(photo), jpeg(photo, "L"), jpeg(photo, "CMYK"), photo, photo[:, :, 0]):
        decoded = Image.open(io.BytesIO(source.content)) if isinstance(source, Encoded) else Image.fromarray(source)
        before = decoded.convert("RGB").resize((32, 24), Image.Resampling.BILINEAR)
        np.testing.assert_array_equal(OLD.load(source)[0], before)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}])
@pytest.mark.parametrize("model", ["RGB", "L"])
def test_a_reduced_jpeg_is_nearly_the_whole_one(photo: np.ndarray, mode: str, options: Any, model: str) -> None:
    source = jpeg(photo, mode, **options)
    new, old = Preprocess(model, (24, 32)), Preprocess(model, (24, 32), gap=None)
    (pixels, traits), (whole, known) = new.read(source), old.read(source)
    assert 0 < off(pixels, whole) <= 6  # CMYK becomes RGB after the step, which is no linear change
    assert np.abs(pixels.astype(float) - whole).mean() < 1
    assert traits._replace(brightness=0, sharpness=0) == known._replace(brightness=0, sharpness=0)
    assert traits.size == SIZE and abs(traits.brightness - known.brightness) < 0.5
    assert abs(traits.sharpness - known.sharpness) < 0.1 * known.sharpness


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_jpeg_is_reduced_upright(photo: np.ndarray, orientation: int) -> None:
    """What lies beyond the image in the last pixels comes to lie at its top or left, and is not seen."""
    source = jpeg(photo, orientation=orientation)
    turned = Image.fromarray(photo)
    upright = np.asarray(turned.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else turned)
    shape = (24, 32) if orientation < 5 else (32, 24)
    preprocess = Preprocess("RGB", shape)
    reduced, box = decode_reduced(source, (48, 64) if orientation < 5 else (64, 48))
    assert box is not None and max(reduced.size) == 67  # 530 / 8 = 66.25
    assert (box[2] - box[0], box[3] - box[1]) == (upright.shape[1] / 8, upright.shape[0] / 8)
    pixels, traits = preprocess.read(source)
    assert traits.size == image_size(source) == upright.shape[:2]
    expected = Preprocess("RGB", shape, gap=None).load(upright)[0]
    assert off(pixels, expected) <= 5
    slipped = np.asarray(reduced.resize(shape[::-1], Image.Resampling.BILINEAR))
    assert np.abs(pixels.astype(float) - expected).mean() < 0.5 * np.abs(slipped.astype(float) - expected).mean()


def test_an_image_of_less_than_four_times_its_input_is_read_whole(photo: np.ndarray) -> None:
    """The bytes are those of an older model, whatever the file."""
    new, old = Preprocess("RGB", (101, 133)), Preprocess("RGB", (101, 133), gap=None)
    larger = Preprocess("RGB", (500, 600)), Preprocess("RGB", (500, 600), gap=None)
    for source in (jpeg(photo), jpeg(photo, orientation=6), photo, photo[:, :, 0]):
        for one, other in ((new, old), larger):
            np.testing.assert_array_equal(one.load(source)[0], other.load(source)[0])


@pytest.mark.parametrize("model", ["RGB", "L"])
@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tif", "a.webp"])
def test_files_and_arrays_are_reduced_alike(tmp_path: Path, photo: np.ndarray, name: str, model: str) -> None:
    new, old = Preprocess(model, (24, 32)), Preprocess(model, (24, 32), gap=None)
    for pixels in (photo, photo[:, :, 0] if name != "a.webp" else photo[:, ::-1].copy()):
        Image.fromarray(pixels).save(tmp_path / name, **({"lossless": True} if name == "a.webp" else {}))
        seen, traits = new.read(tmp_path / name)
        np.testing.assert_array_equal(seen, new.load(pixels)[0])
        assert 0 < off(seen, old.load(pixels)[0]) <= 2
        assert traits.size == SIZE


def test_deep_images_are_reduced_after_their_white_is_known(photo: np.ndarray) -> None:
    deep = photo.astype(np.uint16) * 16
    deep[0, :2] = 65535  # glare
    new = Preprocess("RGB", (24, 32), white=4095)
    pixels, traits = new.read(deep)
    assert traits.white == 4095 and traits.size == SIZE
    assert off(pixels, Preprocess("RGB", (24, 32), white=4095, gap=None).load(deep)[0]) <= 2


def test_training_and_line_see_the_same_bytes(photo: np.ndarray) -> None:
    for source in (jpeg(photo), jpeg(photo, orientation=8), photo):
        learnt = TrainingImages([source], NEW)[0].permute(1, 2, 0).numpy()
        np.testing.assert_array_equal(learnt, NEW.load(source)[0])


def test_tiles_are_of_the_whole_image(photo: np.ndarray) -> None:
    source = jpeg(photo)
    new = Preprocess("RGB", (32, 32), tile=32)
    old = Preprocess("RGB", (32, 32), tile=32, gap=None)
    for read in ("read", "read_whole"):
        (pixels, traits), (whole, known) = getattr(new, read)(source), getattr(old, read)(source)
        np.testing.assert_array_equal(pixels, whole)
        assert traits == known


def test_what_is_cut_off_a_jpeg_is_missed_at_any_scale(photo: np.ndarray) -> None:
    for options in ({}, {"progressive": True}):
        content = jpeg(photo, **options).content
        for length in (len(content) // 2, len(content) - 40):
            with pytest.raises(UnreadableImage):
                NEW.load(Encoded(content[:length]))


@pytest.mark.parametrize("step", [*range(2, 40), 100, 255, 256, 300])
def test_rows_become_what_pillow_makes_of_them(step: int) -> None:
    drawn = np.random.default_rng(step).integers(0, 256, (2 * step + step // 2, 11, 3), dtype=np.uint8)
    for pixels in (drawn, drawn[:, :, 0].copy(), np.full_like(drawn, 255), drawn[: 2 * step]):
        expected = Image.fromarray(pixels).reduce((1, step))
        np.testing.assert_array_equal(rows_reduced(pixels, step), expected)
        np.testing.assert_array_equal(rows_reduced(Image.fromarray(pixels), step), expected)
