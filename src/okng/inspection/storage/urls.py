"""Which texts and paths mean something in storage rather than on this machine; `stored.py` reads it."""

from __future__ import annotations

import re
from pathlib import Path, PurePath

PACKAGES = {
    "s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs", "http": "aiohttp", "https": "aiohttp",
    "zip": "fsspec", "tar": "fsspec",
}  # fmt: skip
ARCHIVES = {".zip": "zip", ".tar": "tar", ".tar.gz": "tar", ".tgz": "tar", ".tar.bz2": "tar", ".tar.xz": "tar"}

_SCHEME = re.compile(rf"(^|::)({'|'.join(PACKAGES)}):/{{1,2}}", re.IGNORECASE)
_SECRETS = re.compile(
    r"^(https?://|s3://|gcs?://|gs://)(?:[^/?]*@)?([^?]*)(?:\?.*?)?((?:\[\d+\])?)$", re.IGNORECASE | re.DOTALL
)


def url_of(place: object) -> str | None:
    """The URL that a text or a path is, if it is one of storage; pathlib has made `s3:/bucket` of `s3://bucket`."""
    text = place.as_posix() if isinstance(place, PurePath) else place if isinstance(place, str) else ""
    if ":/" not in text or not _SCHEME.match(text):
        return None
    return _SCHEME.sub(lambda found: f"{found[1]}{found[2].lower()}://", text)


def shown(place: object) -> str:
    """A place as it may be printed and stored: of a URL neither user and password nor what follows a "?" (a signature).

    >>> shown("https://me:secret@plant/a.tif?signature=secret[2]")
    'https://plant/a.tif[2]'
    """
    return "::".join(_SECRETS.sub(r"\1\2\3", part) for part in (url_of(place) or str(place)).split("::"))


def known_as(source: object, place: int) -> str:
    """What a person knows an image by: its folder and file, or its `place` among those given."""
    if not isinstance(source, str | Path):
        return f"image {place}"
    return "/".join(Path(shown(source)).parts[-2:])


def without_secrets(text: str) -> str:
    """A text of other libraries with its URLs as they may be `shown`."""
    return re.sub(r"\b[a-zA-Z0-9]+://[^\s'\"<>]+", lambda found: shown(found[0]), text)


def storage_url(place: object) -> str | None:
    """The URL of what is in storage: `url_of`, and of an archive, wherever it lies, that of its inside."""
    url = url_of(place)
    if not isinstance(place, str | Path) or (url is not None and "::" in url):
        return url
    scheme = archive_scheme(url.partition("?")[0] if url else str(place))  # behind the "?" an address may be signed
    if scheme and (url or Path(place).expanduser().is_file()):
        return f"{scheme}://::{url or Path(place).expanduser()}"
    return url


def is_stream(text: str) -> bool:
    """Whether an http(s) address can only be a stream: it names no image, no archive, and no folder by a last slash."""
    path = text.partition("?")[0]
    return not (path.endswith("/") or archive_scheme(path) or names_image(path))


def names_image(url: str) -> bool:
    """Whether what is at `url` is called as images are."""
    from okng.inspection.reading.files import is_image

    return is_image(name_in(url))


def path_in(url: str) -> str:
    """A URL's path, or that inside an archive; a path as storage lists it stays as it is.

    Only an address has a query behind its "?": in an archive, and in a path, that is a letter of a name.
    """
    own = url.partition("::")[0]
    scheme, found, path = own.partition("://")  # a second "://" is in a query, such as that of a proxy
    if not found:
        return own
    return path if scheme in ("zip", "tar") else path.partition("?")[0]


def name_in(url: str) -> str:
    """The last part of `path_in`."""
    return path_in(url).rstrip("/").rpartition("/")[2]


def archive_scheme(name: str) -> str:
    """The scheme of an archive of this name; "" for none."""
    return next((scheme for suffix, scheme in ARCHIVES.items() if name.lower().endswith(suffix)), "")
