from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.detectors.scenes import SIDE, crosses, rings, source, tensor
from torch import Tensor, nn

from okng.detectors.base import Batch, Train
from okng.detectors.catalogue import create
from okng.detectors.one_class.deep_svdd import DeepSVDD, away_from_0
from okng.errors import OkngError
from okng.metrics import auroc
from okng.nn.images.contrast import contrast_normalised
from okng.training.loop.phases import run_phases

QUICK: dict[str, Any] = {"pretraining_epochs": 6, "epochs": 6, "pretraining_rate": 3e-3, "learning_rate": 1e-3}


def built(**arguments: Any) -> DeepSVDD:
    torch.manual_seed(0)
    small = {"image_size": (SIDE, SIDE), "channels": 1, "widths": (8, 4), "code": 32, "batch_size": 32, **QUICK}
    detector = create("deep_svdd", **{**small, **arguments})
    assert isinstance(detector, DeepSVDD)
    return detector


@pytest.fixture(scope="module")
def fitted() -> dict[str, DeepSVDD]:
    found = {}
    for objective in ("one-class", "soft-boundary"):
        found[objective] = built(objective=objective)
        run_phases(found[objective], source(rings(200)), device="cpu")
    return found


def batch(images: Tensor) -> Batch:
    return Batch(images, torch.arange(len(images)))


def test_it_is_the_authors_network_for_cifar_10_and_their_optimisers() -> None:
    detector = create("deep_svdd")
    layers = [m for m in detector.encoder.modules() if isinstance(m, nn.Conv2d | nn.Linear)]  # type: ignore[union-attr]
    assert [tuple(m.weight.shape) for m in layers] == [(32, 3, 5, 5), (64, 32, 5, 5), (128, 64, 5, 5), (128, 2048)]
    mirrored = [m for m in detector.decoder.modules() if isinstance(m, nn.ConvTranspose2d)]  # type: ignore[union-attr]
    assert [m.out_channels for m in mirrored] == [128, 64, 32, 3]
    trains = [phase for phase in detector.phases() if isinstance(phase, Train)]
    assert [(phase.epochs, phase.batch_size) for phase in trains] == [(350, 200), (150, 200)]
    for phase, drop in zip(trains, (250 / 350, 50 / 150), strict=True):
        (update,) = phase.updates
        (group,) = update.optimizer.param_groups
        assert (type(update.optimizer), group["lr"], group["weight_decay"]) == (torch.optim.Adam, 1e-4, 5e-7)
        assert update.schedule is not None
        assert [update.schedule(share) for share in (0, drop - 1e-3, drop + 1e-3)] == [1, 1, 0.1]


