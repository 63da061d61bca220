"""The rules every detector of the catalogue keeps (docs/architecture.md, section 2)."""

from __future__ import annotations

import copy
import inspect
import math
import pickle
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from okng.detectors.base import Collect, Detector, Scores, Train
from okng.detectors.catalogue import create, detector_class, explanations, parameters
from okng.detectors.engine import TorchEngine, load_torch, rebuild
from okng.detectors.explanation import GradCAMEngine
from okng.errors import OkngError
from okng.inspection.inspector import Inspector
from okng.inspection.model_file import read_model, write_model
from okng.inspection.reading.images import Preprocess
from okng.inspection.verdict.calibration import Calibration
from okng.training.images.data import TrainingImages
from okng.training.loop import checkpoint
from okng.training.loop.feed import parts_of
from okng.training.loop.phases import run_phases

from .conftest import (
    CARDS,
    SIDE,
    Fitted,
    arguments_of,
    odd_pictures,
    pictures,
    small,
    training_images,
)


def as_tensor(images: np.ndarray) -> Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255


def score(fitted: Fitted, images: np.ndarray) -> Scores:
    with torch.no_grad():
        return fitted.detector(as_tensor(images))


@pytest.fixture(scope="session")
def unseen(fitted: Fitted) -> np.ndarray:
    """Three OK images, then three of each kind that the detector finds odd."""
    return np.concatenate([pictures(3, seed=2), odd_pictures(fitted.name, 3, seed=3)])


def shapes_of(detector: Detector) -> dict[str, torch.Size]:
    """Of its weights."""
    return {name: parameter.shape for name, parameter in detector.named_parameters()}


def brief(name: str, seed: int = 0, **arguments: object) -> Detector:
    """Two epochs of every phase."""
    torch.manual_seed(seed)
    epochs = {key: 2 for key in parameters(name) if key.endswith("epochs")}
    return create(name, **{**arguments_of(name), **epochs, **arguments})


@pytest.fixture(scope="session")
def briefly_fitted(fitted: Fitted) -> tuple[Detector, TrainingImages]:
    """Another detector of the same kind after a brief fit, and what it learnt from."""
    images = training_images(fitted.detector, pictures(6, seed=6), pictures(2, seed=7, defect=True))
    detector = brief(fitted.name)
    run_phases(detector, images, device="cpu")
    return detector, images


class Dies(Exception):
    """What a fit that is killed raises here."""


@pytest.fixture(scope="session")
def killed_and_resumed(
    fitted: Fitted, briefly_fitted: tuple[Detector, TrainingImages], tmp_path_factory: pytest.TempPathFactory
) -> Detector:
    """A second detector after the same brief fit, which was killed after every checkpoint."""
    path = tmp_path_factory.mktemp("killed") / "c"

    def write_and_die(*what: Any) -> None:
        write_model(*what)
        raise Dies

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(checkpoint, "write_model", write_and_die)
        for life in range(100):
            resumed = brief(fitted.name, seed=life)  # what the checkpoint holds must win
            try:
                run_phases(resumed, briefly_fitted[1], device="cpu", checkpoint=path, resume=True)
                break
            except Dies:
                continue
    assert life > 0
    return resumed


def test_scores_are_finite_and_shaped(fitted: Fitted, unseen: np.ndarray) -> None:
    scores = score(fitted, unseen)
    assert scores.image.shape == (len(unseen),) and torch.isfinite(scores.image).all()
    assert CARDS[fitted.name].localizes == (scores.map is not None)
    if scores.map is not None:
        assert scores.map.ndim == 3 and len(scores.map) == len(unseen) and torch.isfinite(scores.map).all()


def test_a_flat_image_scores_finitely(fitted: Fitted) -> None:
    flat = np.stack([np.zeros((SIDE, SIDE, 3), np.uint8), np.full((SIDE, SIDE, 3), 255, np.uint8)])
    scores = score(fitted, flat)
    assert torch.isfinite(scores.image).all() and (scores.map is None or torch.isfinite(scores.map).all())


def test_what_it_finds_scores_higher(fitted: Fitted, unseen: np.ndarray) -> None:
    scores = score(fitted, unseen).image
    assert scores[3:].min() > scores[:3].max()


