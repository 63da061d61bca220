"""What tells AESc from an autoencoder with shortcuts: it wipes stains off, sharply, and is unsure where they were."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from okng.datasets.corruptions import corrupt, stain_mask
from okng.detectors.base import Batch, Train
from okng.detectors.catalogue import create
from okng.detectors.engine import TorchEngine
from okng.detectors.reconstruction.aesc import AESc
from okng.errors import OkngError
from okng.exporting import export_onnx
from okng.inspection.inspector import Inspector
from okng.inspection.reading.images import Preprocess
from okng.inspection.verdict.calibration import Calibration
from okng.training.images.data import TrainingImages
from okng.training.loop.phases import run_phases

SIDE = 32
SMALL = {"image_size": (SIDE, SIDE), "channels": 1, "width": 8, "epochs": 24, "batch_size": 8, "learning_rate": 5e-3}


def built(**arguments: object) -> AESc:
    torch.manual_seed(0)
    detector = create("aesc", **arguments)
    assert isinstance(detector, AESc)
    return detector


def discs(count: int, seed: int) -> np.ndarray:
    """uint8 (count, SIDE, SIDE, 1): a disc that wanders a little on a grainy slope; no two have the same grain."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE]
    made = []
    for _ in range(count):
        disc = (x - 16 + rng.uniform(-2, 2)) ** 2 + (y - 16 + rng.uniform(-2, 2)) ** 2 < 64
        made.append(np.where(disc, 190, 60 + 2 * x) + rng.normal(0, 4, (SIDE, SIDE)))
    return np.clip(made, 0, 255).astype(np.uint8)[..., None]


def as_tensor(images: np.ndarray) -> Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255


@pytest.fixture(scope="module")
def trained() -> dict[str, AESc]:
    fitted = {}
    for name, corruption, skips in (("aesc", "stain", True), ("copier", "none", True), ("ae", "stain", False)):
        fitted[name] = built(corruption=corruption, skips=skips, **SMALL)
        source = TrainingImages(list(discs(64, seed=1)[..., 0]), Preprocess("L", (SIDE, SIDE)))
        run_phases(fitted[name], source, device="cpu")
    return fitted


@pytest.fixture(scope="module")
def stained() -> tuple[Tensor, Tensor, Tensor]:
    """Unseen images, the same with a stain each, and where it is: (32, 1, SIDE, SIDE) twice, (32, SIDE, SIDE)."""
    clean, seeds = discs(32, seed=2), range(1000, 1032)
    spoilt = corrupt(clean, "stain", seeds)
    masks = np.stack([stain_mask(SIDE, SIDE, np.random.default_rng(seed)) for seed in seeds])
    return as_tensor(clean), as_tensor(spoilt), torch.from_numpy(masks)


def psnr(a: Tensor, b: Tensor) -> float:
    return -10 * math.log10(float((a - b).square().mean()))


def left(detector: AESc, stained: tuple[Tensor, Tensor, Tensor]) -> float:
    """The share of the stains' squared error that is left in the restored images."""
    clean, spoilt, masks = stained
    with torch.no_grad():
        restored = detector.restore(spoilt)
    return float((restored - clean)[:, 0][masks].square().mean() / (spoilt - clean)[:, 0][masks].square().mean())


def test_what_learnt_on_stains_wipes_them_off_and_what_did_not_copies_them(
    trained: dict[str, AESc], stained: tuple[Tensor, Tensor, Tensor]
) -> None:
    assert left(trained["aesc"], stained) < 0.3
    assert left(trained["copier"], stained) > 0.8
    clean, spoilt, masks = stained
    with torch.no_grad():
        maps = {name: detector(spoilt).map for name, detector in trained.items()}
        quiet = trained["aesc"](clean).image
    inside, outside = maps["aesc"][masks].mean(), maps["aesc"][~masks].mean()
    assert inside > 4 * outside and inside > 2 * maps["copier"][masks].mean()
    with torch.no_grad():
        assert (trained["aesc"](spoilt).image > quiet).float().mean() > 0.9


def test_skip_connections_are_sharp(trained: dict[str, AESc], stained: tuple[Tensor, Tensor, Tensor]) -> None:
    """The grain is no image's but one's own: it does not pass a bottleneck, it does pass the connections."""
    clean = stained[0]
    with torch.no_grad():
        sharp, blurred = (psnr(trained[name].restore(clean), clean) for name in ("aesc", "ae"))
    assert sharp > 28 and sharp > blurred + 1


def with_score(detector: AESc, **arguments: object) -> AESc:
    """The same network under other arguments of the score."""
    other = built(**{**detector.arguments, **arguments})
    other.load_state_dict(detector.state_dict(), strict=False)
    return other


def test_it_is_unsure_where_a_stain_was(trained: dict[str, AESc], stained: tuple[Tensor, Tensor, Tensor]) -> None:
    _, spoilt, masks = stained
    with torch.no_grad():
        variances = with_score(trained["aesc"], score="uncertainty")(spoilt).map
        assert variances is not None
        assert variances[masks].mean() > 1.2 * variances[~masks].mean()
        sure = with_score(trained["aesc"], score="uncertainty", dropout=(0.0,))(spoilt)
    assert sure.map is not None and float(sure.map.abs().max()) < 1e-12


