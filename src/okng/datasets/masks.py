"""Masks: which files are some, whose they are, and what they mark."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from okng.datasets.base import Mask
from okng.datasets.names import DRAWN, key, mask_keys, says_masks, words
from okng.errors import OkngError
from okng.inspection.reading.files import natural_order
from okng.inspection.reading.images import UnreadableImage, image_size, open_image

NUMBERS = 32  # a lossless mask that stays below it holds the numbers of classes, as VisA's
FLAT = 0.9  # share of a mask's pixels that are as dark or as bright as it gets
WORD_BEHIND = re.compile(r"^(.+?)[\s_.\-]+[^\W\d_]+$")
EDGE = 0.12  # of a mask's range: what still counts as dark or bright, after JPEG


def read_mask(mask: Mask) -> np.ndarray:
    """Where `mask` marks a defect, bool (H, W); several masks are united.

    A mask's edge may be soft, from resizing or JPEG: the threshold is half of its brightest value, in JPEG half of the
    range. A lossless mask that holds class numbers (below 32) or a colour palette marks whatever is not black. The
    colour is that of its brightest channel. Where all is black but part of it transparent, what is opaque is marked.
    Raises `UnreadableImage`, and `OkngError` where masks to be united differ in size.
    """
    if isinstance(mask, Path):
        return _marked(open_image(mask))
    parts = [_marked(open_image(path)) for path in mask]
    if len({part.shape for part in parts}) > 1:
        raise OkngError(f"the masks in {mask[0].parent} differ in size but are of one image; put them right")
    union: np.ndarray = np.logical_or.reduce(parts)
    return union


def is_marked(mask: Path) -> bool:
    """Whether a mask marks anything; one that can't be read may."""
    try:
        return bool(read_mask(mask).any())
    except UnreadableImage:
        return True


def looks_like_mask(path: Path) -> bool | None:
    """Whether an image is two-valued, or nearly so, or holds few small numbers; None if it can't be read."""
    try:
        image = open_image(path)
        values = _values(image)  # (H, W)
    except UnreadableImage:
        return None
    if image.mode in ("1", "P") or (image.format != "JPEG" and values.max() < NUMBERS):
        return len(np.unique(values)) <= NUMBERS
    low, high = float(values.min()), float(values.max())
    edge = EDGE * (high - low)
    return bool(((values <= low + edge) | (values >= high - edge)).mean() >= FLAT)


def masks_beside(images: Sequence[Path]) -> dict[Path, Path | None]:
    """The masks among `images`, each with the image in the same folder that it is of, if there is one.

    A mask is called as one (`x_mask.png`, `x_GT.png`, `x_label.bmp`) and looks like one, or lies under the name of its
    image, has its size and two values, as `x.png` beside `x.jpg`. Of one value or two and of its size it may have any
    word behind its image's name, `x_bin.png`. The `label.png` and `label_viz.png` that labelme writes beside `img.png`
    are masks too.
    """
    folders: dict[Path, dict[str, list[Path]]] = defaultdict(lambda: defaultdict(list))
    for path in images:
        folders[path.parent][key(path.name)].append(path)
    found: dict[Path, Path | None] = {}
    for names in folders.values():
        for name, paths in names.items():
            for path in paths:
                if name in ("label", "label_viz") and "img" in names:
                    found[path] = names["img"][0]
                elif (asked := mask_keys(path.name)) and looks_like_mask(path) is not False:
                    found[path] = next((names[one][0] for one in asked if one in names), None)
                elif (longer := WORD_BEHIND.match(name)) and longer[1] in names and _two_valued(path):
                    whose = names[longer[1]][0]
                    found |= {path: whose} if _same_size(path, whose) else {}
            rest = [path for path in paths if path not in found]
            if len(rest) > 1:
                masks = [path for path in rest if looks_like_mask(path)]
                image = next((path for path in rest if path not in masks), None)
                found |= {mask: image for mask in masks if image is not None and _same_size(mask, image)}
    return found


