from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tests.detectors.scenes import textures
from torch import Tensor, nn

from okng.detectors.base import Batch
from okng.detectors.catalogue import create
from okng.detectors.one_class.fcdd import FCDD, confetti, gaussians, receptive_field, sliding, surprise
from okng.errors import OkngError
from okng.inspection.reading.images import Preprocess
from okng.metrics import auroc
from okng.nn.features.backbones import Backbone
from okng.training.images.data import TrainingImages
from okng.training.loop.phases import run_phases


def built(**arguments: Any) -> FCDD:
    torch.manual_seed(0)
    small = {"image_size": (32, 32), "backbone": "none", "widths": (8, 8), "sigma": 1.2, "batch_size": 8}
    detector = create("fcdd", **{**small, **arguments})
    assert isinstance(detector, FCDD)
    return detector


def striped(count: int, seed: int) -> Tensor:
    """(count, 3, 48, 48)."""
    return torch.from_numpy(textures(count, seed))[:, :48, :48].permute(0, 3, 1, 2) / 255


@pytest.mark.parametrize("masks", [False, True])
def test_it_says_where_a_pasted_square_is_having_seen_none(masks: bool) -> None:
    detector = built(image_size=(48, 48), widths=(16, 16), masks=masks, epochs=24, learning_rate=0.03)
    ok = [image[:48, :48] for image in textures(48)]
    run_phases(detector, TrainingImages(ok, Preprocess("RGB", (48, 48))), device="cpu")
    clean, images = striped(20, seed=2), striped(20, seed=1)
    where = torch.zeros(20, 48, 48, dtype=torch.int64)
    places = torch.randint(2, 40, (20, 2), generator=torch.Generator().manual_seed(0)).tolist()
    for i, (top, left) in enumerate(places):
        images[i, :, top : top + 6, left : left + 6] = torch.tensor([0.9, 0.8, 0.1])[:, None, None]
        where[i, top : top + 6, left : left + 6] = 1
    with torch.no_grad():
        odd, fine = detector(images), detector(clean).image
    assert odd.map is not None and odd.map.shape == (20, 48, 48)
    assert auroc(where.flatten().numpy(), odd.map.flatten().numpy()) > 0.85
    assert auroc([0] * 20 + [1] * 20, torch.cat([fine, odd.image]).numpy()) > 0.9


def test_a_cell_knows_its_receptive_field_alone() -> None:
    detector = built(image_size=(64, 64))
    assert receptive_field(sliding(detector.layers), 4) == (16, 4, 1.5)
    torch.manual_seed(1)
    image = torch.rand(1, 3, 64, 64)
    changed = image.clone()
    changed[..., :5, :7] = 1 - changed[..., :5, :7]
    with torch.no_grad():
        layers = detector.layers.double()
        moved = (layers(changed.double()) - layers(image.double()))[0, 0].abs() > 1e-12  # (16, 16)
    middles = 1.5 + 4 * torch.arange(16)
    rows, columns = middles - 7.5 < 5, middles - 7.5 < 7
    assert torch.equal(moved, rows[:, None] & columns[None])


@pytest.mark.parametrize(("name", "stride"), [("efficientnet_lite0", 8), ("resnet18", 8), ("vgg11_bn", 8)])
def test_the_receptive_field_of_a_backbone_is_where_its_gradient_ends(name: str, stride: int) -> None:
    torch.manual_seed(0)
    net = Backbone(name, (stride,), "none").eval()
    for module in list(net.modules()):  # so that no gradient is 0 by chance
        for key, child in module.named_children():
            if isinstance(child, nn.ReLU | nn.ReLU6):
                setattr(module, key, nn.Identity())
            elif isinstance(child, nn.MaxPool2d):
                setattr(module, key, nn.AvgPool2d(child.kernel_size, child.stride, child.padding))
            elif isinstance(child, nn.Conv2d):
                child.weight.data.abs_()
            elif isinstance(child, nn.BatchNorm2d):
                child.weight.data.fill_(1)  # ResNets begin with 0, and their shortcuts alone
    size, jump, middle = receptive_field(sliding(Backbone(name, (stride,), "none")), stride)
    image = torch.rand(1, 3, 16 * stride, 16 * stride, dtype=torch.float64, requires_grad=True)
    (features,) = net.double()(image)
    (slope,) = torch.autograd.grad(features[0, :, 8, 8].sum(), image)
    seen = slope[0].abs().sum((0, 1)).nonzero()[:, 0]  # columns
    assert jump == stride and len(features[0, 0]) == 16
    assert size == int(seen[-1] - seen[0]) + 1
    assert (seen[0] + seen[-1]) / 2 == middle + 8 * jump


