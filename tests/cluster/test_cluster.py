"""A cluster says what one machine says, whatever dies; its parts are read again, not judged again."""

from __future__ import annotations

import os
import signal
import sys
from collections import Counter
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.cli.test_cli import okng, one_line
from tests.contract.conftest import pictures

import okng as library
from okng.cluster import inspector as inspecting
from okng.cluster.inspector import ClusterInspector
from okng.errors import OkngError, OkngWarning
from okng.inspection.inspector import Inspector
from okng.inspection.reading.formats import UnreadableImage

IMAGES = 41


@pytest.fixture(scope="module")
def inspector() -> Inspector:
    """A model with a map."""
    return library.fit(pictures(24, 1), "padim", size=32, holdout=0.4, device="cpu", dimensions=20, weights="none")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cluster") / "new"
    folder.mkdir()
    for i, image in enumerate(pictures(IMAGES, 5, defect=True)):
        Image.fromarray(image[: 48 if i % 7 == 0 else None]).save(folder / f"{i}.png")
    (folder / "12.png").write_bytes(b"torn")
    return folder


class Here:
    """Ray's few words, done in this process and late, so that order is for the cluster to keep."""

    exceptions = SimpleNamespace(RayActorError=ZeroDivisionError, RayError=ArithmeticError)

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.given: Counter[int] = Counter()  # parts, by actor
        self.most = 0

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 2.0}

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": True, "Resources": {"CPU": 1.0}}] * 2 + [{"Alive": False, "Resources": {"CPU": 9.0}}]

    def put(self, value: Any) -> Any:
        return lambda: value

    def get(self, reference: Any) -> Any:
        if reference in self.calls:
            self.calls.remove(reference)
        return reference()

    def wait(self, references: list[Any], **how: Any) -> tuple[list[Any], list[Any]]:
        return [one for one in references if one not in self.calls], []

    def remote(self, kind: type) -> Any:
        here = self

        class Made:
            def __init__(self, *given: Any):
                self.made = kind(*given)
                self.judge = SimpleNamespace(remote=self.call)

            def call(self, *given: Any) -> Any:
                def work() -> Any:
                    self.made.inspector = given[-1][0]()
                    return self.made.judge(*given)

                here.calls.append(work)
                here.given[id(self)] += 1
                here.most = max(here.most, len(here.calls))
                return work

        return SimpleNamespace(options=lambda **how: SimpleNamespace(remote=Made))


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Here:
    made = Here()
    monkeypatch.setattr(inspecting, "joined", lambda address: nullcontext(made))
    monkeypatch.setattr(inspecting, "BATCHES", 1)
    return made


def said(inspector: Inspector, images: Path) -> tuple[list[Any], list[str]]:
    skipped: list[str] = []
    found = list(inspector.inspect(images, 4, lambda error: skipped.append(str(error))))
    return [(one.index, one.to_dict() | {"timing_ms": 0}) for one in found], skipped


