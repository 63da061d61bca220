"""HTTP POST to an address, signed so that the receiver knows who sent it and when."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import os
import time
from collections.abc import Sequence
from urllib.parse import urlsplit

import httpx

from okng.errors import OkngError
from okng.line.names import without_password
from okng.line.sinks import Message, Refused

SECRET = "OKNG_WEBHOOK_SECRET"  # of the environment: a command line can be seen by others
TIMEOUT = 10.0  # seconds
PASSING = (408, 425, 429)  # of 4xx: too slow, too early, too many; all others are about the message


def signature(secret: str, told: str, at: int, content: bytes) -> str:
    """The header webhook-signature of the specification Standard Webhooks 1.0: "v1," and an HMAC-SHA256 in base64.

    Signed are id, Unix time and body, with a dot between. A `secret` that begins with whsec_ is base64 behind it.
    """
    if secret.startswith("whsec_"):
        try:
            key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
        except binascii.Error as error:
            raise OkngError(f"what follows whsec_ in {SECRET} is base64; this is not") from error
    else:
        key = secret.encode()
    signed = hmac.new(key, f"{told}.{at}.".encode() + content, hashlib.sha256).digest()
    return "v1," + base64.b64encode(signed).decode()


class Webhook:
    """Each message as the JSON body of a POST; any answer of 2xx takes it, redirects are not followed, 4xx refuse it.

    The headers webhook-id, webhook-timestamp and, with OKNG_WEBHOOK_SECRET in the environment, webhook-signature are
    those of Standard Webhooks, for which most languages have a library that checks them.
    """

    batch, patience = 1, 0.0

    def __init__(self, kind: str, where: str):
        try:
            parts = urlsplit(where)
            httpx.URL(where)
        except (ValueError, httpx.InvalidURL) as error:
            raise OkngError(f"webhook takes an address, webhook:https://…; this is none: {error}") from error
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise OkngError(f"webhook takes an address: webhook:https://…, not {where!r}")
        self.url, self.name = where, f"{kind}:{without_password(where)}"
        self.secret = os.environ.get(SECRET, "")
        if self.secret:
            signature(self.secret, "", 0, b"")  # said now, if it is none
        self.client: httpx.Client | None = None

    def open(self) -> None:
        """Connections are made with the first message and kept."""
        self.client = httpx.Client(timeout=TIMEOUT, headers={"user-agent": "okng"})

    def send(self, messages: Sequence[Message]) -> None:
        """Post them."""
        assert self.client is not None
        for message in messages:
            content, at = json.dumps(message.body).encode(), int(time.time())
            headers = {"content-type": "application/json", "webhook-id": message.id, "webhook-timestamp": str(at)}
            if self.secret:
                headers["webhook-signature"] = signature(self.secret, message.id, at, content)
            answer = self.client.post(self.url, content=content, headers=headers)
            if not answer.is_success:
                refused = answer.is_client_error and answer.status_code not in PASSING
                raise (Refused if refused else OkngError)(f"it answers {answer.status_code} {answer.reason_phrase}")

    def close(self) -> None:
        """Let go of the connections."""
        if self.client is not None:
            self.client.close()