def test_a_score_does_not_depend_on_the_batch(fitted: Fitted, unseen: np.ndarray) -> None:
    together = score(fitted, unseen)
    for i in (0, 4):
        alone = score(fitted, unseen[i : i + 1])
        torch.testing.assert_close(alone.image[0], together.image[i], rtol=1e-4, atol=1e-6)
        if together.map is not None and alone.map is not None:
            scale = float(together.map[i].abs().max())
            torch.testing.assert_close(alone.map[0], together.map[i], rtol=1e-3, atol=1e-3 * scale)


def test_grad_cam_explains_it_or_says_why_not(fitted: Fitted, unseen: np.ndarray) -> None:
    """Which of the two is known; and explaining changes no score."""
    if reason := CARDS[fitted.name].unexplained:
        with pytest.raises(OkngError, match=f"{reason}, so Grad-CAM can't explain it"):
            GradCAMEngine(fitted.detector, None)(unseen[2:4])
        return
    scores, maps = GradCAMEngine(fitted.detector, None)(unseen[2:4])
    np.testing.assert_allclose(scores, TorchEngine(fitted.detector)(unseen[2:4])[0], rtol=1e-4, atol=1e-6)
    assert maps is not None and maps.ndim == 3 and maps[0].size > 1 and maps.min() >= 0 and np.isfinite(maps).all()


def test_what_only_collects_says_so(fitted: Fitted) -> None:
    """Or a detector that trains would be fitted six times where a split would do."""
    if fitted.detector.collects_only:
        phases = list(fitted.detector.phases())
        assert phases and all(isinstance(phase, Collect) and phase.prepare is not None for phase in phases)
    else:
        assert fitted.name not in ("patch_memory", "patchcore", "padim")


def test_what_folds_share_depends_on_nothing_learnt_nor_on_the_batch(fitted: Fitted, unseen: np.ndarray) -> None:
    """What the first fold's detector `prepare`s of an image is what all others learn from."""
    if not fitted.detector.collects_only:
        return
    images = as_tensor(unseen)
    with torch.no_grad():
        for one, other in zip(fitted.detector.phases(), small(fitted.name).phases(), strict=True):
            assert one.prepare is not None and other.prepare is not None
            together, alone = parts_of(one.prepare(images)), parts_of(other.prepare(images[4:5]))
            for part, expected in zip(together, alone, strict=True):
                torch.testing.assert_close(part[4:5], expected, rtol=1e-3, atol=1e-4)


def test_threads_are_told_what_one_alone_is(fitted: Fitted, unseen: np.ndarray) -> None:
    """Scores, maps and explanations, to the last digit, of an engine that all threads share."""
    engines: list[Any] = [TorchEngine(fitted.detector)]
    if not CARDS[fitted.name].unexplained:
        engines.append(GradCAMEngine(fitted.detector, None))
    images = unseen[2:5]
    alone = [[engine(image[None]) for image in images] for engine in engines]

    def score_all(first: int) -> None:
        together.wait()
        for i in (*range(first, len(images)), *range(first)):
            for engine, expected in zip(engines, alone, strict=True):
                for found, wanted in zip(engine(images[i : i + 1]), expected[i], strict=True):
                    assert np.array_equal(found, wanted)

    together = Barrier(3)
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(score_all, range(3)))


def test_it_is_pickled_and_copied(fitted: Fitted, unseen: np.ndarray) -> None:
    """In memory, for other processes; a model file never is a pickle."""
    engine, images = TorchEngine(fitted.detector), unseen[2:4]
    scores, maps = engine(images)
    for other in (pickle.loads(pickle.dumps(engine)), copy.deepcopy(engine)):
        found = other(images)
        assert other.detector is not fitted.detector and np.array_equal(found[0], scores)
        assert np.array_equal(found[1], maps) if maps is not None else found[1] is None


def test_loading_draws_no_numbers(fitted: Fitted) -> None:
    """Or the seed of a fit in another thread would no longer decide."""
    before = torch.get_rng_state()
    rebuild(fitted.name, fitted.detector.arguments)
    assert torch.equal(torch.get_rng_state(), before)


def test_fitting_again_gives_the_same(
    briefly_fitted: tuple[Detector, TrainingImages], killed_and_resumed: Detector, unseen: np.ndarray
) -> None:
    """Though the second fit was killed, so what decides a score has all come through the checkpoints."""
    with torch.no_grad():
        scores = [detector(as_tensor(unseen)).image for detector in (killed_and_resumed, briefly_fitted[0])]
    torch.testing.assert_close(*scores, rtol=1e-5, atol=1e-7)


