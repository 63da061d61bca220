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

import pytest

from okng.errors import OkngError, OkngWarning
from okng.inspection import stored

pytest.importorskip("fsspec")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OKNG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(stored, "_CACHE", stored.Cache())
    return tmp_path / "cache" / "storage"


class Camera(BaseHTTPRequestHandler):
    """Shows another picture each time, and says nothing by which one could tell."""

    taken = 0

    def do_HEAD(self) -> None:
        self._answer(b"")

    def do_GET(self) -> None:
        Camera.taken += 1
        self._answer(b"%04d" % Camera.taken)

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
    monkeypatch.setattr(stored, "_CACHE", stored.Cache())  # as another process
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
    monkeypatch.setattr("okng.inspection.cache.BUSY", 1)
    for url in stored.find_stored(zipped(tmp_path / "a.zip", 6, 3000)):
        stored.fetched(url)
    assert all(path.exists() for path in theirs) and 1 <= len(list(cache.glob("*.bmp"))) <= 3


def test_what_another_process_uses_is_not_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OKNG_CACHE_GB", "1e-5")
    first, second = (zipped(tmp_path / f"{name}.zip", 3, 2000) for name in "ab")
    code = f"from okng.inspection import stored\nprint(stored.brought({first!r}), flush=True)\ninput()"
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
    monkeypatch.setattr(stored, "_CACHE", stored.Cache())
    kept = {path: path.stat().st_ino for path in cache.rglob("*.bmp")}
    assert len(kept) == 2
    inodes = {path.stat().st_ino for path in stored.brought(url).rglob("*.bmp")}
    assert len(inodes) == 3 and inodes >= set(kept.values())


def test_two_processes_bring_one_set(cache: Path, tmp_path: Path) -> None:
    url = zipped(tmp_path / "a.zip", 60, 100)
    code = (
        "import sys; from okng.inspection import stored\n"
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
    for names in (["a.bmp", "b.bmp"], ["c.bmp"]):
        with tarfile.open(tmp_path / "new.tar", "w") as archive:
            for name in names:
                archive.addfile(tarfile.TarInfo(name))
        os.replace(tmp_path / "new.tar", tmp_path / "a.tar")
        found = stored.find_stored(f"tar://::{tmp_path / 'a.tar'}")
        assert [stored.name_in(url) for url in found] == names


def test_of_a_packed_archive_no_more_is_unpacked_than_may_be_kept(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tarfile.open(tmp_path / "bomb.tar.gz", "w:gz") as archive:
        member = tarfile.TarInfo("a.bmp")
        member.size = 30_000_000
        archive.addfile(member, io.BytesIO(bytes(member.size)))
    monkeypatch.setenv("OKNG_CACHE_GB", "0.003")
    most = 0
    check = stored.Cache.check

    def watched(self: stored.Cache, url: str, size: float) -> None:
        nonlocal most
        most = max(most, size)
        check(self, url, size)

    monkeypatch.setattr(stored.Cache, "check", watched)
    with pytest.raises(OkngError, match="unpacked, has"):
        list(stored.find_stored(f"tar://::{tmp_path / 'bomb.tar.gz'}"))
    assert most < 5e6 and not list(cache.iterdir())


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
