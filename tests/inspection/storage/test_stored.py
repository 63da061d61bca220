"""Copies of what lies in storage: whose they are, how long they are true, and who may remove them."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from okng.errors import OkngError, OkngWarning
from okng.inspection.inspector import Inspector, each_image, each_placed
from okng.inspection.storage import stored
from okng.inspection.storage.cache import Cache
from okng.inspection.storage.urls import name_in, names_image, shown

pytest.importorskip("fsspec")
pytestmark = pytest.mark.filterwarnings("ignore:bringing")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OKNG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(stored, "_CACHE", Cache())
    return tmp_path / "cache" / "storage"


class Camera(BaseHTTPRequestHandler):
    """Shows another picture each time, and says nothing by which one could tell."""

    taken = 0
    archive = b""
    asked: ClassVar[list[str]] = []

    def do_HEAD(self) -> None:
        self._answer(b"")

    def do_GET(self) -> None:
        Camera.taken += 1
        Camera.asked.append(self.path)
        self._answer(Camera.archive if ".zip" in self.path else b"%04d" % Camera.taken)

    def _answer(self, body: bytes) -> None:
        self.send_response(403 if "secret" in self.path else 200)
        if self.path.startswith("/length"):
            self.send_header("Content-Length", "4")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def camera() -> Iterator[str]:
    pytest.importorskip("aiohttp")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Camera)
    threading.Thread(target=lambda: server.serve_forever(0.01), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def zipped(path: Path, count: int, size: int) -> str:
    with zipfile.ZipFile(path, "w") as archive:
        for i in range(count):
            archive.writestr(f"ok/{i}.bmp", os.urandom(size))
    return f"zip://::{path}"


@pytest.mark.parametrize("where", ["length", "none"])
def test_what_has_no_mark_is_brought_for_each_reading(camera: str, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"{camera}/{where}/now.bmp"
    first = stored.fetched(url).read_bytes()
    assert stored.fetched(url).read_bytes() == first  # one reading may open it twice
    monkeypatch.setattr(stored, "_CACHE", Cache())  # as another process
    second = stored.fetched(url).read_bytes()
    assert second != first
    assert stored.fetched(url, 0).read_bytes() != second
    assert stored.read(url) != stored.read(url)


def test_only_what_okng_has_put_there_is_removed(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = [cache.parent / "photos/old.raw", cache.parent / "thesis.txt", cache / "notes.txt"]
    for path in theirs:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(5000))
    monkeypatch.setenv("OKNG_CACHE_GB", "1e-5")
    monkeypatch.setattr("okng.inspection.storage.cache.BUSY", 1)
    for url in stored.find_stored(zipped(tmp_path / "a.zip", 6, 3000)):
        stored.fetched(url)
    assert all(path.exists() for path in theirs) and 1 <= len(list(cache.glob("*.bmp"))) <= 3


def test_what_another_process_uses_is_not_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OKNG_CACHE_GB", "1e-5")
    first, second = (zipped(tmp_path / f"{name}.zip", 3, 2000) for name in "ab")
    code = f"from okng.inspection.storage import stored\nprint(stored.brought({first!r}), flush=True)\ninput()"
    with subprocess.Popen([sys.executable, "-c", code], text=True, stdin=-1, stdout=-1, stderr=-3) as other:
        assert other.stdin is not None and other.stdout is not None
        folder = Path(other.stdout.readline().strip())
        with pytest.raises(OkngError, match="in use: set OKNG_CACHE_GB"):
            stored.brought(second)
        assert len(list(folder.rglob("*.bmp"))) == 3
        other.stdin.close()
    assert len(list(stored.brought(second).rglob("*.bmp"))) == 3 and not folder.exists()


def test_what_was_brought_in_part_needs_only_the_rest(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = zipped(tmp_path / "a.zip", 3, 2000)
    monkeypatch.setenv("OKNG_CACHE_GB", "8e-6")
    bring, count = stored._bring, 0

    def broken(*how: object) -> None:
        nonlocal count
        count += 1
        if count == 3:
            raise OSError("the line is cut")
        bring(*how)

    with monkeypatch.context() as patch:
        patch.setattr(stored, "_bring", broken)
        with pytest.raises(OkngError, match="cut"):
            stored.brought(url)
    monkeypatch.setattr(stored, "_CACHE", Cache())
    kept = {path: path.stat().st_ino for path in cache.rglob("*.bmp")}
    assert len(kept) == 2
    inodes = {path.stat().st_ino for path in stored.brought(url).rglob("*.bmp")}
    assert len(inodes) == 3 and inodes >= set(kept.values())


def test_two_processes_bring_one_set(cache: Path, tmp_path: Path) -> None:
    url = zipped(tmp_path / "a.zip", 60, 100)
    code = (
        "import sys; from okng.inspection.storage import stored\n"
        f"input(); print(len(list(stored.brought({url!r}).rglob('*.bmp'))))"
    )
    command = [sys.executable, "-W", "ignore", "-c", code]
    running = [subprocess.Popen(command, text=True, stdin=-1, stdout=-1, stderr=-1) for _ in range(2)]
    for process in running:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    assert [process.communicate() for process in running] == [("60\n", "")] * 2
    assert len([path for path in cache.iterdir() if path.suffix != ".use"]) == 1


def test_an_archive_that_was_replaced_is_another(tmp_path: Path) -> None:
    for content in (b"first", b"other"):
        with tarfile.open(tmp_path / "new.tar", "w") as archive:
            member = tarfile.TarInfo("a.bmp")  # of one size and time
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        (tmp_path / "new.tar").replace(tmp_path / "a.tar")
        (found,) = stored.find_stored(f"tar://::{tmp_path / 'a.tar'}")
        assert stored.fetched(found, 0).read_bytes() == content


def test_of_a_packed_archive_no_more_is_unpacked_than_may_be_kept(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tarfile.open(tmp_path / "bomb.tar.gz", "w:gz") as archive:
        member = tarfile.TarInfo("a.bmp")
        member.size = 30_000_000
        archive.addfile(member, io.BytesIO(bytes(member.size)))
    monkeypatch.setenv("OKNG_CACHE_GB", "0.003")
    most = 0.0
    check = Cache.check

    def watched(self: Cache, url: str, size: float) -> None:
        nonlocal most
        most = max(most, size)
        check(self, url, size)

    monkeypatch.setattr(Cache, "check", watched)
    with pytest.raises(OkngError, match="unpacked, has"):
        list(stored.find_stored(f"tar://::{tmp_path / 'bomb.tar.gz'}"))
    assert most < 5e6 and not list(cache.iterdir())


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_question_mark_in_an_archive_is_a_letter_of_a_name(tmp_path: Path, kind: str) -> None:
    """What stood behind it was taken for the query of an address, and the image was left out without a word."""
    names = ["#1 ?.bmp", "?.bmp", "screw?/2.bmp", "screw?/nut/3.bmp"]
    path = tmp_path / f"a?.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name in names:
                archive.writestr(name, name)
    else:
        with tarfile.open(path, "w") as packed:
            for name in names:
                member = tarfile.TarInfo(name)
                member.size = len(name)
                packed.addfile(member, io.BytesIO(name.encode()))
    found = list(stored.find_stored(f"{kind}://::{path}"))
    assert [stored.fetched(url).read_text() for url in found] == names
    assert [folders for _, folders in each_placed(path)] == [1, 1, 2, 3]
    there = stored.brought(f"{kind}://::{path}")
    assert {str(file.relative_to(there)) for file in there.rglob("*.bmp")} == set(names)


def test_an_address_is_called_without_its_query() -> None:
    assert name_in("https://plant/in/a.tif?signature=b/c.png") == "a.tif"
    assert name_in("s3://plant/in/a.tif?versionId=1") == "a.tif"
    assert name_in("https://plant/in/a.tif?back=https://desk/list") == "a.tif"
    assert not names_image("https://plant/list?of=https://desk/a.png")
    assert name_in("zip://in/a?b.png::s3://plant/x.zip?versionId=1") == "a?b.png"


def test_pictures_of_other_formats_in_an_archive_are_counted(tmp_path: Path) -> None:
    """In a folder they were, in an archive or a bucket they were left out without a word."""
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in ("1.bmp", "2.dng", "in/3.DNG", "in/4.jxl", "notes.txt", "in/.5.dng"):
            archive.writestr(name, name)
    with pytest.warns(OkngWarning, match=r"^3 files .* left out of .*a\.zip \(\.dng 2, \.jxl 1\); save them as PNG$"):
        assert len(list(stored.find_stored(f"zip://::{tmp_path / 'a.zip'}"))) == 1


def test_links_in_an_archive_are_left_out(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo("ok/a.bmp"))
        link = tarfile.TarInfo("ok/b.bmp")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    url = f"tar://::{tmp_path / 'a.tar'}"
    with pytest.warns(OkngWarning, match="1 link left out"):
        assert [path.name for path in stored.brought(url).rglob("*.bmp")] == ["a.bmp"]
    with pytest.warns(OkngWarning, match="1 link left out"):
        assert len(list(stored.find_stored(url))) == 1


def test_no_secret_of_an_address_is_told(camera: str) -> None:
    host = camera.partition("//")[2]
    for address in (f"http://me:hush@{host}/secret/a.png", f"http://{host}/secret/a.png?X-Amz-Signature=hush"):
        for ask in (stored.fetched, stored.read, stored.brought, stored.check_writable):
            with pytest.raises(OkngError) as told:
                ask(address)
            assert "hush" not in str(told.value) and f"{host}/secret/a.png" in str(told.value)
        with pytest.raises(OkngError, match="no right to it"):
            stored.read(address)
    unsure = Inspector.__new__(Inspector)
    unsure.product, unsure.calibrations = None, {"nut": None, "screw": None}  # type: ignore[dict-item]
    with pytest.raises(OkngError, match=r"^http://plant/a\.png may be of nut or screw"):
        unsure.product_of("http://me:hush@plant/a.png?sig=hush")
    assert shown("s3://plant/a.tif[2]") == "s3://plant/a.tif[2]" and shown(Path("a?b/c@d.png")) == "a?b/c@d.png"
    assert shown("https://h/a.tif?s=1[2]") == "https://h/a.tif[2]"
    assert shown("zip://a.png::https://me:hush@h/a.zip?s=1") == "zip://a.png::https://h/a.zip"


def test_what_is_told_without_its_secrets_can_be_drawn_in_the_same_run(camera: str) -> None:
    addresses = [f"{camera}/length/{name}.bmp?sig=1" for name in "ab"]
    for address in addresses:
        stored.fetched(address)
    assert stored.fetched(shown(addresses[0])).exists()
    stored.fetched(f"{camera}/length/a.bmp?sig=2")
    before = Camera.asked[-1]
    stored.fetched(shown(addresses[0]), 0)
    assert Camera.asked[-1] != before and Camera.asked[-1].endswith("a.bmp")  # which of the two is not guessed


def test_an_archive_with_a_signed_address_is_one(camera: str, tmp_path: Path) -> None:
    zipped(tmp_path / "a.zip", 2, 10)
    Camera.archive = (tmp_path / "a.zip").read_bytes()
    found = [str(image) for image in each_image(f"{camera}/set.zip?sig=hush")]
    assert found == [f"zip://ok/{i}.bmp::{camera}/set.zip?sig=hush" for i in range(2)]
    assert stored.brought(f"zip://ok::{camera}/set.zip?sig=hush").name == "ok"
    assert shown(found[0]) == f"zip://ok/0.bmp::{camera}/set.zip"


def test_a_server_that_is_off_is_called_so() -> None:
    for ask in (stored.fetched, stored.read, stored.brought):
        with pytest.raises(OkngError, match="its server can't be reached"):
            ask("http://127.0.0.1:1/a.png")
