"""What tells SuperSimpleNet from a toy: noise in blots of features, and a head of its own for whether there is any."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.detectors.scenes import discs, in_colour
from torch import Tensor

from okng.detectors.base import Batch, Train
from okng.detectors.catalogue import create
from okng.detectors.synthetic_anomalies.supersimplenet import SuperSimpleNet, over
from okng.errors import OkngError
from okng.inspection.reading.images import Preprocess
from okng.nn.images.blur import gaussian_blur
from okng.training.images.data import TrainingImages
from okng.training.loop.phases import run_phases


def built(name: str = "supersimplenet", **arguments: object) -> SuperSimpleNet:
    torch.manual_seed(0)
    small = {"enlarge": 1, "hidden": 32, "kernels": 16, "noise": 3.0, "batch_size": 2}
    rates = {"epochs": 60, "learning_rate": 1e-3, "head_rate": 2e-3}
    detector = create(name, **{**small, **rates, **arguments})
    assert isinstance(detector, SuperSimpleNet)
    return detector


def prepared(detector: SuperSimpleNet, images: Tensor) -> Batch:
    (phase,) = detector.phases()
    assert isinstance(phase, Train) and phase.prepare is not None
    made = phase.prepare(images)
    return Batch(images, torch.arange(len(images)), tuple(made))


@pytest.fixture(scope="module")
def fitted() -> SuperSimpleNet:
    detector = built()
    run_phases(detector, TrainingImages(list(discs(12)), Preprocess("RGB", (64, 64), 16)), device="cpu")
    return detector


def ranked(detector: SuperSimpleNet) -> float:
    """How often the logit of an unseen OK image is higher with noise in four of its cells than without."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        clean = detector.adapted(detector.backbone(in_colour(discs(12, seed=1))))
        noisy = clean.clone()
        drawn = torch.randn(*clean.shape[:2], 2, 2, generator=generator)
        noisy[:, :, 3:5, 3:5] += detector.noise * drawn
        return float((detector.told(noisy)[1] > detector.told(clean)[1]).float().mean())


def test_what_is_learnt_ranks_noise_in_unseen_images(fitted: SuperSimpleNet) -> None:
    assert ranked(fitted) == 1 and ranked(built()) < 0.95


def test_it_finds_what_is_odd_and_where(fitted: SuperSimpleNet) -> None:
    images = discs(4, seed=2)
    spoilt = images.copy()
    spoilt[:, 24:36, 24:36] = [20, 20, 230]
    with torch.no_grad():
        normal, odd = fitted(in_colour(images)), fitted(in_colour(spoilt))
    assert odd.image.min() > normal.image.max() and odd.map is not None
    for drawn in odd.map:
        y, x = divmod(int(drawn.argmax()), 8)
        assert 2 <= y <= 5 and 2 <= x <= 5


@pytest.mark.parametrize("name", ["supersimplenet", "supersimplenet_w"])
def test_only_where_there_are_labels_the_verdict_changes_the_map(name: str) -> None:
    detector = built(name)
    assert detector.supervised == detector.needs_ng == (name == "supersimplenet_w")
    _, whether = detector.told(torch.randn(2, sum(detector.backbone.channels), 4, 4))
    whether.sum().backward()
    reached = [p.grad is not None for p in detector.segmentation.parameters()]
    assert all(reached) if detector.supervised else not any(reached)


