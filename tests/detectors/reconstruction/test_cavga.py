"""What tells CAVGA from a variational autoencoder with a picture beside it: its attention is trained."""

from __future__ import annotations

import pytest
import torch
from tests.detectors.scenes import SIDE, crosses, rings, source, tensor
from torch import Tensor

from okng.detectors.base import Batch, Train
from okng.detectors.catalogue import create
from okng.detectors.reconstruction.cavga import CAVGAu, CAVGAw
from okng.training.loop.phases import run_phases

NAMES = ("cavga_u", "cavga_w")


def built(name: str, **arguments: object) -> CAVGAu:
    torch.manual_seed(0)
    detector = create(name, **arguments)
    assert isinstance(detector, CAVGAu)
    return detector


def batch_of(images: Tensor, labels: list[int]) -> Batch:
    return Batch(images, torch.arange(len(images)), labels=torch.tensor(labels))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("size", "channels", "grid"),
    [
        ((28, 28), 1, (3, 3)),
        ((32, 32), 3, (4, 4)),
        ((64, 64), 3, (4, 4)),
        ((37, 51), 1, (4, 6)),
        ((128, 90), 3, (8, 5)),
    ],
)
def test_every_size_is_copied_and_the_latent_variable_keeps_places(
    name: str, size: tuple[int, int], channels: int, grid: tuple[int, int]
) -> None:
    detector = built(name, image_size=size, channels=channels, width=2, latent=5)
    images = torch.rand(2, channels, *size)
    with torch.no_grad():
        mean, log_variance = detector.distribution(detector.encoder(images))
        assert mean.shape == log_variance.shape == (2, 5, *grid)
        assert detector.decoder(mean).shape == images.shape and detector.discriminator(images).shape == (2,)
        scores = detector(images)
    assert scores.map is not None and scores.map.shape == (2, *grid) and not scores.map.requires_grad
    assert float(scores.map.min()) >= 0 and float(scores.map.max()) <= 1


def test_paper_size() -> None:
    for name in NAMES:
        detector = built(name)
        (phase,) = detector.phases()
        assert isinstance(phase, Train) and detector.grid == (16, 16)
        assert (detector.adversarial_weight, detector.attention_weight) == (1, 0.01)
    assert isinstance(detector, CAVGAw) and detector.classification_weight == 0.001


@pytest.mark.parametrize("name", NAMES)
def test_the_attention_loss_teaches_the_encoder(name: str) -> None:
    """Its gradient passes through Grad-CAM's weights and features."""
    detector = built(name, image_size=(32, 32), width=4, latent=4)
    if isinstance(detector, CAVGAw):
        detector.classifier[1].bias.data = torch.tensor([9.0, 0.0])  # all are called OK
    batch = batch_of(torch.rand(3, 3, 32, 32), [0, 0, 0])
    detector.loss(batch)["attention"].backward()
    assert all(p.grad is not None and p.grad.any() for p in detector.encoder.parameters())
    last = detector.classifier[1] if isinstance(detector, CAVGAw) else detector.mean
    assert last.weight.grad is not None and last.weight.grad.any()  # Grad-CAM's channel weights are made of it
    assert detector.decoder[0].weight.grad is None  # type: ignore[union-attr]


def test_each_side_of_the_game_has_its_own_optimiser() -> None:
    detector = built("cavga_w", image_size=(32, 32), width=4, latent=4)
    (phase,) = detector.phases()
    assert isinstance(phase, Train)
    first, second = ({id(p) for p in u.optimizer.param_groups[0]["params"]} for u in phase.updates)
    assert first == {id(p) for p in detector.discriminator.parameters()}
    assert not first & second and first | second == {id(p) for p in detector.parameters()}


