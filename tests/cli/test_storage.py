"""Images and outputs in storage: a local S3 server, archives, and what goes wrong there, in one line each."""

from __future__ import annotations

import csv
import io
import logging
import os
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.cli.test_cli import okng, one_line
from tests.contract.conftest import pictures

import okng as library
from okng.inspection.inspector import each_image
from okng.inspection.reading.decoding import each_page
from okng.inspection.storage import stored
from okng.inspection.storage.cache import Cache
from okng.inspection.storage.urls import is_stream, storage_url, url_of

QUICK = ["-d", "gaussian", "--size", "16", "--device", "cpu", "--holdout", "0.4"]


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set in the MVTec AD layout, with more than ten images, so that the natural order is another."""
    root = tmp_path_factory.mktemp("plant") / "parts"
    for folder, count, seed, defect in [("train/good", 12, 1, 0), ("test/good", 3, 2, 0), ("test/cut", 2, 3, 1)]:
        (root / folder).mkdir(parents=True)
        for i, image in enumerate(pictures(count, seed, bool(defect))):
            Image.fromarray(image).save(root / folder / f"{i}.png")
    return root


@pytest.fixture(scope="module")
def s3() -> Iterator[Any]:
    """A server of S3 on this machine, with a bucket "plant", as fsspec's file system."""
    server_module = pytest.importorskip("moto.server")
    fsspec = pytest.importorskip("fsspec")
    s3fs = pytest.importorskip("s3fs")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    address = f"http://127.0.0.1:{server.get_host_and_port()[1]}"
    told = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_ENDPOINT_URL": address}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**told, "AWS_DEFAULT_REGION": "us-east-1"}.items():
            patch.setenv(name, value)
        s3fs.S3FileSystem.clear_instance_cache()  # of another test's, which had no keys
        files = fsspec.filesystem("s3")
        files.mkdir("plant")
        yield files
    server.stop()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OKNG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(stored, "_CACHE", Cache())
    return tmp_path / "cache" / "storage"


def rows(content: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(content.decode())))


def test_a_bucket_is_what_the_folder_is(parts: Path, s3: Any, cache: Path, tmp_path: Path) -> None:
    s3.put(str(parts), "plant/parts", recursive=True)
    near, far = tmp_path / "near.okng", "s3://plant/models/far.okng"
    assert okng("train", parts, "-o", near, *QUICK).returncode == 0
    done = okng("train", "s3://plant/parts", "-o", far, *QUICK)
    assert done.returncode == 0 and f"wrote {far}" in done.stderr, done.stderr
    assert library.load(far).calibration.threshold == library.load(near).calibration.threshold
    assert "is there already" in one_line(okng("train", "s3://plant/parts", "-o", far, *QUICK))

    assert okng("inspect", near, parts / "test", "--csv", tmp_path / "near.csv").returncode == 0
    done = okng(
        "inspect", far, "s3://plant/parts/test", "--csv", "s3://plant/out/far.csv", "--report", "s3://plant/out"
    )
    assert done.returncode == 0, done.stderr
    here, there = rows((tmp_path / "near.csv").read_bytes()), rows(s3.cat_file("plant/out/far.csv"))
    assert [row.pop("path") for row in there] == [
        row.pop("path").replace(str(parts), "s3://plant/parts") for row in here
    ]
    assert there == here and len(here) == 5
    assert s3.exists("plant/out/report.html") and len(s3.ls("plant/out", refresh=True)) == 3

    figures = [okng("evaluate", far, where, "--json").stdout for where in ("s3://plant/parts", parts)]
    assert figures[0] == figures[1] and "image_auroc" in figures[0]