def test_uncertainty_is_the_variance_over_the_samples(trained: dict[str, AESc]) -> None:
    detector = with_score(trained["aesc"], score="uncertainty", samples=5)
    images = as_tensor(discs(3, seed=3))
    with torch.no_grad():
        passes = torch.stack([detector.restore(images, sample) for sample in range(5)])  # (5, 3, 1, SIDE, SIDE)
        scores = detector(images)
    torch.testing.assert_close(scores.map, passes.var(0, unbiased=False).mean(1))
    assert scores.map is not None
    torch.testing.assert_close(scores.image, scores.map.square().mean((1, 2)).sqrt())
    with torch.no_grad():
        torch.testing.assert_close(detector(images[1:2]).map[0], scores.map[1])  # the same draws for every image


def test_rates_rise_with_depth_and_belong_to_the_coarsest_levels() -> None:
    assert built().rates == (0.0, 0.0, 0.1, 0.2, 0.3, 0.4)
    assert built(image_size=(64, 64)).rates == (0.1, 0.2, 0.3, 0.4)
    assert built(image_size=(512, 512), width=1).rates == (0.0, 0.0, 0.0, 0.1, 0.2, 0.3, 0.4)
    detector = built(image_size=(64, 64), score="uncertainty")
    for level, rate in enumerate(detector.rates):
        kept = detector.get_buffer(f"kept_encoder_{level}")
        assert kept.dtype == torch.bool and kept.shape == (30, 16 * 2**level, 32 // 2**level, 32 // 2**level)
        assert float(kept.float().mean()) == pytest.approx(1 - rate, abs=0.01)
    names = {name for name, _ in detector.named_buffers() if "kept" in name}
    assert names == {f"kept_encoder_{i}" for i in range(4)} | {f"kept_decoder_{i}" for i in range(3)}


def test_an_uncertain_detector_is_one_graph_too(trained: dict[str, AESc], tmp_path: Path) -> None:
    detector = with_score(trained["aesc"], score="uncertainty")
    calibration = Calibration.fit(np.arange(20.0), np.arange(20.0), "split", 0.05)
    described = {"detector": {"name": "aesc", "arguments": detector.arguments}}
    inspector = Inspector(TorchEngine(detector), Preprocess("L", (SIDE, SIDE)), calibration, described)
    parity = export_onnx(inspector, tmp_path / "discs.onnx")
    assert parity.map is not None and parity.map < 1e-4


@pytest.mark.parametrize("size", [(16, 16), (28, 28), (33, 47), (31, 120), (64, 64)])
@pytest.mark.parametrize("score", ["residual", "uncertainty"])
def test_every_size(size: tuple[int, int], score: str) -> None:
    detector = built(image_size=size, channels=3, width=2, samples=2, score=score)
    images = torch.rand(2, 3, *size)
    with torch.no_grad():
        scores = detector(images)
        assert detector.restore(images).shape == images.shape
    assert scores.map is not None and scores.map.shape == (2, *size) and scores.image.shape == (2,)


def test_connections_are_added() -> None:
    """With the decoder silent, an image passes by the connections alone, and without them not at all."""
    images = torch.rand(2, 1, SIDE, SIDE)
    for skips in (True, False):
        detector = built(image_size=(SIDE, SIDE), channels=1, skips=skips)
        for up in detector.decoder:
            torch.nn.init.zeros_(up[1].weight)  # of the normalisation
        with torch.no_grad():
            restored = detector.restore(images)
        assert bool((restored[0] - restored[1]).abs().max() > 1e-3) == skips


def test_corruption_is_drawn_by_torch() -> None:
    detector = built(image_size=(SIDE, SIDE), channels=3)
    images = torch.full((6, 3, SIDE, SIDE), 0.5)
    torch.manual_seed(1)
    first, second = detector.corrupted(images), detector.corrupted(images)
    torch.manual_seed(1)
    assert torch.equal(first, detector.corrupted(images)) and not torch.equal(first, second)
    assert not any(torch.equal(first[0], other) for other in first[1:])
    assert torch.equal(built(corruption="none").corrupted(images), images)


def test_paper_size() -> None:
    """Six levels of 16 to 512 channels at 256 px; 250 epochs of 16 images, the rate halved after each fifth."""
    detector = AESc()
    widths = [down[0].out_channels for down in detector.encoder]
    assert widths == [16, 32, 64, 128, 256, 512]
    assert [up[0].out_channels for up in detector.decoder] == widths[:-1]
    phases = [phase for phase in detector.phases() if isinstance(phase, Train)]
    assert [(phase.epochs, phase.batch_size) for phase in phases] == [(50, 16)] * 5
    rates = [update.optimizer.param_groups[0]["lr"] for phase in phases for update in phase.updates]
    assert rates == [0.01, 0.005, 0.0025, 0.00125, 0.000625]
    assert sum(phase.epochs for phase in built(epochs=7, image_size=(16, 16)).phases() if isinstance(phase, Train)) == 7
    detector.train()
    batch = Batch(torch.rand(2, 3, 256, 256), torch.arange(2))
    before = detector.loss(batch)
    before.backward()
    assert all(p.grad is not None and p.grad.any() for p in detector.parameters())


@pytest.mark.parametrize(
    "arguments",
    [{"samples": 1}, {"dropout": ()}, {"dropout": (0.0, 1.0)}],
)
def test_ranges(arguments: dict[str, object]) -> None:
    with pytest.raises(OkngError, match="aesc: "):
        create("aesc", **arguments)