def test_attention_of_ok_images_that_are_called_ng_is_not_guided() -> None:
    detector = built("cavga_w", image_size=(32, 32), width=4, latent=4)
    assert isinstance(detector, CAVGAw)
    images, last = torch.rand(4, 3, 32, 32), detector.classifier[1]
    assert isinstance(last, torch.nn.Linear)

    def guided(labels: list[int], bias: tuple[float, float]) -> float:
        last.bias.data = torch.tensor(bias, dtype=torch.float32)
        return float(detector.loss(batch_of(images, labels))["attention"].detach())

    assert guided([0] * 4, (0, 50)) == 0  # all called NG
    assert guided([1] * 4, (50, 0)) == 0  # all are NG
    assert guided([0] * 4, (50, 0)) > 0
    torch.manual_seed(1)
    all_of_them = guided([0] * 4, (50, 0))
    torch.manual_seed(1)
    assert 0 < guided([0, 1, 1, 0], (50, 0)) < all_of_them  # averaged over all the images of the batch


def test_ng_images_are_neither_copied_nor_shown_to_the_discriminator() -> None:
    detector = built("cavga_w", image_size=(32, 32), width=4, latent=4).train()
    detector.encoder.eval()  # its batch normalisation mixes images: the classifier learns from all of them
    images = torch.rand(4, 3, 32, 32)

    def losses(images: Tensor, labels: list[int]) -> list[float]:
        torch.manual_seed(0)
        batch = batch_of(images, labels)
        told = detector.loss(batch)
        torch.manual_seed(0)
        copied = (told["copies"], told["divergence"], told["adversarial"], detector.discriminator_loss(batch))
        return [float(loss.detach()) for loss in copied]

    other = torch.cat([images[:3], torch.rand(1, 3, 32, 32)])
    assert losses(images, [0, 0, 0, 1]) == losses(other, [0, 0, 0, 1])
    assert losses(images, [0, 0, 0, 0]) != pytest.approx(losses(other, [0, 0, 0, 0]))
    alone = batch_of(images, [1, 1, 1, 1])
    assert set(detector.loss(alone)) == {"classification", "attention"}
    detector.discriminator_loss(alone).backward()
    assert not any(p.grad is not None and p.grad.any() for p in detector.discriminator.parameters())


def test_the_discriminator_does_not_learn_to_be_deceived() -> None:
    detector = built("cavga_u", image_size=(32, 32), width=4, latent=4)
    sum(detector.loss(batch_of(torch.rand(3, 3, 32, 32), [0, 0, 0])).values()).backward()  # type: ignore[union-attr]
    assert all(p.grad is None for p in detector.discriminator.parameters())
    assert all(p.grad is not None and p.grad.any() for p in detector.decoder.parameters())


