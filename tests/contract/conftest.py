"""One small real-shaped problem for every detector of the catalogue."""

from __future__ import annotations

import importlib.util
import re
import sys
import tempfile
import textwrap
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from okng.detectors.base import Detector
from okng.detectors.cards import Card, cards, read_cards
from okng.detectors.catalogue import create, name_of, parameters
from okng.inspection.reading.images import Preprocess
from okng.training.images.data import TrainingImages
from okng.training.loop.phases import run_phases

SIDE = 64
ANY = {"epochs": 2, "batch_size": 4}  # for a detector that has them, where its card says nothing else


def documented(language: str) -> str:
    """The one example in such a language that CONTRIBUTING.md shows."""
    text = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text()
    (shown,) = re.findall(rf"^ *```{language}\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE)
    return textwrap.dedent(shown)


def documented_example() -> tuple[type[Detector], Card]:
    """The detector that CONTRIBUTING.md shows, imported from a file as anyone's would be, and the card shown of it."""
    path = Path(_folder.name) / "example_of_contributing.py"
    path.write_text(documented("python"))
    path.with_name("cards.toml").write_text(documented("toml"))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    sys.modules[path.stem] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: type[Detector] = module.Mean
    return found, read_cards(path.with_name("cards.toml"))["mean"]


_folder = tempfile.TemporaryDirectory()  # as long as the tests run
EXAMPLE, _card = documented_example()
CARDS = {**cards(), name_of(EXAMPLE): _card}


def arguments_of(name: str) -> dict[str, object]:
    known = parameters(name)
    given = {**ANY, "image_size": (SIDE, SIDE), "channels": 3}
    return {**{key: value for key, value in given.items() if key in known}, **CARDS[name].arguments["contract"]}


def small(name: str, seed: int = 0) -> Detector:
    torch.manual_seed(seed)
    return create(name, **arguments_of(name))


def pictures(count: int, seed: int, defect: bool = False) -> np.ndarray:
    """uint8 (count, SIDE, SIDE, 3): a disc on a striped ground, a little different each time; `defect` scratches it."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE]
    made = []
    for _ in range(count):
        stripes = 110 + 25 * np.sin(x / 3 + rng.uniform(0, 0.5))
        disc = (x - 32 + rng.uniform(-1, 1)) ** 2 + (y - 32 + rng.uniform(-1, 1)) ** 2 < 18**2
        image = np.where(disc, 200, stripes)[..., None] * np.array([1.0, 0.9, 0.8])
        if defect:
            at = rng.integers(14, 40)
            image[at : at + 10, at : at + 14] = [20, 20, 230]
        made.append(np.clip(image + rng.normal(0, 4, image.shape), 0, 255).astype(np.uint8))
    return np.stack(made)


def other_pictures(count: int, seed: int) -> np.ndarray:
    """uint8 (count, SIDE, SIDE, 3): pictures of another kind, a cross on a chequered ground, as bright and coloured."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE]
    made = []
    for _ in range(count):
        ground = 110 + 25 * np.sin(x / 3 + rng.uniform(0, 0.5)) * np.sign(np.sin(y / 3 + rng.uniform(0, 0.5)))
        across, down = (np.abs(at - 32 + rng.uniform(-1, 1)) for at in (x, y))
        cross = (np.minimum(across, down) < 6) & (np.maximum(across, down) < 25)
        image = np.where(cross, 200, ground)[..., None] * np.array([1.0, 0.9, 0.8])
        made.append(np.clip(image + rng.normal(0, 4, image.shape), 0, 255).astype(np.uint8))
    return np.stack(made)


def odd_pictures(name: str, count: int, seed: int) -> np.ndarray:
    """`count` pictures of each kind of oddness that the detector finds, as its card says."""
    defects, others = pictures(count, seed, defect=True), other_pictures(count, seed)
    return {"defects": defects, "classes": others, "both": np.concatenate([defects, others])}[CARDS[name].finds]


def training_images(detector: Detector, ok: np.ndarray, ng: np.ndarray, size: object = (SIDE, SIDE)) -> TrainingImages:
    """What `detector` learns from: `ok`, and where it needs them `ng` too."""
    odd = list(ng) if detector.needs_ng else []
    preprocess = Preprocess("RGB", size, detector.multiple)  # type: ignore[arg-type]
    return TrainingImages([*ok, *odd], preprocess, labels=[0] * len(ok) + [1] * len(odd))


@dataclass
class Fitted:
    name: str
    detector: Detector
    before: dict[str, torch.Tensor]


@pytest.fixture(scope="session")
def ok_images() -> np.ndarray:
    return pictures(12, seed=1)


@pytest.fixture(scope="session", params=CARDS)
def fitted(request: pytest.FixtureRequest, ok_images: np.ndarray) -> Fitted:
    """Each detector, fitted once for all the rules."""
    detector = small(request.param)
    before = {name: tensor.clone() for name, tensor in detector.state_dict().items()}
    images = training_images(detector, ok_images, odd_pictures(request.param, 6, seed=5))
    run_phases(detector, images, seed=0, device="cpu")
    return Fitted(request.param, detector, before)
