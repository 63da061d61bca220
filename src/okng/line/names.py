"""Names of files, cameras and receivers, as they are shown and stored."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from okng.inspection.reading.formats import printable


def shown(path: Path) -> str:
    """A path as text that any store and any reader takes: odd bytes of a name that is no Unicode are escaped."""
    return printable(os.fsencode(path).decode("utf-8", "backslashreplace"))


def without_password(url: str) -> str:
    """`url` as it may be shown and stored: without user and password, and without a query, which may hold a token."""
    parts = urlsplit(url)
    if not parts.netloc:
        return url
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment=""))
