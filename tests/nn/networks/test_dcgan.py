"""DCGAN, and what two networks that train against each other need."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from okng.errors import OkngError
from okng.nn.learning.adversarial import bounded, frozen
from okng.nn.networks.dcgan import DCGAN


@pytest.mark.parametrize(
    ("size", "channels"), [((16, 16), 1), ((28, 28), 1), ((32, 32), 3), ((33, 47), 3), ((250, 31), 1), ((256, 256), 3)]
)
def test_every_size_is_generated_and_judged(size: tuple[int, int], channels: int) -> None:
    torch.manual_seed(0)
    gan = DCGAN(size, channels, latent=5, width=2)
    images = gan.generate(torch.zeros(3, channels, *size))
    assert images.shape == (3, channels, *size) and images.abs().max() <= 1
    assert gan.discriminator(images).shape == (3,)


def test_channels_double_up_to_eight_times() -> None:
    gan = DCGAN((256, 256), 3, latent=100, width=64)
    sizes = [layer.out_channels for layer in gan.discriminator.features if isinstance(layer, nn.Conv2d)]
    assert sizes == [64, 128, 256, 512, 512, 512]
    back = [layer.out_channels for layer in gan.generator.net if isinstance(layer, nn.ConvTranspose2d)]
    assert back == [512, 512, 512, 256, 128, 64, 3]


def test_each_step_moves_its_own_network_only() -> None:
    """The generator's loss passes through the discriminator and leaves nothing there."""
    torch.manual_seed(0)
    gan, images = DCGAN((16, 16), 1, latent=4, width=4), torch.rand(4, 1, 16, 16)
    sum(gan.generator_loss(images).values()).backward()
    assert all(p.grad is None for p in gan.discriminator.parameters())
    assert all(p.grad is not None and p.grad.any() for p in gan.generator.parameters())
    assert all(p.requires_grad for p in gan.parameters())
    gan.zero_grad()
    sum(gan.discriminator_loss(images).values()).backward()
    assert all(p.grad is None for p in gan.generator.parameters())
    assert all(p.grad is not None and p.grad.any() for p in gan.discriminator.parameters())


def test_given_images_are_real_and_new_ones_are_generated() -> None:
    """For a discriminator that says 2 of what is given and -2 of what is new: each is right, the generator is not."""
    gan, images = DCGAN((16, 16), 1, latent=4, width=4), torch.rand(4, 1, 16, 16)

    class Judge(nn.Linear):
        def forward(self, seen: Tensor) -> Tensor:
            return torch.full((4,), 2.0 if torch.equal(seen, images) else -2.0)

    gan.discriminator = Judge(1, 1)  # type: ignore[assignment]
    right, wrong = 0.126928, 2.126928  # log(1 + exp(-2)), log(1 + exp(2))
    told = {name: float(loss) for name, loss in gan.discriminator_loss(images).items()}
    assert told == pytest.approx({"real": right, "generated": right}, abs=1e-5)
    assert float(gan.generator_loss(images)["generator"]) == pytest.approx(wrong, abs=1e-5)


def test_frozen_ends_with_the_block() -> None:
    layer = nn.Linear(2, 2)
    with pytest.raises(KeyError), frozen(layer):
        assert not layer.weight.requires_grad
        raise KeyError
    assert layer.weight.requires_grad


def test_a_loss_beyond_the_limit_is_one_line() -> None:
    losses = {"critic": torch.tensor(-9.0), "penalty": torch.tensor(2.0)}
    assert bounded(losses, 10) is losses
    with pytest.raises(OkngError, match=r"diverged \(its loss 'critic' is -9\)") as caught:
        bounded(losses, 8)
    assert "\n" not in str(caught.value)
