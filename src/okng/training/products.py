"""Several products that one detector learns: each is held out, and calibrated, by itself."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any

import numpy as np

from okng.errors import OkngError
from okng.inspection.images import Source
from okng.inspection.inspector import Images
from okng.training.data import TrainingImages
from okng.training.held_out import kept_together
from okng.training.progress import Narrator


def by_product(images: Images | Mapping[str, Images]) -> dict[str | None, Images]:
    """The images of each product by its name, or all of them by None; `OkngError` for names that can't be used."""
    if not isinstance(images, Mapping):
        return {None: images}
    if len(images) < 2:
        raise OkngError("several products are two or more, each with its name; give the images of one without a name")
    for name in images:
        if not isinstance(name, str) or not name.isprintable() or name != name.strip() or not 0 < len(name) <= 64:
            raise OkngError(f"a product's name is a word or a few, of 64 letters at most, not {name!r}")
        if set(name) & set("/\\=") or name in (".", ".."):
            raise OkngError(f"a product's name may be that of a folder, without / \\ and =, not {name!r}")
    return {name: images[name] for name in images}


def check_different(images: TrainingImages, names: list[str | None]) -> None:
    """`OkngError` where one of the OK `images`, by its bytes, was given as of two products."""
    first: dict[str, int] = {}
    for index, mark in enumerate(images.fingerprints()):
        product = int(images.products[index])
        known = first.setdefault(mark, product)
        if known != product:
            raise OkngError(
                f"{images.name(index)} is among the images of {names[known]} and of {names[product]}; "
                "leave it to one of them"
            )


def groups_of_each(
    images: TrainingImages, names: list[str | None], label: Callable[[Source], Hashable] | None, tell: Narrator
) -> tuple[np.ndarray, int]:
    """The group (n,) of each of the OK `images`, none of two products, and how many are near copies.

    Each product is looked at by itself: beside another one its own images would all look alike.
    """
    groups, near, whose = np.zeros(len(images), int), 0, dict[Any, str | None]()
    begun = 0
    for number, name in enumerate(names):
        places = np.flatnonzero(images.products == number)
        part = images.subset(places)
        if name is not None and len(part) < 2:
            raise OkngError(f"{name} has {len(part)} readable images; bring at least 2 of each product, better 20")
        try:
            found, copies = kept_together(part, label, tell)
        except OkngError as error:
            raise OkngError(f"{name}: {error}" if name is not None else str(error)) from error
        if label is not None:
            for each in {label(source) for source in part.sources}:
                if (other := whose.setdefault(each, name)) != name:
                    raise OkngError(
                        f"the group {each} has images of {other} and of {name}; where those have nothing in common, "
                        "let group_by (--group-by) tell the product too"
                    )
        groups[places], near, begun = found + begun, near + copies, begun + int(found.max()) + 1
    return groups, near