class Watched:
    """What the heads are shown, with every second copy clean and noise on the upper half of the others."""

    def __init__(self, detector: SuperSimpleNet):
        self.shown: list[Tensor] = []
        self.drawn = 0
        detector.blots = self.blots  # type: ignore[method-assign]
        detector.segmentation.register_forward_pre_hook(lambda _, given: self.shown.append(given[0].detach()))

    def blots(self, grid: tuple[int, int]) -> Tensor:
        self.drawn += 1
        mask = torch.zeros(1, *grid)
        mask[:, : grid[0] // 2] = self.drawn % 2
        return mask


def test_noise_lies_in_the_blots_alone_and_no_gradient_reaches_the_backbone() -> None:
    detector = built(noise=0.25)
    watched, batch = Watched(detector), prepared(detector, in_colour(discs(3)))
    torch.stack([*detector.loss(batch).values()]).sum().backward()
    clean = detector.adapted(batch.prepared).detach().repeat(2, 1, 1, 1)
    noise = watched.shown[0] - clean  # (6, d, 8, 8)
    assert torch.equal(noise[1::2], torch.zeros_like(noise[1::2])) and float(noise[::2, :, 4:].abs().max()) == 0
    assert float(noise[::2, :, :4].std()) == pytest.approx(0.25, rel=0.02)
    assert all(p.grad is None for p in detector.backbone.parameters())
    assert all(p.grad is not None for p in detector.adaptor.parameters())


def losses_of(detector: SuperSimpleNet, where: float, whether: float, batch: Batch) -> dict[str, float]:
    """The losses when the heads say `where` of every cell and `whether` of every image."""
    Watched(detector)

    def told(adapted: Tensor) -> tuple[Tensor, Tensor]:
        return torch.full_like(adapted[:, :1], where), torch.full((len(adapted),), whether)

    detector.told = told  # type: ignore[method-assign]
    return {name: float(loss) for name, loss in detector.loss(batch).items()}


def test_losses_of_cells_are_means_over_each_kind_and_zero_beyond_the_margin() -> None:
    detector = built()
    batch = prepared(detector, in_colour(discs(2)))
    losses = losses_of(detector, -0.3, 0.0, batch)
    assert losses["OK"] == pytest.approx(0.2) and losses["noisy"] == pytest.approx(0.8)
    assert losses["image"] == pytest.approx(np.log(2) / 2**4)
    assert losses_of(detector, -0.7, 0.0, batch)["OK"] == 0 and losses_of(detector, 0.7, 0.0, batch)["noisy"] == 0
    assert float(over(torch.ones(2, 1, 3, 3), torch.zeros(2, 1, 3, 3))) == 0


def test_an_ng_image_counts_as_an_image_and_none_of_its_cells_does() -> None:
    detector = built("supersimplenet_w")
    batch = prepared(detector, in_colour(discs(2)))
    batch.labels = torch.tensor([1, 1])
    losses = losses_of(detector, 3.0, 20.0, batch)
    assert losses["OK"] == losses["noisy"] == losses["map"] == 0 and losses["image"] < 1e-6
    assert losses_of(detector, 3.0, -20.0, batch)["image"] == pytest.approx(20, rel=1e-3)


def test_half_of_the_blots_are_empty_and_others_are_of_any_fineness() -> None:
    detector = built()
    torch.manual_seed(0)
    drawn = torch.cat([detector.blots((64, 64)) for _ in range(200)])
    covered = drawn.mean((1, 2))
    assert 0.4 < float((covered == 0).float().mean()) < 0.6 and set(drawn.unique().tolist()) == {0, 1}
    edges = (drawn.diff(dim=1).abs().sum((1, 2)) / (64 * 64))[covered > 0]
    assert float(edges.max()) > 0.1 and float(edges.min()) < 0.03
    assert detector.blots((1, 3)).shape == (1, 1, 3)


def test_the_grid_is_twice_as_fine_as_the_finest_features() -> None:
    detector = built(enlarge=2, weights="none")
    with torch.no_grad():
        images = torch.rand(1, 3, 64, 96)
        where, whether = detector.told(detector.adapted(detector.backbone(images)))
        scores = detector(images)
    assert where.shape == (1, 1, 16, 24) and torch.equal(scores.image, whether)
    torch.testing.assert_close(scores.map, gaussian_blur(where[:, 0], 1.0))  # 4 px are a cell of 4 px


def test_the_papers_rates_and_widths() -> None:
    detector = SuperSimpleNet(weights="none")
    (phase,) = detector.phases()
    assert isinstance(phase, Train) and (phase.epochs, phase.batch_size) == (300, 32)
    (update,) = phase.updates
    groups = update.optimizer.param_groups
    assert [(group["lr"], group["weight_decay"]) for group in groups] == [(1e-4, 1e-2), (2e-4, 1e-5)]
    assert update.schedule is not None and update.clip is None
    assert [update.schedule(share) for share in (0.79, 0.85, 0.95)] == pytest.approx([1, 0.4, 0.16])
    assert detector.segmentation[0].out_channels == 1024 and detector.verdict.in_features == 258
    (phase,) = built("supersimplenet_w", weights="none").phases()
    assert isinstance(phase, Train) and phase.updates[0].clip == 1


@pytest.mark.parametrize("arguments", [{"noise": 0.0}, {"threshold": 1.0}, {"enlarge": 0}, {"kernels": 0}])
def test_ranges(arguments: dict[str, object]) -> None:
    with pytest.raises(OkngError, match="supersimplenet: "):
        built(weights="none", **arguments)
