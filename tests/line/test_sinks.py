"""Each sink hands over what it is given, to the receivers themselves."""

from __future__ import annotations

import asyncio
import base64
import csv
import hashlib
import hmac
import json
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from parts import png, record, record_of, wait_for, write
from receivers import Web, free_port, listening, mosquitto

from okng.errors import OkngError
from okng.inspection.reading.decoding import digest
from okng.inspection.reading.formats import Encoded
from okng.line import outbox as outbox_module
from okng.line.outbox import Outbox
from okng.line.sinks import open_sink
from okng.line.sinks.webhook import SECRET
from okng.store import Store, StoreError

PAGE = Path(__file__).parents[2] / "docs" / "watch.md"


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox_module, "FIRST", 0.05)
    monkeypatch.setattr(outbox_module, "LONGEST", 0.1)
    monkeypatch.setattr(outbox_module, "POLL", 0.05)


@pytest.fixture
def web() -> Iterator[Web]:
    server = Web()
    yield server
    server.close()


def deliver(store: Store, sink: str, said: list[str], count: int = 3, **how: Any) -> None:
    """Record `count` images, the last NG, and have the outbox deliver them to `sink`."""
    made = open_sink(sink)
    for number in range(count):
        record(store, number, (made.name,), ng=number == count - 1, **how)
    with Outbox(store, [made], said.append):
        wait_for(lambda: not store.deliveries.waiting())


# Webhook


