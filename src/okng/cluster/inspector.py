"""Inspecting on a cluster: Ray runs one engine an actor, each of which is given some hundred images at a time.

An actor reads, decodes and batches its images by shape as an `Inspector` does anywhere, because it is one. Ray restarts
one that dies and gives its images to another; what has been written is not judged again.
"""

from __future__ import annotations

import hashlib
import io
import json
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from okng import __version__
from okng.cluster.joined import RETRIES, begin_in, joined, workers_of
from okng.errors import OkngError, in_one_line, missing_extra
from okng.inspection.inspector import Images, Inspector, each_placed
from okng.inspection.model_file import write_atomically
from okng.inspection.reading.formats import named_page
from okng.inspection.reading.images import Source, UnreadableImage, fingerprint
from okng.inspection.storage.urls import url_of
from okng.inspection.verdict.likeness import Likeness, Traits
from okng.inspection.verdict.regions import Region
from okng.inspection.verdict.result import Inspection

BATCHES = 8  # of an engine, that an actor is given at a time
AHEAD = 2  # such parts an actor has, so that it never waits; no more are listed, judged or held


class Part(NamedTuple):
    """What was said of neighbouring images: results with their places, and path and reason of what can't be read."""

    found: list[Inspection]
    skipped: list[tuple[str, str]]
    error: str = ""  # what stopped it


class ClusterInspector(Inspector):
    """`inspector` on the Ray cluster at `address`: "local" for one on this machine, "auto" or ray://HOST:PORT.

    As many actors work as its cores allow at `threads` each, or with `gpu` one on each of its GPUs. `written`: a folder
    or a URL of storage for a Parquet file of each part; the parts that are there are read, and have no maps any more.
    All machines have to see the images and, with `written`, that folder.
    """

    def __init__(
        self,
        inspector: Inspector,
        address: str,
        threads: int = 1,
        gpu: bool = False,
        written: Path | None = None,
    ):
        super().__init__(
            inspector.engine, inspector.preprocess, inspector.calibrations, inspector.manifest, inspector.product
        )
        self.plain, self.address, self.threads, self.gpu, self.written = inspector, address, threads, gpu, written
        self.read = 0  # parts that had been written before

    def inspect(
        self,
        images: Images,
        batch_size: int | None = None,
        unreadable: Callable[[UnreadableImage], None] | None = None,
    ) -> Iterator[Inspection]:
        """As `Inspector.inspect`: in order, and in memory that does not grow with the number of images."""
        batch_size = self.batch_of(batch_size)
        parts = _parts(each_placed(images, strict=unreadable is None), BATCHES * batch_size)
        likeness = Likeness(self.learnt_images)
        state = self._state(batch_size)
        with joined(self.address) as ray:
            judges = _Judges(ray, self.plain, batch_size, unreadable is None, self.threads, self.gpu)
            waiting: deque[tuple[int, Any]] = deque()
            place = 0
            try:
                while True:
                    for sources in islice(parts, AHEAD * judges.count - len(waiting)):
                        path = None if self.written is None else self.written / _name(place, sources, state)
                        known = None if path is None else _read(path)
                        self.read += known is not None
                        waiting.append((place, known or judges.begin(sources, path)))
                        place += len(sources)
                    if not waiting:
                        break
                    first, part = waiting.popleft()
                    part = part if isinstance(part, Part) else judges.result(part)
                    if unreadable is not None:
                        for path_of, reason in part.skipped:
                            unreadable(UnreadableImage(path_of, reason))
                    for found in part.found:
                        if found.traits is not None:
                            likeness.add(found.traits, found.is_ng)
                        yield replace(found, index=first + found.index)
                    if unreadable is None and part.skipped:
                        raise UnreadableImage(*part.skipped[0])
                    if part.error:
                        raise OkngError(part.error)
            finally:
                likeness.warn()

    def _state(self, batch_size: int) -> str:
        """What the results of the same images depend on."""
        described, arrays = self.described()
        told = [__version__, described, self.product, batch_size]
        digests = {name: hashlib.sha256(array.tobytes()).hexdigest() for name, array in arrays.items()}
        return json.dumps([told, digests], sort_keys=True, default=str)


class _Judge:
    """What an actor is. One that was restarted fetches the inspector anew."""

    def __init__(self, batch_size: int, strict: bool, folder: Path):
        begin_in(folder)
        self.batch_size, self.strict = batch_size, strict
        self.inspector: Inspector | None = None

    def judge(self, sources: Sequence[tuple[Source, int]], written: Path | None, inspector: list[Any]) -> Part:
        """Judge `sources`, and write what is said of them to `written` before it is told.

        `inspector` is a reference to it; in a list, or Ray would fetch it for every call.
        """
        if self.inspector is None:
            import ray

            self.inspector = ray.get(inspector[0])
        part = judged(self.inspector, sources, self.batch_size, self.strict)
        whole = not part.error and not (self.strict and part.skipped)
        if written is not None and whole:
            try:
                _write(written, part)
            except OkngError as error:
                return part._replace(error=str(error))
        return part


