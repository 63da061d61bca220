"""Autoencoder that learns and scores by structural similarity."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from okng.checks import at_least, check_input, positive
from okng.detectors.base import Batch, Detector, Phase, Scores, Train, Update
from okng.errors import OkngError
from okng.nn.images.ssim import dssim_map
from okng.nn.networks.sspcab import prediction_of, with_block
from okng.nn.networks.strided import SLOPE, start_awake

# The paper's layers for 128 px, before the last one that takes in all of the 8 × 8 grid: channels as multiples of the
# first ones, kernel, stride.
LAYERS = ((1, 4, 2), (1, 4, 2), (1, 3, 1), (2, 4, 2), (2, 3, 1), (4, 4, 2), (2, 3, 1), (1, 3, 1))
COARSEST = 8  # the shorter side of that grid, at most


class SSIMAutoencoder(Detector):
    """An autoencoder judged by structural similarity: a shifted edge costs little, a changed structure much.

    Bergmann, Löwe, Fauser, Sattlegger, Steger, "Improving Unsupervised Defect Segmentation by Applying
    Structural Similarity to Autoencoders", VISAPP 2019 (arXiv 1807.02011).

    `image_size` (h, w) and `channels` (1 or 3) of the input. `code`: how many numbers an image is squeezed into (the
    paper: 100 for textures, 500 for objects). `width`: channels of the first layer; all others are the paper's
    multiples of it. `window`: side of the Gaussian window in which structure is compared, an odd number. `epochs`,
    `batch_size`, `learning_rate`, `weight_decay`: of Adam. `training_steps`: after how many batches training ends, in
    place of `epochs`. `sspcab`: whether a block before the code predicts features from those around them, with a loss
    of its own (SSPCAB; Ristea et al., CVPR 2022). For thousands of 28 × 28 images `code=16, width=8, window=7,
    epochs=30, batch_size=64, learning_rate=1e-3` take a minute; at twice the rate copies of some digits stay black.

    The paper has four strided layers for 128 px and a fifth in front for 256. Here there are as many as bring the
    shorter side to 8 or less: more of them in front for larger images, the first layers left out for smaller ones. The
    last kernel is as large as the grid that remains, so that only the code connects the halves.

    Deliberately otherwise: images as they are, without the paper's 10 000 crops and rotations, which suit textures
    but not parts that lie one way; whole images at once, not overlapping patches; (1 - SSIM) / 2, the paper's
    residual halved, so that it is in [0, 1]; weights that start at He's scale (`start_decoder`). The paper scores
    pixels only: the score of an image is the mean of its map, which is what training minimises.
    """

    fixed_size = True

    def __init__(
        self,
        image_size: tuple[int, int] = (256, 256),
        channels: int = 3,
        code: int = 100,
        width: int = 32,
        window: int = 11,
        epochs: int = 200,
        batch_size: int = 128,
        learning_rate: float = 2e-4,
        weight_decay: float = 1e-5,
        training_steps: int | None = None,
        sspcab: bool = False,
    ):
        super().__init__()
        check_input(image_size, channels)
        at_least(1, code=code, width=width, epochs=epochs, batch_size=batch_size, training_steps=training_steps)
        at_least(0, weight_decay=weight_decay)
        positive(learning_rate=learning_rate)
        if window < 3 or window % 2 == 0:
            raise OkngError(f"window is an odd number of pixels from 3 on, not {window}")
        self.radius = window // 2
        self.epochs, self.batch_size, self.training_steps = epochs, batch_size, training_steps
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        down: list[nn.Module] = []
        up: list[nn.Module] = []
        (h, w), inner = image_size, channels
        for multiple, kernel, stride in layers_for(image_size):
            outer, odd = multiple * width, (0, 0)
            if stride == 2:  # halving rounds odd sides down; the way back adds the lost row or column
                odd, h, w = (h % 2, w % 2), h // 2, w // 2
            back = nn.ConvTranspose2d(outer, inner, kernel, stride, padding=1, output_padding=odd)
            down += [nn.Conv2d(inner, outer, kernel, stride, padding=1), nn.LeakyReLU(SLOPE)]
            up = [nn.LeakyReLU(SLOPE), back, *up]
            inner = outer
        self.encoder = nn.Sequential(*down, nn.Conv2d(inner, code, (h, w)))
        self.decoder = nn.Sequential(nn.ConvTranspose2d(code, inner, (h, w)), *up, nn.Sigmoid())
        start_awake(self.encoder)
        start_decoder(self.decoder)
        if sspcab:
            self.encoder = with_block(self.encoder, 1)

    def phases(self) -> Iterator[Phase]:
        """Learn to copy OK images through the code."""
        optimizer = torch.optim.Adam(self.parameters(), self.learning_rate, weight_decay=self.weight_decay)
        update = Update(self.loss, optimizer)
        yield Train("ssim autoencoder", [update], self.epochs, [self], self.batch_size, steps=self.training_steps)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """The mean structural dissimilarity of the copies, which is the mean score; with SSPCAB its prediction's."""
        scores: Scores = self(batch.images)
        return {"loss": scores.image.mean(), **prediction_of(self.encoder, batch.images)}

    def forward(self, images: Tensor) -> Scores:
        """Dissimilarity of the copies in [0, 1]: `map` (B, H, W) the mean over channels, `image` (B,) over all."""
        codes = self.encoder(images)  # (B, code, 1, 1)
        copies = self.decoder(codes)  # (B, C, H, W)
        dissimilarity = dssim_map(images, copies, self.radius).mean(1)  # (B, H, W)
        return Scores(dissimilarity.mean((1, 2)), dissimilarity)


def start_decoder(decoder: nn.Sequential) -> None:
    """Draw the weights of transposed convolutions at He's scale, counted by what a place of their output receives.

    That is a k²/s² of each channel at stride s, and one number of each where the input is the code. Copies that start
    flat, as they do from smaller weights, have next to no structure for SSIM to compare, and may stay so.
    """
    for layer in decoder:
        if isinstance(layer, nn.ConvTranspose2d):
            met = 1 if layer is decoder[0] else math.prod(layer.kernel_size) / math.prod(layer.stride)
            nn.init.normal_(layer.weight, 0, math.sqrt(2 / ((1 + SLOPE**2) * met * layer.in_channels)))


def layers_for(image_size: tuple[int, int]) -> tuple[tuple[int, int, int], ...]:
    """The paper's layers with as many strided ones as bring the shorter side to at most 8, each time rounded down."""
    halvings, side = 0, min(image_size)
    while side > COARSEST:
        halvings, side = halvings + 1, side // 2
    strided = [i for i, (_, _, stride) in enumerate(LAYERS) if stride == 2]
    if halvings <= len(strided):
        return LAYERS[strided[-halvings] :]
    return (LAYERS[0],) * (halvings - len(strided)) + LAYERS
