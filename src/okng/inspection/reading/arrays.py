"""Pixels as people have them: arrays, tensors and Pillow's images, told apart by their shape or refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image

from okng.errors import OkngError
from okng.inspection.reading.decoding import keeps_bits, on_black, upright
from okng.inspection.reading.formats import UnreadableImage, blaming

CHANNELS = (1, 3, 4)  # grey, colour, colour with transparency
BANDS = 16  # a last side up to that is rather one image's channels than the width of many


def is_tensor(thing: Any) -> bool:
    """Whether `thing` is a PyTorch tensor, of which this module knows no more than the names of its methods."""
    return hasattr(thing, "detach") and hasattr(thing, "cpu")


def from_tensor(tensor: Any) -> np.ndarray:
    """A tensor's values; floating-point ones as float32, for NumPy has no bfloat16."""
    tensor = tensor.detach().cpu()
    return np.asarray(tensor.float() if tensor.is_floating_point() else tensor)


def from_pillow(image: Image.Image) -> np.ndarray:
    """A Pillow image as it is now, upright: uint8 or uint16 (H, W) or uint8 (H, W, 3), transparency laid on black."""
    with blaming(image):
        if not keeps_bits(image):
            raise UnreadableImage("a Pillow image", "Pillow would drop 8 of its 16 bits; give the file's path instead")
        image = upright(image)
        if image.mode in ("I", "F") or image.mode.startswith("I;16"):
            samples = np.asarray(image)  # (H, W)
            whole = image.mode != "F" and samples.min(initial=0) >= 0 and samples.max(initial=0) <= 65535
            return samples.astype(np.uint16) if whole else one_image(samples)
        grey = image.mode in ("1", "L", "LA")
        if image.has_transparency_data:
            colour = one_image(np.asarray(image.convert("RGBA")))  # (H, W, 3)
            return colour[:, :, 0] if grey else colour
        return np.asarray(image.convert("L" if grey else "RGB"))


def each_image_of(array: np.ndarray, tensor: bool = False) -> Iterator[np.ndarray]:
    """The images in `array`, each as `one_image` gives it; `OkngError` where its shape can mean two things.

    One image is (H, W), (H, W, C) or (C, H, W), several are (N, H, W), (N, H, W, C) or (N, C, H, W), with C of 1, 3 or
    4. In an array (3, H, W) may be three grey images too, and is refused, and so is (H, W, 2) or (H, W, 5), which is
    hardly many narrow ones. A `tensor` of three dimensions is one image, as PyTorch has them; several grey ones are
    (N, 1, H, W).
    """
    if array.ndim == 4:
        yield from map(one_image, _channels_last(array, array, "Image.fromarray of each"))
    elif array.ndim != 3:
        yield one_image(array)
    elif array.shape[2] not in CHANNELS and array.shape[0] not in CHANNELS:
        if tensor:
            raise OkngError(
                f"a tensor of shape {array.shape} is no image (C, H, W); for grey images give tensor.unsqueeze(1)"
            )
        if array.shape[2] <= BANDS and array.shape[2] < array.shape[1]:
            raise OkngError(
                f"an array of shape {array.shape} may be one image of {array.shape[2]} channels, where okng takes 1, 3 "
                "or 4, or many narrow grey ones; give array[:, :, 0] for the one in grey, list(array) for the many"
            )
        yield from map(one_image, array)
    elif not tensor and array.shape[0] in (3, 4) and array.shape[2] not in CHANNELS:
        raise OkngError(
            f"an array of shape {array.shape} may be {array.shape[0]} grey images or one with its channels first; give "
            "list(array) for the images, array.transpose(1, 2, 0) for the one"
        )
    else:
        row = array.shape[0] == 1 and array.shape[2] in CHANNELS  # an image of one row, as line cameras give them
        yield one_image(array if row else _channels_last(array[None], array, "Image.fromarray of it")[0])


def one_image(array: np.ndarray) -> np.ndarray:
    """One image (H, W[, C]) as uint8 or uint16 (H, W) or (H, W, 3).

    Alpha is laid on black as in files, floats from 0 to 1 become uint8. Raises `OkngError` for all else.
    """
    pixels = array[:, :, 0] if array.ndim == 3 and array.shape[2] == 1 else array
    if not (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in CHANNELS)) or pixels.size == 0:
        raise _no_image(array, "give one of (H, W), (H, W, 3) or (H, W, 4), or several of them")
    if pixels.dtype.kind == "f":
        if not (pixels.min() >= 0 and pixels.max() <= 1):  # NaN is neither
            raise _no_image(array, "floats lie between 0 and 1; give array.astype('uint8') if these go to 255")
        pixels = np.rint(pixels.astype(np.float32) * 255).astype(np.uint8)
    if pixels.dtype == bool:
        raise _no_image(array, "a mask has no brightness; if it is the image, give array.astype('uint8') * 255")
    if pixels.dtype not in (np.uint8, np.uint16):
        raise _no_image(array, "give array.astype('uint8') if its values go to 255, 'uint16' if they go further")
    if pixels.ndim == 3 and pixels.shape[2] == 4:
        pixels = on_black(pixels)
    return np.ascontiguousarray(pixels)


def _channels_last(stack: np.ndarray, given: np.ndarray, instead: str) -> np.ndarray:
    """A stack (N, H, W, C) or (N, C, H, W) as (N, H, W, C)."""
    first, last = stack.shape[1] in CHANNELS, stack.shape[3] in CHANNELS
    if first and last:
        raise OkngError(f"the channels of an array of shape {given.shape} may be first or last; give {instead}")
    if not first and not last:
        raise _no_image(given, "give one of (H, W), (H, W, 3) or (H, W, 4), or several of them")
    return stack if last else stack.transpose(0, 2, 3, 1)


def _no_image(array: np.ndarray, instead: str) -> OkngError:
    return OkngError(f"an array of {array.dtype} and shape {array.shape} is no image; {instead}")