def test_archives_are_folders(parts: Path, cache: Path, tmp_path: Path) -> None:
    made = tmp_path / "parts.zip", tmp_path / "parts.tar", tmp_path / "parts.tar.gz"
    with zipfile.ZipFile(made[0], "w") as archive:
        for file in sorted(parts.rglob("*.png"), reverse=True):
            archive.write(file, file.relative_to(parts))
    for path in made[1:]:
        with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as archive:
            archive.add(parts, ".")
    model = tmp_path / "parts.okng"
    assert okng("train", made[0], "-o", model, *QUICK).returncode == 0
    inspector = library.load(model)
    known = [(found.score, Path(str(found.path)).parts[-2:]) for found in inspector.inspect(parts / "test")]
    for path in made:
        inside = f"{path.suffix.removeprefix('.').replace('gz', 'tar')}://test::{path}"
        found = list(inspector.inspect(inside))
        assert [(one.score, Path(str(one.path).partition("::")[0]).parts[-2:]) for one in found] == known, path
        assert len(list(each_image(path))) == 17
    again = str(found[0].path)  # the name of an image can be given
    assert [one.score for one in inspector.inspect(again)] == [known[0][0]]
    assert okng("evaluate", model, made[2], "--json").returncode == 0


def test_of_a_bucket_no_more_is_asked_than_is_needed(
    parts: Path, s3: Any, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("a", "b", "c"):
        s3.put(str(parts / "test/good/0.png"), f"plant/many/{folder}/0.png")
    asked: list[str] = []
    listed = s3.ls
    monkeypatch.setattr(s3, "ls", lambda path, **how: (asked.append(path), listed(path, **how))[1])
    images = each_image("s3://plant/many")
    assert next(images) == "s3://plant/many/a/0.png"
    assert asked == ["plant/many", "plant/many/a"] and not list(cache.glob("*"))  # neither the rest, nor any pixels


def test_what_was_used_least_lately_makes_room(
    parts: Path, s3: Any, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = (parts / "test/good/0.png").stat().st_size
    monkeypatch.setenv("OKNG_CACHE_GB", str(4.5 * size / 1e9))
    monkeypatch.setattr("okng.inspection.storage.cache.BUSY", 2)  # so that only the last two are surely in use
    for i in range(12):
        s3.put(str(parts / "test/good/0.png"), f"plant/cached/{i}.png")
        stored.fetched(f"s3://plant/cached/{i}.png")
        assert sum(file.stat().st_size for file in cache.iterdir()) <= 4.5 * size
    assert len(list(cache.iterdir())) >= 3
    with pytest.raises(library.OkngError, match="OKNG_CACHE_GB"):
        stored.brought("s3://plant/cached")


def test_a_changed_file_is_brought_again(parts: Path, s3: Any, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in (5, 6):
        image = pictures(1, seed)[0]
        content = io.BytesIO()
        Image.fromarray(image).save(content, "PNG")
        s3.pipe_file("plant/changes.png", content.getvalue())
        monkeypatch.setattr(stored, "_CACHE", Cache())  # as another process
        assert np.array_equal(np.asarray(Image.open(stored.fetched("s3://plant/changes.png"))), image)


def test_what_is_written_again_is_read_again(s3: Any, cache: Path) -> None:
    for content in (b"first", b"retrained"):
        stored.put("s3://plant/models/again", content)
        assert stored.read("s3://plant/models/again") == content
    s3.pipe_file("plant/models/again", b"by others")
    assert stored.exists("s3://plant/models/again")
    assert stored.read("s3://plant/models/again") == b"by others"


def test_pages_of_files_in_storage(s3: Any, cache: Path) -> None:
    content = io.BytesIO()
    first, second = (Image.fromarray(image) for image in pictures(2, 7))
    first.save(content, "TIFF", save_all=True, append_images=[second])
    s3.pipe_file("plant/scan.tif", content.getvalue())
    pages = list(each_image("s3://plant/scan.tif"))
    assert pages == ["s3://plant/scan.tif[0]", "s3://plant/scan.tif[1]"]
    assert each_page(pages[1]) == [pages[1]]


def test_mistakes_are_one_line(
    parts: Path, s3: Any, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tmp_path / "parts.okng"
    assert okng("train", parts, "-o", model, *QUICK).returncode == 0
    assert "nothing of this name" in one_line(okng("inspect", model, "s3://nowhere/parts"))
    assert "nothing of this name" in one_line(okng("train", "s3://nowhere/parts", "-o", model))
    assert "nothing of this name" in one_line(okng("train", parts, "-o", "s3://nowhere/parts.okng", *QUICK))
    assert "can't be written" in one_line(okng("train", parts, "-o", "https://plant/parts.okng", *QUICK))
    s3.pipe_file("plant/text/notes.txt", b"no image")
    assert "holds no images" in one_line(okng("inspect", model, "s3://plant/text"))
    done = okng("inspect", model, "s3://plant/missing.png", parts / "test/good/0.png", "--csv", tmp_path / "a.csv")
    assert done.returncode == 0 and "skipped: s3://plant/missing.png: can't be read (there is nothing" in done.stderr
    (tmp_path / "torn.zip").write_bytes(b"PK\3\4 torn")
    assert "no whole zip" in one_line(okng("inspect", model, tmp_path / "torn.zip"))

    def refused(*_: Any, **__: Any) -> None:
        raise PermissionError("Access Denied")

    monkeypatch.setattr(s3, "ls", refused)
    assert "no right to it" in one_line(okng("inspect", model, "s3://plant/text"))
    with monkeypatch.context() as patch:
        patch.setitem(__import__("sys").modules, "gcsfs", None)
        assert "pip install gcsfs" in one_line(okng("inspect", model, "gs://plant/text"))
        patch.setitem(__import__("sys").modules, "fsspec", None)
        assert "pip install '.[cloud]'" in one_line(okng("inspect", model, "s3://plant/text"))


def test_a_line_is_watched_with_a_model_in_storage(
    parts: Path, s3: Any, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("watchfiles")
    assert okng("train", parts, "-o", "s3://plant/models/line.okng", *QUICK).returncode == 0
    (tmp_path / "line").mkdir()
    monkeypatch.setattr("okng.line.watch.Watch.run", lambda watch, tick: None)
    told = okng("watch", "s3://plant/models/line.okng", tmp_path / "line", "--store", tmp_path / "a.sqlite")
    assert told.returncode == 0 and "with line.okng" in told.stderr, told.stderr


def test_nothing_in_an_archive_lands_elsewhere(cache: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
        archive.writestr("good/../../../out.png", b"x")
    with pytest.raises(library.OkngError):
        stored.brought(f"zip://::{tmp_path / 'bad.zip'}")
    assert not list(tmp_path.rglob("out.png"))


def test_what_is_an_address() -> None:
    assert url_of(Path("s3://bucket/a.png")) == "s3://bucket/a.png"  # pathlib takes a slash
    assert storage_url(Path("s3://bucket/a.zip")) == "zip://::s3://bucket/a.zip"
    assert url_of(Path("zip://a.png::s3://bucket/a.zip")) == "zip://a.png::s3://bucket/a.zip"
    assert url_of("C:/parts/a.png") is None and url_of("rtsp://camera/1") is None and url_of("a.png") is None
    assert url_of(PureWindowsPath("s3://bucket/models/a.okng")) == "s3://bucket/models/a.okng"
    assert url_of("S3://Bucket/A.png") == "s3://Bucket/A.png"
    assert storage_url("https://plant/a.tar.gz?sig=a/b") == "tar://::https://plant/a.tar.gz?sig=a/b"
    assert storage_url("https://plant/a.png?of=b.zip") == "https://plant/a.png?of=b.zip"
    assert storage_url("missing.zip") is None and url_of(np.zeros(3)) is None
    assert is_stream("http://camera/live") and not is_stream("https://plant/a.png?signed=1")
    assert os.environ.get("OKNG_CACHE") is None