@pytest.mark.filterwarnings("ignore::okng.errors.OkngWarning")
def test_a_cluster_says_what_one_machine_says(here: Here, inspector: Inspector, images: Path, tmp_path: Path) -> None:
    alone, torn = said(inspector, images)
    assert len(alone) == IMAGES - 1 and len(torn) == 1
    spread = ClusterInspector(inspector, "local", written=tmp_path / "out")
    found, skipped = said(spread, images)
    assert skipped == torn and [place for place, _ in found] == [place for place, _ in alone]
    for (_, one), (_, other) in zip(found, alone, strict=True):
        assert one.pop("score") == pytest.approx(other.pop("score"), rel=1e-5)
        assert {**one, "regions": len(one["regions"])} == {**other, "regions": len(other["regions"])}
    assert sum(here.given.values()) == -(-IMAGES // 4) and max(here.given.values()) - min(here.given.values()) <= 1
    assert (
        len(here.given) == 2 and here.most == 4
    )  # two parts for each of two workers: no more is under way, however many images there are


@pytest.mark.filterwarnings("ignore::okng.errors.OkngWarning")
def test_what_was_written_is_not_judged_again(here: Here, inspector: Inspector, images: Path, tmp_path: Path) -> None:
    first = said(ClusterInspector(inspector, "local", written=tmp_path), images)
    parts = sorted(tmp_path.glob("*.parquet"))
    assert len(parts) == -(-IMAGES // 4)
    parts[5].unlink()
    again = ClusterInspector(inspector, "local", written=tmp_path)
    assert said(again, images) == first and again.read == len(parts) - 2  # what could not be read is tried again
    parts[6].write_bytes(parts[6].read_bytes()[:-9])
    parts[7].write_bytes(b"")
    again = ClusterInspector(inspector, "local", written=tmp_path)
    assert said(again, images) == first and again.read == len(parts) - 3  # and so are those that are damaged
    other = ClusterInspector(inspector.with_threshold(1e6), "local", written=tmp_path)
    assert all(one["verdict"] == "OK" for _, one in said(other, images)[0]) and other.read == 0


@pytest.mark.filterwarnings("ignore::okng.errors.OkngWarning")
def test_an_image_that_changed_or_can_be_read_by_now_is_judged(
    here: Here, inspector: Inspector, tmp_path: Path
) -> None:
    folder, out = tmp_path / "new", tmp_path / "out"
    folder.mkdir()
    good = pictures(4, 5)
    for i in (0, 2, 3):
        Image.fromarray(good[i]).save(folder / f"{i}.png")
    (folder / "1.png").write_bytes(b"torn")
    with pytest.raises(UnreadableImage):
        list(ClusterInspector(inspector, "local", written=out).inspect(folder, 4))
    assert not list(out.glob("*"))  # nothing of a part that was stopped
    found, torn = said(ClusterInspector(inspector, "local", written=out), folder)
    assert [place for place, _ in found] == [0, 2, 3] and len(torn) == 1
    Image.fromarray(good[1]).save(folder / "1.png")
    assert len(said(ClusterInspector(inspector, "local", written=out), folder)[0]) == 4
    Image.fromarray(np.zeros_like(good[0])).save(folder / "0.png")
    anew = said(ClusterInspector(inspector, "local", written=out), folder)[0]
    assert anew[0][1]["score"] != found[0][1]["score"] and anew[2][1]["score"] == found[1][1]["score"]


def test_what_images_are_unlike_is_said_of_all_together(
    here: Here, inspector: Inspector, images: Path, tmp_path: Path
) -> None:
    """Once, as by one machine; of parts that are read again, too."""
    told = []
    for by in (inspector, *(ClusterInspector(inspector, "local", written=tmp_path) for _ in range(2))):
        with pytest.warns(OkngWarning) as warned:
            said(by, images)
        told.append([str(one.message) for one in warned])
    assert told[0] == told[1] == told[2] and "of 40 images are unlike" in told[0][0]


def test_a_part_is_found_again_by_all_that_its_results_depend_on(tmp_path: Path) -> None:
    """A file of the same length written at another time, pixels, what of the path says the product, the place."""
    image = tmp_path / "new.bmp"
    names = []
    for second in (1, 2):
        Image.fromarray(pictures(1, second)[0]).save(image)
        os.utime(image, ns=(second * 10**9, second * 10**9))
        names += [
            inspecting._name(0, [(image, 0)], "state"),
            inspecting._name(0, [(pictures(1, second)[0], 0)], "state"),
        ]
    names += [inspecting._name(0, [(image, 1)], "state"), inspecting._name(4, [(image, 0)], "state")]
    names.append(inspecting._name(0, [(image, 0)], "another"))
    assert len(set(names)) == len(names) == 7
    assert inspecting._name(0, [(image, 0)], "state") == names[2]


def test_the_pages_of_a_file_that_changed_are_others(tmp_path: Path) -> None:
    scan = tmp_path / "scan.tif"
    names = set()
    for count in (2, 3):
        first, *others = [Image.fromarray(image) for image in pictures(count, count)]
        first.save(scan, save_all=True, append_images=others)
        names.add(inspecting._name(0, [(f"{scan}[1]", 0)], "state"))
    assert len(names) == 2


@pytest.mark.filterwarnings("ignore::okng.errors.OkngWarning")
def test_folders_say_the_product_on_a_cluster_too(here: Here, tmp_path: Path) -> None:
    """A worker knows where the folders began that were handed over."""
    both = {"screw": pictures(8, 1), "nut": pictures(8, 2)}
    line = library.fit(both, "knn", size=32, holdout=0.5, device="cpu")
    for name in ("screw/monday/1.png", "nut/monday/2.png"):
        (tmp_path / name).parent.mkdir(parents=True)
        Image.fromarray(pictures(1, 3)[0]).save(tmp_path / name)
    found, skipped = said(ClusterInspector(line, "local"), tmp_path)
    assert [one["product"] for _, one in found] == ["nut", "screw"] and not skipped
    for name in both:  # what is said of one product is not read as said of the other
        spread = ClusterInspector(line.of(name), "local", written=tmp_path / "out")
        assert {one["product"] for _, one in said(spread, tmp_path / "screw")[0]} == {name} and spread.read == 0


class Elsewhere(Here):
    """Whose actors begin in another folder than the program, as those of a cluster that was there before do."""

    def __init__(self, folder: Path):
        super().__init__()
        self.folder = folder

    def remote(self, kind: type) -> Any:
        def made(*given: Any) -> Any:
            home = Path.cwd()

            def judge(*task: Any) -> Any:
                os.chdir(self.folder)
                try:
                    return kind(*given).judge(*task)
                finally:
                    os.chdir(home)

            return SimpleNamespace(judge=judge)

        return super().remote(made)  # type: ignore[arg-type]


def test_relative_names_are_the_programs(inspector: Inspector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not those of the folder where the cluster was started, in which others may lie under the same names."""
    for place, seed in (("program", 3), ("cluster", 9)):
        (tmp_path / place / "new").mkdir(parents=True)
        for i, image in enumerate(pictures(3, seed)):
            Image.fromarray(image).save(tmp_path / place / "new" / f"{i}.png")
    ray = Elsewhere(tmp_path / "cluster")
    monkeypatch.setattr(inspecting, "joined", lambda address: nullcontext(ray))
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(get=lambda reference: reference()))
    monkeypatch.chdir(tmp_path / "program")
    alone, _ = said(inspector, Path("new"))
    found, skipped = said(ClusterInspector(inspector, "auto", written=Path("out")), Path("new"))
    assert found == alone and not skipped and found[0][1]["path"] == "new/0.png"
    assert list((tmp_path / "program" / "out").glob("*.parquet")) and not (tmp_path / "cluster" / "out").exists()


@pytest.mark.filterwarnings("ignore::okng.errors.OkngWarning")
def test_what_stops_a_worker_stops_the_run(here: Here, inspector: Inspector, images: Path, tmp_path: Path) -> None:
    with pytest.raises(UnreadableImage, match=r"12\.png"):
        list(ClusterInspector(inspector, "local").inspect(images))
    (tmp_path / "file").touch()
    with pytest.raises(OkngError, match="can't be written"):
        said(ClusterInspector(inspector, "local", written=tmp_path / "file" / "out"), images)
    with pytest.raises(OkngError, match="no GPU"):
        said(ClusterInspector(inspector, "local", gpu=True), images)


@pytest.mark.filterwarnings("ignore::okng.errors.OkngWarning")
def test_what_was_judged_before_the_run_was_stopped_is_told(
    here: Here, inspector: Inspector, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inspecting, "BATCHES", 4)  # the image that can't be read is in the middle of a part

    def told(by: Inspector) -> list[int]:
        found: list[int] = []
        with pytest.raises(UnreadableImage, match=r"12\.png"):
            for one in by.inspect(images, 2):
                found.append(one.index)  # noqa: PERF401 which would keep nothing of what was told
        return found

    assert told(ClusterInspector(inspector, "local")) == told(inspector) == list(range(10))


def test_mistakes_are_one_line(
    inspector: Inspector, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inspector.save(tmp_path / "parts.okng")
    assert "add --ray" in one_line(okng("inspect", tmp_path / "parts.okng", images, "--parquet", tmp_path / "out"))
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(is_initialized=lambda: False))
    nowhere = okng("inspect", tmp_path / "parts.okng", images, "--ray", "ray://127.0.0.1:1")
    assert "no Ray cluster at ray://127.0.0.1:1" in one_line(nowhere)
    monkeypatch.setitem(sys.modules, "ray", None)
    assert "'.[ray]'" in one_line(okng("inspect", tmp_path / "parts.okng", images, "--ray", "local"))


def workers() -> list[int]:
    """The processes of actors of a cluster that this process started."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if b"ray::_Judge" in (entry / "cmdline").read_bytes() and is_ours(entry):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def is_ours(entry: Path) -> bool:
    while (pid := int((entry / "stat").read_text().rpartition(")")[2].split()[1])) > 1:
        if pid == os.getpid():
            return True
        entry = Path("/proc") / str(pid)
    return False


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::okng.errors.OkngWarning")
def test_a_worker_that_is_killed_loses_nothing(
    inspector: Inspector, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray", reason="Ray is not installed: pip install '.[ray]'")
    monkeypatch.setattr(inspecting, "BATCHES", 1)
    alone, torn = said(inspector, images)
    skipped: list[str] = []
    found = []
    killed: list[int] = []
    spread = ClusterInspector(inspector, "local", written=tmp_path)
    for one in spread.inspect(images, 4, lambda error: skipped.append(str(error))):
        found.append((one.index, one.to_dict() | {"timing_ms": 0}))
        if len(found) == 3:
            killed = workers()[:1]
            os.kill(killed[0], signal.SIGKILL)
    assert killed and skipped == torn and [place for place, _ in found] == [place for place, _ in alone]
    np.testing.assert_allclose([one["score"] for _, one in found], [one["score"] for _, one in alone], rtol=1e-5)
    assert len(list(tmp_path.glob("*.parquet"))) == -(-IMAGES // 4)
