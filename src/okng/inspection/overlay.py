"""A picture for people: the image, how odd each place is in colour, and the regions outlined."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from okng.errors import OkngError
from okng.inspection.verdict.calibration import Calibration, stand_apart
from okng.inspection.verdict.result import NO_RULES, Inspection
from okng.inspection.verdict.rules import Rules

# From dark violet over red to pale yellow: lightness rises all the way, so the order can be read without
# telling colours apart, and in a grey print.
HEAT = ((60, 20, 120), (150, 30, 125), (215, 60, 80), (245, 135, 25), (250, 240, 130))
MASK = "#00e5ff"  # of a labelled defect's outline: cyan is not among the heat's colours
OPACITY = 0.6  # of the hottest places, so that the part stays visible beneath


def heat_range(calibration: Calibration) -> tuple[float, float]:
    """The scores at which heat begins to show and at which it is full, for `overlay`.

    It begins at the median peak of held-out OK images, so that half of them show nothing. The pixel threshold lies low
    on the scale, so that strong defects still differ. One range serves all images of a detector: their colours compare.
    A peak that stands apart, of a black image among the OK ones, sets no scale: it would leave all else without colour.
    """
    if calibration.peaks is None or calibration.pixel_threshold is None:
        raise OkngError("this detector gives no map, so there is no heat to show")
    middle, threshold = float(np.median(calibration.peaks)), calibration.pixel_threshold
    apart = stand_apart(calibration.peaks)
    if apart.any():
        threshold = min(threshold, float(calibration.peaks[~apart].max()))
    above = threshold - middle
    if above <= 0:  # few or tied peaks
        above = abs(threshold) / 4 or 1.0
    return threshold - above, threshold + 6 * above


def heat_range_if_any(calibration: Calibration) -> tuple[float, float] | None:
    """`heat_range`; None where the model says of no place how odd it is."""
    return None if calibration.peaks is None else heat_range(calibration)


def overlay(
    image: Image.Image | np.ndarray, inspection: Inspection, low: float, high: float, rules: Rules = NO_RULES
) -> Image.Image:
    """The inspected `image` with its heat and the outlines of its regions, "RGB" at the size of `image`.

    `image` is what was inspected, uint8 (H, W, 3) or of 8 bits in any mode, smaller or larger if need be:
    everything is drawn to its scale. Nothing is coloured where the map is below `low`; colour and opacity
    rise up to `high`. The zones of `rules` are outlined in their colours, and regions in that of the rule which decided
    on them, else in white. Raises `OkngError` when the detector gives no map.
    """
    picture = (Image.fromarray(image) if isinstance(image, np.ndarray) else image).convert("RGB")
    width, height = picture.size
    heat = inspection.heatmap((height, width)) - low  # (H, W)
    heat = np.clip(heat / max(high - low, 1e-30), 0, 1)  # (H, W) in [0, 1]
    steps = np.linspace(0, 255, len(HEAT))
    palette = np.stack([np.interp(np.arange(256), steps, channel) for channel in zip(*HEAT, strict=True)], 1)
    colours = Image.fromarray(palette.astype(np.uint8)[(heat * 255).astype(np.uint8)])  # (H, W, 3)
    opacity = Image.fromarray((np.sqrt(heat) * (OPACITY * 255)).astype(np.uint8))
    picture.paste(colours, mask=opacity)
    height, width = inspection.size
    for zone in rules.zones:
        corners = [(x * width, y * height) for x, y in (*zone.points, zone.points[0])]
        outline(picture, [corners], inspection.size, zone.colour)
    colours_of = {rule.name: rule.colour for rule in rules.rules}
    for region in inspection.regions:
        outline(picture, [region.contour], inspection.size, colours_of.get(region.rule or "", "white"))
    return picture


def outline(
    picture: Image.Image,
    contours: Sequence[Sequence[tuple[float, float]]],
    size: tuple[int, int],
    colour: str = "white",
) -> None:
    """Draw contours, in pixels of an image of `size` (height, width), onto `picture` of any size.

    Each in `colour` between two black lines: visible on an image of any colour.
    """
    scale = np.array(picture.size) / (size[1], size[0])
    line = max(1, round(max(picture.size) / 300))
    draw = ImageDraw.Draw(picture)
    for ink, width in (("black", line + 2 * max(1, round(line / 2))), (colour, line)):
        for contour in contours:
            points = np.array(contour) * scale - 0.5  # Pillow's coordinates are those of pixel centres
            draw.line([(float(x), float(y)) for x, y in points], fill=ink, width=width, joint="curve")
