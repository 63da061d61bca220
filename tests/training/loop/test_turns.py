from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Event

import numpy as np
import pytest
import torch
from tests.contract.conftest import pictures

import okng
from okng.training.loop.turns import one_at_a_time
from okng.training.progress import Narrator


def scores_of_a_fit(seed: int) -> list[float]:
    arguments = {"width": 4, "code": 4, "epochs": 2}
    inspector = okng.fit(pictures(8, seed=1), "autoencoder", seed=seed, holdout=0.25, device="cpu", **arguments)
    return [*inspector.score_samples(pictures(2, seed=2)).tolist(), *inspector.calibration.scores.tolist()]


def test_the_seed_decides_in_threads_too() -> None:
    """Whatever other fits run in the process at the time, and models are built for files that are loaded."""
    alone = [scores_of_a_fit(seed) for seed in range(3)]
    assert alone[0] != alone[1]
    together = Barrier(3)

    def fit(seed: int) -> list[float]:
        together.wait()
        return scores_of_a_fit(seed)

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(fit, range(3))) == alone


def test_the_callers_generator_is_left_as_it_was() -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    inspector = okng.fit(pictures(6, seed=1), "padim", weights="none", dimensions=8, size=32, device="cpu")
    okng.update(inspector, pictures(3, seed=2), device="cpu")
    assert torch.equal(torch.rand(3), expected)


def test_who_waits_is_told_and_a_failure_ends_the_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    told, begun, done = Event(), Event(), []

    class Listener(Narrator):
        def say(self, text: str) -> None:
            said.append(text)
            told.set()

    @one_at_a_time
    def first() -> None:
        begun.set()
        assert told.wait(10)
        done.append("first")
        raise KeyError("on the way")

    @one_at_a_time
    def second(tell: Narrator) -> None:
        done.append("second")

    with ThreadPoolExecutor(2) as pool:
        failing = pool.submit(first)
        assert begun.wait(10)
        pool.submit(second, tell=Listener(quiet=True)).result(10)
        with pytest.raises(KeyError):
            failing.result(10)
    assert done == ["first", "second"] and len(said) == 1 and "another fit is running" in said[0]


def test_a_fit_within_a_turn_does_not_wait_for_itself() -> None:
    @one_at_a_time
    def outer() -> int:
        return inner()

    @one_at_a_time
    def inner() -> int:
        torch.manual_seed(1)
        return 3

    state = torch.get_rng_state()
    assert outer() == 3 and np.array_equal(torch.get_rng_state(), state)