def test_a_webhook_is_signed_as_standard_webhooks_are(
    store: Store, said: list[str], web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = b"a key of twenty-four byte"
    monkeypatch.setenv(SECRET, "whsec_" + base64.b64encode(key).decode())
    deliver(store, f"webhook:{web.url}", said)
    assert [body["verdict"] for body in web.bodies()] == ["OK", "OK", "NG"]
    for headers, body in web.got:
        signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
        wanted = "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
        assert headers["webhook-signature"] == wanted
        assert json.loads(body)["message"] == headers["webhook-id"]
    ng = web.bodies()[2]
    assert ng["regions"][0].keys() >= {"box", "area", "peak", "score"} and ng["p_value"] == 0.01
    assert "contour" not in ng["regions"][0]
    assert ng["model"] == "parts" and ng["path"] == "/in/2.png" and "key" not in ng
    (shown,) = re.findall(r"^```json\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    page = json.loads(shown)
    assert list(page) == list(ng) and page["regions"][0].keys() == ng["regions"][0].keys()


def test_without_a_secret_nothing_is_signed_and_a_wrong_one_is_said(
    store: Store, said: list[str], web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(SECRET, raising=False)
    deliver(store, f"webhook:{web.url}", said, 1)
    assert "webhook-signature" not in web.got[0][0]
    monkeypatch.setenv(SECRET, "whsec_?")
    with pytest.raises(OkngError, match="is base64; this is not"):
        open_sink(f"webhook:{web.url}")


@pytest.mark.parametrize(("status", "aside"), [("404", 1), ("422", 1), ("429", 0), ("408", 0), ("503", 0), ("301", 0)])
def test_a_webhook_refuses_by_4xx_that_are_about_the_message(
    store: Store, said: list[str], monkeypatch: pytest.MonkeyPatch, status: str, aside: int
) -> None:
    monkeypatch.setattr(outbox_module, "REFUSALS", 2)
    web = Web(lambda count: status if count <= 3 else None)
    try:
        deliver(store, f"webhook:{web.url}", said, 2)
        found = list(store.deliveries.aside().values())
        assert [count for count, _ in found] == [aside][:aside] and all(status in why for _, why in found)
        assert [body["id"] for body in web.bodies()] == [1, 2][aside:]
    finally:
        web.close()


def test_a_webhook_that_fails_half_of_the_time_gets_all_in_order(store: Store, said: list[str]) -> None:
    web = Web(lambda count: {1: "500", 3: "cut"}.get(count % 4))
    try:
        deliver(store, f"webhook:{web.url}", said, 8)
        seen: list[int] = []
        for headers, body in web.got:  # as a receiver does that drops what it has seen
            assert headers["webhook-id"] == json.loads(body)["message"]
            if json.loads(body)["id"] not in seen:
                seen.append(json.loads(body)["id"])
        assert seen == list(range(1, 9))
        assert len(web.got) > 8  # what was cut off came again, and with the same id
        assert len({headers["webhook-id"] for headers, _ in web.got}) == 8
        assert any("it answers 500" in line for line in said) and "takes messages again" in said[-1]
    finally:
        web.close()


def test_passwords_and_tokens_are_in_no_name() -> None:
    sink = open_sink("webhook:https://me:secret@host/path?token=secret")
    assert sink.name == "webhook:https://host/path"
    assert open_sink("mqtt://me:secret@host/a/b").name == "mqtt://host:1883/a/b"


# MQTT


def test_mqtt_survives_a_broker_that_comes_and_goes(store: Store, said: list[str], tmp_path: Path) -> None:
    port = free_port()
    sink: Any = open_sink(f"mqtt://127.0.0.1:{port}/line1/verdicts")
    send, sending = sink.send, threading.Lock()

    def held(messages: Any) -> None:
        with sending:
            send(messages)

    sink.send = held
    with Outbox(store, [sink], said.append) as outbox:
        record(store, 0, outbox.names)
        wait_for(lambda: said)  # there is no broker yet
        assert "Connection refused" in said[0] and "messages wait in the store" in said[0]
        with ExitStack() as up:
            with sending:  # what is sent before the listener is there, nobody hears
                up.enter_context(mosquitto(tmp_path, port))
                got = up.enter_context(listening(port, "line1/#"))
            wait_for(lambda: len(got) == 1)
            for number in (1, 2):
                record(store, number, outbox.names)
            outbox.wake()
            wait_for(lambda: len(got) == 3)
        for number in (3, 4):
            record(store, number, outbox.names)
        outbox.wake()
        wait_for(lambda: len([line for line in said if "wait in the store" in line]) > 1)
        with mosquitto(tmp_path, port), listening(port, "line1/#") as got_again:
            record(store, 5, outbox.names)
            outbox.wake()
            wait_for(lambda: store.deliveries.waiting() == {})
            wait_for(lambda: got_again and got_again[-1]["id"] == 6)
    assert [body["id"] for body in got] == [1, 2, 3]
    assert len({body["message"] for body in got}) == 3
    assert len([line for line in said if "takes messages again" in line]) == 2


def test_mqtt_says_what_the_broker_says(
    store: Store, said: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    monkeypatch.setenv("OKNG_MQTT_PASSWORD", "wrong")
    outbox = Outbox(store, [open_sink(f"mqtt://somebody@127.0.0.1:{port}/a")], said.append)
    with mosquitto(tmp_path, port, "allow_anonymous false"), outbox:
        wait_for(lambda: said)
    assert "the broker refuses: Not authorized" in said[0]


# OPC UA


class Subscriber:
    """Notes what `inspected` becomes."""

    def __init__(self) -> None:
        self.changes: list[int] = []

    def datachange_notification(self, node: object, value: int, data: object) -> None:
        """As asyncua calls it."""
        self.changes.append(value)

    async def begin(self, client: Any) -> None:
        """For a client that is connected."""
        subscription = await client.create_subscription(20, self)
        index = await client.get_namespace_index("urn:okng")
        await subscription.subscribe_data_change(client.get_node(f"ns={index};s=okng.inspected"))

    async def until(self, value: int) -> None:
        """Wait for a `value`, for some seconds."""
        for _ in range(200):
            if value in self.changes:
                break
            await asyncio.sleep(0.02)


def test_opc_ua_shows_the_last_verdict_and_counts(store: Store, said: list[str]) -> None:
    from asyncua import Client, ua

    port = free_port()
    sink = open_sink(f"opcua://127.0.0.1:{port}")
    subscriber = Subscriber()

    async def read() -> dict[str, Any]:
        async with Client(f"opc.tcp://127.0.0.1:{port}") as client:
            index = await client.get_namespace_index("urn:okng")
            okng = await client.nodes.objects.get_child(f"{index}:okng")
            found = {
                (await node.read_browse_name()).Name: await node.read_value() for node in await okng.get_children()
            }
            with pytest.raises(ua.UaError):  # it is for reading
                await client.get_node(f"ns={index};s=okng.verdict").write_value("OK")
            with pytest.raises(ua.UaError):
                await client.delete_nodes([client.get_node(f"ns={index};s=okng.inspected")])
            await subscriber.begin(client)
            record(store, 9, outbox.names)
            outbox.wake()
            await subscriber.until(4)
            return found

    async def administer() -> None:
        client = Client(f"opc.tcp://127.0.0.1:{port}")
        client.set_user("admin")
        client.set_password("any")
        async with client:
            pass

    with Outbox(store, [sink], said.append) as outbox:
        for number in range(3):
            record(store, number, outbox.names, ng=number == 2)
        outbox.wake()
        wait_for(lambda: not store.deliveries.waiting())
        found = asyncio.run(read())
        with pytest.raises(ua.UaError):  # nobody is an administrator
            asyncio.run(administer())
    assert (found["verdict"], found["p_value"], found["regions"], found["path"]) == ("NG", 0.01, 1, "/in/2.png")
    assert (found["inspected"], found["ok"], found["ng"], found["id"]) == (3, 2, 1, 3)
    assert found["at"].year >= 2024 and subscriber.changes[-1] == 4
    socket.create_server(("127.0.0.1", port)).close()  # it is free again
    assert said == []


def test_opc_ua_says_that_its_port_is_taken(store: Store, said: list[str], web: Web) -> None:
    with Outbox(store, [open_sink(f"opcua://127.0.0.1:{web.server.server_port}")], said.append):
        wait_for(lambda: said)
    assert "ddress already in use" in said[0]
    assert not [thread for thread in threading.enumerate() if thread.name == "okng-opcua"]


@pytest.fixture(scope="module")
def controller(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the certificate and the key of a controller, which is an OPC UA client."""
    from asyncua.crypto.cert_gen import setup_self_signed_certificate
    from cryptography.x509.oid import ExtendedKeyUsageOID

    folder = tmp_path_factory.mktemp("controller")
    use = [ExtendedKeyUsageOID.CLIENT_AUTH]
    asyncio.run(setup_self_signed_certificate(folder / "key.pem", folder / "own.der", "urn:plc", "plc", use, {}))
    return folder


async def secured(port: int, controller: Path, policy: str = "Basic256Sha256") -> Any:
    """A client with the controller's certificate, which is not connected yet."""
    from asyncua import Client
    from asyncua.crypto import security_policies

    client = Client(f"opc.tcp://127.0.0.1:{port}", timeout=30)
    client.application_uri = "urn:plc"
    used = getattr(security_policies, f"SecurityPolicy{policy}")
    await client.set_security(used, str(controller / "own.der"), str(controller / "key.pem"))
    return client


async def verdict(client: Any) -> str:
    """The last one, by a client that is connected."""
    index = await client.get_namespace_index("urn:okng")
    found: str = await client.get_node(f"ns={index};s=okng.verdict").read_value()
    return found


def test_opc_ua_is_encrypted_for_clients_whose_certificates_are_trusted(
    store: Store, said: list[str], tmp_path: Path, controller: Path
) -> None:
    from asyncua import ua

    port, keys = free_port(), tmp_path / "keys"
    sink = open_sink(f"opcua://127.0.0.1:{port}?keys={keys}")
    assert sink.name == f"opcua://127.0.0.1:{port}"  # what waits for it goes on waiting when it is secured

    async def reading(policy: str = "Basic256Sha256") -> str:
        async with await secured(port, controller, policy) as client:
            return await verdict(client)

    with Outbox(store, [sink], said.append) as outbox:
        record(store, 0, outbox.names, ng=True)
        outbox.wake()
        wait_for(lambda: not store.deliveries.waiting())
        with pytest.raises(ua.UaError, match="BadUserAccessDenied"):
            asyncio.run(reading())
        rejected = list((keys / "rejected").iterdir())
        assert [path.read_bytes() for path in rejected] == [(controller / "own.der").read_bytes()]
        rejected[0].rename(keys / "trusted" / "plc.der")  # by a person, while it runs
        for policy in ("Basic256Sha256", "Aes128Sha256RsaOaep", "Aes256Sha256RsaPss"):
            assert asyncio.run(reading(policy)) == "NG"
    assert said == []


def test_without_a_trusted_certificate_nothing_is_read_and_nobody_is_disturbed(
    store: Store, said: list[str], tmp_path: Path, controller: Path
) -> None:
    """Not by a channel without encryption, nor by none at all, nor by the number of a session that is another's."""
    from asyncua import Client, ua

    port, keys = free_port(), tmp_path / "keys"
    write(keys / "trusted" / "plc.der", (controller / "own.der").read_bytes())
    address = f"opc.tcp://127.0.0.1:{port}"
    subscriber = Subscriber()

    async def stranger(token: ua.NodeId | None, opens: bool) -> None:
        client = Client(address, timeout=30)
        await client.connect_socket()
        try:
            await client.send_hello()
            if opens:
                await client.open_secure_channel()
                modes = {endpoint.SecurityMode for endpoint in await client.get_endpoints()}
                assert modes == {ua.MessageSecurityMode.SignAndEncrypt}
                with pytest.raises(ua.UaError, match="BadServiceUnsupported"):  # it is no directory of servers
                    await client.uaclient.register_server(
                        ua.RegisteredServer("urn:other", ServerNames=[ua.LocalizedText("other")])
                    )
            if token is None:
                asked = ua.CreateSessionParameters(EndpointUrl=address, RequestedSessionTimeout=60_000)
                await client.uaclient.create_session(asked)
            else:
                client.uaclient.protocol.authentication_token = token
            activate = ua.ActivateSessionParameters(UserIdentityToken=ua.AnonymousIdentityToken(PolicyId="anonymous"))
            with pytest.raises(ua.UaError, match=r"BadUserAccessDenied|BadSessionIdInvalid"):
                await client.uaclient.activate_session(activate)
            with pytest.raises(ua.UaError, match=r"BadSessionNotActivated|BadUserAccessDenied"):
                await client.get_node(ua.ObjectIds.Server_ServerStatus_CurrentTime).read_value()
        finally:
            client.disconnect_socket()

    async def all_of_it(outbox: Outbox) -> None:
        async with await secured(port, controller) as client:
            await subscriber.begin(client)
            for opens in (True, False):
                await stranger(None, opens)
                await stranger(client.uaclient.protocol.authentication_token, opens)
            assert await verdict(client) == "OK"
            record(store, 1, outbox.names)
            outbox.wake()
            await subscriber.until(2)
            assert subscriber.changes[-1] == 2

    with Outbox(store, [open_sink(f"opcua://127.0.0.1:{port}?keys={keys}")], said.append) as outbox:
        record(store, 0, outbox.names)
        outbox.wake()
        wait_for(lambda: not store.deliveries.waiting())
        asyncio.run(all_of_it(outbox))
    assert said == [] and not list((keys / "rejected").iterdir())


def test_the_opc_ua_servers_own_certificate_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from okng.line.sinks.opcua_keys import Keys, read

    monkeypatch.setattr(socket, "gethostname", lambda: "검사-" + 60 * "p")
    keys = Keys(tmp_path / "keys", "192.168.0.5")
    threads = [threading.Thread(target=keys.prepare) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    uri, own = keys.prepare(), read(keys.certificate)
    certificate, key = keys.certificate.read_bytes(), keys.key.read_bytes()
    assert own is not None and uri.startswith("urn:okng:") and keys.key.stat().st_mode & 0o777 == 0o600
    assert keys.prepare() == uri and (keys.certificate.read_bytes(), keys.key.read_bytes()) == (certificate, key)
    other = Keys(tmp_path / "other", "localhost")
    other.prepare()
    for content, answer in ((other.key.read_bytes(), "is not the key of"), (b"nothing", "is no key in PEM")):
        keys.key.write_bytes(content)
        with pytest.raises(OkngError, match=rf"own\.pem {answer}.*remove own\.der and own\.pem"):
            keys.prepare()
    keys.key.unlink()
    with pytest.raises(OkngError, match=r"own\.pem is missing beside .*own\.der; bring it, or remove that"):
        keys.prepare()
    keys.key.write_bytes(key)
    keys.certificate.write_bytes(b"nothing")
    with pytest.raises(OkngError, match=r"own\.der is no certificate in DER; remove own\.der and own\.pem"):
        keys.prepare()
    write(tmp_path / "file", b"")
    with pytest.raises(OkngError, match="can't hold certificates"):
        Keys(tmp_path / "file", "localhost").prepare()


def test_a_certificate_is_known_while_it_holds_whatever_lies_beside_it(tmp_path: Path, controller: Path) -> None:
    import datetime

    from asyncua.crypto.cert_gen import generate_private_key, generate_self_signed_app_certificate
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding
    from cryptography.x509.oid import ExtendedKeyUsageOID

    from okng.line.sinks.opcua_keys import KEPT, Keys

    keys = Keys(tmp_path / "keys", "localhost")
    keys.prepare()
    known = (controller / "own.der").read_bytes()
    assert not keys.knows(None) and not keys.knows(known)
    pem = x509.load_der_x509_certificate(known).public_bytes(Encoding.PEM)
    write(keys.trusted / "a", b"nothing")
    (keys.trusted / "folder").mkdir()
    write(keys.trusted / "plc.pem", b"Bag Attributes\n" + pem)
    assert keys.knows(known)
    name = [x509.UniformResourceIdentifier("urn:plc")]
    use = [ExtendedKeyUsageOID.CLIENT_AUTH]
    past = generate_self_signed_app_certificate(generate_private_key(), "plc", {}, name, use, days=0)
    write(keys.trusted / "past.der", past.public_bytes(Encoding.DER))
    assert past.not_valid_after_utc <= datetime.datetime.now(datetime.UTC)
    assert not keys.knows(past.public_bytes(Encoding.DER))
    for number in range(KEPT + 10):  # strangers can't fill the disk
        assert not keys.knows(b"%d" % number)
    assert len(list(keys.rejected.iterdir())) == KEPT
    keys.rejected.rename(tmp_path / "gone")
    assert not keys.knows(b"one more")


# Folders


@pytest.mark.parametrize("kind", ["copy", "link"])
def test_folders_hold_each_image_under_its_last_verdict_alone(
    store: Store, said: list[str], tmp_path: Path, kind: str
) -> None:
    sink = open_sink(f"{kind}:{tmp_path / 'sorted'}")
    files = [write(tmp_path / "in" / f"{number}.png", png(number, number == 2)) for number in range(3)]

    def judge(path: Path, verdict: str | None = None) -> None:
        from parts import inspector

        (found,) = inspector().inspect(path)
        found = replace(found, verdict=verdict or found.verdict)
        content = Encoded(path.read_bytes())
        named = {"model": MODEL, "source": "test", "digest": digest(content), "sinks": outbox.names}
        store.record(found, **named)  # type: ignore[arg-type]
        outbox.wake()
        wait_for(lambda: not store.deliveries.waiting())

    from parts import MODEL

    with Outbox(store, [sink], said.append) as outbox:
        for path in files:
            judge(path)
        assert lying(tmp_path) == {"OK": ["0", "1"], "NG": ["2"]}
        judge(files[1], "NG")  # by another model, or at another threshold
        assert lying(tmp_path) == {"OK": ["0"], "NG": ["1", "2"]}
        judge(files[1], "OK")
        other = tmp_path / "other.png"
        write(other, png(7, ng=True)).replace(files[0])  # another image, by a camera that begins again with its names
        judge(files[0])
    assert lying(tmp_path) == {"OK": ["0", "1"] if kind == "copy" else ["1"], "NG": ["0", "2"]}
    assert [path.read_bytes() for path in (tmp_path / "sorted").glob("OK/0-*")] == [png(0)] * (kind == "copy")
    assert [path.read_bytes() for path in (tmp_path / "sorted").glob("NG/0-*")] == [png(7, ng=True)]
    (ng,) = (tmp_path / "sorted/NG").glob("2-*.png")
    assert ng.samefile(files[2]) == (kind == "link") and ng.read_bytes() == files[2].read_bytes()
    assert not list((tmp_path / "sorted").rglob(".*")) and said == []


@pytest.mark.parametrize("kind", ["copy", "link"])
def test_what_comes_from_the_store_is_a_copy_for_each_image(
    store: Store, said: list[str], tmp_path: Path, kind: str
) -> None:
    """Of a path that a camera uses again, of an image that had a link, and of one that an older okng had copied."""
    from parts import inspector, picture

    sink = open_sink(f"{kind}:{tmp_path / 'sorted'}")
    (found,) = inspector().inspect([picture(1)])
    path = str(tmp_path / "gone" / "1.png")

    def judge(content: bytes, verdict: str) -> None:
        named = {"model": MODEL, "source": "test", "digest": digest(Encoded(content)), "sinks": outbox.names}
        store.record(replace(found, path=path, verdict=verdict), image=content, **named)  # type: ignore[arg-type]
        outbox.wake()
        wait_for(lambda: not store.deliveries.waiting())

    from parts import MODEL

    of_path = f"1-{hashlib.sha256(path.encode()).hexdigest()[:8]}.png"
    with Outbox(store, [sink], said.append) as outbox:
        write(tmp_path / "sorted/OK" / of_path, png(1))
        judge(png(1), "NG")
        judge(png(2), "OK")
        assert lying(tmp_path) == {"OK": ["1"], "NG": ["1"]}
        judge(png(2), "NG")
        write(tmp_path / "sorted/OK" / of_path, png(3))  # another image's stays
        judge(png(1), "NG")
    assert lying(tmp_path) == {"OK": ["1"], "NG": ["1", "1"]} and said == []
    assert {path.read_bytes() for path in (tmp_path / "sorted/NG").iterdir()} == {png(1), png(2)}


def lying(tmp_path: Path) -> dict[str, list[str]]:
    names = {
        verdict: sorted(path.name for path in (tmp_path / "sorted" / verdict).iterdir()) for verdict in ("OK", "NG")
    }
    return {verdict: [name.partition("-")[0] for name in found] for verdict, found in names.items()}


def test_an_image_that_is_gone_is_taken_from_the_store_or_said_to_be_lost(
    store: Store, said: list[str], tmp_path: Path
) -> None:
    from parts import inspector, picture

    sink = open_sink(f"copy:{tmp_path / 'sorted'}")
    (found,) = inspector().inspect([picture(1)])
    record_of(store, found, "/gone/kept.png", (sink.name,), image=b"the file")
    record_of(store, found, "/gone/lost.png", (sink.name,))
    record_of(store, found, "camera:0[frame 7 2026-01-01T00:00:00.000000Z]", (sink.name,), image=b"a frame")
    with Outbox(store, [sink], said.append):
        wait_for(lambda: not store.deliveries.waiting())
    names = sorted(path.name for path in (tmp_path / "sorted/OK").iterdir())
    assert names[0].startswith("camera:0[frame 7 ") and names[0].endswith(".png") and names[1].startswith("kept-")
    assert len(said) == 1 and "/gone/lost.png is gone or was changed" in said[0]


@pytest.mark.parametrize("kind", ["copy", "link"])
def test_an_image_that_is_moved_just_then_is_taken_from_the_store(
    monkeypatch: pytest.MonkeyPatch, store: Store, said: list[str], tmp_path: Path, kind: str
) -> None:
    """With --then move the watch puts files away while messages go out; it was told as a sink that fails."""
    from parts import inspector

    sink = open_sink(f"{kind}:{tmp_path / 'sorted'}")
    path = write(tmp_path / "in.png", png(1))
    (found,) = inspector().inspect(path)

    def moved_as_soon_as_looked_at(looked_at: Path, *_: object) -> bool:
        if looked_at == path:
            path.replace(tmp_path / "moved.png")
        return looked_at == path

    monkeypatch.setattr("okng.line.sinks.folders._same", moved_as_soon_as_looked_at)
    record_of(store, found, str(path), (sink.name,), image=path.read_bytes())
    with Outbox(store, [sink], said.append):
        wait_for(lambda: not store.deliveries.waiting())
    (copy,) = (tmp_path / "sorted/OK").iterdir()
    assert copy.read_bytes() == (tmp_path / "moved.png").read_bytes() and said == []


# Tables


def test_a_csv_goes_on_after_a_kill_without_a_half_line_or_a_repeat(
    store: Store, said: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "all.csv"
    deliver(store, f"csv:{path}", said)
    half = path.read_bytes()
    path.write_bytes(half + b"4,2026-0")  # killed in the middle of a line
    sink = open_sink(f"csv:{path}")
    record(store, 3, (sink.name,), path='/in/a "b",\n.png')
    with store.writing() as connection:  # killed before the second and third were marked
        connection.exec_driver_sql("UPDATE okng_deliveries SET done_at = NULL WHERE id > 1")
    with Outbox(store, [sink], said.append):
        wait_for(lambda: not store.deliveries.waiting())
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == ["1", "2", "3", "4"]
    assert [row["verdict"] for row in rows] == ["OK", "OK", "NG", "OK"] and rows[3]["path"] == '/in/a "b",\n.png'
    assert rows[2]["p_value"] == "0.010000" and rows[2]["left"] and not rows[0]["left"] and said == []
    again(store, sink, said)  # and once more, now with a line break in the last line
    with path.open(newline="") as file:
        assert list(csv.DictReader(file)) == rows and said == []


def again(store: Store, sink: Any, said: list[str]) -> None:
    """Deliver everything a second time, as after a kill before it was marked."""
    with store.writing() as connection:
        connection.exec_driver_sql("UPDATE okng_deliveries SET done_at = NULL")
    with Outbox(store, [sink], said.append):
        pass
    assert store.deliveries.waiting() == {}


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Store]:
    """A second store, whose ids begin at 1, too."""
    opened = Store.open(tmp_path / "other.sqlite")
    yield opened
    opened.close()


def test_a_new_store_goes_on_with_the_csv_of_an_old_one(
    store: Store, other: Store, said: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "all.csv"
    deliver(store, f"csv:{path}", said, 5)
    for turn in range(2):
        deliver(other, f"csv:{path}", said, 3)
        again(other, open_sink(f"csv:{path}"), said)
        again(store, open_sink(f"csv:{path}"), said)
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert [int(row["id"]) for row in rows] == [1, 2, 3, 4, 5, 1, 2, 3, 4, 5, 6][: 8 + 3 * turn]
        assert len({row["message"] for row in rows}) == len(rows) and said == []


def test_a_csv_has_nothing_twice_where_the_store_could_not_be_told(
    store: Store, said: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, tries = store.deliveries.done, []

    def done(*taken: int) -> None:
        tries.append(taken)
        if len(tries) < 3:
            raise StoreError("the store is locked")
        real(*taken)

    monkeypatch.setattr(store.deliveries, "done", done)
    deliver(store, f"csv:{tmp_path / 'all.csv'}", said)
    assert len(tries) == 3
    with (tmp_path / "all.csv").open(newline="") as file:
        assert [row["id"] for row in csv.DictReader(file)] == ["1", "2", "3"]


def test_another_table_is_left_alone(store: Store, said: list[str], tmp_path: Path) -> None:
    path = write(tmp_path / "mine.csv", b"part,price\n1,2\n")
    with Outbox(store, [open_sink(f"csv:{path}")], said.append):
        wait_for(lambda: said)
    assert "is another table" in said[0] and path.read_bytes() == b"part,price\n1,2\n"


def test_parquet_is_written_whole_and_once(store: Store, said: list[str], tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    sink = open_sink(f"parquet:{tmp_path / 'table'}")
    for number in range(3):
        record(store, number, (sink.name,), ng=number == 2)
    with Outbox(store, [sink], said.append) as outbox:
        record(store, 3, outbox.names)
        outbox.wake()  # fewer than a file's worth wait for more, or for the end
    (file,) = (tmp_path / "table").iterdir()
    assert re.fullmatch(r"000000000001-[0-9a-f]{8}\.parquet", file.name)
    record(store, 4, (sink.name,))
    again(store, sink, said)
    rows = parquet.read_table(tmp_path / "table").to_pylist()
    assert [row["id"] for row in rows] == [1, 2, 3, 4, 5] and rows[2]["verdict"] == "NG" and rows[0]["left"] is None
    older = file.rename(file.with_name("000000000001.parquet"))  # as it was called before
    record(store, 5, (sink.name,))
    again(store, sink, said)
    assert list((tmp_path / "table").iterdir()) == [older]
    assert parquet.read_table(older)["id"].to_pylist() == [1, 2, 3, 4, 5, 6]
    assert said == []


@pytest.mark.parametrize("older", [False, True])
def test_a_new_store_leaves_the_parquet_files_of_an_old_one(
    store: Store, other: Store, said: list[str], tmp_path: Path, older: bool
) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    sink = open_sink(f"parquet:{tmp_path / 'table'}")
    for held, count in ((store, 5), (other, 3)):
        for number in range(count):
            record(held, number, (sink.name,))
        again(held, sink, said)
        if older:
            for file in (tmp_path / "table").iterdir():
                file.rename(file.with_name(f"{file.name.partition('-')[0]}.parquet"))
            older = False
    again(other, sink, said)
    rows = parquet.read_table(tmp_path / "table").to_pylist()
    assert sorted(row["id"] for row in rows) == [1, 1, 2, 2, 3, 3, 4, 5]
    assert len({row["message"] for row in rows}) == 8 and said == []


def test_an_end_that_comes_while_few_are_read_does_not_divide_them(
    store: Store, said: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pyarrow.parquet")
    outbox = Outbox(store, [open_sink(f"parquet:{tmp_path / 'table'}")], said.append)
    record(store, 0, outbox.names)
    pending = store.deliveries.pending

    def then_the_end(*asked: Any) -> Any:
        found = pending(*asked)
        if not outbox._stopping.is_set():
            record(store, 1, outbox.names)
            outbox._stopping.set()
        return found

    monkeypatch.setattr(store.deliveries, "pending", then_the_end)
    with outbox:
        wait_for(lambda: not store.deliveries.waiting())
    assert len(list((tmp_path / "table").iterdir())) == 1 and said == []


def test_jsonl_is_one_object_a_line(store: Store, said: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    deliver(store, "jsonl", said)
    assert [json.loads(line)["id"] for line in capsys.readouterr().out.splitlines()] == [1, 2, 3]


# What can't be


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("mqt://host/topic", "there is no sink 'mqt'; did you mean mqtt"),
        ("mqtt://host", "takes a broker and a topic"),
        ("mqtt://host/a/#", "has neither + nor #"),
        ("mqtt://host:99999/a", "takes a port from 1 to 65535"),
        ("webhook:ftp://host", "webhook takes an address: webhook:https://"),
        ("webhook:", "webhook takes an address"),
        ("opcua://127.0.0.1:4840/path", "takes an address of this machine and a port"),
        ("opcua://127.0.0.1:4840?keys=", "takes a folder of certificates: opcua://127.0.0.1:4840?keys=FOLDER"),
        ("opcua://127.0.0.1:4840?key=a", "takes a folder of certificates"),
        ("csv:", "csv takes a file"),
        ("csv:{tmp}", "is a folder or a device"),
        ("parquet:{tmp}/file", "is a file; give parquet:FOLDER a folder"),
        ("copy:{tmp}/file", "is a file; give copy:FOLDER a folder"),
        ("jsonl:file", "write: --to jsonl > FILE"),
    ],
)
def test_mistakes_are_one_line(tmp_path: Path, text: str, answer: str) -> None:
    write(tmp_path / "file", b"")
    with pytest.raises(OkngError) as caught:
        open_sink(text.replace("{tmp}", str(tmp_path)))
    assert answer in str(caught.value) and "\n" not in str(caught.value)


def test_a_missing_package_is_said_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    import builtins
    import sys

    real = builtins.__import__

    def without(name: str, *more: Any) -> Any:
        if name.partition(".")[0] == "paho":
            raise ModuleNotFoundError("No module named 'paho'", name="paho")
        return real(name, *more)

    monkeypatch.setattr(builtins, "__import__", without)
    monkeypatch.delitem(sys.modules, "okng.line.sinks.mqtt", raising=False)
    with pytest.raises(OkngError, match=r"paho is not installed; .*\[serve,mqtt\]"):
        open_sink("mqtt://host/topic")


def test_another_package_can_bring_a_sink(store: Store, said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    got: list[str] = []

    class Lamp:
        batch, patience = 1, 0.0

        def __init__(self, kind: str, where: str):
            self.name = f"{kind}:{where}"

        def open(self) -> None:
            got.append("open")

        def send(self, messages: Any) -> None:
            got.append(messages[0].verdict)

        def close(self) -> None:
            got.append("close")

    class Bring:
        name = "lamp"

        @staticmethod
        def load() -> object:
            return Lamp

    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: [Bring()] if group == "okng.sinks" else [])
    deliver(store, "lamp:gpio7", said, 2)
    assert got == ["open", "OK", "NG", "close"]
    assert said == []
