"""Images that are named by a path: only below the folders that were allowed, whatever links and dots say."""

from __future__ import annotations

from pathlib import Path

from okng.errors import OkngError
from okng.inspection.reading.files import find_images
from okng.inspection.reading.formats import state_of
from okng.serve.settings import MB, Settings


def below(settings: Settings, name: str) -> Path:
    """The real file or folder that `name` means: a path below an allowed folder, or one relative to it.

    Links are followed before it is looked where it lies. What lies elsewhere and what isn't there get the same answer,
    so that nobody learns which files there are.
    """
    refused = OkngError("there is no such image below the folders that --folder allows")
    if not settings.folders:
        raise OkngError("the server takes no paths; start it with --folder, or send the image itself")
    for folder in settings.folders:
        root = folder.resolve()
        try:
            found = (root / name).resolve(strict=True)
        except (OSError, ValueError, RuntimeError):
            continue
        if allowed(settings, found):
            return found
    raise refused


def allowed(settings: Settings, path: Path) -> bool:
    """Whether a file or folder, its links followed, lies below an allowed folder."""
    real = path.resolve()
    return any(real == root or root in real.parents for root in (folder.resolve() for folder in settings.folders))


def folder_below(settings: Settings, name: str) -> Path:
    """As `below`, of a folder of images to learn from: no file, as a list of paths is, and no link leads out."""
    found = below(settings, name)
    if not found.is_dir():
        raise OkngError(f"{name} is a file; give a folder of OK images")
    if any(not allowed(settings, image) for image in find_images(found)):
        raise OkngError(f"{name} holds links to images elsewhere than below the folders that --folder allows")
    return found


def size_of(path: Path) -> int:
    """Bytes of a file; none of one that is gone."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def read(settings: Settings, name: str) -> tuple[bytes, str]:
    """The bytes of an image below an allowed folder, and its name."""
    path = below(settings, name)
    try:
        if path.is_dir():
            raise OkngError(f"{name} is a folder; a batch takes folders")
        if state_of(path).st_size > settings.max_mb * MB:
            raise OkngError(f"{name} is larger than {settings.max_mb:g} MB")
        return path.read_bytes(), name
    except OSError as error:
        raise OkngError(f"{name} can't be read: {error.strerror or error}") from error
