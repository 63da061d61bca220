"""What tells the attention model from two autoencoders: the mask is learnt, and the second OCGAN begins anew on it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from okng.detectors.adversarial.attention_ocgan import AttentionOCGAN, outside, over
from okng.detectors.base import Batch, Collect, Train
from okng.detectors.catalogue import create
from okng.errors import OkngError
from okng.inspection.reading.images import Preprocess
from okng.metrics.ranking import auroc
from okng.nn.networks.cbam import CBAM
from okng.training.images.data import TrainingImages
from okng.training.loop.phases import run_phases

TINY = {"code": 4, "width": 4, "visual_width": 4, "classifier_width": 4, "dropout": 0.0, "batch_size": 4}


def built(**arguments: object) -> AttentionOCGAN:
    torch.manual_seed(0)
    detector = create("attention_ocgan", **{"image_size": (28, 28), "channels": 1, **TINY, **arguments})
    assert isinstance(detector, AttentionOCGAN)
    return detector


def discs(count: int, seed: int = 0) -> tuple[list[np.ndarray], np.ndarray]:
    """A bright disc somewhere on noise, uint8 (28, 28) each, and where it is."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:28, :28]
    where = np.stack([(x - rng.uniform(10, 18)) ** 2 + (y - rng.uniform(10, 18)) ** 2 < 36 for _ in range(count)])
    return list(np.where(where, 230, rng.integers(0, 120, where.shape)).astype(np.uint8)), where


def source(images: list[np.ndarray]) -> TrainingImages:
    return TrainingImages(images, Preprocess("L", (28, 28)))


@pytest.mark.parametrize(("size", "channels"), [((28, 28), 1), ((32, 32), 3), ((61, 61), 3), ((64, 40), 3)])
def test_the_score_is_the_sum_of_both_reconstructions(size: tuple[int, int], channels: int) -> None:
    """The second per pixel of the mask."""
    detector = built(image_size=size, channels=channels)
    images = torch.rand(2, channels, *size)
    with torch.no_grad():
        scores, weights = detector(images), detector.attend(images)
        first = detector.first.errors(images)  # (2, h, w)
        second = detector.second.errors(images * weights) / weights.mean((2, 3), keepdim=True)[:, 0]  # (2, h, w)
    assert weights.shape == (2, 1, *size) and (weights > 0).all() and (weights < 1).all()
    assert scores.map is not None and scores.map.shape == (2, *size)
    torch.testing.assert_close(scores.map, first + second)
    torch.testing.assert_close(scores.image, (first + second).mean((1, 2)))


