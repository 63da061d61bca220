import base64
import io
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from okng.errors import OkngError
from okng.inspection.reading.decoding import decode
from okng.inspection.reading.formats import FORMATS
from okng.inspection.reading.images import Preprocess, UnreadableImage, image_size, is_grey, open_image, white_level

# What Pillow thinks of mutated metadata; okng's own filter is lost when pytest restores the filters.
pytestmark = pytest.mark.filterwarnings("ignore:::PIL")

# The size of `corners`, so that nothing is resized.
RGB, GREY = Preprocess("RGB", (16, 32)), Preprocess("L", (16, 32))


@pytest.fixture
def corners():
    """(16, 32, 3): red top left, green top right, blue bottom left, black bottom right; no symmetry."""
    pixels = np.zeros((16, 32, 3), np.uint8)
    pixels[:8, :16, 0] = pixels[:8, 16:, 1] = pixels[8:, :16, 2] = 255
    return pixels


def pixels_of(preprocess, source):
    pixels, size = preprocess.load(source)
    assert pixels.dtype == np.uint8
    assert size == image_size(source)
    return pixels


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.gif", "a.tif", "a.webp", "a.ppm"])
def test_rgb_files_give_their_pixels(tmp_path, corners, name):
    Image.fromarray(corners).save(tmp_path / name, **({"lossless": True} if name == "a.webp" else {}))
    np.testing.assert_array_equal(pixels_of(RGB, tmp_path / name), corners)
    assert is_grey(tmp_path / name) is False
    assert white_level([tmp_path / name]) == 255


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tif", "a.pgm"])
def test_grey_files_give_their_pixels(tmp_path, name):
    grey = np.arange(512, dtype=np.uint32).reshape(16, 32).astype(np.uint8)
    Image.fromarray(grey).save(tmp_path / name)
    np.testing.assert_array_equal(pixels_of(GREY, tmp_path / name), grey[:, :, None])
    np.testing.assert_array_equal(pixels_of(RGB, tmp_path / name), np.stack([grey] * 3, 2))
    assert is_grey(tmp_path / name)


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.pgm"])
@pytest.mark.parametrize(
    ("brightest", "white"), [(200, 255), (1000, 1023), (4095, 4095), (4096, 16383), (60000, 65535)]
)
def test_white_of_16_bit_files_is_the_bits_in_use(tmp_path, name, brightest, white):
    deep = np.linspace(0, brightest, 16 * 32).astype(np.uint16).reshape(16, 32)
    Image.fromarray(deep).save(tmp_path / name)
    assert white_level([tmp_path / name, deep // 2]) == white
    expected = np.rint(deep * (255 / white)).astype(np.uint8)[:, :, None]
    preprocess = Preprocess("L", (16, 32), white=white)
    np.testing.assert_allclose(pixels_of(preprocess, tmp_path / name), expected, atol=1)  # ties may round up
    np.testing.assert_array_equal(pixels_of(preprocess, tmp_path / name), pixels_of(preprocess, deep))
    assert is_grey(tmp_path / name)


def test_brighter_than_white_is_white_and_8_bit_images_are_left_alone():
    glare = np.full((20, 10), 4095, np.uint16)
    glare[0, :2] = 65535, 5000
    preprocess = Preprocess("L", (20, 10), white=4095)
    assert (pixels_of(preprocess, glare) == 255).all()
    eight = np.arange(200, dtype=np.uint8).reshape(20, 10)
    np.testing.assert_array_equal(pixels_of(preprocess, eight)[:, :, 0], eight)


def test_a_model_of_8_bits_takes_one_bright_sample_of_a_dark_deep_image_for_its_depth() -> None:
    """Elsewhere a few bright samples are glare; 8 bits hold none above 255."""
    deep = np.full((20, 20), 250, np.uint16)
    deep[3, 4] = 4000
    seen = Preprocess("L", (20, 20), white=255).load(deep)[0]
    assert seen[0, 0, 0] == round(250 * 255 / 4095) and seen[3, 4, 0] == round(4000 * 255 / 4095)


@pytest.mark.parametrize(("learnt", "scale", "white"), [(255, 16, 4095), (4095, 256, 65535), (1023, 16, 4095)])
def test_an_image_of_another_depth_than_those_learnt_has_its_own_white(tmp_path, learnt, scale, white):
    """A model of 8-bit images would see a 12-bit one as all white."""
    eight = np.linspace(0, 255, 200).astype(np.uint8).reshape(20, 10)
    Image.fromarray(eight.astype(np.uint16) * scale + scale - 1).save(tmp_path / "a.png")
    pixels, traits = Preprocess("L", (20, 10), white=learnt).read(tmp_path / "a.png")
    np.testing.assert_allclose(pixels[:, :, 0], eight.astype(int), atol=1)
    assert traits.white == white


def test_floats_within_0_and_1_are_read_so_by_any_model(tmp_path):
    Image.fromarray(np.array([[0, 0.5, 1]], np.float32)).save(tmp_path / "a.tif")
    for white in (1, 255, 4095):
        assert pixels_of(Preprocess("L", (1, 3), white=white), tmp_path / "a.tif").ravel().tolist() == [0, 128, 255]


@pytest.mark.filterwarnings("error")
def test_float_files(tmp_path):
    odd = [0.5, 1.0, -3.0, np.nan, np.inf, -np.inf, 3e38, 1e-40]
    for samples, white, expected in (
        (np.array([odd], np.float32), 65535, [0, 0, 0, 0, 255, 0, 255, 0]),
        (np.array([odd[:6]], np.float32), 1, [128, 255, 0, 0, 255, 0]),
        (np.array([[100.0, 255.0]], np.float32), 255, [100, 255]),
        (np.array([[np.nan, -np.inf]], np.float32), 1, [0, 0]),
    ):
        Image.fromarray(samples).save(tmp_path / "float.tif")
        assert white_level([tmp_path / "float.tif"]) == white
        preprocess = Preprocess("L", samples.shape, white=white)
        assert pixels_of(preprocess, tmp_path / "float.tif").ravel().tolist() == expected


def test_transparent_pixels_are_black(tmp_path):
    clear = np.full((1, 3, 4), 255, np.uint8)
    clear[0, :, 3] = 255, 128, 0
    Image.fromarray(clear).save(tmp_path / "rgba.png")
    Image.fromarray(clear[:, :, 2:], "LA").save(tmp_path / "la.png")
    palette = Image.fromarray(np.array([[0, 1, 2]], np.uint8), "P")
    palette.putpalette([255] * 9)
    palette.save(tmp_path / "p.png", transparency=bytes([255, 128, 0]))
    one_bit = Image.fromarray(np.array([[True, False]]))
    one_bit.save(tmp_path / "one.png", transparency=1)
    for name in ("rgba.png", "la.png", "p.png"):
        for preprocess in (Preprocess("RGB", (1, 3)), Preprocess("L", (1, 3))):
            assert pixels_of(preprocess, tmp_path / name)[0, :, 0].tolist() == [255, 128, 0]
    assert pixels_of(Preprocess("L", (1, 2)), tmp_path / "one.png").ravel().tolist() == [0, 0]


def test_palette_one_bit_and_cmyk(tmp_path, corners):
    Image.fromarray(corners).quantize(4).save(tmp_path / "p.png")
    np.testing.assert_array_equal(pixels_of(RGB, tmp_path / "p.png"), corners)
    bits = corners[:, :, 0] > 0
    Image.fromarray(bits).save(tmp_path / "one.png")
    np.testing.assert_array_equal(pixels_of(GREY, tmp_path / "one.png")[:, :, 0], bits * 255)
    Image.fromarray(corners).convert("CMYK").save(tmp_path / "cmyk.jpg", quality=100, subsampling=0)
    assert open_image(tmp_path / "cmyk.jpg").mode == "CMYK"
    np.testing.assert_allclose(pixels_of(RGB, tmp_path / "cmyk.jpg").astype(int), corners, atol=8)


def test_modes_without_a_way_to_rgb_are_one_line(tmp_path, monkeypatch):
    Image.new("L", (4, 4)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image.Image, "convert", lambda *_: (_ for _ in ()).throw(ValueError("no conversion")))
    with pytest.raises(UnreadableImage, match=r"a\.png: damaged \(no conversion\)"):
        RGB.load(tmp_path / "a.png")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.tif", "lzw.tif", "two.tif"])
def test_exif_orientation(tmp_path, corners, name, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {
        "a.jpg": {"quality": 100, "subsampling": 0},
        "a.webp": {"lossless": True},
        "lzw.tif": {"compression": "tiff_lzw"},
        "two.tif": {"save_all": True, "append_images": [Image.fromarray(corners)]},
    }
    Image.fromarray(corners).save(tmp_path / name, exif=exif, **options.get(name, {}))
    upright = {
        2: corners[:, ::-1],
        3: corners[::-1, ::-1],
        4: corners[::-1],
        5: corners.transpose(1, 0, 2),
        6: np.rot90(corners, -1),
        7: corners[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(corners, 1),
    }.get(orientation, corners)
    preprocess = Preprocess("RGB", upright.shape[:2])
    np.testing.assert_allclose(pixels_of(preprocess, tmp_path / name).astype(int), upright, atol=8)


ONE_TAG = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0%c\0\0\0\0\0\0"  # an orientation and nothing else


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp"])
@pytest.mark.parametrize("exif", [b"nonsense", b"MM", b"MM\0*\xff\xff\xff\xff", ONE_TAG % 0, ONE_TAG % 9])
def test_damaged_exif_spoils_no_pixels(tmp_path, corners, name, exif):
    Image.fromarray(corners).save(tmp_path / name, exif=b"Exif\0\0" + exif)
    assert pixels_of(RGB, tmp_path / name).shape == (16, 32, 3)


def test_size_is_read_from_the_header_alone(tmp_path, corners):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    for name in ("a.png", "a.jpg"):
        Image.fromarray(noise).save(tmp_path / name)
        whole = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(whole[: len(whole) // 2])
        assert image_size(tmp_path / name) == (64, 64)
        assert is_grey(tmp_path / name) is False


def test_arrays(corners):
    np.testing.assert_array_equal(pixels_of(RGB, corners), corners)
    np.testing.assert_array_equal(pixels_of(RGB, corners[::-1, ::-1]), corners[::-1, ::-1])  # not contiguous
    alpha = np.dstack([corners, np.full((16, 32), 255, np.uint8)])
    np.testing.assert_array_equal(pixels_of(RGB, alpha), corners)
    np.testing.assert_array_equal(pixels_of(RGB, corners.astype(np.float64) / 255), corners)
    deep = corners.astype(np.uint16) * 16  # 12 bits
    np.testing.assert_array_equal(pixels_of(Preprocess("RGB", (16, 32), white=4080), deep), corners)
    for grey in (corners[:, :, 0], corners[:, :, :1]):
        np.testing.assert_array_equal(pixels_of(GREY, grey), corners[:, :, :1])
        assert is_grey(grey)
    assert not is_grey(corners)
    assert white_level([corners, np.full((2, 2), 1000, np.uint16)]) == 1023


@pytest.mark.parametrize(
    "array",
    [
        np.full((4, 4), 1.01, np.float32),
        np.full((4, 4), np.nan, np.float32),
        np.zeros((4, 4), bool),
        np.zeros((4, 4), np.int64),
        np.zeros((4, 4, 2), np.uint8),
        np.zeros((4, 4, 5), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros(4, np.uint8),
        np.zeros((), np.uint8),
    ],
)
def test_arrays_that_are_no_images(array):
    for read in (open_image, image_size, is_grey, RGB.load):
        with pytest.raises(OkngError, match="is no image; "):
            read(array)


sides = st.integers(1, 20_000)


@settings(derandomize=True, deadline=None)
@given(height=sides, width=sides, size=st.integers(16, 1024), multiple=st.sampled_from([1, 8, 16, 32]))
def test_aspect_rule(height, width, size, multiple):
    h, w = Preprocess("RGB", size, multiple).shape(height, width)
    assert h % multiple == w % multiple == 0
    assert min(h, w) >= multiple
    if size >= 2 * multiple:  # each side is off by at most half a multiple
        assert 0.5 <= h * w / size**2 <= 2
    if max(h, w) * multiple < size**2 - multiple * size:  # not so long that the aspect ratio has to give
        tolerance = multiple / 2 / min(h, w) + multiple / 2 / max(h, w) + 0.01
        assert abs(np.log(h / w) - np.log(height / width)) < 2 * tolerance


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((1024, 1024), (256, 256)),
        ((28, 28), (256, 256)),
        ((500, 1250), (160, 416)),
        ((1250, 500), (416, 160)),
        ((1, 1_000_000), (32, 2048)),
        ((1_000_000, 1), (2048, 32)),
    ],
)
def test_aspect_rule_by_example(shape, expected):
    assert Preprocess("RGB", 256, 32).shape(*shape) == expected


def test_one_size_for_all():
    preprocess = Preprocess("RGB", (40, 24), 16)
    assert preprocess.shape(7, 1000) == (40, 24)
    assert pixels_of(preprocess, np.zeros((7, 100, 3), np.uint8)).shape == (40, 24, 3)


def test_shrinking_averages():
    stripes = np.zeros((64, 64), np.uint8)
    stripes[:, ::2] = 255
    np.testing.assert_allclose(pixels_of(Preprocess("L", (8, 8)), stripes)[:, 1:-1], 128, atol=1)


@pytest.mark.parametrize("preprocess", [Preprocess("RGB", 256, 32), Preprocess("L", (40, 24), 8, 4095)])
def test_json_round_trip(preprocess):
    assert Preprocess.from_json(preprocess.to_json()) == preprocess
    listed = preprocess.to_json() | {"size": [40, 24]}
    assert Preprocess.from_json(listed).size == (40, 24)


@pytest.mark.parametrize(
    "change",
    [
        {"mode": "CMYK"},
        {"mode": None},
        {"size": 0},
        {"size": []},
        {"size": [1, 2, 3]},
        {"size": [1, "2"]},
        {"size": "ab"},
        {"size": None},
        {"size": 10**9},
        {"multiple": -1},
        {"multiple": 1.5},
        {"white": "x"},
        {"gap": 0.5},
        {"gap": "x"},
    ],
)
def test_json_that_makes_no_sense(change):
    with pytest.raises(OkngError, match="fit the model again"):
        Preprocess.from_json({"mode": "RGB", "size": 256, "multiple": 32, "white": 255} | change)


@pytest.mark.parametrize("fields", [None, [], "x", 3, {}])
def test_json_of_another_shape(fields):
    with pytest.raises(OkngError, match="fit the model again"):
        Preprocess.from_json(fields)


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_that_declares(width, height):
    header = struct.pack(">2I5B", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def encoded(kind, mode="RGB", **options):
    noise = np.random.default_rng(0).integers(0, 256, (24, 20, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).convert(mode).save(file, kind, **options)
    return file.getvalue()


BROKEN = {
    "truncated.png": (encoded("PNG")[:-40], "damaged"),
    "truncated.jpg": (encoded("JPEG")[:-40], "damaged"),
    "truncated.tif": (encoded("TIFF")[:-400], "."),
    "empty.png": (b"", "is empty; copy it again"),
    "text.png": (b"OK parts of Tuesday\n" * 20, "holds no image of a format okng reads"),
    "bomb.png": (png_that_declares(30_000, 30_000), "too large to decode"),
    "program.png": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n", "holds no image"),
    "line\nbreak.png": (b"no", "holds no image"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_an_unreadable_file_is_one_line(tmp_path, name):
    content, reason = BROKEN[name]
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UnreadableImage, match=reason) as raised:
        RGB.load(path)
    assert "\n" not in str(raised.value)
    assert str(path) in str(raised.value) or ascii(str(path)) in str(raised.value)
    assert str(raised.value).count(path.name) <= 1
    assert white_level([path]) == 255


def test_what_is_no_file_is_one_line(tmp_path):
    for path, reason in (
        (tmp_path / "none.png", r"none\.png: can't be read \(No such file"),
        (tmp_path, r"can't be read \(Is a directory\)"),
        (str(tmp_path / "null\0.png"), "damaged"),
    ):
        for read in (open_image, image_size, is_grey, GREY.load):
            with pytest.raises(UnreadableImage, match=reason) as raised:
                read(path)
            assert "\n" not in str(raised.value)


def test_the_bomb_is_refused_by_its_header(tmp_path):
    (tmp_path / "bomb.png").write_bytes(png_that_declares(30_000, 30_000))
    with pytest.raises(UnreadableImage, match="too large to decode"):
        image_size(tmp_path / "bomb.png")


def test_memory_that_runs_out_is_one_line(tmp_path, monkeypatch):
    Image.new("L", (4, 4)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image.Image, "resize", lambda *_: (_ for _ in ()).throw(MemoryError))
    with pytest.raises(UnreadableImage, match=r"a\.png: too large for this machine's memory"):
        RGB.load(tmp_path / "a.png")


def test_decoding_in_threads_neither_warns_nor_silences_others(tmp_path):
    """Pillow warns of an image of 100 megapixels; the person is spared that, and keeps their own warnings."""
    (tmp_path / "large.png").write_bytes(png_that_declares(10_000, 10_000))
    program = """
import sys, warnings
from concurrent.futures import ThreadPoolExecutor
from okng.inspection.reading.images import image_size
with ThreadPoolExecutor(4) as pool:
    assert set(pool.map(image_size, [sys.argv[1]] * 200)) == {(10_000, 10_000)}
warnings.warn("mine")
"""
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "large.png"], capture_output=True, text=True, check=True
    )
    assert "mine" in done.stderr
    assert "DecompressionBombWarning" not in done.stderr


def deep_png(pixels):
    """uint16 (H, W, 2 to 4) as a PNG, which Pillow can't write."""
    height, width, channels = pixels.shape
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in pixels)
    header = struct.pack(">2I5B", width, height, 16, {2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


def deep_tif(pixels, **how):
    file = io.BytesIO()
    more = {"extrasamples": ["unassalpha"]} if pixels.shape[2] == 4 else {}
    tifffile.imwrite(file, pixels, photometric="rgb", **more, **how)
    return file.getvalue()


def deep_ppm(pixels):
    return b"P6 %d %d 65535\n" % pixels.shape[1::-1] + pixels.astype(">u2").tobytes()


NOISE_16 = np.random.default_rng(0).integers(0, 1 << 16, (24, 20, 4), dtype=np.uint16)
DEEP_FILES = {
    "png": deep_png,
    "ppm": deep_ppm,
    "tif": deep_tif,
    "big-endian tif": lambda pixels: deep_tif(pixels, byteorder=">"),
    "deflated tif": lambda pixels: deep_tif(pixels, compression="zlib"),
    "predicted tif": lambda pixels: deep_tif(pixels, compression="zlib", predictor=True, byteorder=">"),
    "tiled tif": lambda pixels: deep_tif(pixels, tile=(16, 16)),
    "tif in strips": lambda pixels: deep_tif(pixels, rowsperstrip=5),
}


@pytest.mark.parametrize("name", DEEP_FILES)
def test_16_bit_colour_keeps_every_bit(tmp_path, name):
    (tmp_path / "a").write_bytes(DEEP_FILES[name](NOISE_16[:, :, :3]))
    np.testing.assert_array_equal(decode(tmp_path / "a"), NOISE_16[:, :, :3])
    assert image_size(tmp_path / "a") == (24, 20) and not is_grey(tmp_path / "a")
    assert white_level([tmp_path / "a"]) == 65535


@pytest.mark.parametrize("name", [name for name in DEEP_FILES if name != "ppm"])
def test_16_bit_colour_with_transparency_lies_on_black(tmp_path, name):
    (tmp_path / "a").write_bytes(DEEP_FILES[name](NOISE_16))
    expected = np.rint(NOISE_16[:, :, :3] * (NOISE_16[:, :, 3:] / 65535))
    np.testing.assert_allclose(decode(tmp_path / "a"), expected, atol=1)


def test_16_bit_grey_with_transparency_is_grey(tmp_path):
    (tmp_path / "a.png").write_bytes(deep_png(NOISE_16[:, :, 2:]))
    expected = np.rint(NOISE_16[:, :, 2] * (NOISE_16[:, :, 3] / 65535))
    np.testing.assert_allclose(decode(tmp_path / "a.png"), expected, atol=1)
    assert is_grey(tmp_path / "a.png")


@pytest.mark.parametrize("write", [deep_png, deep_tif, deep_ppm])
def test_12_bit_colour_in_16_bit_files_keeps_its_levels(tmp_path, write):
    """A stain of 64 of 4,095 levels is 4 of 255; by the high bytes alone it was nothing, at 16 levels in all."""
    pixels = np.full((16, 16, 3), 3000, np.uint16)
    pixels[4:8, 4:8] = 3064
    (tmp_path / "a").write_bytes(write(pixels))
    white = white_level([tmp_path / "a"])
    seen = pixels_of(Preprocess("RGB", (16, 16), white=white), tmp_path / "a").astype(int)
    assert white == 4095
    assert (seen[5, 5] - seen[0, 0]).tolist() == [4, 4, 4]


@pytest.mark.parametrize("turned", [1, 6, 8])
def test_16_bit_colour_is_upright(tmp_path, turned):
    exif = chunk(b"eXIf", ONE_TAG % turned)
    content = deep_png(NOISE_16[:, :, :3])
    (tmp_path / "a.png").write_bytes(content[:33] + exif + content[33:])
    upright = np.rot90(NOISE_16[:, :, :3], {1: 0, 6: -1, 8: 1}[turned])
    np.testing.assert_array_equal(decode(tmp_path / "a.png"), upright)
    assert image_size(tmp_path / "a.png") == upright.shape[:2]


@pytest.mark.parametrize(
    ("shape", "dtype", "how", "reason"),
    [
        ((8, 9), np.float64, {}, "1 bands of 64-bit floating-point samples"),
        ((8, 9, 3), np.float32, {"photometric": "rgb"}, "3 bands of 32-bit floating-point samples"),
        ((8, 9, 5), np.uint16, {"photometric": "rgb"}, "5 bands of 16-bit samples"),
        ((3, 8, 9), np.uint16, {"photometric": "rgb", "planarconfig": "separate"}, "separate planes"),
    ],
)
def test_tiffs_that_can_not_be_read_say_why(tmp_path, shape, dtype, how, reason):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros(shape, dtype), **how)
    for read in (RGB.load, image_size):
        with pytest.raises(UnreadableImage, match=reason):
            read(tmp_path / "a.tif")


@pytest.mark.parametrize(
    ("dtype", "low", "high", "whole"),
    [(np.int16, -100, 90, False), (np.int32, 0, 65536, False), (np.int32, 0, 65535, True), (np.int16, 0, 90, True)],
)
def test_whole_numbers_beyond_16_bits_are_refused_not_cut(tmp_path, dtype, low, high, whole):
    samples = np.linspace(low, high, 72).astype(dtype).reshape(8, 9)
    tifffile.imwrite(tmp_path / "a.tif", samples)
    if whole:
        preprocess = Preprocess("L", (8, 9), white=white_level([tmp_path / "a.tif"]))
        assert len(np.unique(pixels_of(preprocess, tmp_path / "a.tif"))) > 60
    else:
        with pytest.raises(UnreadableImage, match=f"samples go from {low} to {high}, not from 0 to 65535"):
            RGB.load(tmp_path / "a.tif")


@pytest.mark.parametrize("name", ["a.jfif", "a.jp2", "a.avif"])
def test_more_formats(tmp_path, corners, name):
    if name.endswith("avif") and "AVIF" not in FORMATS:
        pytest.skip("this Pillow has no AVIF")
    large = corners.repeat(8, 0).repeat(8, 1)
    kind = {"a.jfif": "JPEG", "a.jp2": "JPEG2000", "a.avif": "AVIF"}[name]
    Image.fromarray(large).save(tmp_path / name, kind, **({} if kind == "JPEG2000" else {"quality": 95}))
    seen = pixels_of(Preprocess("RGB", (128, 256)), tmp_path / name)
    np.testing.assert_allclose(seen[32::64, 64::128].astype(int), corners[4::8, 8::16], atol=30)


HEIC = (
    "AAAAHGZ0eXBoZWljAAAAAG1pZjFoZWljbWlhZgAAAVZtZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAAAAAAAAAAACJpbG9jAA"
    "AAAERAAAEAAQAAAAABegABAAAAAAAAAJMAAAAjaWluZgAAAAAAAQAAABVpbmZlAgAAAAABAABodmMxAAAAAA5waXRtAAAAAAABAAAA1mlwcnAA"
    "AAC3aXBjbwAAAHhodmNDAQNwAAAAkAAAAAAAHvAA/P34+AAADwNgAAEAGEABDAH//wNwAAADAJAAAAMAAAMAHroCQGEAAQArQgEBA3AAAAMAkA"
    "AAAwAAAwAeoBAgQWW6kkprm4CGgwIAAAMAMgAAAwACEGIAAQAHRAHBcrAiQAAAABNjb2xybmNseAABAA0ABoAAAAAUaXNwZQAAAAAAAACAAAAA"
    "QAAAABBwaXhpAAAAAAMICAgAAAAXaXBtYQAAAAAAAAABAAEEgQIDBAAAAJttZGF0AAAAjygBrwngxxk2oj//+9F9//7cx6H+tbOQaRf//x1vDv"
    "9SWD//kFMDNCKKxH3SopxOHvao6rQQwI+52qVipgs9qgaHZWFJTfe9W4f56XYwqfZCLzyt5e4QiUxzFiXWH8Rt8xp5HGHgPfPKj9f636f5NUp+"
    "ptP/85dHf9kat/+UdC2AW8H/4iFOn4Ed4vz+TU7w"
)
"""`corners` four times as large."""


def test_a_telephones_pictures_are_read_by_the_plug_in(tmp_path, corners):
    pytest.importorskip("pi_heif")
    (tmp_path / "a.heic").write_bytes(base64.b64decode(HEIC))
    seen = pixels_of(Preprocess("RGB", (64, 128)), tmp_path / "a.heic")
    np.testing.assert_allclose(seen[16::32, 32::64].astype(int), corners[4::8, 8::16], atol=40)


SEEDS = {
    "png": encoded("PNG"),
    "palette.png": encoded("PNG", "P", transparency=0),
    "16-bit.png": encoded("PNG", "I;16"),
    "jpg": encoded("JPEG", exif=b"Exif\0\0" + ONE_TAG % 6),
    "progressive.jpg": encoded("JPEG", progressive=True),
    "cmyk.jpg": encoded("JPEG", "CMYK"),
    "tif": encoded("TIFF"),
    "lzw.tif": encoded("TIFF", compression="tiff_lzw"),
    "jpeg.tif": encoded("TIFF", compression="jpeg"),
    "float.tif": encoded("TIFF", "F"),
    "bmp": encoded("BMP"),
    "gif": encoded("GIF"),
    "webp": encoded("WEBP"),
    "lossless.webp": encoded("WEBP", lossless=True),
    "ppm": encoded("PPM"),
    "jp2": encoded("JPEG2000"),
    "16-bit colour.png": deep_png(NOISE_16[:, :, :3]),
    "16-bit grey and alpha.png": deep_png(NOISE_16[:, :, 2:]),
    "16-bit colour.tif": deep_tif(NOISE_16[:, :, :3]),
    "16-bit colour deflated.tif": deep_tif(NOISE_16, compression="zlib"),
    "16-bit colour.ppm": deep_ppm(NOISE_16[:, :, :3]),
    "pages.tif": encoded("TIFF", save_all=True, append_images=[Image.new("L", (9, 9))]),
    "pages.gif": encoded("GIF", save_all=True, append_images=[Image.new("RGB", (20, 24))]),
}


@st.composite
def mutated(draw, content):
    """`content` with some bytes replaced, a stretch of it dropped, repeated or cut off."""
    changed = bytearray(content)
    early = st.integers(0, min(99, len(content) - 1))  # headers hold the dangerous numbers
    anywhere = st.integers(0, len(content) - 1)
    for _ in range(draw(st.integers(0, 6))):
        at = draw(early | anywhere)
        changed[at] = draw(st.sampled_from([0, 1, 127, 128, 255]) | st.integers(0, 255))
    start, stop = sorted((draw(anywhere), draw(anywhere)))
    match draw(st.sampled_from(["keep", "keep", "drop", "repeat", "cut"])):
        case "drop":
            del changed[start:stop]
        case "repeat":
            changed[start:start] = changed[start:stop]
        case "cut":
            del changed[start:]
    return bytes(changed)


@pytest.fixture(scope="module")
def small_limit():
    """Mutated headers declare any size; what the limit lets through must not take gigabytes here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Image, "MAX_IMAGE_PIXELS", 1 << 16)
        yield


@pytest.mark.parametrize("name", SEEDS)
def test_no_bytes_raise_anything_but_unreadable_image(tmp_path_factory, small_limit, name):
    path = tmp_path_factory.mktemp("fuzz") / "a.png"  # the name says nothing about the content
    path.write_bytes(SEEDS[name])
    preprocess = Preprocess("RGB", 32, 8, white=1023)
    assert preprocess.load(path)[0].shape[2] == 3

    @settings(derandomize=True, deadline=None, max_examples=60)
    @given(mutated(SEEDS[name]))
    def check(content):
        path.write_bytes(content)
        try:
            white_level([path])
            pixels, size = preprocess.load(path)
            assert pixels.shape == (*preprocess.shape(*size), 3)
            assert size == image_size(path)
        except UnreadableImage as error:
            assert "\n" not in str(error)

    check()


@settings(derandomize=True, deadline=None, max_examples=100)
@given(content=st.binary(max_size=300))
def test_arbitrary_bytes_are_no_image(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "arbitrary.png"
    path.write_bytes(content)
    with pytest.raises(UnreadableImage):
        open_image(path)
