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
from okng.detectors.catalogue import CATALOGUE, create, name_of, parameters
from okng.inspection.images import Preprocess
from okng.training.data import TrainingImages
from okng.training.phases import run_phases

SIDE = 64
# Paper-size defaults take hours; these are the same classes with smaller arguments. A detector that is not named here
# runs with its defaults and, where it has them, the arguments of ANY.
ANY = {"epochs": 2, "batch_size": 4}
STYLE: dict[str, object] = {
    "width": 8, "code": 8, "teacher_epochs": 15, "teacher_batch_size": 4, "teacher_learning_rate": 2e-3,
    "filters": 4, "groups": 2, "attention_grid": 8, "epochs": 3, "learning_rate": 2e-3,
}  # fmt: skip
SMALL: dict[str, dict[str, object]] = {
    "aesc": {"width": 8, "epochs": 40, "learning_rate": 0.005},
    "anogan": {"width": 8, "latent": 16, "epochs": 20, "learning_rate": 1e-3, "steps": 40, "search_rate": 0.1},
    "attention_ocgan": {
        "width": 8,
        "visual_width": 4,
        "classifier_width": 8,
        "epochs": 14,
        "dropout": 0.0,
        "learning_rate": 2e-3,
    },
    "autoencoder": {"width": 8, "code": 8},
    "cavga_u": {"width": 8, "latent": 8, "epochs": 40, "learning_rate": 2e-3},
    "cavga_w": {"width": 8, "latent": 8, "epochs": 40, "learning_rate": 2e-3},
    "denoising_autoencoder": {"width": 8, "code": 8},
    "f_anogan": {
        "width": 4,
        "latent": 16,
        "kappa": 0.1,
        "epochs": 5,
        "learning_rate": 1e-3,
        "critic_steps": 1,
        "encoder_epochs": 10,
        "encoder_learning_rate": 1e-3,
    },
    "gan": {"width": 8, "latent": 16, "epochs": 20, "learning_rate": 5e-4},
    "ocgan": {
        "width": 8,
        "visual_width": 4,
        "classifier_width": 8,
        "epochs": 30,
        "dropout": 0.0,
        "learning_rate": 2e-3,
    },
    "oe_sdn": STYLE,
    "padim": {"dimensions": 20},
    "patch_memory": {"coreset": 0.2},
    "patchcore": {"coreset": 0.2},
    "sdn": STYLE,
    "ssim_autoencoder": {"width": 4, "code": 8, "epochs": 20, "learning_rate": 2e-3},
    "stfpm": {"epochs": 12},
    "vae": {"width": 8, "code": 8, "samples": 4},
    "vgg11": {"width": 8, "epochs": 12},
}


def documented_example() -> type[Detector]:
    """The detector that CONTRIBUTING.md shows, imported from a file as anyone's would be."""
    text = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text()
    shown = re.search(r"^ *```python\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE)
    assert shown is not None
    path = Path(_folder.name) / "example_of_contributing.py"
    path.write_text(textwrap.dedent(shown[1]))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    sys.modules[path.stem] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: type[Detector] = module.Mean
    return found


_folder = tempfile.TemporaryDirectory()  # as long as the tests run
EXAMPLE = documented_example()
NAMES = [*sorted(CATALOGUE), name_of(EXAMPLE)]
# Grad-CAM explains all but these, for the reason that is said.
UNEXPLAINED = {
    "anogan": "anogan's score has no gradient from a convolution",  # the search ends detached
    name_of(EXAMPLE): "has no convolution",
}
# A fit diverges at any absurd rate but these, of searches for codes, which are kept within bounds.
HARMLESS_RATES = {("anogan", "search_rate"), ("attention_ocgan", "mining_rate"), ("ocgan", "mining_rate")}


def arguments_of(name: str) -> dict[str, object]:
    known = parameters(name)
    shaped = {"image_size": (SIDE, SIDE), "channels": 3}
    return {key: value for key, value in {**ANY, **shaped, **SMALL.get(name, {})}.items() if key in known}


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
    images: TrainingImages


@pytest.fixture(scope="session")
def ok_images() -> np.ndarray:
    return pictures(12, seed=1)


@pytest.fixture(scope="session", params=NAMES)
def fitted(request: pytest.FixtureRequest, ok_images: np.ndarray) -> Fitted:
    """Each detector, fitted once for all the rules."""
    detector = small(request.param)
    before = {name: tensor.clone() for name, tensor in detector.state_dict().items()}
    images = training_images(detector, ok_images, pictures(6, seed=5, defect=True))
    run_phases(detector, images, seed=0, device="cpu")
    return Fitted(request.param, detector, before, images)
