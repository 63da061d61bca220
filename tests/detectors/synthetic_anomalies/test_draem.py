"""What tells DRAEM from a toy: anomalies that change nothing but a blot, wiped off by one network, told by another."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from okng.detectors.base import Batch, Train
from okng.detectors.catalogue import create
from okng.detectors.engine import TorchEngine
from okng.detectors.synthetic_anomalies.draem import DRAEM
from okng.errors import OkngError
from okng.exporting import export_onnx
from okng.inspection.inspector import Inspector
from okng.inspection.reading.images import Preprocess
from okng.inspection.verdict.calibration import Calibration
from okng.metrics.ranking import auroc
from okng.training.images.data import TrainingImages
from okng.training.loop.phases import run_phases

SIDE = 32
SMALL = {"image_size": (SIDE, SIDE), "channels": 1, "width": 4, "discriminator_width": 8, "window": 3, "turned": 0.0}


def built(**arguments: object) -> DRAEM:
    torch.manual_seed(0)
    detector = create("draem", **arguments)
    assert isinstance(detector, DRAEM)
    return detector


def scenes(count: int, seed: int) -> np.ndarray:
    """uint8 (count, SIDE, SIDE): a disc on a slope, a little different each time."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE]
    made = []
    for _ in range(count):
        disc = (x - 16 + rng.uniform(-2, 2)) ** 2 + (y - 16 + rng.uniform(-2, 2)) ** 2 < 64
        made.append(np.where(disc, 190, 60 + 2 * x) + rng.normal(0, 4, (SIDE, SIDE)))
    return np.clip(made, 0, 255).astype(np.uint8)


def as_tensor(images: np.ndarray) -> Tensor:
    return torch.from_numpy(images)[:, None].float() / 255


@pytest.fixture(scope="module")
def trained() -> DRAEM:
    detector = built(**SMALL, epochs=16, batch_size=8, learning_rate=3e-3)
    run_phases(detector, TrainingImages(list(scenes(64, seed=1)), Preprocess("L", (SIDE, SIDE))), device="cpu")
    return detector


@pytest.fixture(scope="module")
def odd() -> tuple[Tensor, Tensor, Tensor]:
    """Unseen images, the same with rings in a square, which are no texture that it learnt from, and where they are."""
    rng = np.random.default_rng(9)
    clean = as_tensor(scenes(24, seed=2))
    y, x = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    masks = torch.zeros(24, SIDE, SIDE, dtype=torch.bool)
    for mask in masks:
        top, left = rng.integers(0, SIDE - 10, 2)
        mask[top : top + 10, left : left + 10] = True
    rings = 0.5 + 0.5 * torch.cos(((x - 3) ** 2 + (y - 5) ** 2).sqrt())  # (SIDE, SIDE)
    return clean, torch.where(masks[:, None], rings, clean), masks


def test_it_finds_and_wipes_off_a_texture_that_it_never_saw(trained: DRAEM, odd: tuple[Tensor, Tensor, Tensor]) -> None:
    clean, spoilt, masks = odd
    with torch.no_grad():
        scores, restored = trained(spoilt), trained.restore(spoilt)
        quiet = trained(clean).image
        untrained = built(**SMALL).eval()(spoilt).map
    assert auroc(masks.numpy().ravel(), scores.map.numpy().ravel()) > 0.9
    assert abs(auroc(masks.numpy().ravel(), untrained.numpy().ravel()) - 0.5) < 0.35
    assert auroc(np.repeat([0, 1], 24), torch.cat([quiet, scores.image]).numpy()) > 0.9
    left, given = ((each - clean)[:, 0][masks].square().mean() for each in (restored, spoilt))
    assert left < 0.5 * given


def views(detector: DRAEM, image: Tensor, count: int) -> Batch:
    made = [detector.augment(image, torch.Generator().manual_seed(seed)) for seed in range(count)]
    stacked = [torch.stack(parts) for parts in zip(*made, strict=True)]
    return Batch(image.expand(count, -1, -1, -1), torch.arange(count), views=tuple(stacked))


