"""The inspector: images in, verdicts out, one after another, however many there are."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import islice
from pathlib import Path
from time import perf_counter
from typing import Any, BinaryIO, NamedTuple, Protocol

import numpy as np
from PIL import Image

from okng.checks import check_named, whole_number
from okng.errors import OkngError, nearest_names
from okng.inspection.reading.arrays import each_image_of, from_pillow, from_tensor, is_tensor
from okng.inspection.reading.decoding import each_page
from okng.inspection.reading.files import LISTS, each_found, read_list
from okng.inspection.reading.formats import Encoded, UnreadableImage, exists
from okng.inspection.reading.images import Preprocess, Source
from okng.inspection.reading.tiling import Tiled
from okng.inspection.reading.workers import Workers
from okng.inspection.storage.urls import names_image, path_in, shown, storage_url, url_of
from okng.inspection.verdict.calibration import Calibration
from okng.inspection.verdict.likeness import Likeness, Traits
from okng.inspection.verdict.result import Inspection, judged
from okng.inspection.verdict.rules import Rules

Images = Source | bytes | BinaryIO | Image.Image | Iterable[Any]
"""A folder, a file, a list of files (.txt, .csv, .json), an archive (.zip, .tar, .tar.gz), a URL of storage
(`s3://bucket/parts`, a folder or a file), a file's bytes, a file opened to read bytes, a Pillow image, an array or a
PyTorch tensor (its shapes: `arrays.each_image_of`), or any iterable of these."""


FETCHING = 16  # threads where images come from storage


class Engine(Protocol):
    """What runs a fitted detector: PyTorch in the lab, ONNX Runtime or OpenVINO beside the camera."""

    def __call__(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Raw scores (B,) and maps (B, h, w), if any, of uint8 `pixels` (B, H, W, C)."""

    def write(self, path: Path, manifest: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        """Write the model file: the fitted state with `manifest` and the calibration's `arrays`."""


class Decoded(NamedTuple):
    """One image ready for the engine: `pixels` (h, w, C), what the original is like, milliseconds taken.

    Where there are tiles the pixels are all of the original's. `folders`: how many above it say its product, see
    `each_placed`.
    """

    place: int
    source: Source
    pixels: np.ndarray
    traits: Traits
    ms: float
    folders: int = 1


class Inspector:
    """A fitted detector with its preprocessing and calibration; `manifest` is the model file's JSON.

    `rules` are those of the manifest: zones and what a region of which size means.

    A model of several products has a calibration for each: `calibrations`, by the names in `products`; of a model of
    one product its only one stands under None. `product` is the one that is meant, see `of`. While none is, each
    image's path has to say, and `calibration` raises `OkngError`.
    """

    def __init__(
        self,
        engine: Engine,
        preprocess: Preprocess,
        calibration: Calibration | Mapping[str | None, Calibration],
        manifest: dict[str, Any],
        product: str | None = None,
    ):
        self.engine = engine
        self.preprocess = preprocess
        self.calibrations: dict[str | None, Calibration] = (
            {None: calibration} if isinstance(calibration, Calibration) else dict(calibration)
        )
        self.manifest = manifest
        self.product = product
        self.rules = Rules.from_json(manifest.get("rules"))

    def __repr__(self) -> str:
        size = self.preprocess.size
        area = f"about {size}x{size}" if isinstance(size, int) else f"{size[0]}x{size[1]}"
        colour = "grey" if self.preprocess.mode == "L" else self.preprocess.mode
        name = self.manifest.get("detector", {}).get("name", "a detector")
        engine = type(self.engine).__name__.removesuffix("Engine")
        if self.product is None and self.products:
            threshold = f"a threshold for each of {', '.join(self.products)}"
        else:
            of = "" if self.product is None else f"{self.product}, "
            threshold = f"{of}threshold {self.calibration.threshold:.4g}: {self.promise()}"
        return f"<Inspector: {name} on {engine}, {area} {colour}, {threshold}>"

    @classmethod
    def from_file(cls, engine: Engine, manifest: dict[str, Any], tensors: dict[str, np.ndarray]) -> Inspector:
        """The inspector that `save` wrote, given the engine that runs its detector."""

        def read(fields: Any, prefix: str) -> Calibration:
            calibration = fields.get("calibration") if isinstance(fields, dict) else None
            scores, peaks = tensors.get(f"{prefix}.scores", np.empty(0)), tensors.get(f"{prefix}.peaks")
            return Calibration.from_json(calibration, scores, peaks)

        products = manifest.get("products")
        calibrations: dict[str | None, Calibration]
        if isinstance(products, dict) and products:
            calibrations = {name: read(fields, f"products.{name}") for name, fields in products.items()}
        else:
            calibrations = {None: read(manifest, "calibration")}
        return cls(engine, Preprocess.from_json(manifest.get("preprocess", {})), calibrations, manifest)

    @property
    def products(self) -> tuple[str, ...]:
        """The names of the products that have a threshold each; none for a model of one product."""
        return tuple(name for name in self.calibrations if name is not None)

    @property
    def calibration(self) -> Calibration:
        """That of the product that is meant, or the only one; `OkngError` while none of several is."""
        if self.product not in self.calibrations:
            raise OkngError(
                f"this model has a threshold for each of {', '.join(self.products)}; say which is meant: "
                f"--product {self.products[0]}, in Python inspector.of({self.products[0]!r})"
            )
        return self.calibrations[self.product]

    @property
    def learnt_images(self) -> dict[str, Any] | None:
        """What the images that were learnt are like, see `likeness.describe`; those of the product that is meant."""
        described = self.manifest if self.product is None else self.manifest["products"][self.product]
        learnt: dict[str, Any] | None = described.get("learnt_images")
        return learnt

    def of(self, product: str) -> Inspector:
        """The same inspector for images of one of its `products`: the threshold and all that is said are that one's."""
        if not self.products:
            raise OkngError(f"this model is of one product and knows no names; leave out {product!r}, or --product")
        if product not in self.products:
            raise OkngError(f"this model knows no product {product!r}; {nearest_names(product, self.products)}")
        return Inspector(self.engine, self.preprocess, self.calibrations, self.manifest, product)

    def product_of(self, source: Source, folders: int = 1) -> str | None:
        """The product that the image `source` is judged as: the one that is meant, else what its path says.

        That is the nearest of so many `folders` above it that is called like one of `products`: those at or below what
        a person handed over, see `each_placed`. Where that lies says nothing of the image. None for a model of one
        product. `OkngError` where the path says nothing.
        """
        if self.product is not None or not self.products:
            return self.product
        if isinstance(source, str | Path):
            for folder in _parts(source)[-2 : -2 - folders : -1]:
                if folder in self.products:
                    return folder
                if folder == "..":
                    break  # what stands before it is no folder above the image
        name = "an array" if isinstance(source, np.ndarray) else shown(source)
        raise OkngError(
            f"{name} may be of {' or '.join(self.products)}, and no folder from what was given down to it is called "
            f"so; say which: --product {self.products[0]}, in Python inspector.of({self.products[0]!r})"
        )

    def calibrated(self, calibration: Calibration, manifest: dict[str, Any] | None = None) -> Inspector:
        """The same inspector with another `calibration` of the product that is meant, and another `manifest`."""
        calibrations = {**self.calibrations, self.product: calibration}
        manifest = self.manifest if manifest is None else manifest
        return Inspector(self.engine, self.preprocess, calibrations, manifest, self.product)

    def save(self, path: str | Path) -> None:
        """Write the model file, all or nothing."""
        self.engine.write(Path(path).expanduser(), *self.described())

    def described(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """What a model file holds beside the fitted state: the manifest and the calibration's arrays."""
        arrays: dict[str, np.ndarray] = {}
        described = {**self.manifest, "preprocess": self.preprocess.to_json()}
        if self.products:
            described["products"] = {}
        for name, calibration in self.calibrations.items():
            prefix = "calibration" if name is None else f"products.{name}"
            arrays[f"{prefix}.scores"] = calibration.scores
            if calibration.peaks is not None:
                arrays[f"{prefix}.peaks"] = calibration.peaks
            if name is None:
                described["calibration"] = calibration.to_json()
            else:
                known = self.manifest.get("products", {}).get(name, {})
                described["products"][name] = {**known, "calibration": calibration.to_json()}
        return described, arrays

    def at(self, false_alarm_rate: float) -> Inspector:
        """The same inspector at another false-alarm rate; nothing is fitted again.

        The product that is meant has it then; all of them where none is.
        """
        meant = {self.product} & self.calibrations.keys() or self.calibrations.keys()
        calibrations = {
            name: calibration.at(false_alarm_rate) if name in meant else calibration
            for name, calibration in self.calibrations.items()
        }
        return Inspector(self.engine, self.preprocess, calibrations, self.manifest, self.product)

    def with_threshold(self, threshold: float) -> Inspector:
        """The same inspector with a score threshold chosen by hand."""
        return self.calibrated(self.calibration.with_threshold(threshold))

    def with_rules(self, rules: Rules | dict[str, Any] | str | Path | None, ok: Images | None = None) -> Inspector:
        """The same inspector with other zones and rules, their JSON or a file of it; None for none.

        Zones that leave out a part of the image make the score the highest value of the map within them. `ok`: OK
        images to calibrate that by; those that the model has learnt are left out. Without them the threshold is the one
        of whole maps, whose highest value is no less: the promise holds, and more could be found. Raises `OkngError`
        for a detector without a map, for rules that make no sense, and where OK images are needed.
        """
        from okng.inspection.verdict.zoned import ruled

        return ruled(self, Rules.of(rules), ok)

    def promise(self) -> str:
        """One sentence: what the threshold promises, and why, with the zones and rules; one for each of several."""
        if self.product is None and self.products:
            return "; ".join(f"{name}: {self.of(name).promise()}" for name in self.products)
        whole_maps = self.rules.masks and self.manifest.get("zones_calibrated") == "whole maps"
        return self.calibration.promise() + self.rules.promise(self.calibration, whole_maps)

    def inspect(
        self,
        images: Images,
        batch_size: int | None = None,
        unreadable: Callable[[UnreadableImage], None] | None = None,
    ) -> Iterator[Inspection]:
        """Inspect `images` one by one, in order, in memory that does not grow with their number.

        Files are decoded ahead in threads while the engine works on `batch_size` images at once: by default 8, and
        where inputs are smaller than 256 × 256 up to 64. For images that come one after another, as from a camera, 1 is
        quickest. An unreadable image is handed to `unreadable` and skipped; without that it raises `UnreadableImage`.
        At the end an `OkngWarning` tells of images unlike those learnt from, and of five or more that are all NG.
        Where none of several products is meant, each image's folders say which it is of, see `product_of`.
        """
        yield from self.inspect_placed(each_placed(images, strict=unreadable is None), batch_size, unreadable)

    def inspect_placed(
        self,
        sources: Iterator[tuple[Source, int]],
        batch_size: int | None = None,
        unreadable: Callable[[UnreadableImage], None] | None = None,
    ) -> Iterator[Inspection]:
        """As `inspect`, of what `each_placed` gave."""
        batch_size = self.batch_of(batch_size)
        decoded = self._decoded(enumerate(sources), 2 * batch_size, unreadable)
        likeness = Likeness(self.learnt_images)
        try:
            for batch in self._batches(decoded, batch_size):
                for item, inspection in zip(batch, self.judge(batch), strict=True):
                    likeness.add(item.traits, inspection.is_ng)
                    yield inspection
        finally:
            likeness.warn()

    def decode(self, source: Source, place: int = 0) -> Decoded:
        """One image as the engine takes it; raises `UnreadableImage`. `place` is its number among others."""
        start = perf_counter()
        read = self.preprocess.read if self.preprocess.tile is None else self.preprocess.read_whole
        pixels, traits = read(source)
        return Decoded(place, source, pixels, traits, (perf_counter() - start) * 1000)

    def judge(self, batch: Sequence[Decoded]) -> Iterator[Inspection]:
        """What is said of decoded images of one shape, which the engine is given at once."""
        start = perf_counter()
        engine: Any = self.engine
        if (tile := self.preprocess.tile) is not None:  # some tiles of one image at a time
            engine = Tiled(engine, tile, self.preprocess.overlap, self.preprocess.shape(1, 1), self._at_once())
        scores, maps = engine(np.stack([item.pixels for item in batch]))  # (B,), (B, h, w)
        ms = (perf_counter() - start) * 1000 / len(batch)
        for i, item in enumerate(batch):
            yield self._judge(item, float(scores[i]), None if maps is None else maps[i], ms)

    def score_samples(self, images: Images) -> np.ndarray:
        """Raw scores (n,), higher = odder."""
        return self.scores_and_peaks(images)[0]

    def scores_and_peaks(self, images: Images) -> tuple[np.ndarray, np.ndarray | None]:
        """Raw scores (n,) and the maxima of the maps (n,), if any: what a calibration is made of."""
        scores, peaks = [], []
        for inspection in self.inspect(images):
            scores.append(inspection.score)
            if inspection.map is not None:
                peaks.append(float(inspection.map.max()))
        return np.array(scores), np.array(peaks) if peaks else None

    def warm_up(self) -> None:
        """Judge a blank image of the learnt size, so that what is compiled at a first use is there.

        What goes wrong is left to the first image to tell.
        """
        with suppress(Exception):
            like = self.manifest.get("learnt_images", {})
            height, width = (like.get(side, [1])[-1] for side in ("height", "width"))
            count = min(self.preprocess.inputs(height, width), self._at_once())
            shape = self.preprocess.shape(1, 1) if self.preprocess.tile else self.preprocess.shape(height, width)
            self.engine(np.zeros((count, *shape, self.preprocess.channels), np.uint8))

    def batch_of(self, asked: int | None) -> int:
        """How many images the engine is given at once where so many are `asked` for; `OkngError` for none."""
        if asked is None:
            return self.usual_batch()
        whole_number(1, batch_size=asked)
        return int(asked)

    def usual_batch(self) -> int:
        """How many images the engine is given at once: as many as inputs, and one where that is many tiles."""
        return self._at_once() if self.preprocess.tile is None else 1

    def _at_once(self) -> int:
        """How many inputs have the pixels of eight of 256 × 256, from 8 to 64: small ones hardly fill a processor."""
        height, width = self.preprocess.shape(1, 1)
        return min(64, max(8, 8 * 256 * 256 // (height * width)))

    def _judge(self, item: Decoded, score: float, scores: np.ndarray | None, ms: float) -> Inspection:
        if not (np.isfinite(score) and (scores is None or np.isfinite(scores).all())):
            raise OkngError(f"the detector's score of {shown(item.source)} is no number; fit again, with another seed")
        if scores is not None and self.rules.masks:
            scores = self.rules.within(scores)
            score = float(scores.max())
        product = self.product_of(item.source, item.folders)
        path = shown(item.source) if isinstance(item.source, Path | str) else None
        timing = {"decode": round(item.ms, 3), "score": round(ms, 3)}
        size, traits = item.traits.size, item.traits
        seen = Inspection(item.place, path, score, 1.0, "", size, scores, (), timing, (), traits, product)
        return judged(seen, self.calibrations[product], self.rules)

    def _decoded(
        self,
        sources: Iterator[tuple[int, tuple[Source, int]]],
        ahead: int,
        unreadable: Callable[[UnreadableImage], None] | None,
    ) -> Iterator[Decoded]:
        """Decode at most `ahead` images before they are asked for: the first one here, the others in threads."""
        first = next(sources, None)
        waiting: deque[Callable[[], Decoded]] = deque()
        if first is not None:
            waiting.append(partial(self._placed, *first))
        far = first is not None and url_of(first[1][0]) is not None  # there is more of waiting than of decoding
        with Workers(FETCHING if far else 2) as workers:
            while waiting:
                for each in islice(sources, ahead - len(waiting)):
                    waiting.append(workers.submit(self._placed, *each).result)
                try:
                    yield waiting.popleft()()
                except UnreadableImage as error:
                    if unreadable is None:
                        raise
                    unreadable(error)

    def _placed(self, place: int, given: tuple[Source, int]) -> Decoded:
        return self.decode(given[0], place)._replace(folders=given[1])

    @staticmethod
    def _batches(items: Iterable[Decoded], batch_size: int) -> Iterator[list[Decoded]]:
        """Runs of neighbours of one shape, at most `batch_size` long."""
        batch: list[Decoded] = []
        for item in items:
            if batch and (len(batch) == batch_size or item.pixels.shape != batch[0].pixels.shape):
                yield batch
                batch = []
            batch.append(item)
        if batch:
            yield batch


def each_image(
    images: Images, listed: Callable[[Path], list[Path]] | None = None, strict: bool = False
) -> Iterator[Source]:
    """The single images of whatever a person handed over; a folder gives what `listed` finds, or all images below it.

    A file gives its pages. `strict`: a folder below that can't be read is an error. What is in storage is listed as it
    is asked for, and named by its URL; for `listed` a folder there is brought to this machine. Raises `OkngError` for a
    path that doesn't exist and for what is no image, or may be two things.
    """
    return (source for source, _ in each_placed(images, listed, strict))


def each_placed(
    images: Images, listed: Callable[[Path], list[Path]] | None = None, strict: bool = False
) -> Iterator[tuple[Source, int]]:
    """What `each_image` gives, and of each image how many of the folders above it belong to what was handed over.

    Of a folder they begin with itself, of a list with the folder it lies in, of an archive with its inside; of an image
    that was handed over by itself, its folder alone does.
    """
    if isinstance(images, str | Path) and not exists(Path(images).expanduser()):
        raise OkngError(f"{images} does not exist; give images or folders of images")
    return _each(images, listed, strict)


def _each(images: Any, listed: Callable[[Path], list[Path]] | None, strict: bool) -> Iterator[tuple[Source, int]]:
    check_named(images)
    if (url := storage_url(images)) is not None:
        from okng.inspection.storage.stored import brought, find_stored

        for file in find_stored(url) if listed is None or names_image(url) else listed(brought(url)):
            yield from _pages(file, url)
    elif isinstance(images, str | Path):
        path = Path(images).expanduser()
        if path.is_dir():
            for file in each_found(path, strict) if listed is None else listed(path):
                yield from _pages(file, path)
        elif path.suffix.lower() in LISTS:
            for file in read_list(path):
                within = isinstance(file, Path) and file.is_relative_to(path.parent)
                yield from _pages(file, path.parent if within else file)
        else:
            yield from _pages(path, path)
    elif isinstance(images, bytes | bytearray | memoryview):
        yield from ((page, 0) for page in each_page(Encoded(bytes(images))))
    elif isinstance(images, Encoded):
        yield images, 0
    elif isinstance(images, Image.Image):
        yield from_pillow(images), 0
    elif is_tensor(images):
        yield from ((pixels, 0) for pixels in each_image_of(from_tensor(images), tensor=True))
    elif isinstance(content := images.read() if hasattr(images, "read") else None, bytes):
        yield from ((page, 0) for page in each_page(Encoded(content)))
    elif hasattr(images, "__array__") and (array := np.asarray(images)).dtype.kind not in "OU":
        yield from ((pixels, 0) for pixels in each_image_of(array))
    elif isinstance(images, Iterable) and content is None:
        for image in images:
            yield from _each(image, listed, strict)
    else:
        raise OkngError(
            f"{type(images).__name__} is no image; give files, folders, pixels, Pillow images, or a file's bytes "
            "(a file opened with 'rb')"
        )


def _pages(file: Path | str, given: Path | str) -> Iterator[tuple[Source, int]]:
    """The images in `file`, and how many folders above them lie at or below `given`: one of a file by itself."""
    folders = max(1, len(_parts(file)) - len(_parts(given)))
    return ((page, folders) for page in each_page(file))


def _parts(place: Path | str) -> tuple[str, ...]:
    """The folders and the name of a path as it was given; of a URL those of its own part, before any `::`."""
    if (url := url_of(place)) is None:
        return Path(place).parts
    return tuple(part for part in path_in(url).split("/") if part not in ("", "."))