def match_masks(images: Iterable[tuple[str, Path]], masks: Iterable[tuple[str, Path]]) -> dict[Path, tuple[Path, ...]]:
    """The masks of each image, by the names both have inside their folders, with `/` between the parts.

    `a/x.png` has the masks called `a/x_mask.png` (or as `names.mask_keys` knows them), else `a/x.bmp` or
    `a/x.png.png`, else all in the folder `a/x/`.
    """
    by_name: dict[str, Path] = {}
    for name, image in images:
        by_name.setdefault(_joined(name, key(Path(name).name)), image)
    called, plain, inside = [defaultdict(list) for _ in range(3)]  # type: ignore[var-annotated]
    for name, mask in sorted(masks, key=lambda item: natural_order(item[0])):
        exact, folder = _joined(name, key(Path(name).name)), _joined(name)
        asked = [_joined(name, one) for one in mask_keys(Path(name).name)]
        if exact not in by_name and (known := next((one for one in asked if one in by_name), None)) is not None:
            called[by_name[known]].append(mask)
        elif exact in by_name:
            plain[by_name[exact]].append(mask)
        elif folder in by_name:
            inside[by_name[folder]].append(mask)
    return {image: tuple(found[image]) for found in (inside, plain, called) for image in found}


def one_or_several(masks: tuple[Path, ...]) -> Mask | None:
    """How a sample holds its masks."""
    return masks[0] if len(masks) == 1 else masks or None


def is_mask_folder(name: str, images: Sequence[Path]) -> bool:
    """Whether a folder called `name` holds masks: photographs in `labels/` are of labels, whatever it is called."""
    if not says_masks(name) or words(name) & DRAWN:
        return says_masks(name)
    drawn = images[:: max(1, len(images) // 8)][:8]
    return sum(looks_like_mask(path) is False for path in drawn) * 2 <= len(drawn)


def _joined(name: str, last: str | None = None) -> str:
    """The folder part of `name`, composed, with `last` behind it."""
    parts = [key(part) for part in Path(name).parts[:-1]]
    return "/".join([*parts, last] if last is not None else parts)


def _two_valued(path: Path) -> bool:
    try:
        return len(np.unique(_values(open_image(path)))) <= 2
    except UnreadableImage:
        return False


def _same_size(one: Path, other: Path) -> bool:
    try:
        return image_size(one) == image_size(other)
    except UnreadableImage:
        return False


def _values(image: Image.Image) -> np.ndarray:
    """How bright a mask is in its brightest channel, (H, W); where all is black, how opaque."""
    if image.has_transparency_data:
        rgba = np.asarray(image.convert("RGBA"))  # (H, W, 4)
        alpha = rgba[:, :, 3]
        bright: np.ndarray = rgba[:, :, :3].max(2) * (alpha >= 128)
        return bright if bright.any() or (alpha == 255).all() else alpha
    if image.mode in ("P", "CMYK", "YCbCr", "LAB", "HSV"):
        image = image.convert("RGB")
    pixels = np.nan_to_num(np.asarray(image))
    values: np.ndarray = pixels.max(2) if pixels.ndim == 3 else pixels
    return values


def _marked(image: Image.Image) -> np.ndarray:
    values = _values(image)  # (H, W)
    if values.dtype == bool:
        return values
    coloured = image.mode == "P" and not _is_grey(image)
    if image.format == "JPEG":  # its black is not quite black, also where nothing is marked
        half: np.ndarray = values > 127
        return half
    numbers = values.dtype != np.float32 and values.max() < NUMBERS
    marked: np.ndarray = values > (0 if coloured or numbers else values.max() / 2)
    return marked


def _is_grey(image: Image.Image) -> bool:
    """Whether all colours of a palette are grey."""
    colours = np.array(image.getpalette("RGB") or [0, 0, 0]).reshape(-1, 3)  # (colours, 3)
    return bool((colours == colours[:, :1]).all())
