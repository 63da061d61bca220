"""What tells GANomaly from an autoencoder: the score is of two codes, with a decoder between them."""

from __future__ import annotations

import pytest
import torch
from tests.detectors.scenes import SIDE, rings, source, tensor
from torch import nn

from okng.detectors.adversarial.ganomaly import GANomaly
from okng.detectors.base import Batch, Train
from okng.detectors.catalogue import create
from okng.training.loop.phases import run_phases

SMALL = {"width": 4, "code": 8}


def built(**arguments: object) -> GANomaly:
    torch.manual_seed(0)
    detector = create("ganomaly", **{"image_size": (SIDE, SIDE), "channels": 1, **SMALL, **arguments})
    assert isinstance(detector, GANomaly)
    return detector


def batch_of(count: int) -> Batch:
    return Batch(torch.rand(count, 1, SIDE, SIDE), torch.arange(count))


@pytest.mark.parametrize(("size", "channels"), [((28, 28), 1), ((33, 47), 3)])
def test_every_size(size: tuple[int, int], channels: int) -> None:
    detector = built(image_size=size, channels=channels).eval()
    images = torch.rand(2, channels, *size)
    with torch.no_grad():
        codes, copies, again = detector.generate(images)
        scores = detector(images)
    assert codes.shape == again.shape == (2, 8) and copies.shape == images.shape
    assert scores.map is not None and scores.map.shape == (2, *size)


def test_paper_size() -> None:
    detector = GANomaly()
    (phase,) = detector.phases()
    assert isinstance(phase, Train) and (phase.epochs, phase.batch_size) == (15, 64)
    assert (detector.adversarial_weight, detector.copy_weight, detector.code_weight) == (1, 50, 1)
    assert [u.optimizer.defaults["betas"] for u in phase.updates] == [(0.5, 0.999)] * 2
    back = [layer for layer in detector.decoder.modules() if isinstance(layer, nn.ConvTranspose2d)]
    assert [(layer.in_channels, layer.out_channels) for layer in back] == [(100, 256), (256, 128), (128, 64), (64, 3)]


def test_the_score_is_of_the_codes_and_goes_through_the_decoder() -> None:
    detector, images = built().eval(), torch.rand(3, 1, SIDE, SIDE)
    with torch.no_grad():
        detector.second_encoder.last.weight.mul_(50)  # as small as they start, the copies' codes are next to 0
        before = detector(images)
        codes, copies, again = detector.generate(2 * images - 1)
        torch.testing.assert_close(before.image, (codes - again).abs().mean(1))
        torch.testing.assert_close(before.map, (2 * images - 1 - copies).abs().mean(1))
        for parameter in detector.decoder.net[-2].parameters():  # type: ignore[union-attr]
            nn.init.zeros_(parameter)
        black = detector(images).image
        torch.testing.assert_close(black, (codes - detector.second_encoder(torch.zeros_like(images))).abs().mean(1))
    assert not torch.allclose(before.image, black, rtol=1e-2)


def test_encoders_have_weights_of_their_own() -> None:
    detector = built()
    first, second = list(detector.encoder.parameters()), list(detector.second_encoder.parameters())
    assert len(first) == len(second) and not {id(p) for p in first} & {id(p) for p in second}


def test_each_loss_teaches_whom_it_should() -> None:
    """The codes' loss reaches all of the generator, features and copies the first half; none the discriminator."""
    for name, reached in [
        ("features", {"encoder", "decoder"}),
        ("copies", {"encoder", "decoder"}),
        ("codes", {"encoder", "decoder", "second_encoder"}),
    ]:
        detector = built()
        detector.generator_loss(batch_of(4))[name].backward()
        taught = {key.partition(".")[0] for key, p in detector.named_parameters() if p.grad is not None}
        assert taught == reached, name
    detector = built()
    torch.stack([*detector.discriminator_loss(batch_of(4)).values()]).sum().backward()
    assert {key.partition(".")[0] for key, p in detector.named_parameters() if p.grad is not None} == {"discriminator"}


def test_each_side_of_the_game_has_its_own_optimiser() -> None:
    detector = built()
    (phase,) = detector.phases()
    assert isinstance(phase, Train)
    maker, judge = ({id(p) for p in u.optimizer.param_groups[0]["params"]} for u in phase.updates)
    assert judge == {id(p) for p in detector.discriminator.parameters()}
    assert not maker & judge and maker | judge == {id(p) for p in detector.parameters()}


def test_a_discriminator_that_has_won_begins_anew() -> None:
    detector = built()
    before = detector.discriminator.last.weight.clone()
    detector.discriminator_loss(batch_of(4))
    detector.begin_anew_if_won()
    assert torch.equal(before, detector.discriminator.last.weight)
    detector.left = torch.tensor(1e-6)
    detector.discriminator.features[3].running_mean.fill_(7)  # type: ignore[operator, union-attr]
    detector.begin_anew_if_won()
    assert not torch.equal(before, detector.discriminator.last.weight)
    assert not detector.discriminator.features[3].running_mean.any()  # type: ignore[operator, union-attr]
    assert float(detector.discriminator.last.weight.detach().std()) == pytest.approx(0.02, rel=0.3)


def test_the_codes_loss_brings_the_codes_of_unseen_ok_images_together() -> None:
    images, apart = tensor(rings(100, seed=1)), []
    for weight in (0.0, 1.0):
        detector = built(code_weight=weight, epochs=6, batch_size=16, learning_rate=1e-3)
        run_phases(detector, source(rings(256)), device="cpu")
        with torch.no_grad():
            codes, _, _ = detector.generate(2 * images - 1)
            apart.append(float(detector(images).image.mean() / codes.abs().mean()))
    assert apart[1] < 0.6 * apart[0]
