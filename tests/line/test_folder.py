"""A file is taken when it is whole, once, and put where it was asked for."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from parts import picture, png, write
from PIL import Image

from okng.errors import OkngError
from okng.line.sources import Arrival, folder, open_source
from okng.line.sources.folder import Folder, is_remote


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder, "TICK", 0.02)
    monkeypatch.setattr(folder, "POLL", 0.05)
    monkeypatch.setattr(folder, "PATIENCE", 0.3)
    monkeypatch.setattr(folder, "AGAIN", 0.3)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    return (tmp_path / "in").resolve()


def come(batches: Iterator[list[Arrival]], source: Folder, seconds: float = 3.0, verdict: str = "OK") -> list[str]:
    """The names of what comes, without the folder, until something has and then nothing for a while."""
    names: list[str] = []
    end = time.monotonic() + seconds
    quiet = 0
    for batch in batches:
        quiet = 0 if batch else quiet + 1
        for arrival in batch:
            names.append(arrival.name.removeprefix(f"{source.folder}/"))
            source.done(arrival, verdict)
        if (names and quiet > 15) or time.monotonic() > end:
            return names
    return names


def opened(place: Path, said: list[str], then: str = "leave", settle: float = 0.05) -> Folder:
    return Folder(place, said.append, then, settle)


def test_what_is_there_and_what_comes_is_taken_once_in_the_order_of_writing(place: Path, said: list[str]) -> None:
    for number, name in ((3, "c.png"), (1, "a.png"), (2, "b.PNG")):
        os.utime(write(place / name, png(number)), (1000 + number, 1000 + number))
    write(place / "notes.txt", b"no image")
    write(place / ".hidden.png", png(9))
    source = opened(place, said)
    batches = iter(source)
    assert come(batches, source) == ["a.png", "b.PNG", "c.png"]
    write(place / "d.png", png(4))
    write(place / "below" / "e.png", png(5))
    assert sorted(come(batches, source)) == ["below/e.png", "d.png"]
    (place.parent / "ready").mkdir()
    write(place.parent / "ready" / "f.png", png(6))
    (place.parent / "ready").rename(place / "ready")  # a folder that comes whole
    assert come(batches, source) == ["ready/f.png"]
    write(place / "a.png", png(7))  # another image under a name that was there
    assert come(batches, source) == ["a.png"]
    assert come(batches, source, 0.5) == []
    source.close()
    assert said == []


def test_a_key_is_the_same_after_a_restart_and_another_for_other_content(place: Path, said: list[str]) -> None:
    write(place / "a.png", png(1))

    def key() -> tuple[str | None, str]:
        source = opened(place, said)
        arrival = next(batch for batch in source if batch)[0]
        source.close()
        return arrival.key, arrival.digest

    first = key()
    os.utime(place / "a.png", (5, 5))
    assert key() == first
    write(place / "a.png", png(2))
    assert key()[0] != first[0]


def test_a_file_that_is_written_slowly_is_taken_whole(place: Path, said: list[str]) -> None:
    content = png(1)
    source = opened(place, said)
    batches = iter(source)
    with (place / "slow.png").open("wb") as file:
        for at in range(0, len(content), len(content) // 8 + 1):
            file.write(content[at : at + len(content) // 8 + 1])
            file.flush()
            assert next(batches) == []
            time.sleep(0.03)
    taken = next(batch for batch in batches if batch)
    assert taken[0].image.content == content  # type: ignore[union-attr]
    source.close()


def test_what_does_not_decode_may_still_be_written_and_is_then_given_up(place: Path, said: list[str]) -> None:
    source = opened(place, said, "move")
    batches = iter(source)
    write(place / "late.png", png(1)[:200])  # its writer pauses for longer than a file takes to settle
    (arrival,) = next(batch for batch in batches if batch)
    assert not source.failed(arrival, "damaged")
    write(place / "late.png", png(1))
    assert come(batches, source) == ["late.png"]
    write(place / "bad.png", b"junk")
    tries = 0
    for batch in batches:
        for arrival in batch:
            tries += 1
            if source.failed(arrival, "holds no image"):
                break
        else:
            continue
        break
    assert tries == 2  # at once, and when it was old enough
    assert said == [f"skipped: {place}/bad.png: holds no image"]
    assert (place / "failed" / "bad.png").exists() and (place / "OK" / "late.png").exists()
    assert come(batches, source, 0.5) == []  # neither is met again
    source.close()


def test_moved_files_keep_their_folders_and_take_no_others_place(place: Path, said: list[str]) -> None:
    write(place / "OK" / "1.png", png(8))  # of yesterday
    write(place / "1.png", png(1))
    write(place / "monday" / "1.png", png(2))
    source = opened(place, said, "move")
    assert sorted(come(iter(source), source)) == ["1.png", "monday/1.png"]
    source.close()
    moved = sorted(str(path.relative_to(place)) for path in place.rglob("*.png"))
    assert moved[1:] == ["OK/1.png", "OK/monday/1.png"] and moved[0].startswith("OK/1-")
    assert (place / "OK" / "1.png").read_bytes() == png(8)


def test_tagged_files_are_not_taken_again(place: Path, said: list[str]) -> None:
    write(place / "1.png", png(1))
    source = opened(place, said, "tag")
    assert come(iter(source), source, verdict="NG") == ["1.png"]
    source.close()
    assert [path.name for path in place.iterdir()] == ["1.NG.png"]
    again = opened(place, said, "tag")
    assert come(iter(again), again, 0.4) == []
    again.close()


def test_a_file_that_changed_meanwhile_is_not_put_aside(place: Path, said: list[str]) -> None:
    write(place / "1.png", png(1))
    source = opened(place, said, "move")
    batches = iter(source)
    (arrival,) = next(batch for batch in batches if batch)
    write(place / "1.png", png(2) + b"longer")
    source.done(arrival, "OK")
    assert come(batches, source) == ["1.png"]  # it is another image, and taken as one
    assert (place / "OK" / "1.png").read_bytes() == png(2) + b"longer"
    source.close()


def test_a_file_of_several_pages_is_moved_when_all_are_judged(place: Path, said: list[str]) -> None:
    pages = [Image.fromarray(picture(number)) for number in range(3)]
    pages[0].save(place / "scan.tif", save_all=True, append_images=pages[1:])
    source = opened(place, said, "move")
    arrivals = next(batch for batch in source if batch)
    assert [arrival.name for arrival in arrivals] == [f"{place}/scan.tif[{number}]" for number in range(3)]
    assert len({arrival.digest for arrival in arrivals}) == 3
    for arrival, verdict in zip(arrivals, ("OK", "NG", "OK"), strict=True):
        assert (place / "scan.tif").exists()
        source.done(arrival, verdict)
    assert (place / "NG" / "scan.tif").exists()
    source.close()


@pytest.mark.parametrize("then", ["leave", "move"])
def test_a_file_is_given_up_once_however_many_pages_can_not_be_read(place: Path, said: list[str], then: str) -> None:
    pages = [Image.fromarray(picture(number)) for number in range(4)]
    pages[0].save(place / "scan.tif", save_all=True, append_images=pages[1:])
    source = opened(place, said, then)
    batches = iter(source)
    ends: list[bool] = []
    while True not in ends:  # at once, and when it was old enough
        good, bad, worse, better = next(batch for batch in batches if batch)
        source.done(good, "OK")
        ends += [source.failed(bad, "page 1 is damaged"), source.failed(worse, "page 2 is damaged")]
        source.done(better, "OK")
    assert ends[-2:] == [True, False] and not any(ends[:-2])
    assert said == [f"skipped: {place}/scan.tif: page 1 is damaged"]
    assert (place / "failed" / "scan.tif").exists() == (then == "move")
    assert come(batches, source, 0.3) == []
    source.close()


def test_a_folder_that_vanishes_is_waited_for(place: Path, said: list[str]) -> None:
    write(place / "1.png", png(1))
    source = opened(place, said)
    batches = iter(source)
    assert come(batches, source) == ["1.png"]
    shutil.move(place, place.with_name("unplugged"))
    while not said:
        assert next(batches) == []
    assert said == [f"{place} can't be read (No such file or directory); waiting for it to come back"]
    write(place.with_name("unplugged") / "2.png", png(2))
    shutil.move(place.with_name("unplugged"), place)
    assert come(batches, source) == ["2.png"]
    assert said[1:] == [f"{place} is back"]
    write(place / "3.png", png(3))  # and changes are told of again
    assert come(batches, source) == ["3.png"]
    source.close()


def test_where_nobody_tells_of_changes_the_folder_is_looked_at(
    place: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder, "is_remote", lambda place: True)
    monkeypatch.setattr("watchfiles.watch", lambda *_, **__: pytest.fail("nobody would tell"))
    source = opened(place, said)
    batches = iter(source)
    assert next(batches) == []
    write(place / "1.png", png(1))
    assert come(batches, source) == ["1.png"]
    source.close()


def test_no_watches_left_is_said_and_the_folder_is_looked_at(
    place: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def watch(*_: object, **__: object) -> None:
        raise OSError("OS file watch limit reached")

    monkeypatch.setattr("watchfiles.watch", watch)
    source = opened(place, said)
    batches = iter(source)
    write(place / "1.png", png(1))
    assert come(batches, source) == ["1.png"]
    write(place / "2.png", png(2))
    assert come(batches, source) == ["2.png"]
    assert len(said) == 1 and "does not tell of changes" in said[0]
    source.close()


def test_network_shares_are_known_by_the_mounts(tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(
        "/dev/sda1 / ext4 rw 0 0\n//nas/line /mnt/line\\0401 cifs rw 0 0\nhost:/x /mnt/x fuse.sshfs rw 0 0\n"
    )
    assert is_remote(Path("/mnt/line 1/in"), mounts) and is_remote(Path("/mnt/x"), mounts)
    assert not is_remote(Path("/home"), mounts) and not is_remote(Path("/home"), tmp_path / "none")


def test_a_name_that_is_no_unicode_can_be_stored(place: Path, said: list[str]) -> None:
    write(Path(os.fsdecode(os.fsencode(place) + b"/\xff.png")), png(1))
    source = opened(place, said, "move")
    (arrival,) = next(batch for batch in source if batch)
    arrival.name.encode()
    source.done(arrival, "OK")
    assert len(list((place / "OK").iterdir())) == 1
    source.close()


def test_a_file_too_large_to_be_an_image_is_not_read(
    place: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder, "LARGEST", 1000)
    write(place / "large.png", bytes(1001))
    source = opened(place, said, "move")
    assert come(iter(source), source, 1.0) == []
    assert (place / "failed" / "large.png").exists()
    source.close()


@pytest.mark.parametrize(
    ("text", "how", "answer"),
    [
        ("nowhere", {}, "does not exist; give a folder, a video file, camera:0"),
        ("camra:0", {}, "did you mean camera?"),
        ("{in}", {"then": "delete"}, "--then is leave, move or tag, not 'delete'"),
        ("{in}", {"settle": -1}, "--settle is 0 or more seconds"),
        ("{in}", {"every": 2}, "--every is about the frames of a video"),
        ("camera:0", {"then": "move"}, "--then is about the files of a folder"),
        ("{in}/notes.txt", {}, "is neither a folder nor a video"),
    ],
)
def test_mistakes_are_one_line(place: Path, text: str, how: dict[str, object], answer: str) -> None:
    write(place / "notes.txt", b"")
    with pytest.raises(OkngError, match="(?s)" + answer.replace("?", r"\?")) as caught:
        open_source(text.replace("{in}", str(place)), print, **how)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_another_package_can_bring_a_source(monkeypatch: pytest.MonkeyPatch) -> None:
    class Bring:
        name = "plc"

        @staticmethod
        def load() -> object:
            return lambda where, say: [where]

    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: [Bring()] if group == "okng.sources" else [])
    assert open_source("plc:db1.dbx0", print) == ["db1.dbx0"]  # type: ignore[comparison-overlap]


def test_images_are_of_the_bytes_that_were_digested(place: Path, said: list[str]) -> None:
    write(place / "1.png", png(1))
    source = opened(place, said)
    (arrival,) = next(batch for batch in source if batch)
    write(place / "1.png", png(2))
    from okng.inspection.reading.images import open_image

    assert (np.asarray(open_image(arrival.image)) == picture(1)).all()
    source.close()