def test_one_active_cell_becomes_a_gaussian_around_the_middle_of_what_it_sees() -> None:
    detector = built(image_size=(64, 64))
    heat = torch.zeros(1, 16, 16)
    heat[0, 5, 9] = 2
    drawn = detector.enlarged(heat)[0]  # (64, 64)
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    down, across = y - (1.5 + 4 * 5), x - (1.5 + 4 * 9)
    expected = (
        2 * torch.exp(-(down.square() + across.square()) / (2 * 1.2**2)) * ((down.abs() <= 8) & (across.abs() <= 8))
    )
    torch.testing.assert_close(drawn, expected)
    assert drawn.max() > 2 * 0.8
    assert gaussians(30, 4, 16, 1.5, 1.2).shape == (30, 7)


def test_the_loss_pulls_ok_images_down_and_pushes_anomalies_up() -> None:
    mean = torch.tensor([1e-8, 1e-3, 0.1, 1.0, 10.0], requires_grad=True)
    anomalies = surprise(mean)
    (slope,) = torch.autograd.grad(anomalies.sum(), mean)
    assert (anomalies.diff() < 0).all() and (slope < 0).all() and slope.isfinite().all()
    torch.testing.assert_close(anomalies[3], torch.tensor(1 - np.exp(-1.0)).log().neg().float())
    detector = built().eval()
    with torch.no_grad():
        detector.layers[-1].weight.zero_()  # type: ignore[union-attr]
        for phi in (1e-4, 0.5, 30.0):
            detector.layers[-1].bias.fill_(phi)  # type: ignore[union-attr, operator]
            found = float(detector.heat(torch.rand(1, 3, 32, 32))[0, 0, 0])
            assert found == pytest.approx((phi**2 + 1) ** 0.5 - 1, rel=1e-3 if phi > 0.1 else 0.1)


def test_auxiliary_images_take_the_place_of_confetti(monkeypatch: pytest.MonkeyPatch) -> None:
    detector, seen = built(), []
    monkeypatch.setattr(detector, "heat", lambda images: seen.append(images) or torch.ones(len(images), 8, 8))  # type: ignore[func-returns-value]
    ok, spoilt, beside = (torch.full((200, 1, 2, 2), value) for value in (0.1, 0.2, 0.3))
    views = (spoilt, torch.ones(200, 1, 2, 2, dtype=torch.bool))
    torch.manual_seed(0)
    for auxiliary, anomaly in ((None, 0.2), (beside, 0.3)):
        loss = detector.loss(Batch(ok, torch.arange(200), views=views, auxiliary=auxiliary))
        values = seen.pop()[:, 0, 0, 0]
        odd = values > 0.15
        torch.testing.assert_close(values.unique(), torch.tensor([0.1, anomaly]))
        assert 0.4 < odd.float().mean() < 0.6
        torch.testing.assert_close(loss, torch.where(odd, surprise(torch.ones(200)), torch.ones(200)).mean())


def test_confetti_lies_where_it_says() -> None:
    image = torch.full((3, 64, 64), 0.5)
    shares = []
    for seed in range(40):
        spoilt, where = confetti(image, torch.Generator().manual_seed(seed))
        again, _ = confetti(image, torch.Generator().manual_seed(seed))
        changed = (spoilt - image).abs().amax(0)
        assert torch.equal(spoilt, again) and spoilt.min() >= 0 and spoilt.max() <= 1
        if where.any():
            assert changed[where[0]].mean() > 0.05 > changed[~where[0]].mean()
        shares.append(float(where.float().mean()))
    assert min(shares[i] for i in np.argsort(shares)[5:]) > 0 and max(shares) < 0.5


@pytest.mark.parametrize("arguments", [{"widths": ()}, {"widths": (4,) * 6}, {"sigma": 0.0}, {"stride": 0}])
def test_ranges(arguments: dict[str, Any]) -> None:
    with pytest.raises(OkngError, match=f"fcdd: {next(iter(arguments))} "):
        built(**arguments)
