"""From what a person gave to images that can be learnt from: what can't be read is named and left out."""

from __future__ import annotations

from okng.datasets.ok_images import lister, part_images
from okng.errors import OkngError
from okng.inspection.inspector import Images, each_image
from okng.inspection.reading.images import Source, UnreadableImage, image_size
from okng.training.images.data import AuxiliaryImages, TrainingImages
from okng.training.progress import Narrator


def given_images(images: Images, strict: bool) -> list[Source]:
    """The single OK images of what a person gave; of a folder those that `ok_images` takes for OK."""
    return list(each_image(images, lister(strict)))


def with_header(sources: list[Source], strict: bool, tell: Narrator, kind: str = "OK") -> tuple[list[Source], int]:
    """The sources whose header can be read, and how many can't."""
    good = []
    for source in sources:
        try:
            image_size(source)
            good.append(source)
        except UnreadableImage as error:
            if strict:
                raise
            tell.say(f"skipped: {error}")
    if not good:
        wanted = "at least 2 OK images" if kind == "OK" else f"at least one {kind} image"
        raise OkngError(f"there is no readable image among what was given; bring {wanted}")
    return good, len(sources) - len(good)


def whole(images: TrainingImages, strict: bool, tell: Narrator) -> tuple[TrainingImages, int]:
    """The images that decode to the end, and how many don't."""
    tell.begin("reading images", len(images))
    good = []
    for i in range(len(images)):
        try:
            images[i]
            good.append(i)
        except UnreadableImage as error:
            if strict:
                raise
            tell.say(f"skipped: {error}")
        tell.advance()
    return images.subset(good), len(images) - len(good)


def auxiliary_images(given: Images, beside: TrainingImages, strict: bool, tell: Narrator) -> AuxiliaryImages:
    """What of `given` is readable and none of the images `beside` it: those that calibrate must not be learnt."""
    sources, _ = with_header(list(each_image(given, lambda folder: part_images(folder)[0])), strict, tell, "auxiliary")
    readable, _ = whole(TrainingImages(sources, beside.preprocess, budget=0), strict, tell)
    known = set(beside.fingerprints())
    marks = readable.fingerprints()
    others = [source for source, mark in zip(readable.sources, marks, strict=True) if mark not in known]
    if len(others) < len(marks):
        tell.say(f"{len(marks) - len(others)} auxiliary images are among the images to learn from, and are left out")
    if not others:
        raise OkngError("no auxiliary image is left; bring readable images of something else")
    tell.say(f"{len(others)} auxiliary images")
    return AuxiliaryImages(others, beside.preprocess, beside.budget // 2)
