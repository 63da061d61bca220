"""Images in, verdicts out: the same as `okng inspect`'s, each on disk when it is answered, whatever is sent."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import socket
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from servers import Server, Shop, encoded, serving, wait_for
from sqlalchemy import event

import okng
from okng.inspection.inspector import Inspector
from okng.inspection.reading.formats import Encoded
from okng.line.sinks import open_sink
from okng.store import Store


def odd_files(folder: Path) -> list[Path]:
    """Images of every kind that decoding has to treat of its own."""
    rng = np.random.default_rng(0)
    colour = rng.integers(0, 256, (40, 56, 3), np.uint8)
    Image.fromarray(colour).save(folder / "upright.jpg", exif=_turned())
    Image.fromarray(rng.integers(0, 4096, (64, 64), np.uint16)).save(folder / "deep.png")
    Image.fromarray(colour[..., 0]).save(folder / "grey.bmp")
    Image.fromarray(colour).convert("P").save(folder / "palette.gif")
    Image.fromarray(np.dstack([colour, colour[..., :1]])).save(folder / "clear.png")
    Image.fromarray(colour).convert("CMYK").save(folder / "cmyk.tif")
    pages = [Image.fromarray(np.roll(colour, 9 * i, 1)) for i in range(3)]
    pages[0].save(folder / "pages.tif", save_all=True, append_images=pages[1:])
    return sorted(folder.iterdir())


def _turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


@pytest.mark.filterwarnings("ignore::okng.errors.OkngWarning")
def test_verdicts_are_those_of_okng_inspect(server: Server, shop: Shop, tmp_path: Path) -> None:
    """By body, by form and by path, one by one and as a batch."""
    folder = shop.images / "odd"
    folder.mkdir(exist_ok=True)
    files = [*shop.files, *odd_files(folder)]
    wanted = {Path(seen.path or "").name: seen for seen in okng.load(shop.onnx, threads=1).inspect(files)}
    assert {seen.verdict for seen in wanted.values()} == {"OK", "NG"}

    def same(told: dict[str, Any], name: str) -> None:
        seen = wanted[name]
        assert told["verdict"] == seen.verdict and told["p_value"] == seen.p_value
        assert told["score"] == pytest.approx(seen.score, rel=1e-5)
        assert (told["height"], told["width"]) == seen.size and len(told["regions"]) == len(seen.regions)
        for region, expected in zip(told["regions"], seen.regions, strict=True):
            assert region["box"] == pytest.approx(expected.box, abs=1e-2)

    for file in files:
        if file.name == "pages.tif":
            told = [server.inspect(file.read_bytes(), page=i).json() for i in range(3)]
            for i in range(3):
                same(told[i], f"pages.tif[{i}]")
            continue
        same(server.inspect(file.read_bytes()).json(), file.name)
        form = server.client.post("/api/inspect", files={"image": (file.name, file.read_bytes())}).json()
        assert form["path"] == file.name
        same(form, file.name)
        named = str(file.relative_to(shop.images))
        path = server.client.post("/api/inspect", json={"path": named}).json()
        assert path["path"] == named
        same(path, file.name)
    batch = server.client.post("/api/batch", files=[("images", (f.name, f.read_bytes())) for f in files]).json()
    assert [told["path"] for told in batch["results"]] == [*wanted]
    for told in batch["results"]:
        same(told, told["path"])
    below = server.client.post("/api/batch", json={"paths": ["."]}).json()
    for told in below["results"]:
        same(told, Path(told["path"]).name)
    assert below["counts"] == batch["counts"] and sum(below["counts"].values()) == len(wanted)


def test_with_torch_too(store: Store, shop: Shop, tmp_path: Path) -> None:
    """Micro-batches: all at once, and each as one alone."""
    wanted = {seen.path: seen for seen in okng.load(shop.okng).inspect(shop.files, batch_size=1)}
    with serving(store, {"parts": shop.okng}, tmp_path / "models", engine={}) as server, ThreadPoolExecutor(12) as pool:
        told = list(pool.map(lambda path: server.inspect(Path(path or "").read_bytes()).json(), wanted))
    for seen, result in zip(wanted.values(), told, strict=True):
        assert result["verdict"] == seen.verdict and result["score"] == pytest.approx(seen.score, rel=1e-4)


def test_what_is_answered_is_in_the_store(server: Server, shop: Shop) -> None:
    told = server.inspect(shop.image(7)).json()
    record = server.store.records.get(told["id"])
    assert record is not None and record.to_dict() == told
    assert (told["model"], told["version"], told["source"], told["path"]) == ("parts", 1, "http", None)
    assert server.store.records.image(told["id"]) == shop.image(7)
    small = Image.open(io.BytesIO(server.store.records.thumbnail(told["id"]) or b""))
    assert small.format == "JPEG" and server.store.records.heat(told["id"]) is not None


def test_which_images_are_kept(store: Store, shop: Shop, tmp_path: Path) -> None:
    with serving(store, {"parts": shop.onnx}, tmp_path / "models", keep="none") as server:
        told = server.inspect(shop.image(7)).json()
    assert told["verdict"] == "NG" and not told["has_image"] and store.records.thumbnail(told["id"])


def test_sinks_are_told_of_each_record(store: Store, shop: Shop, tmp_path: Path) -> None:
    table = tmp_path / "told.csv"
    with serving(store, {"parts": shop.onnx}, tmp_path / "models", (open_sink(f"csv:{table}"),)) as server:
        told = [server.inspect(shop.image(number)).json() for number in (1, 7)]
        wait_for(lambda: table.exists() and len(table.read_text().splitlines()) == 3)
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert [row["verdict"] for row in rows] == [one["verdict"] for one in told] == ["OK", "NG"]
    assert store.deliveries.waiting() == {}


def test_a_key_is_inspected_once(server: Server, shop: Shop) -> None:
    """A client that had no answer asks again."""
    first = server.inspect(shop.image(1), key="part 17").json()
    with ThreadPoolExecutor(4) as pool:
        again = list(pool.map(lambda _: server.inspect(shop.image(1), key="part 18").json()["id"], range(4)))
    assert server.inspect(shop.image(1), key="part 17").json() == first and len(set(again)) == 1
    assert server.count() == 2


def test_a_key_is_of_one_model_and_one_image(store: Store, shop: Shop, tmp_path: Path) -> None:
    """No verdict is handed out that is another model's, or another image's, neither after it nor at the same time."""
    pages = [Image.fromarray(np.full((40, 40, 3), 80 * i, np.uint8)) for i in range(2)]
    pages[0].save(tmp_path / "pages.tif", save_all=True, append_images=pages[1:])
    both = (tmp_path / "pages.tif").read_bytes()
    with serving(store, {"a": shop.onnx, "b": shop.onnx}, tmp_path / "models") as server:
        told = {name: server.inspect(shop.image(1), model=name, key="part7").json() for name in ("a", "b")}
        assert {name: one["model"] for name, one in told.items()} == {"a": "a", "b": "b"} and server.count() == 2
        other = server.inspect(shop.image(7), model="a", key="part7")
        assert other.status_code == 409 and "give each a key of its own" in other.json()["error"]
        first = server.inspect(both, model="a", key="sheet", page=0).json()
        assert server.inspect(both, model="a", key="sheet", page=0).json() == first
        assert server.inspect(both, model="a", key="sheet", page=1).status_code == 409
        with ThreadPoolExecutor(12) as pool:
            answers = list(pool.map(lambda i: server.inspect(shop.image(i), model="b", key="race"), range(12)))
        (won,) = [answer.json() for answer in answers if answer.status_code == 200]
        assert server.count() == 4 and {answer.status_code for answer in answers} == {200, 409}
        record = store.records.get(won["id"])
        assert record is not None and record.to_dict() == won


def test_an_overlay_is_a_picture(server: Server, shop: Shop) -> None:
    answer = server.inspect(shop.image(7), overlay=True)
    picture = Image.open(io.BytesIO(answer.content))
    record = server.store.records.get(int(answer.headers["okng-id"]))
    assert answer.headers["content-type"] == "image/png" and picture.size == (64, 64)
    assert record is not None and answer.headers["okng-verdict"] == record.verdict == "NG"


def bomb() -> bytes:
    """A small PNG that says it has 30,000² pixels."""
    return _png(30_000, 30_000, zlib.compress(b"\0" * 1_000_000, 9))


def _png(width: int, height: int, data: bytes) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")

    head = width.to_bytes(4, "big") + height.to_bytes(4, "big") + b"\x08\x02\0\0\0"
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", ["empty", "garbage", "text", "truncated", "bomb", "large", "model"])
def test_what_is_no_image_is_one_clear_line(server: Server, shop: Shop, kind: str) -> None:
    content = {
        "empty": b"",
        "garbage": np.random.default_rng(0).bytes(5000),
        "text": b"<html>not found</html>",
        "truncated": encoded(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))[:3000],
        "bomb": bomb(),
        "large": _png(11_000, 11_000, b""),
        "model": shop.onnx.read_bytes(),
    }[kind]
    for answer in (
        server.inspect(content),
        server.client.post("/api/inspect", files={"image": ("a.png", content)}),
    ):
        assert answer.status_code == 422
        assert "\n" not in answer.json()["error"] and "Traceback" not in answer.text
    batch = server.client.post("/api/batch", files=[("images", ("a.png", content)), ("images", ("b", shop.image(1)))])
    if kind != "empty":  # a form without content has no file
        assert batch.json()["counts"] == {"OK": 1, "NG": 0, "unreadable": 1}
    assert server.inspect(shop.image(1)).status_code == 200  # it goes on


def test_fuzzed_uploads_are_answered(server: Server, shop: Shop) -> None:
    """Real images with bytes changed, cut or doubled: each is judged or refused, and the counts agree."""
    rng = np.random.default_rng(1)
    seeds = [
        shop.image(7),
        encoded(np.zeros((40, 40, 3), np.uint8), "TIFF"),
        encoded(np.zeros((40, 40), np.uint8), "GIF"),
    ]
    answers = []
    for i in range(60):
        content = bytearray(seeds[i % 3])
        for _ in range(rng.integers(1, 9)):
            content[rng.integers(len(content))] = rng.integers(256)
        answers.append(server.inspect(bytes(content[: rng.integers(1, len(content) + 1)])).status_code)
    assert set(answers) <= {200, 422} and answers.count(200) == server.count()


def test_two_gigabytes_are_refused_before_they_come(server: Server) -> None:
    """By what the head says, and where it says nothing, as soon as they are too many."""
    sent = [0]

    def endless() -> Any:
        while sent[0] < 2_000:
            sent[0] += 1
            yield b"\0" * 1_000_000

    answer = server.client.post("/api/inspect", content=endless())
    assert answer.status_code == 413 and sent[0] < 100  # MB; the rest was not asked for
    port = int(server.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port)) as raw:
        raw.sendall(b"POST /api/inspect HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2000000000\r\n\r\n")
        raw.settimeout(10)
        assert b" 413 " in raw.recv(1000)
    form = server.client.post("/api/inspect", files={"image": ("a", b"\0" * 33_000_000)})
    assert form.status_code == 413


def test_a_thousand_at_once(server: Server, shop: Shop) -> None:
    """Each gets a verdict, or is told to come back; whatever was promised is kept, and nothing else."""
    port = int(server.url.rpartition(":")[2])

    async def ask(content: bytes) -> tuple[bytes, bytes]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        head = f"POST /api/inspect HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {len(content)}"
        writer.write(f"{head}\r\n\r\n".encode() + content)
        answer = await reader.read()
        writer.close()
        head, _, body = answer.partition(b"\r\n\r\n")
        return head.lower(), body

    async def flood() -> list[tuple[bytes, bytes]]:
        return await asyncio.gather(*(ask(shop.image(i % 12)) for i in range(1000)))

    answers = asyncio.run(flood())
    good = [json.loads(body)["id"] for head, body in answers if b" 200 " in head.partition(b"\r\n")[0]]
    assert len(good) >= server.parts.settings.queue
    assert len(set(good)) == len(good) == server.count()
    sent_away = [head for head, _ in answers if b" 503 " in head.partition(b"\r\n")[0]]
    assert len(good) + len(sent_away) == 1000 and all(b"retry-after: " in head for head in sent_away)
    wait_for(lambda: server.parts.queue.inside == 0)


def test_the_queue_is_bounded_and_a_stop_finishes_what_has_begun(
    store: Store, shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go, judge = threading.Event(), Inspector.judge

    def held(self: Inspector, batch: Any) -> Any:
        go.wait(20)
        yield from judge(self, batch)

    monkeypatch.setattr(Inspector, "judge", held)
    with serving(store, {"parts": shop.onnx}, tmp_path / "models", queue=4) as server, ThreadPoolExecutor(5) as pool:
        waiting = [pool.submit(server.inspect, shop.image(i)) for i in range(4)]
        wait_for(lambda: server.parts.queue.inside == 4)
        start = time.monotonic()
        refused = server.inspect(shop.image(5))
        assert time.monotonic() - start < 5
        assert refused.status_code == 503 and int(refused.headers["retry-after"]) >= 1
        assert server.client.get("/health").status_code == 200  # is not in the queue
        stopping = pool.submit(server.stop)
        time.sleep(0.3)
        go.set()
        answers = [one.result() for one in waiting]
        stopping.result()
    assert [answer.status_code for answer in answers] == [200] * 4
    assert sorted(answer.json()["id"] for answer in answers) == [record.id for record in store.records.each()]


def test_what_a_batch_may_load_has_its_room_beforehand(
    store: Store, shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A list of paths is small, and a form in chunks says no size: beside others neither goes over the bound."""
    go, judge, rng = threading.Event(), Inspector.judge, np.random.default_rng(0)
    for i in range(3):
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / f"{i}.png").write_bytes(encoded(rng.integers(0, 256, (100, 100, 3), np.uint8)))  # 30 kB
    monkeypatch.setattr("okng.serve.queue.ROOM", 80_000)
    form = httpx.Request("POST", "http://a", files=[("images", ("a.png", shop.image(1)))] * 2)
    headers = {"Content-Type": form.headers["content-type"]}

    def held(self: Inspector, batch: Any) -> Any:
        go.wait(20)
        yield from judge(self, batch)

    monkeypatch.setattr(Inspector, "judge", held)
    models, folders = {"parts": shop.onnx}, (tmp_path / "in",)
    with serving(store, models, tmp_path / "models", folders=folders) as server, ThreadPoolExecutor(2) as pool:

        def batch(paths: list[str]) -> httpx.Response:
            return server.client.post("/api/batch", json={"paths": paths})

        waiting = [pool.submit(server.inspect, shop.image(1))]
        wait_for(lambda: server.parts.queue.inside == 1)
        in_chunks = server.client.post("/api/batch", content=iter([form.read()]), headers=headers)
        for refused in (batch(["."]), in_chunks):
            assert refused.status_code == 503 and int(refused.headers["retry-after"]) >= 1
        waiting.append(pool.submit(batch, ["1.png", "2.png"]))  # for these there is room
        wait_for(lambda: server.parts.queue.inside == 2)
        wait_for(lambda: 60_000 < server.parts.queue._bytes <= 80_000)
        go.set()
        assert [answer.result().status_code for answer in waiting] == [200, 200]
        alone = server.client.post("/api/batch", content=iter([form.read()]), headers=headers)
        assert alone.json()["counts"]["unreadable"] == 0 and len(alone.json()["results"]) == 2
        assert batch(["."]).json()["counts"]["unreadable"] == 0 and server.parts.queue._bytes == 0


