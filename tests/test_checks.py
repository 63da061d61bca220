"""A wrong argument is named, with what it may be and what it was."""

from __future__ import annotations

import errno
import os

import numpy as np
import pytest
import torch

from okng.checks import at_least, check_input, plain, positive, seconds_of, seed_of, typed
from okng.errors import NoMemory, OkngError, in_one_line, needing_memory, no_device


def message(check: object, *arguments: object, **values: object) -> str:
    with pytest.raises(OkngError) as caught:
        check(*arguments, **values)  # type: ignore[operator]
    return str(caught.value)


def test_input() -> None:
    check_input((16, 200), 1)
    check_input((8, 8), 3, smallest=8)
    assert message(check_input, (64, 15), 3) == "both sides of image_size are 16 or more, not (64, 15)"
    assert message(check_input, (7, 64), 3, smallest=8).endswith("image_size are 8 or more, not (7, 64)")
    assert message(check_input, (16, 16), 2) == "channels is 1 (grey) or 3 (RGB), not 2"


def test_a_time_limit() -> None:
    limits = (None, 2, 0, "90s", "1.5h", "60m", " 3 min ", "7.5")
    assert [seconds_of(limit) for limit in limits] == [None, 120, 0, 90, 5400, 3600, 180, 450]
    assert message(seconds_of, "soon") == "a time limit is such as 60m, 2h or 90s, not 'soon'"


def test_at_least() -> None:
    at_least(1, epochs=1, batch_size=7)
    at_least(0, weight=0.0, steps=0)
    assert message(at_least, 1, epochs=0) == "epochs is 1 or more, not 0"
    assert message(at_least, 0, noise=0.1, weight=-0.5) == "weight is 0 or more, not -0.5"


def test_positive() -> None:
    positive(learning_rate=1e-9, steps=1)
    assert message(positive, learning_rate=0.0) == "learning_rate is above 0, not 0.0"
    assert message(positive, sigma=4, learning_rate=-1) == "learning_rate is above 0, not -1"


def test_plain() -> None:
    for value, wanted in [
        (np.int16(7), 7), (np.float32(0.5), 0.5), (np.bool_(True), True), (np.str_("max"), "max"), (None, None),
        (np.array([8, 16]), (8, 16)), ([np.int64(1), (2.0,)], (1, (2.0,))), (torch.tensor(3), 3),
    ]:  # fmt: skip
        made = plain("x", value)
        assert made == wanted and type(made) is type(wanted)
    assert message(plain, "x", float("inf")) == "x is a finite number, not inf"
    assert message(plain, "x", object).startswith("x is a number, a text or several of them, not <class")


def test_a_seed() -> None:
    seeds = [seed_of(given) for given in (0, np.int64(3), np.uint32(2**32 - 1), torch.tensor(5))]
    assert seeds == [0, 3, 2**32 - 1, 5] and {type(seed) for seed in seeds} == {int}
    for given in (-1, 2**32, 1.0, "1", None, True):
        assert message(seed_of, given).startswith("a seed is from 0 to 4294967295, not ")


def test_typed() -> None:
    values = [((8, 16), "8,16"), ((3,), "3"), ([512, "x"], "512,x"), (True, "true"), (None, "none"), ("Max", "Max")]
    assert all(typed(value) == wanted for value, wanted in values)


def test_an_error_that_begins_with_an_empty_line_or_says_nothing_is_a_line() -> None:
    assert in_one_line(ValueError("\n  the cause\nmore")) == "the cause"
    assert in_one_line(AssertionError()) == in_one_line(AssertionError(" \n")) == "AssertionError"
    assert str(no_device("cuda", AssertionError())) == "can't use the device 'cuda' (AssertionError); take --device cpu"
    assert "(no driver)" in str(no_device("cuda", RuntimeError("no driver.\nSee")))


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(2, "No such file or directory", "out of memory/parts.okng"),
        ImportError("libgomp.so.1: cannot allocate memory in static TLS block"),
        RuntimeError("size mismatch"),
    ],
)
def test_what_only_names_memory_is_no_lack_of_it(error: Exception) -> None:
    """A file may be called anything, and a library that can't be imported needs another cure."""
    with pytest.raises(OkngError, match="first") as caught, needing_memory("open it"):
        raise OkngError("the first said") from error
    assert not isinstance(caught.value, NoMemory)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(errno.ENOMEM, os.strerror(errno.ENOMEM), "parts.okng"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 MiB."),
    ],
)
def test_a_lack_of_memory_is_known_whatever_it_was_taken_for(error: Exception) -> None:
    with pytest.raises(NoMemory, match="not enough memory to open it"), needing_memory("open it"):
        raise OkngError("it does not fit") from error
