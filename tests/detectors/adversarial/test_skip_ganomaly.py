"""What tells Skip-GANomaly from a U-Net: a discriminator's features are in the loss and in the score."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from tests.detectors.scenes import SIDE, crosses, rings, source, tensor
from torch import nn

from okng.detectors.adversarial.skip_ganomaly import SkipGANomaly
from okng.detectors.base import Batch, Train
from okng.detectors.catalogue import create
from okng.errors import OkngError
from okng.training.loop.phases import run_phases

SMALL = {"width": 4, "levels": 2, "code": 8}


def built(**arguments: object) -> SkipGANomaly:
    torch.manual_seed(0)
    detector = create("skip_ganomaly", **{"image_size": (SIDE, SIDE), "channels": 1, **SMALL, **arguments})
    assert isinstance(detector, SkipGANomaly)
    return detector


def batch_of(count: int) -> Batch:
    return Batch(torch.rand(count, 1, SIDE, SIDE), torch.arange(count))


def taught(detector: SkipGANomaly) -> set[str]:
    return {key.partition(".")[0] for key, p in detector.named_parameters() if p.grad is not None and p.grad.any()}


@pytest.mark.parametrize(("size", "channels"), [((28, 28), 1), ((33, 47), 3)])
def test_every_size(size: tuple[int, int], channels: int) -> None:
    detector = built(image_size=size, channels=channels).eval()
    images = torch.rand(2, channels, *size)
    with torch.no_grad():
        scores = detector(images)
        assert detector.generator(2 * images - 1).abs().max() <= 1
    assert scores.map is not None and scores.map.shape == (2, *size)


def test_paper_size() -> None:
    detector = SkipGANomaly()
    down = [layer for layer in detector.generator.modules() if isinstance(layer, nn.Conv2d)]
    assert [layer.out_channels for layer in down] == [64, 128, 256, 512, 512]
    judge = [layer for layer in detector.features.modules() if isinstance(layer, nn.Conv2d)]
    assert [layer.out_channels for layer in judge] == [64, 128, 256, 100]
    (phase,) = detector.phases()
    assert isinstance(phase, Train) and (phase.epochs, phase.batch_size) == (15, 64)
    assert (detector.adversarial_weight, detector.copy_weight, detector.feature_weight) == (1, 50, 1)


def test_the_score_is_of_pixels_and_the_discriminators_features() -> None:
    detector, images = built().eval(), torch.rand(3, 1, SIDE, SIDE)
    with torch.no_grad():
        scores = detector(images)
        copies = detector.generator(2 * images - 1)
        pixels = (2 * images - 1 - copies).square().mean((1, 2, 3))
        features = (detector.features(2 * images - 1) - detector.features(copies)).square().mean(1)
        torch.testing.assert_close(scores.image, 0.9 * pixels + 0.1 * features)
        detector.features.last.weight.mul_(5)  # another discriminator, another score
        torch.testing.assert_close(detector(images).image, 0.9 * pixels + 2.5 * features)
    with pytest.raises(OkngError, match="share is from 0 to 1"):
        built(share=1.5)


def test_losses_are_the_papers() -> None:
    detector, batch = built().eval(), batch_of(4)
    with torch.no_grad():
        images = 2 * batch.images - 1
        copies = detector.generator(images)
        told, wanted = detector.features(copies), detector.features(images)
        losses = detector.generator_loss(batch)
        torch.testing.assert_close(losses["copies"], 50 * (copies - images).abs().mean())
        torch.testing.assert_close(losses["features"], (told - wanted).square().mean())
        real = torch.ones(4)
        logits = detector.judge(told)
        torch.testing.assert_close(losses["adversarial"], F.binary_cross_entropy_with_logits(logits, real))
        against = detector.discriminator_loss(batch)
        torch.testing.assert_close(against["copied"], F.binary_cross_entropy_with_logits(logits, 1 - real))
        sure = detector.judge(wanted)
        torch.testing.assert_close(against["real"], F.binary_cross_entropy_with_logits(sure, real))


def test_the_discriminator_judges_by_a_sum_of_its_features() -> None:
    """So that what moves its judgement is what the features' loss and the score measure."""
    detector = built()
    one, other = torch.randn(2, 5, SMALL["code"])
    nothing = torch.zeros_like(one)
    with torch.no_grad():
        judged = [detector.judge(features) for features in (one + other, nothing, one, other)]
    torch.testing.assert_close(judged[0] + judged[1], judged[2] + judged[3])


def test_each_loss_teaches_whom_it_should() -> None:
    for name in ("adversarial", "copies", "features"):
        detector = built()
        detector.generator_loss(batch_of(4))[name].backward()
        assert taught(detector) == {"generator"}, name
    detector = built()
    torch.stack([*detector.discriminator_loss(batch_of(4)).values()]).sum().backward()
    assert taught(detector) == {"features", "judge"}
    (phase,) = detector.phases()
    assert isinstance(phase, Train)
    maker, judge = ({id(p) for p in u.optimizer.param_groups[0]["params"]} for u in phase.updates)
    assert not maker & judge and maker | judge == {id(p) for p in detector.parameters()}


def test_after_its_few_epochs_it_is_no_identity() -> None:
    """Or it would copy what is odd as well as what is OK."""
    detector = built(levels=4, epochs=10, batch_size=16, learning_rate=1e-3)
    run_phases(detector, source(rings(256)), device="cpu")
    with torch.no_grad():
        ok, odd = detector(tensor(rings(100, seed=1))), detector(tensor(crosses(100, seed=1)))
    assert ok.map is not None and odd.map is not None
    assert float(odd.map.mean()) > 1.1 * float(ok.map.mean())