@pytest.mark.slow  # most processors have no bf16 and imitate it
def test_at_half_precision_it_learns_and_judges_in_full(fitted: Fitted, unseen: np.ndarray) -> None:
    detector = brief(fitted.name, **({"epochs": 1} if "epochs" in parameters(fitted.name) else {}))
    images = training_images(detector, pictures(6, seed=6), pictures(2, seed=7, defect=True))
    run_phases(detector, images, device="cpu", precision="bf16")
    assert {name: tensor.dtype for name, tensor in detector.state_dict().items()} == {
        name: tensor.dtype for name, tensor in fitted.detector.state_dict().items()
    }
    assert np.isfinite(TorchEngine(detector)(unseen)[0]).all()


def test_save_and_load_are_exact(fitted: Fitted, unseen: np.ndarray, tmp_path: Path) -> None:
    calibration = Calibration.fit(np.arange(20.0), np.arange(20.0), "split", 0.05)
    manifest = {"detector": {"name": fitted.name, "arguments": fitted.detector.arguments}}
    preprocess = Preprocess("RGB", (SIDE, SIDE), fitted.detector.multiple)
    inspector = Inspector(TorchEngine(fitted.detector), preprocess, calibration, manifest)
    inspector.save(tmp_path / "parts.okng")
    loaded = load_torch(tmp_path / "parts.okng", *read_model(tmp_path / "parts.okng"))
    for before, after in zip(inspector.inspect(unseen), loaded.inspect(unseen), strict=True):
        assert before.score == after.score
        assert (before.map is None) == (after.map is None)
        assert before.map is None or np.array_equal(before.map, after.map)
    assert loaded.engine.detector.arguments == fitted.detector.arguments  # type: ignore[attr-defined]


def test_only_what_a_phase_trains_moves(fitted: Fitted) -> None:
    """Parameters outside every phase's optimisers are bit for bit what they were, and so are the running statistics
    beside them: a frozen network is in eval mode while others learn.
    """
    probe = copy.deepcopy(fitted.detector)
    trained: set[int] = set()
    training: set[int] = set()
    for phase in probe.phases():
        if isinstance(phase, Train):
            training |= {id(module) for trains in phase.trains for module in trains.modules()}
            for update in phase.updates:
                trained |= {id(p) for group in update.optimizer.param_groups for p in group["params"]}
    for name, parameter in probe.named_parameters():
        moved = not torch.equal(dict(fitted.detector.named_parameters())[name], fitted.before[name])
        assert not moved or id(parameter) in trained, f"{name} moved, and no phase trains it"
        if id(parameter) in trained:
            assert parameter.requires_grad, f"{name} is in an optimiser but frozen"
    for name, module in probe.named_modules():
        own = {id(p) for p in module.parameters()}
        learns = bool(trained & own) or (not own and id(module) in training)  # without weights it goes by its network
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm) and not learns:
            for key, value in fitted.detector.get_submodule(name).state_dict().items():
                assert torch.equal(value, fitted.before[f"{name}.{key}"]), f"{name}.{key} moved in a frozen network"
    assert not any(module.training for module in fitted.detector.modules())


def test_phases_are_phases(fitted: Fitted) -> None:
    found = list(copy.deepcopy(fitted.detector).phases())
    assert found and all(isinstance(phase, Collect | Train) and phase.name for phase in found)


def test_state_is_plain_tensors(fitted: Fitted) -> None:
    for tensor in fitted.detector.state_dict().values():
        assert isinstance(tensor, Tensor) and tensor.dtype in (
            torch.float32,
            torch.float16,
            torch.int64,
            torch.uint8,
            torch.bool,
        )


def test_fitting_draws_no_numpy_or_python_randomness(fitted: Fitted) -> None:
    """All draws come from torch's generator, which the runner seeds for every epoch; resuming rests on it."""
    source = Path(inspect.getfile(type(fitted.detector))).read_text()
    assert "import random" not in source and "np.random" not in source and "pickle" not in source


@pytest.mark.parametrize("name", CARDS)
def test_every_argument_is_typed_documented_and_checked(name: str) -> None:
    documented = inspect.getdoc(detector_class(name)) or ""
    for key, parameter in parameters(name).items():
        assert parameter.annotation is not inspect.Parameter.empty, key
        assert parameter.default is not inspect.Parameter.empty, key
        assert f"`{key}`" in documented, f"{name} does not say what {key} is"
        assert key in ("image_size", "channels") or len(explanations(name)[key]) >= 8, f"{name}: nothing said of {key}"
    with pytest.raises(OkngError, match="has no parameter"):
        create(name, colour="red")
    for first in list(parameters(name))[:1]:  # a method may have none
        with pytest.raises(OkngError, match=f"{first} (takes|is) .*, not <object"):
            create(name, **{first: object()})


