"""Standard output, one JSON object a line."""

from __future__ import annotations

import json
from collections.abc import Sequence

from okng.errors import OkngError
from okng.line.sinks import Message


class Jsonl:
    """Each message as one line on standard output, written through at once."""

    batch, patience = 1, 0.0

    def __init__(self, kind: str, where: str):
        if where:
            raise OkngError("jsonl goes to standard output and takes no file; write: --to jsonl > FILE")
        self.name = kind

    def open(self) -> None:
        """It is open already."""

    def send(self, messages: Sequence[Message]) -> None:
        """Print them."""
        for message in messages:
            print(json.dumps(message.body), flush=True)

    def close(self) -> None:
        """It stays open."""