def test_a_store_that_is_full_or_locked_is_said_and_nothing_is_promised(server: Server, shop: Shop) -> None:
    assert server.inspect(shop.image(1)).status_code == 200
    with Store.open(server.store.name).writing():  # another program
        locked = server.inspect(shop.image(1))
        assert locked.status_code == 503 and "locked by another program" in locked.json()["error"]
        assert locked.headers["retry-after"] and server.client.get("/ready").status_code == 503
    assert server.inspect(shop.image(1)).status_code == 200
    small = encoded(np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8))
    server.store.engine.dispose()

    def shrink(connection: Any, _: Any) -> None:
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages}")

    event.listen(server.store.engine, "connect", shrink)
    answers = [server.inspect(small) for _ in range(3)]
    assert answers[-1].status_code == 503 and "is full" in answers[-1].json()["error"]
    event.remove(server.store.engine, "connect", shrink)
    server.store.engine.dispose()
    before = server.count()
    assert server.inspect(small).status_code == 200 and server.count() == before + 1
    assert before == 2 + sum(answer.status_code == 200 for answer in answers)


def test_images_that_come_together_share_a_transaction(
    server: Server, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits for what is on its way, and for nothing else."""
    monkeypatch.setattr("okng.serve.queue.GATHER", 600)
    assert server.inspect(shop.image(0)).status_code == 200  # alone: nothing to wait for
    begun: list[int] = []
    writing = server.store.record_all
    monkeypatch.setattr(server.store, "record_all", lambda new: begun.append(len(new)) or writing(new))
    parts = server.parts
    loaded = parts.shelf.only(None)
    tickets = [parts.queue.submit(loaded, Encoded(shop.image(i)), f"{i}.png", "test") for i in range(6)]
    records = [ticket.answer.result(60)[0] for ticket in tickets]
    assert [record.path for record in records] == [f"{i}.png" for i in range(6)]
    assert sum(begun) == 6 and len(begun) <= 3


def test_a_file_of_more_images_than_a_batch_has_is_refused(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("okng.serve.routes.inspect.MOST", 2)
    pages = [Image.fromarray(np.full((40, 40, 3), 80 * i, np.uint8)) for i in range(3)]
    pages[0].save(tmp_path / "pages.tif", save_all=True, append_images=pages[1:])
    files = {"images": ("pages.tif", (tmp_path / "pages.tif").read_bytes())}
    (told,) = server.client.post("/api/batch", files=files).json()["results"]
    assert told == {"path": "pages.tif", "error": "it holds 3 images; a batch has 2 at most"} and server.count() == 0