def test_nothing_can_map_every_image_to_the_centre(fitted: dict[str, DeepSVDD]) -> None:
    """No bias, no affine normalisation, a centre away from 0: what a short training would not show.

    Weights of 0 are the map that ignores the image, and its loss is |c|²; it would be 0 if the centre were.
    """
    detector = built()
    detector.centre = fitted["one-class"].centre
    assert not any("bias" in name for name, _ in detector.named_parameters())
    normalisations = [m for m in detector.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    assert normalisations and not any(m.affine for m in normalisations)
    with torch.no_grad():
        last = detector.encoder[-1]
        assert isinstance(last, nn.Linear)
        last.weight.zero_()
        loss = detector.loss(batch(tensor(rings(4))))
        torch.testing.assert_close(loss, detector.centre.square().sum())
        assert loss >= 0.01 * len(detector.centre) * (1 - 1e-5)
        detector.centre = torch.zeros(32)
        assert detector.loss(batch(tensor(rings(4)))) == 0


def test_coordinates_of_the_centre_keep_their_side() -> None:
    centre = torch.tensor([-2.0, -0.05, -0.0, 0.0, 0.02, 0.1, 3.0])
    assert torch.equal(away_from_0(centre), torch.tensor([-2.0, -0.1, 0.1, 0.1, 0.1, 0.1, 3.0]))


def test_the_centre_is_the_mean_code_after_pretraining_and_stays() -> None:
    detector, seen = built(), {}
    images = tensor(rings(200))

    def watched() -> Any:
        for phase in DeepSVDD.phases(detector):
            if phase.name == "one-class":
                with torch.no_grad():
                    seen["mean"], seen["before"] = detector.codes(images).mean(0), detector.loss(batch(images))
                seen["centre"] = detector.centre.clone()
            yield phase

    detector.phases = watched  # type: ignore[method-assign]
    run_phases(detector, source(rings(200)), device="cpu")
    far = seen["mean"].abs() >= 0.1
    assert far.any()
    torch.testing.assert_close(seen["centre"][far], seen["mean"][far], rtol=1e-4, atol=1e-5)
    assert seen["centre"].abs().min() >= 0.1 - 1e-6 and torch.equal(detector.centre, seen["centre"])
    with torch.no_grad():
        assert detector.loss(batch(images)) < 0.95 * seen["before"]


@pytest.mark.parametrize("objective", ["one-class", "soft-boundary"])
def test_other_images_score_higher_and_scores_differ(fitted: dict[str, DeepSVDD], objective: str) -> None:
    """A collapsed network has a plausible AUROC, too, of rounding alone."""
    with torch.no_grad():
        ok, odd = (fitted[objective](tensor(kind(100, seed=1))).image for kind in (rings, crosses))
    together = torch.cat([ok, odd])
    assert auroc([0] * 100 + [1] * 100, together.numpy()) > 0.85
    assert together.std() / together.mean() > 0.1 and together.mean() > 1e-3


def test_about_the_share_nu_lies_outside_a_soft_boundary(fitted: dict[str, DeepSVDD]) -> None:
    detector = fitted["soft-boundary"]
    with torch.no_grad():
        outside = detector(tensor(rings(200))).image > detector.radius.square()
    assert abs(float(outside.float().mean()) - 0.1) < 0.03
    assert fitted["one-class"].radius == 0


def test_the_soft_loss_is_the_radius_and_what_lies_beyond() -> None:
    detector = built(objective="soft-boundary", nu=0.25).eval()
    detector.radius = torch.tensor(0.7)
    with torch.no_grad():
        images = tensor(rings(8))
        distances = detector.distances(images)
        beyond = (distances - 0.49).clamp_min(0)
        torch.testing.assert_close(detector.soft_loss(batch(images)), 0.49 + beyond.mean() / 0.25)
        torch.testing.assert_close(detector.radius, distances.sqrt().quantile(0.75))
        epochs = [phase.epochs for phase in detector.phases() if isinstance(phase, Train)]
    assert epochs == [6, 1, 5]


def test_images_are_normalised_and_brought_into_the_range_of_the_ok_ones(fitted: dict[str, DeepSVDD]) -> None:
    images = tensor(rings(200))
    normal = contrast_normalised(images)
    expected = (normal - normal.min()) / (normal.max() - normal.min())
    torch.testing.assert_close(fitted["one-class"].normalised(images), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("size", "widths"), [((28, 28), (8, 4)), ((17, 40), (4, 4)), ((64, 48), (4, 4, 4)), ((16, 16), (2, 2, 2, 2))]
)
def test_every_size(size: tuple[int, int], widths: tuple[int, ...]) -> None:
    detector = built(image_size=size, widths=widths, channels=3, code=16)
    images = torch.rand(2, 3, *size)
    assert detector.decoder(detector.encoder(images)).shape == images.shape


@pytest.mark.parametrize("arguments", [{"nu": 1.0}, {"code": 20}, {"widths": ()}, {"widths": (4,) * 5}])
def test_ranges(arguments: dict[str, Any]) -> None:
    with pytest.raises(OkngError, match=f"deep_svdd: {next(iter(arguments))} "):
        built(**arguments)