@pytest.mark.parametrize("name", CARDS)
def test_a_senseless_argument_is_one_line_that_names_it(name: str) -> None:
    known = parameters(name)
    never_zero = ("epochs", "batch_size", "rate", "width", "code", "latent")
    senseless: list[tuple[str, object]] = [(key, -1) for key in known]
    senseless += [(key, 0) for key in known if key.endswith(never_zero)]
    senseless += [(key, value) for key, value in (("image_size", (5, 64)), ("channels", 2)) if key in known]
    senseless += [(key, value) for key in known if known[key].annotation is float for value in (math.nan, math.inf)]
    for key, value in senseless:
        with pytest.raises(OkngError) as raised:
            create(name, **{key: value})
        assert re.fullmatch(rf"{name}: .*\b{key}\b.*", str(raised.value)), str(raised.value)


def test_killed_after_every_checkpoint_it_ends_the_same(
    briefly_fitted: tuple[Detector, TrainingImages], killed_and_resumed: Detector
) -> None:
    for name, tensor in briefly_fitted[0].state_dict().items():
        assert torch.equal(tensor, killed_and_resumed.state_dict()[name]), name


@pytest.mark.parametrize(
    ("name", "rate"), [(name, key) for name in CARDS for key in parameters(name) if key.endswith("_rate")]
)
def test_no_fit_ends_in_scores_that_are_no_numbers(name: str, rate: str) -> None:
    """At an absurd rate it says that it diverged, unless it is known to bear it."""
    detector = brief(name, **{rate: 1e30})
    images = training_images(detector, pictures(6, seed=6), pictures(2, seed=7))
    if rate not in CARDS[name].harmless_rates:
        with pytest.raises(OkngError, match=r"diverged.*smaller learning rate"):
            run_phases(detector, images, device="cpu")
        return
    run_phases(detector, images, device="cpu")
    with torch.no_grad():
        assert torch.isfinite(detector(as_tensor(pictures(2, seed=8))).image).all()


@pytest.mark.parametrize("name", CARDS)
def test_the_card_says_what_it_learns_from_and_whether_it_learns_more(name: str) -> None:
    kind = detector_class(name)
    assert ("NG" in CARDS[name].labels) == kind.needs_ng
    assert ("--auxiliary" in CARDS[name].labels) == kind.takes_auxiliary
    assert CARDS[name].updates == (kind.update_phases is not Detector.update_phases)


@pytest.mark.slow  # the paper's budget takes its step in tests/detectors/test_budgets.py
@pytest.mark.parametrize("name", CARDS)
def test_paper_size_defaults_run_one_step(name: str) -> None:
    """The defaults are the paper's; one batch of two images goes through every phase of them, and one is scored.

    Smaller images go through the same layers where no weight's shape follows from the image's.
    """
    torch.manual_seed(0)
    once: dict[str, Any] = {key: 1 for key in parameters(name) if key.endswith("epochs")}
    once |= {key: 2 for key in parameters(name) if key == "steps"}  # of a search for each image that is scored
    once |= {"channels": 3} if "channels" in parameters(name) else {}
    if name == "winclip":  # whose weights are brought along, and whose windows are 365 passes
        once |= {"weights": "none", "image_size": (48, 48)}
    if name == "rkde":  # whose weights are brought along, too
        once |= {"weights": "none"}
    detector = create(name, **once)
    usual = 2 * SIDE if name in ("csflow", "differnet") else SIDE  # which halve images twice
    side = detector.arguments.get("image_size", (usual, usual))
    if "image_size" in parameters(name) and math.prod(side) > SIDE**2:
        smaller = create(name, **{**once, "image_size": (SIDE, SIDE)})
        if shapes_of(smaller) == shapes_of(detector):
            detector, side = smaller, (SIDE, SIDE)
    images = np.random.default_rng(0).integers(0, 255, (2, *side, 3), np.uint8)
    run_phases(detector, training_images(detector, images, images[:1], side), device="cpu")
    with torch.no_grad():
        assert torch.isfinite(detector(as_tensor(images[:1])).image).all()
