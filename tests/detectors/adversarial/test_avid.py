"""What tells AVID: two networks that learn from each other, a judge whose patches lie where it says, and both's AND."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from okng.detectors.adversarial.avid import AVID, in_place
from okng.detectors.base import Batch, Train
from okng.detectors.catalogue import create
from okng.errors import OkngError
from okng.inspection.reading.images import Preprocess
from okng.metrics.ranking import auroc
from okng.training.images.data import TrainingImages
from okng.training.loop.phases import run_phases

SIDE = 24
TINY = {"width": 4, "detector_width": 3, "stride": 1}


def built(**arguments: object) -> AVID:
    torch.manual_seed(0)
    detector = create("avid", **{"image_size": (SIDE, SIDE), "channels": 1, **TINY, **arguments})
    assert isinstance(detector, AVID)
    return detector


def stripes(count: int, seed: int) -> np.ndarray:
    """OK: stripes of a random phase, with noise. uint8 (count, SIDE, SIDE)."""
    rng = np.random.default_rng(seed)
    waves = 120 + 60 * np.sin(np.arange(SIDE) / 1.5 + rng.uniform(0, 6, (count, 1)))  # (count, SIDE)
    return (waves[:, None] + rng.normal(0, 8, (count, SIDE, SIDE))).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("stride", [1, 3, 4])
@pytest.mark.parametrize("size", [(64, 64), (28, 28), (27, 30), (29, 33), (16, 43)])
def test_a_cell_judges_the_patch_in_whose_middle_it_is_put(size: tuple[int, int], stride: int) -> None:
    """By its gradient it sees the pixels of the patch around; and its value is unchanged at that very pixel."""
    detector, apart, half = built(image_size=size, stride=stride).eval(), 4 * stride, 5 + 5 * stride
    for place, layer in enumerate(detector.detector):
        if isinstance(layer, torch.nn.ReLU):  # which may be silent, and hide what is seen
            detector.detector[place] = torch.nn.Identity()
    images = torch.rand(1, 1, *size, requires_grad=True)
    cells = detector.judge(images)  # (1, h, w)
    assert cells.shape[1:] == tuple(int(side / apart + 0.5) for side in size)
    placed = in_place(cells, apart, *size)
    assert placed.shape == (1, *size)
    for row, column in ((0, 0), (1, 2), (cells.shape[1] - 1, cells.shape[2] - 1)):
        y, x = (apart // 2 + apart * place for place in (row, column))
        if y >= size[0] or x >= size[1] or row >= cells.shape[1] or column >= cells.shape[2]:
            continue  # the last one's middle lies in the padding
        assert placed[0, y, x] == cells[0, row, column]
        (gradient,) = torch.autograd.grad(cells[0, row, column], images, retain_graph=True)
        around = torch.zeros(size, dtype=torch.bool)
        around[max(0, y - half) : y + half + 1, max(0, x - half) : x + half + 1] = True
        assert torch.equal(gradient[0, 0] != 0, around)


@pytest.mark.parametrize(("stride", "side"), [(1, 64), (4, 224)])
def test_without_padding_there_are_11_cells(stride: int, side: int) -> None:
    assert built(stride=stride).detector(torch.rand(1, 1, side, side)).shape == (1, 1, 11, 11)


def test_between_middles_it_is_linear_and_the_border_repeats() -> None:
    placed = in_place(torch.tensor([[[0.0, 4.0], [8.0, 12.0]]]), 4, 9, 8)
    expected = torch.arange(8).sub(2).clamp(0, 4)[None, :] + 2 * torch.arange(9).sub(2).clamp(0, 4)[:, None]
    torch.testing.assert_close(placed[0], expected.float())


def test_shifted_by_a_cell_the_map_shifts_by_a_cell() -> None:
    detector = built(image_size=(64, 64)).eval()
    image, shifted = torch.full((1, 1, 64, 64), -0.5), torch.full((1, 1, 64, 64), -0.5)
    image[..., 30:34, 26:30], shifted[..., 30:34, 30:34] = 1, 1
    with torch.no_grad():
        before, after = detector.judge(image), detector.judge(shifted)
    assert before.std() > 0
    torch.testing.assert_close(after[:, :, 1:], before[:, :, :-1], rtol=1e-4, atol=1e-5)


def test_each_network_learns_from_the_other_and_moves_alone() -> None:
    detector = built(reconstruction_weight=1.0)
    (phase,) = detector.phases()
    assert isinstance(phase, Train)
    batch = Batch(torch.rand(4, 1, SIDE, SIDE), torch.arange(4))
    detector.train()
    for update, moving in zip(phase.updates, (detector.detector, detector.inpainter), strict=True):
        detector.zero_grad()
        losses = update.loss(batch)
        assert isinstance(losses, dict) and len(losses) == 2
        torch.stack([*losses.values()]).sum().backward()
        taught = {id(p) for p in detector.parameters() if p.grad is not None}
        assert taught == {id(p) for p in moving.parameters()} and all(p.requires_grad for p in detector.parameters())
        optimized = {id(p) for group in update.optimizer.param_groups for p in group["params"]}
        assert optimized == taught


def test_the_inpainter_is_taught_by_the_detector_alone_where_no_error_counts() -> None:
    """As in the authors' code: with a weight of 0 what it learns comes through the detector's cells."""
    detector = built()
    batch = Batch(torch.rand(4, 1, SIDE, SIDE), torch.arange(4))
    losses = detector.inpainter_loss(batch)
    assert not losses["copies"] and losses["deceived"] > 0
    losses["deceived"].backward()
    assert all(p.grad is not None for p in detector.inpainter.parameters())


def test_the_losses_are_squares_around_what_a_cell_should_say() -> None:
    detector = built(reconstruction_weight=2.0, noise=0.0)
    batch = Batch(torch.rand(2, 1, SIDE, SIDE), torch.arange(2))
    detector.judge = lambda images: images[:, 0, ::4, ::4]  # type: ignore[method-assign]
    detector.inpaint = lambda images: images / 2  # type: ignore[method-assign]
    images = batch.images * 2 - 1
    told = images[:, 0, ::4, ::4]
    expected = {"ok": (told - 1).square().mean(), "inpainted": told.square().mean() / 4}
    torch.testing.assert_close(detector.detector_loss(batch), expected)
    expected = {"deceived": (told / 2 - 1).square().mean(), "copies": images.square().mean() / 2}
    torch.testing.assert_close(detector.inpainter_loss(batch), expected)


def test_the_maps_are_of_the_changes_and_of_the_doubts_about_the_image() -> None:
    """On an oblong image of three channels: changes of either sign, and judgements beyond both ends."""
    detector = built(image_size=(16, 43), channels=3).eval()
    images, change = torch.rand(2, 3, 16, 43), torch.tensor([0.3, -0.6, 0.6])[:, None, None]
    judged = torch.tensor([-3.0, 0.0, 0.5, 2.0]).repeat_interleave(11).view(4, 11)[None].expand(2, 4, 11)
    seen: list[Tensor] = []
    detector.copies = lambda given: given + change * (torch.arange(43) < 20)  # type: ignore[method-assign]
    detector.judge = lambda given: seen.append(given) or judged  # type: ignore[func-returns-value, method-assign]
    changes, doubts = detector.maps(images)
    assert torch.equal(seen[0], images * 2 - 1)
    torch.testing.assert_close(changes, 0.5 * (torch.arange(43) < 20).expand(2, 16, 43))
    torch.testing.assert_close(doubts[:, [2, 6, 10, 14]], torch.tensor([1, 0.5, 0.25, 0])[:, None].expand(2, 4, 43))


def test_an_image_is_judged_by_its_oddest_square() -> None:
    """Of 4 × 4 pixels: two of them within one add up, and no pixel alone decides."""
    detector = built().eval()
    changes = torch.zeros(2, SIDE, SIDE)
    changes[0, 5, 6] = changes[0, 7, 9] = 0.8
    changes[1, 5, 6] = 0.8
    detector.maps = lambda images: (changes, torch.ones_like(changes))  # type: ignore[method-assign]
    torch.testing.assert_close(detector(torch.rand(2, 1, SIDE, SIDE)).image, torch.tensor([0.1, 0.05]))


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_its_first_judgements_are_near_what_they_should_become(value: float) -> None:
    """Of flat images, too: a first loss in the hundreds would be taken for a training that ran away."""
    for seed in range(20):
        torch.manual_seed(seed)
        detector = create("avid", image_size=(28, 28), channels=1, width=4, detector_width=12, stride=1)
        assert isinstance(detector, AVID)
        with torch.no_grad():
            assert detector.judge(torch.full((1, 1, 28, 28), 2 * value - 1)).abs().max() < 8


def test_noise_is_drawn_in_training_alone() -> None:
    detector, images = built(noise=0.5).eval(), torch.rand(2, 1, SIDE, SIDE)
    with torch.no_grad():
        assert torch.equal(detector(images).image, detector(images).image)
        assert not torch.equal(detector.inpaint(images), detector.inpaint(images))
        detector.copies = lambda given: given  # type: ignore[method-assign]
        noisy = detector.inpaint(torch.zeros(8, 1, SIDE, SIDE))
    assert float(noisy.abs().max()) == 1.0 and float((noisy.abs() < 0.5).float().mean()) == pytest.approx(
        0.683, abs=0.04
    )


def test_they_are_opponents() -> None:
    """While the inpainter rests, the detector learns to tell OK from inpainted; then the inpainter to deceive it."""
    detector = built(learning_rate=3e-3)
    (phase,) = detector.phases()
    assert isinstance(phase, Train)
    learnt, unseen = (torch.from_numpy(stripes(16, seed))[:, None] / 255 for seed in (0, 1))
    detector.train()

    def gap() -> float:
        with torch.no_grad():
            made = detector.copies(unseen * 2 - 1)
            return float((detector.judge(unseen * 2 - 1) - detector.judge(made)).mean())

    gaps = [gap()]
    for update in phase.updates:
        for _ in range(30):
            detector.zero_grad()
            losses = update.loss(Batch(learnt, torch.arange(16)))
            assert isinstance(losses, dict)
            torch.stack([*losses.values()]).sum().backward()
            update.optimizer.step()
        gaps.append(gap())
    assert gaps[1] > gaps[0] + 0.3 and gaps[2] < gaps[1] - 0.3, gaps


def test_odd_is_what_both_find() -> None:
    """An inpainter that changes two corners and a detector that doubts one of them and another: one is left."""

    class Inpainter(torch.nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            made = images.clone()
            made[:, :, :8, :8] += 0.5
            made[:, :, :8, 16:] += 0.5
            return made

    class Judge(torch.nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            cells = torch.ones(len(images), 1, 6, 6)  # sure that it is OK
            cells[:, :, :2, 4:] = cells[:, :, 4:, :2] = -1.0
            return cells

    detector = built()
    detector.inpainter, detector.detector = Inpainter(), Judge()  # type: ignore[assignment]
    with torch.no_grad():
        scores = detector(torch.rand(2, 1, SIDE, SIDE))
    assert scores.map is not None
    odd = scores.map > 0.25
    where = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    where[:8, 16:] = True
    assert torch.equal(odd[0] & ~where, torch.zeros_like(where)) and float(odd[0][where].float().mean()) > 0.5
    torch.testing.assert_close(scores.image, torch.full((2,), 0.5), rtol=1e-3, atol=0)


def test_it_finds_what_was_never_met() -> None:
    """Stripes with a bright piece: image by image, and the piece within."""
    how = {"epochs": 5, "batch_size": 16, "learning_rate": 3e-3}
    detector = built(width=8, noise=0.5, reconstruction_weight=10.0, **how)
    run_phases(detector, TrainingImages(list(stripes(96, 0)), Preprocess("L", (SIDE, SIDE))), device="cpu")
    ok = torch.from_numpy(stripes(24, 1))[:, None] / 255
    rng, where = np.random.default_rng(2), torch.zeros(24, SIDE, SIDE, dtype=torch.bool)
    for mask in where:
        top, left = rng.integers(3, SIDE - 7, 2)
        mask[top : top + 4, left : left + 4] = True
    with torch.no_grad():
        usual, scores = detector(ok), detector(ok.masked_fill(where[:, None], 1.0))
    assert scores.map is not None
    assert auroc([0] * 24 + [1] * 24, torch.cat([usual.image, scores.image]).numpy()) > 0.95
    assert auroc(where.flatten().numpy(), scores.map.flatten().numpy()) > 0.95


def test_defaults() -> None:
    detector = create("avid", width=2, detector_width=3)
    assert isinstance(detector, AVID)
    (phase,) = detector.phases()
    assert isinstance(phase, Train) and (phase.epochs, phase.batch_size) == (40, 16)
    groups = [update.optimizer.param_groups[0] for update in phase.updates]
    assert [(group["lr"], group["betas"]) for group in groups] == 2 * [(2e-4, (0.9, 0.9))]
    wide = create("avid", width=2)
    assert isinstance(wide, AVID)
    made = [m.out_channels for m in wide.detector if isinstance(m, torch.nn.Conv2d)]
    assert made == [96, 96, 96, 96, 96, 96, 256, 512, 1024, 1024, 1]
    wide = create("avid", detector_width=3)
    made = [m.out_channels for m in wide.modules() if isinstance(m, torch.nn.Conv2d)][: 2 * 9 + 1]
    assert made == [64, 64, 128, 128, 256, 256, 256, 256, 64, 64, 256, 256, 64, 64, 64, 64, 64, 64, 3]


@pytest.mark.parametrize("arguments", [{"noise": -0.1}, {"reconstruction_weight": -1.0}, {"stride": 0}])
def test_ranges(arguments: dict[str, object]) -> None:
    with pytest.raises(OkngError, match="avid: "):
        create("avid", **arguments)


def test_an_image_has_a_cell_at_least() -> None:
    with pytest.raises(OkngError, match="avid: both sides of image_size are 32 or more"):
        create("avid", image_size=(28, 40), stride=16)
    detector = built(image_size=(32, 40), stride=16).eval()
    assert detector(torch.rand(1, 1, 32, 40)).image.shape == (1,)
