"""The lab's engine: CUDA's float32 keeps its 24 bits while a detector learns and judges, and only then."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from tests.contract.conftest import pictures
from torch import Tensor

import okng
from okng.detectors import engine
from okng.detectors.base import Batch, Collect, Detector, Scores
from okng.detectors.engine import TorchEngine, full_float32
from okng.errors import NoMemory, OkngError
from okng.training.loop import phases

CUDA = torch.device("cuda")  # its switches are there without one, too

if not hasattr(torch.backends.cudnn, "conv"):
    pytest.skip("this torch has one switch for each of CUDA's libraries", allow_module_level=True)

SWITCHES = (torch.backends.cuda.matmul, torch.backends.cudnn.conv, torch.backends.cudnn.rnn)
OFF = ["ieee"] * 3


def switches() -> list[str]:
    return [part.fp32_precision for part in SWITCHES]


def by_product(value: str) -> None:
    torch.backends.cuda.matmul.fp32_precision = value


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    before, products = switches(), torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(products)
    for part, value in zip(SWITCHES, before, strict=True):
        part.fp32_precision = value


@pytest.mark.parametrize(
    ("ask", "asked"),
    [
        (lambda: None, "none"),
        (lambda: torch.set_float32_matmul_precision("high"), "tf32"),
        (lambda: torch.set_float32_matmul_precision("medium"), "tf32"),
        (lambda: by_product("tf32"), "tf32"),
    ],
    ids=["nothing", "high", "medium", "by the product"],
)
def test_products_and_convolutions_are_whole_within_and_as_the_program_asked_after(
    ask: Callable[[], None], asked: str
) -> None:
    by_product("none")
    ask()
    before = switches()
    assert before == [asked, "tf32", "tf32"]
    with pytest.raises(RuntimeError, match="on the way"), full_float32(CUDA):
        assert switches() == OFF
        raise RuntimeError("on the way")
    assert switches() == before
    with full_float32(torch.device("cpu")):
        assert switches() == before


def test_after_it_torch_still_says_what_the_program_asked_for() -> None:
    """It refuses to where two of its switches contradict each other."""
    torch.set_float32_matmul_precision("medium")
    with full_float32(CUDA):
        pass
    assert torch.get_float32_matmul_precision() == "medium" and torch.backends.cuda.matmul.allow_tf32


def test_of_blocks_that_overlap_the_last_puts_back() -> None:
    """As of two threads, each of which is in the middle of a call."""
    torch.set_float32_matmul_precision("high")
    before, one, other = switches(), full_float32(CUDA), full_float32(CUDA)
    one.__enter__()
    other.__enter__()
    one.__exit__(None, None, None)
    assert switches() == OFF
    other.__exit__(None, None, None)
    assert switches() == before


def test_a_fit_and_its_engine_are_within(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []

    class Watching(Detector):
        """Sees the switches while it learns and while it judges."""

        def phases(self) -> Iterator[Collect]:
            def visit(batch: Batch) -> None:
                seen.append(switches())

            yield Collect("seeing", visit, lambda: None)

        def forward(self, images: Tensor) -> Scores:
            seen.append(switches())
            return Scores(images.mean((1, 2, 3)))

    def as_on_cuda(device: torch.device) -> Any:
        return full_float32(CUDA)

    for module in (engine, phases):
        monkeypatch.setattr(module, "full_float32", as_on_cuda)
    torch.set_float32_matmul_precision("high")
    before = switches()
    okng.fit(pictures(4, seed=1), Watching, size=32, holdout=0.5, device="cpu")
    assert len(seen) >= 2 and all(each == OFF for each in seen)
    assert switches() == before


def test_a_file_that_memory_lacks_for_is_not_said_to_be_of_another_okng(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    okng.fit(pictures(8, seed=1), "patchcore", weights="none", size=32, device="cpu").save(tmp_path / "parts.okng")
    for error, said in (
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), "can't allocate memory"),
        (MemoryError(), "MemoryError"),
    ):
        monkeypatch.setattr(Detector, "load_tensors", Mock(side_effect=error))
        with pytest.raises(NoMemory, match=rf"not enough memory to open .*parts.okng \(.*{said}.*free some"):
            okng.load(tmp_path / "parts.okng")
    monkeypatch.setattr(Detector, "load_tensors", Mock(side_effect=RuntimeError("size mismatch")))
    with pytest.raises(OkngError, match="does not fit this okng's patchcore"):
        okng.load(tmp_path / "parts.okng")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_product_there_is_what_float64_gives() -> None:
    """With 11 bits it is off by 3e-4 of the largest."""

    class Product(Detector):
        """A product with a fixed matrix."""

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("matrix", torch.randn(768, 512, generator=torch.Generator().manual_seed(0)))

        def forward(self, images: Tensor) -> Scores:
            return Scores((images.flatten(1).to(self.matrix) @ self.matrix).amax(1))

    torch.set_float32_matmul_precision("high")
    pixels = np.random.default_rng(0).integers(0, 256, (64, 16, 16, 3), np.uint8)
    product = Product()
    found = TorchEngine(product, "cuda")(pixels)[0]
    wanted = TorchEngine(product.double(), "cpu")(pixels)[0]
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