def test_images_are_real_to_the_discriminator_and_copies_are_not() -> None:
    """For one that says 2 of an image and -2 of a copy: it is right at the price of -log sigmoid(2) each."""
    detector = built("cavga_u", image_size=(32, 32), width=4, latent=4)
    batch = batch_of(torch.rand(3, 3, 32, 32), [0, 0, 0])

    class Judge(torch.nn.Linear):
        def forward(self, images: Tensor) -> Tensor:
            return torch.full((3,), 2.0 if torch.equal(images, batch.images) else -2.0)

    detector.discriminator = Judge(1, 1)  # type: ignore[assignment]
    right, wrong = 0.126928, 2.126928  # log(1 + exp(-2)), log(1 + exp(2))
    assert float(detector.discriminator_loss(batch)) == pytest.approx(2 * right, abs=1e-5)
    assert float(detector.loss(batch)["adversarial"]) == pytest.approx(wrong, abs=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_every_image_has_grad_cam_weights_of_its_own(name: str) -> None:
    """They pass through a rectifier: of a linear layer alone they would be the same for all images."""
    detector = built(name, image_size=(32, 32), width=4, latent=4)
    with torch.no_grad():
        features = detector.encoder(torch.rand(6, 3, 32, 32))  # (6, 16, 4, 4)
    features.requires_grad_()
    mean, _ = detector.distribution(features)
    score = detector.classifier(mean)[:, 0] if isinstance(detector, CAVGAw) else mean.flatten(1).sum(1)
    (gradient,) = torch.autograd.grad(score.sum(), features)
    weights = gradient.mean((2, 3))  # (6, 16)
    assert float(weights.std(0).mean()) > 0.02 * float(weights.abs().mean())
    expected = (weights[:, :, None, None] * features).sum(1).sigmoid()  # (6, 4, 4)
    torch.testing.assert_close(detector.attention(features), expected)


def test_losses_are_the_papers_sums_over_an_image() -> None:
    """An image of four times the pixels that are as wrong costs four times as much, and deceives at the same price."""
    losses = []
    for side in (32, 64):
        detector = built("cavga_u", image_size=(side, side), width=4, latent=4)
        torch.nn.init.zeros_(detector.decoder[-1].weight)  # type: ignore[arg-type]
        torch.nn.init.zeros_(detector.decoder[-1].bias)  # type: ignore[arg-type]
        for head in (detector.mean, detector.log_variance):
            torch.nn.init.zeros_(head.weight)
            torch.nn.init.ones_(head.bias)
        torch.nn.init.zeros_(detector.discriminator[1].weight)  # type: ignore[arg-type]
        torch.nn.init.zeros_(detector.discriminator[1].bias)  # type: ignore[arg-type]
        losses.append(
            {k: float(v.detach()) for k, v in detector.loss(batch_of(torch.rand(2, 3, side, side), [0] * 2)).items()}
        )
    surprise = float(torch.tensor(2.0).log())  # of any pixel at the probability 1/2
    for side, loss in zip((32, 64), losses, strict=True):
        assert loss["copies"] == pytest.approx(3 * side * side * surprise, rel=1e-4)
        assert loss["divergence"] == pytest.approx(4 * 4 * 4 * 0.5 * (1 + float(torch.tensor(1.0).exp()) - 2), rel=1e-4)
        assert loss["adversarial"] == pytest.approx(surprise, rel=1e-4)
        assert loss["attention"] <= 0.01


SMALL = {"width": 8, "latent": 8, "epochs": 8, "batch_size": 16, "learning_rate": 2e-3}


def learnt(name: str, **arguments: object) -> CAVGAu:
    detector = built(name, image_size=(SIDE, SIDE), channels=1, **{**SMALL, **arguments})
    run_phases(detector, source(rings(256), crosses(26) if detector.needs_ng else None), device="cpu")
    return detector


def test_attention_expands_over_unseen_ok_images() -> None:
    """And neither saturates, nor are the copies worse for it."""
    guided, unguided = learnt("cavga_u", attention_weight=3.0), learnt("cavga_u", attention_weight=0.0)
    unseen = tensor(rings(100, seed=1))
    with torch.no_grad():
        with_loss, without = guided(unseen), unguided(unseen)
    assert with_loss.map is not None and without.map is not None
    attention = 1 - with_loss.map  # (100, h, w)
    assert float(attention.mean()) > float((1 - without.map).mean()) + 0.03
    assert float((attention > 0.95).float().mean()) < 0.5 and float(attention.flatten(1).std(1).mean()) > 0.05
    assert float(with_loss.image.mean()) < 1.3 * float(without.image.mean())


def test_the_two_attentions_part() -> None:
    """On unseen OK images that are called OK, Grad-CAM of OK covers more than that of NG."""
    detector = learnt("cavga_w", learning_rate=5e-3, attention_weight=100.0, classification_weight=10.0)
    assert isinstance(detector, CAVGAw)
    features = detector.encoder(tensor(rings(100, seed=1))).detach().requires_grad_()
    mean, _ = detector.distribution(features)
    logits = detector.classifier(mean)
    ok = logits[:, 0] > logits[:, 1]
    assert ok.float().mean() > 0.9
    attended = detector.attention(features)[ok].mean()
    last = detector.classifier[1]
    assert isinstance(last, torch.nn.Linear)
    last.weight.data = last.weight.data.flip(0)  # class 0 is NG now
    assert attended > detector.attention(features)[ok].mean() + 0.2