def judged(inspector: Inspector, sources: Sequence[tuple[Source, int]], batch_size: int, strict: bool) -> Part:
    """What `inspector` says of `sources`; if `strict`, until the first one that can't be read."""
    skipped: list[tuple[str, str]] = []

    def skip(error: UnreadableImage) -> None:
        skipped.append((error.path, error.reason))

    found: list[Inspection] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what images are unlike is said of all of them together
        try:
            for one in inspector.inspect_placed(iter(sources), batch_size, None if strict else skip):
                found.append(one if one.map is None else replace(one, map=one.map.copy()))  # noqa: PERF401
        except UnreadableImage as error:
            skip(error)
        except OkngError as error:
            return Part(found, skipped, str(error))
    return Part(found, skipped)


class _Judges:
    """The actors of a cluster; a part goes to the one that has fewest."""

    def __init__(self, ray: Any, inspector: Inspector, batch_size: int, strict: bool, threads: int, gpu: bool):
        self.ray = ray
        self.count = workers_of(ray, threads, gpu)
        kind = ray.remote(_Judge).options(
            num_cpus=threads, num_gpus=int(gpu), max_restarts=-1, max_task_retries=RETRIES, scheduling_strategy="SPREAD"
        )
        self.inspector = ray.put(inspector)
        self.actors = [kind.remote(batch_size, strict, Path.cwd()) for _ in range(self.count)]
        self.busy: dict[Any, int] = {}

    def begin(self, sources: Sequence[tuple[Source, int]], written: Path | None) -> Any:
        """Have a part judged; what `result` takes."""
        if self.busy:
            done, _ = self.ray.wait(list(self.busy), num_returns=len(self.busy), timeout=0, fetch_local=False)
            for reference in done:
                del self.busy[reference]
        load = [0] * self.count
        for actor in self.busy.values():
            load[actor] += 1
        actor = load.index(min(load))
        reference = self.actors[actor].judge.remote(sources, written, [self.inspector])
        self.busy[reference] = actor
        return reference

    def result(self, reference: Any) -> Part:
        """What was said of a part, once it is."""
        try:
            part: Part = self.ray.get(reference)
        except self.ray.exceptions.RayActorError as error:
            raise OkngError(
                f"a worker of the cluster died {RETRIES + 1} times under the same images; their memory may be short, "
                "or one of them breaks it: the same command goes on behind what was written"
            ) from error
        except self.ray.exceptions.RayError as error:
            raise OkngError(f"the cluster could not inspect: {in_one_line(error)}") from error
        return part


def _parts(sources: Iterator[tuple[Source, int]], size: int) -> Iterator[list[tuple[Source, int]]]:
    while part := list(islice(sources, size)):
        yield part


def _name(place: int, sources: Sequence[tuple[Source, int]], state: str) -> str:
    """The file of a part: where it begins, and what only these images and this model have.

    An image is known by its name, and on this machine by its size and time; arrays by what they hold.
    """
    named = [(_known_by(one), folders) for one, folders in sources]
    return f"part-{place:010}-{hashlib.sha256(json.dumps([state, named]).encode()).hexdigest()[:12]}.parquet"


def _known_by(source: Source) -> list[Any]:
    if not isinstance(source, str | Path):
        return [fingerprint(source)]
    try:
        state = (named_page(source) or (Path(source),))[0].stat()
    except (OSError, ValueError):  # in storage, or not there
        return [str(source)]
    return [str(source), state.st_size, state.st_mtime_ns]


def _write(path: Path, part: Part) -> None:
    """A row for each image, read or not."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise missing_extra("pyarrow", "ray") from error
    rows: list[dict[str, Any]] = []
    for one in part.found:
        row = one.to_dict()
        row |= {name: json.dumps(row[name]) for name in ("regions", "timing_ms")}
        rows.append(row | {"index": one.index, "traits": one.traits and json.dumps(one.traits)})
    rows += [{"path": name, "unreadable": reason} for name, reason in part.skipped]
    text, number, whole = pyarrow.string(), pyarrow.float64(), pyarrow.int64()
    kinds = {
        "index": whole, "path": text, "score": number, "p_value": number, "verdict": text, "height": whole,
        "width": whole, "reasons": pyarrow.list_(text), "regions": text, "timing_ms": text, "traits": text,
        "unreadable": text, "product": text,
    }  # fmt: skip
    content = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(rows, pyarrow.schema(list(kinds.items()))), content)
    write_atomically(path, content.getvalue())


def _read(path: Path) -> Part | None:
    """What `_write` wrote; None where nothing is, or nothing whole, or an image could not be read."""
    from okng.inspection.storage import stored

    url = url_of(path)
    if not (stored.exists(url) if url else path.exists()):
        return None
    from pyarrow import parquet

    content = stored.read(url) if url else path.read_bytes()
    try:
        rows = parquet.read_table(io.BytesIO(content)).to_pylist()
    except (ValueError, OSError):  # damaged: it is judged again
        return None
    found = []
    for row in rows:
        if row["unreadable"] is not None:
            return None  # perhaps it can be read by now
        size = row["height"], row["width"]
        regions = tuple(_region(**region) for region in json.loads(row["regions"]))
        traits = None
        if row["traits"]:
            seen, *others = json.loads(row["traits"])
            traits = Traits(tuple(seen), *others)
        judged = row["index"], row["path"], row["score"], row["p_value"], row["verdict"]
        timing, reasons = json.loads(row["timing_ms"]), tuple(row["reasons"])
        found.append(Inspection(*judged, size, None, regions, timing, reasons, traits, row["product"]))
    return Part(found, [])


def _region(box: Any, peak: Any, contour: Any, **others: Any) -> Region:
    return Region(box=tuple(box), peak=tuple(peak), contour=[tuple(point) for point in contour], **others)