def test_a_small_mask_does_not_make_an_odd_image_look_less_odd(monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies that are as wrong in every pixel of a mask cost the same under any mask; an empty one costs nothing."""
    detector, images = built(), torch.full((4, 1, 28, 28), 0.8)
    monkeypatch.setattr(detector.first, "errors", lambda seen: torch.zeros_like(seen[:, 0]))
    monkeypatch.setattr(detector.second, "errors", lambda seen: seen[:, 0].square())  # nothing was rebuilt
    masks = torch.zeros(4, 1, 28, 28)
    for mask, rows in zip(masks, (28, 14, 2, 0), strict=True):
        mask[:, :rows] = 1
    monkeypatch.setattr(detector, "attend", lambda _: masks)
    scores = detector(images)
    torch.testing.assert_close(scores.image, torch.tensor([0.64, 0.64, 0.64, 0.0]))
    torch.testing.assert_close(scores.map.mean((1, 2)), scores.image)


def test_features_lie_over_the_pixels_they_come_from() -> None:
    """Position i of n unpadded transposed layers before the image stands over pixel 2ⁿ·i + 2(2ⁿ - 1)."""
    for layers, grid in ((1, 13), (2, 5)):
        pixels = 2**layers * torch.arange(grid) + 2 * (2**layers - 1)
        side = 2**layers * (grid + 3) - 3
        values = torch.rand(1, 1, grid, grid)
        spread = over(values, (side, side))
        assert spread.shape == (1, 1, side, side)
        torch.testing.assert_close(spread[0, 0, pixels][:, pixels], values[0, 0])


def test_the_second_gan_begins_anew_after_the_warm_up_and_no_other_network_does() -> None:
    detector = built(epochs=3, warm_up=0.5, temperature=0.3)
    images, _ = discs(8)
    phases = detector.phases()
    warm_up, change = next(phases), next(phases)
    assert isinstance(warm_up, Train) and isinstance(change, Collect) and (warm_up.epochs, warm_up.batch_size) == (1, 4)
    detector.train()
    for update in warm_up.updates:
        loss = update.loss(Batch(torch.from_numpy(np.stack(images))[:4, None] / 255, torch.arange(4)))
        assert isinstance(loss, dict)
        torch.stack([*loss.values()]).sum().backward()
        update.optimizer.step()
    detector.eval()
    before = {name: tensor.clone() for name, tensor in detector.state_dict().items()}
    assert any(float(t) > 0 for n, t in before.items() if n.startswith("second") and "num_batches" in n)
    change.finish()
    for name, tensor in detector.state_dict().items():
        same = torch.equal(tensor, before[name])
        constant = name.endswith(("weight", "bias")) and before[name].unique().numel() == 1
        if name == "temperature":
            assert float(before[name]) == 1 and math.isclose(float(tensor), 0.3, rel_tol=1e-6)
        elif name.startswith("second."):
            assert not same or constant, f"{name} was kept"
            assert "num_batches" not in name or float(tensor) == 0
        else:
            assert same, f"{name} changed"
    main = next(phases)
    assert isinstance(main, Train) and main.epochs == 2
    assert all(not update.optimizer.state for update in main.updates), "Adam remembers the first second GAN"


def test_the_second_gan_can_be_kept() -> None:
    detector = built(reinitialise=False)
    before = {name: tensor.clone() for name, tensor in detector.second.state_dict().items()}
    detector.begin_anew()
    assert all(torch.equal(tensor, before[name]) for name, tensor in detector.second.state_dict().items())


def test_the_first_ocgan_learns_nothing_from_what_is_added() -> None:
    """Neither mask, guide nor second OCGAN sends gradients into it, and no reconstruction sends any to the mask."""
    detector = built().train()
    images = torch.rand(4, 1, 28, 28)
    masked, losses = detector.guiding_losses(images, torch.rand(4, 4))
    sum(losses.values()).backward()  # type: ignore[union-attr]
    assert all(p.grad is None for gan in (detector.first, detector.second) for p in gan.parameters())
    assert all(p.grad is not None for p in [*detector.attention.parameters(), *detector.guide.parameters()])
    torch.testing.assert_close(masked, detector.masked(images))


def test_low_temperatures_decide() -> None:
    detector = built()
    images = torch.rand(4, 1, 28, 28)
    with torch.no_grad():
        undecided = detector.attend(images)
        detector.temperature.fill_(1e-4)
        weights = detector.attend(images)
    assert float((weights * (1 - weights)).mean()) < 0.02 < float((undecided * (1 - undecided)).mean())


def test_each_feature_layer_is_weighed_by_its_cbam() -> None:
    """A gate that hardly lets anything through leaves of every layer its 1 × 1 convolution's bias alone."""
    detector = built()
    features = [torch.rand(2, width, 5 * 2**i, 5 * 2**i) for i, width in enumerate(detector.first.decoder.widths)]
    seen: list[Tensor] = []
    for layer in detector.attention.layers:
        layer.register_forward_hook(lambda _, __, made: seen.append(made))
    with torch.no_grad():
        before = detector.attention(features)
        for layer in detector.attention.layers:
            cbam, mixing = layer  # type: ignore[misc]
            assert isinstance(cbam, CBAM) and isinstance(mixing, torch.nn.Conv2d)
            cbam.window.bias.fill_(-40)
        after = detector.attention(features)
    layers = len(detector.attention.layers)
    for open_, shut, layer in zip(seen[:layers], seen[layers:], detector.attention.layers, strict=True):
        bias = layer[1].bias.detach().view(1, -1, 1, 1)  # type: ignore[index]
        torch.testing.assert_close(shut, bias.expand_as(shut))
        assert float((open_ - bias).abs().mean()) > 1e-3
    assert float((after - before).abs().max()) > 1e-4


@pytest.mark.parametrize("logit", [-40.0, 40.0])
def test_empty_and_full_masks_are_pulled_back(logit: float) -> None:
    """Even from where every weight is 0 or 1 to the last digit, and its slope 0."""
    values = torch.full((3, 1, 8, 8), logit, requires_grad=True)
    for _ in range(500):
        (slope,) = torch.autograd.grad(outside(values, 0.2, 0.5).sum(), values)
        values = (values.detach() - 10 * slope).requires_grad_()
    share = values.detach().sigmoid().mean((1, 2, 3))
    assert float(share.min()) > 0.15 and float(share.max()) < 0.55
    inside = torch.tensor([2.0, -2.0, -2.0, -2.0]).view(1, 1, 2, 2)
    assert float(outside(inside, 0.2, 0.5)) == 0


@pytest.mark.slow  # ten seconds, and it hangs on its seed
def test_the_mask_learns_where_the_object_is() -> None:
    """From OK images alone: weights are higher on the discs than on the noise around them."""
    images, where = discs(160)
    ok, there = torch.from_numpy(np.stack(images)[:64]).float()[:, None] / 255, where[:64].ravel().astype(int)
    detector = built(width=8, classifier_width=8, code=8, epochs=8, batch_size=16, learning_rate=2e-3)
    with torch.no_grad():
        untrained = auroc(there, detector.attend(ok).flatten().numpy())
    run_phases(detector, source(images), device="cpu")
    with torch.no_grad():
        weights = detector.attend(ok)
    found = auroc(there, weights.flatten().numpy())
    assert found > 0.75 and found > untrained
    assert 0.05 < float(weights.mean()) < 0.4


@pytest.mark.parametrize(
    "arguments",
    [{"temperature": 0.0}, {"area": (0.6, 0.1)}],
)
def test_ranges(arguments: dict[str, object]) -> None:
    with pytest.raises(OkngError, match="attention_ocgan: "):
        create("attention_ocgan", **arguments)