@pytest.mark.parametrize("auxiliary", [False, True])
def test_an_anomaly_changes_nothing_outside_its_blot(auxiliary: bool) -> None:
    detector = built(**SMALL)
    image = torch.rand(1, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    batch = views(detector, image, 100)
    if auxiliary:
        batch.auxiliary = torch.rand(100, 1, SIDE, SIDE)
    clean, mask, _, through = batch.views
    spoilt = detector.spoilt(batch)
    assert torch.equal(clean, batch.images) and torch.equal(spoilt[~mask], clean[~mask])
    assert 0.3 < float(mask.any(3).any(2).float().mean()) < 0.6  # half, and some blots are empty
    assert (spoilt[mask] != clean[mask]).float().mean() > 0.95
    assert 0 <= float(through.min()) < 0.1 and 0.7 < float(through.max()) < 0.8
    assert float(spoilt.min()) >= 0 and float(spoilt.max()) <= 1


def test_auxiliary_images_are_the_textures_where_there_are_any() -> None:
    detector = built(**{**SMALL, "channels": 3})
    batch = views(detector, torch.full((3, SIDE, SIDE), 0.5), 60)
    batch.auxiliary = torch.zeros(60, 3, SIDE, SIDE)
    mask = batch.views[1].expand_as(batch.images)
    seen = detector.spoilt(batch)[mask]
    batch.auxiliary = None
    assert seen.unique().numel() < detector.spoilt(batch)[mask].unique().numel() / 10  # flat, whatever alters it


def test_only_a_share_is_turned() -> None:
    image = torch.rand(1, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    clean = views(built(**{**SMALL, "turned": 0.3}), image, 200).views[0]
    assert 0.2 < float((clean != image).flatten(1).any(1).float().mean()) < 0.4


def test_the_losses_are_those_of_the_paper() -> None:
    """Squared error and SSIM of what is restored to the clean image, and a focal loss of logits."""
    detector = built(**SMALL)
    batch = views(detector, as_tensor(scenes(1, 0))[0], 8)
    clean, mask, _, _ = batch.views
    detector.decoder = nn.Sequential()
    detector.encoder, detector.innermost = nn.Sequential(), nn.Sequential()  # it restores what it is given
    logits = torch.randn(8, 2, SIDE, SIDE)
    detector.discriminator.forward = lambda images: logits  # type: ignore[method-assign]
    losses = detector.loss(batch)
    torch.testing.assert_close(losses["L2"], (detector.spoilt(batch) - clean).square().mean())
    likely = logits.softmax(1).gather(1, mask.long())  # of what is so
    torch.testing.assert_close(losses["focal"], -((1 - likely) ** 2 * likely.log()).mean())
    assert 0 < float(losses["SSIM"]) < 2
    batch.views = (clean, torch.zeros_like(mask), *batch.views[2:])
    losses = detector.loss(batch)
    assert float(losses["L2"]) == 0 and abs(float(losses["SSIM"])) < 1e-6


def test_the_score_is_the_highest_mean_of_a_window() -> None:
    detector = built(**SMALL).eval()
    with torch.no_grad():
        scores = detector(as_tensor(scenes(2, 0)))
    assert scores.map is not None
    padded = torch.nn.functional.pad(scores.map, (1, 1, 1, 1))
    windows = padded.unfold(1, 3, 1).unfold(2, 3, 1).mean((3, 4))  # (2, SIDE, SIDE)
    torch.testing.assert_close(scores.image, windows.amax((1, 2)))


def test_sspcab_takes_the_innermost_levels_place_and_adds_its_loss() -> None:
    detector = built(**SMALL, sspcab=True)
    batch = views(detector, as_tensor(scenes(1, 0))[0], 4)
    losses = detector.loss(batch)
    with torch.no_grad():
        features = detector.encoder(detector.spoilt(batch))  # (4, 32, 2, 2)
    assert features.shape == (4, 32, 2, 2) and set(losses) == {"L2", "SSIM", "focal", "prediction"}
    expected = 0.1 * (detector.innermost(features) - features).square().mean()
    torch.testing.assert_close(losses["prediction"], expected)
    losses["prediction"].backward()
    assert all(p.grad is not None for p in detector.innermost.parameters())
    assert next(detector.encoder.parameters()).grad is not None  # what it is asked for learns, too
    assert "prediction" not in built(**SMALL).loss(batch)


def test_sspcab_is_exported_too(tmp_path: Path) -> None:
    detector = built(**SMALL, sspcab=True).eval()
    calibration = Calibration.fit(np.arange(20.0), np.arange(20.0), "split", 0.05)
    described = {"detector": {"name": "draem", "arguments": detector.arguments}}
    inspector = Inspector(TorchEngine(detector), Preprocess("L", (SIDE, SIDE)), calibration, described)
    parity = export_onnx(inspector, tmp_path / "parts.onnx")
    assert parity.map is not None and parity.map < 1e-4 and parity.score < 1e-4


@pytest.mark.parametrize("size", [(16, 16), (28, 28), (33, 47), (31, 120)])
def test_every_size(size: tuple[int, int]) -> None:
    detector = built(image_size=size, width=2, discriminator_width=2).eval()
    images = torch.rand(2, 3, *size)
    with torch.no_grad():
        scores = detector(images)
        assert detector.restore(images).shape == images.shape
        loss = detector.loss(views(detector, images[0], 2))
    assert scores.map is not None and scores.map.shape == (2, *size) and all(v.isfinite() for v in loss.values())


def test_paper_size() -> None:
    """69.0 and 28.4 million weights, as the authors' networks have; Adam at 1e-4, which falls twice to a fifth."""
    detector = built()
    told = sum(p.numel() for p in detector.discriminator.parameters())
    assert round(told / 1e6, 1) == 28.4
    assert round((sum(p.numel() for p in detector.parameters()) - told) / 1e6, 1) == 69.0
    (phase,) = detector.phases()
    assert isinstance(phase, Train) and (phase.epochs, phase.batch_size) == (700, 8)
    (update,) = phase.updates
    assert update.optimizer.param_groups[0]["lr"] == 1e-4 and update.schedule is not None
    rates = [update.schedule(share) for share in (0.0, 0.79, 0.8, 0.89, 0.9, 0.99)]
    assert rates == pytest.approx([1, 1, 0.2, 0.2, 0.04, 0.04])


@pytest.mark.parametrize("arguments", [{"window": 4}, {"window": 0}, {"turned": 1.5}, {"batch_size": 1}])
def test_ranges(arguments: dict[str, object]) -> None:
    with pytest.raises(OkngError, match=f"draem: {next(iter(arguments))}"):
        create("draem", **arguments)
