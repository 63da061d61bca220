"""What a fit is asked for and can't do: one line each of what to give or to leave out, before images are read."""

from __future__ import annotations

from okng.checks import check_rate, check_share, positive
from okng.detectors.cards import cards
from okng.detectors.catalogue import detector_class
from okng.errors import OkngError
from okng.inspection.reading.tiling import check_tile

PROMISES = ("auto", "strict")
NOT_WHERE = "{} does not say where; zones and rules need a detector that does, see: okng list"


def check_values(false_alarm_rate: float, holdout: float | None, promise: str) -> None:
    """`OkngError` for numbers out of range, and for a promise that there is not."""
    check_rate(false_alarm_rate)
    check_share("holdout", holdout, "a share of the OK images such as 0.2, or 0 to cross-fit")
    if promise not in PROMISES:
        raise OkngError(f"promise is {' or '.join(PROMISES)}, not {promise!r}")
    if promise == "strict" and holdout == 0:
        raise OkngError("cross-fitting (a holdout of 0) promises nothing strictly; leave out holdout, or promise")


def check_input(
    size: int | tuple[int, int] | None, tile: int | None, overlap: int | None, time_per_image: float | None
) -> None:
    """`OkngError` where two of them choose the same."""
    if time_per_image is not None:
        positive(time_per_image=time_per_image)
        if tile is not None:
            raise OkngError("time_per_image chooses the size of whole images; leave it out, or tile")
        if size is not None:
            raise OkngError("size and time_per_image both choose the size of the input; give one of them")
    if tile is None and overlap is not None:
        raise OkngError("overlap is of tiles; give tile too (--tile 512)")
    if tile is not None:
        check_tile(tile, overlap)


def check_devices(detector: str, count: int, time_per_image: float | None) -> None:
    """`OkngError` for a detector, or a measurement, that `count` processes can't share."""
    if count == 1:
        return
    kind = detector_class(detector)
    if kind.collects_only:
        raise OkngError(f"{detector} learns in one pass, with no steps to share; leave out devices and nodes")
    if kind.needs_ng:
        raise OkngError(f"{detector} learns from NG images too, which a share of a batch may lack; leave out devices")
    if time_per_image is not None:
        raise OkngError("processes would measure different times; with several devices give size, not time_per_image")


def check_images(detector: str, ng: bool, auxiliary: bool, tile: bool, rules: bool) -> None:
    """`OkngError` where `detector` can't use what is given (true), or lacks what it needs."""
    kind = detector_class(detector)
    if kind.needs_ng and not ng:
        raise OkngError(f"{detector} learns from some NG images too; give them with ng=IMAGES, or --ng FOLDER")
    if ng and not kind.needs_ng:
        raise OkngError(f"{detector} learns from OK images only; leave out ng, or take a detector that needs NG images")
    if auxiliary and not kind.takes_auxiliary:
        raise OkngError(f"{detector} uses no auxiliary images; leave out auxiliary, or --auxiliary")
    if tile and ng:
        raise OkngError(f"{detector} learns NG images as a whole, and most tiles of one are OK; leave out tile")
    if rules and detector in cards() and not cards()[detector].localizes:
        raise OkngError(NOT_WHERE.format(detector))
