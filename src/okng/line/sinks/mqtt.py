"""A topic of an MQTT broker."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import unquote, urlsplit

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

from okng.errors import OkngError
from okng.line.sinks import Message

PASSWORD = "OKNG_MQTT_PASSWORD"
TIMEOUT = 10.0  # seconds


class Mqtt:
    """Each message as JSON on one topic with QoS 1: the broker has confirmed it before it counts as delivered.

    mqtt://USER@BROKER:1883/TOPIC, with TLS mqtts://…:8883; the password is OKNG_MQTT_PASSWORD of the environment, or
    stands behind the user. After a failure the connection is made anew, so that nothing is left in it that could come
    late and out of order.
    """

    batch, patience = 1, 0.0

    def __init__(self, kind: str, where: str):
        address, _, self.topic = where.removeprefix("//").partition("/")
        parts = urlsplit(f"//{address}")
        try:
            self.port = parts.port or (8883 if kind == "mqtts" else 1883)
        except ValueError as error:
            raise OkngError(f"{kind} takes a port from 1 to 65535: {kind}://broker:1883/topic") from error
        if not parts.hostname or not self.topic:
            raise OkngError(f"{kind} takes a broker and a topic: {kind}://broker/line1/verdicts")
        if set(self.topic) & set("+#\0"):
            raise OkngError(f"a topic to publish on has neither + nor #: {self.topic!r}")
        self.host, self.secure = parts.hostname, kind == "mqtts"
        self.user = unquote(parts.username or "") or None
        self.password = unquote(parts.password or "") or os.environ.get(PASSWORD)
        self.name = f"{kind}://{self.host}:{self.port}/{self.topic}"
        self._client: Client | None = None

    def open(self) -> None:
        """Connect, so that a wrong name or password is said at once."""
        self._connect()

    def send(self, messages: Sequence[Message]) -> None:
        """Publish them."""
        if self._client is not None and not self._client.is_connected():
            self.close()
        try:
            client = self._client or self._connect()
            for message in messages:
                told = client.publish(self.topic, json.dumps(message.body), qos=1)
                end = time.monotonic() + TIMEOUT
                while not told.is_published() and client.is_connected() and time.monotonic() < end:
                    told.wait_for_publish(0.2)  # a broker that goes away confirms nothing any more
                if not told.is_published():
                    raise OkngError("the broker does not confirm")
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Take leave of the broker."""
        client, self._client = self._client, None
        if client is not None:
            client.disconnect()
            client.loop_stop()

    def _connect(self) -> Client:
        client = Client(CallbackAPIVersion.VERSION2, reconnect_on_failure=False)
        if self.user is not None:
            client.username_pw_set(self.user, self.password)
        if self.secure:
            client.tls_set()
        answered = threading.Event()
        answer: list[Any] = []

        def on_connect(client: Client, data: Any, flags: Any, reason: Any, properties: Any) -> None:
            answer.append(reason)
            answered.set()

        client.on_connect = on_connect
        client.connect_timeout = TIMEOUT
        client.connect(self.host, self.port, keepalive=20)
        client.loop_start()
        self._client = client
        if not answered.wait(TIMEOUT) or answer[0].is_failure:
            self.close()
            raise OkngError(f"the broker refuses: {answer[0]}" if answer else "the broker does not answer")
        return client
