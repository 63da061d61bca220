"""DCGAN's discriminator as an encoder."""

from __future__ import annotations

from torch import Tensor, nn

from okng.nn.networks.dcgan import Discriminator, start


class Encoder(Discriminator):
    """Images (B, channels, h, w) in [-1, 1] to codes (B, code): the layers of DCGAN's discriminator, `code` at the end.

    Akcay, Atapour-Abarghouei, Breckon, "GANomaly", ACCV 2018. The last layer takes in all of the grid that is left and
    has no activation.
    """

    def __init__(self, image_size: tuple[int, int], channels: int, code: int, width: int):
        super().__init__(image_size, channels, width)
        grid = (self.last.kernel_size[0], self.last.kernel_size[1])
        self.last = nn.Conv2d(self.last.in_channels, code, grid, bias=False)
        start(self.last)

    def forward(self, images: Tensor) -> Tensor:
        """Codes (B, code) of `images`."""
        codes: Tensor = self.last(self.look(images))  # (B, code, 1, 1)
        return codes.flatten(1)
