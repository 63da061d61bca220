"""DAAD: divide and assemble, with a block-wise memory."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from okng.checks import at_least, check_input, positive
from okng.detectors.base import Batch, Detector, Phase, Scores, Train, Update
from okng.errors import OkngError
from okng.nn.learning.adversarial import bounded, judging_only
from okng.nn.networks.dcgan import LIMIT, SLOPE, WIDEST, Discriminator, start
from okng.nn.networks.sizes import halvings, pad_to_grid

BETAS = (0.5, 0.999)  # of Adam


class BlockMemory(nn.Module):
    """Feature maps (B, C, h, w), divided into blocks, each made anew of learnt ones, and put together again.

    `divisions` (r_h, r_w, r_c): into how many blocks height, width and channels are divided, or fewer where there
    are not as many places. Sides of blocks are rounded up, and what they take beyond the map is 0. `count` rows of
    `items` are the memory, one for all blocks of the map; `temperature`: of the softmax that chooses among them.
    """

    def __init__(self, shape: tuple[int, int, int], divisions: tuple[int, int, int], count: int, temperature: float):
        super().__init__()
        self.temperature = temperature
        (down, across, deep), (channels, height, width) = divisions, shape
        self.shape = shape
        self.block = (-(-channels // deep), -(-height // down), -(-width // across))  # a block's channels and sides
        self.grid = tuple(-(-whole // part) for whole, part in zip(shape, self.block, strict=True))
        self.beyond = [part * n - whole for whole, part, n in zip(shape, self.block, self.grid, strict=True)]
        size = math.prod(self.block)
        self.items = nn.Parameter(torch.empty(count, size).uniform_(-1, 1) / math.sqrt(size))  # (N, D)

    def divide(self, features: Tensor) -> Tensor:
        """The blocks (B * n, D) of `features` (B, C, h, w)."""
        c, h, w = self.beyond
        padded = F.pad(features, (0, w, 0, h, 0, c))  # (B, n_c * c, n_h * h, n_w * w)
        (n_c, n_h, n_w), (c, h, w) = self.grid, self.block
        parts = padded.view(-1, n_c, c, n_h, h, n_w, w).permute(0, 1, 3, 5, 2, 4, 6)  # (B, n_c, n_h, n_w, c, h, w)
        return parts.reshape(-1, c * h * w)

    def assemble(self, blocks: Tensor) -> Tensor:
        """The feature maps (B, C, h, w) of which `blocks` (B * n, D) are the parts."""
        (n_c, n_h, n_w), (c, h, w) = self.grid, self.block
        parts = blocks.view(-1, n_c, n_h, n_w, c, h, w).permute(0, 1, 4, 2, 5, 3, 6)  # (B, n_c, c, n_h, h, n_w, w)
        whole = parts.reshape(-1, n_c * c, n_h * h, n_w * w)
        channels, height, width = self.shape
        return whole[:, :channels, :height, :width]

    def weights(self, blocks: Tensor) -> Tensor:
        """How much of each item stands for each of `blocks` (n, D): (n, N), 0 or more, each row's sum 1.

        The softmax of cosine / temperature, without the items that have less than an equal share.
        """
        cosines = F.normalize(blocks) @ F.normalize(self.items).T  # (n, N)
        shares = (cosines / self.temperature).softmax(1)
        least = shares.amax(1, keepdim=True).clamp_max(1 / len(self.items))  # the largest share is always kept
        kept = shares * (shares >= least)
        return kept / kept.sum(1, keepdim=True)

    def forward(self, features: Tensor) -> Tensor:
        """`features` (B, C, h, w), each block replaced by the mean of items that its weights give."""
        return self.assemble(self.weights(self.divide(features)) @ self.items)


class UNet(nn.Module):
    """Images (B, channels, H, W) in [-1, 1] to copies; from encoder to decoder everything goes through a memory."""

    def __init__(
        self,
        image_size: tuple[int, int],
        channels: int,
        width: int,
        divisions: tuple[int, int, int],
        items: int,
        temperature: float,
    ):
        super().__init__()
        self.times, (h, w) = halvings(image_size)
        widths = [width * min(2**i, WIDEST) for i in range(self.times)]
        self.down, self.memories, self.up = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for i, (inner, outer) in enumerate(zip([channels, *widths], widths, strict=False)):
            norm = nn.BatchNorm2d(outer) if i else nn.Identity()
            self.down.append(nn.Sequential(nn.Conv2d(inner, outer, 4, 2, 1, bias=i == 0), norm, nn.LeakyReLU(SLOPE)))
            sides = h * 2 ** (self.times - 1 - i), w * 2 ** (self.times - 1 - i)
            self.memories.append(BlockMemory((outer, *sides), divisions, items, temperature))
        for i in reversed(range(self.times)):  # the deepest level has nothing below it to be put beside
            inner = widths[i] if i == self.times - 1 else 2 * widths[i]
            if i:
                layer = nn.ConvTranspose2d(inner, widths[i - 1], 4, 2, 1, bias=False)
                self.up.append(nn.Sequential(layer, nn.BatchNorm2d(widths[i - 1]), nn.ReLU()))
            else:
                self.up.append(nn.Sequential(nn.ConvTranspose2d(inner, channels, 4, 2, 1), nn.Tanh()))
        self.apply(start)

    def forward(self, images: Tensor) -> Tensor:
        """Copies (B, channels, H, W) in [-1, 1]."""
        remembered, features = [], pad_to_grid(images, self.times)
        for down, memory in zip(self.down, self.memories, strict=True):
            features = down(features)  # (B, C_l, h_l, w_l)
            remembered.append(memory(features))
        made = self.up[0](remembered.pop())
        for up in list(self.up)[1:]:
            made = up(torch.cat([made, remembered.pop()], 1))  # of (B, 2 C_l, h_l, w_l)
        copies: Tensor = made[:, :, : images.shape[2], : images.shape[3]]
        return copies


class DAAD(Detector):
    """An image's features are divided into blocks and assembled anew of blocks learnt from OK images; odd is what
    that changes.

    Hou, Zhang, Zhong, Xie, Pu, Zhou, "Divide-and-Assemble: Learning Block-wise Memory for Unsupervised Anomaly
    Detection", ICCV 2021. An autoencoder with skip connections at all scales, each through a memory: how finely it
    divides is how well anything can be copied. Fine blocks copy OK and NG images, coarse blocks neither; with the right
    size, the paper says, the gap between the two is largest. A discriminator makes the copies look OK, and its features
    are compared, too.

    Measured here, on one digit and on transistor (results/daad_blocks.csv), finer blocks copy both better, as the paper
    says, but no size in between is best: the error of NG images less that of OK ones is largest with one block, falls
    from there, and ends below 0. One block, `divisions=(1, 1, 1)`, is the whole feature map: nothing is divided. That
    is what photographs have on a CPU, chosen by OK images that were spoilt (docs/choices.md).

    `image_size` (h, w) and `channels` (1 or 3) of the input. `divisions`: into how many blocks height, width and
    channels of the feature maps are divided, at all scales; a block is that share of the image. `items`: how many
    blocks each scale's memory holds. `temperature`: of the softmax of cosines that chooses among them; at 1 half of all
    items stand for any block, at 0.1 a few. `width`: channels after the first layer; they double as the sides
    halve, up to eight times. `reconstruction_weight`, `adversarial_weight`, `latent_weight`: of the losses by the
    copy's absolute error, by the discriminator's verdict and by its features. `latent_share`: of the features in the
    score beside the copy's squared error. `epochs`, `batch_size`, `learning_rate`: of Adam with betas 0.5 and 0.999,
    for both networks.

    What the abstract and a public summary with equations say is kept; the paper's text could not be had, and there is
    no public code. By that summary the loss is λ_rec ‖x - x̂‖₂ + λ_adv L_adv + λ_ali ‖f_D(x) - f_D(x̂)‖₂, x̂ the copy and
    f_D the discriminator's features: the loss "latent" here is the last one, the paper's alignment loss. If that is
    what the variant DAAD+ adds, as other notes have it, this is DAAD+. The division, the number of items, the weights,
    the epochs and the rate are this library's; the score is that of Skip-GANomaly (Akcay, Atapour-Abarghouei, Breckon,
    IJCNN 2019).

    Deliberately otherwise: the copies' loss is the absolute error and the features' the mean squared one, as in
    Skip-GANomaly, where the summary has Euclidean distances; the autoencoder's adversarial loss is the one that does
    not saturate. In the summary the softmax is of the cosines as they are and keeps all items; here they are divided by
    `temperature`, and items that have less than an equal share are dropped, as in MemAE (Gong et al., ICCV 2019). The
    deepest features go through a memory like all others, so that no path from image to copy leads around one. All
    blocks of a scale share its memory. While the autoencoder learns, the discriminator is in eval mode, as it is for
    scoring.
    """

    fixed_size = True

    def __init__(
        self,
        image_size: tuple[int, int] = (256, 256),
        channels: int = 3,
        divisions: tuple[int, int, int] = (8, 8, 1),
        items: int = 500,
        temperature: float = 0.1,
        width: int = 64,
        reconstruction_weight: float = 50.0,
        adversarial_weight: float = 1.0,
        latent_weight: float = 1.0,
        latent_share: float = 0.1,
        epochs: int = 200,
        batch_size: int = 16,
        learning_rate: float = 2e-4,
    ):
        super().__init__()
        check_input(image_size, channels)
        if len(divisions) != 3 or min(divisions) < 1:
            raise OkngError(f"divisions is three numbers, 1 or more each, such as 8,8,1, not {divisions}")
        at_least(1, items=items, width=width, epochs=epochs, batch_size=batch_size)
        at_least(0, adversarial_weight=adversarial_weight, latent_weight=latent_weight, latent_share=latent_share)
        positive(temperature=temperature, reconstruction_weight=reconstruction_weight, learning_rate=learning_rate)
        self.reconstruction_weight, self.adversarial_weight = reconstruction_weight, adversarial_weight
        self.latent_weight, self.latent_share = latent_weight, latent_share
        self.epochs, self.batch_size, self.learning_rate = epochs, batch_size, learning_rate
        self.autoencoder = UNet(image_size, channels, width, divisions, items, temperature)
        self.discriminator = Discriminator(image_size, channels, width)

    def phases(self) -> Iterator[Phase]:
        """On every batch the discriminator takes a step, then the autoencoder with its memories."""
        judge = torch.optim.Adam(self.discriminator.parameters(), self.learning_rate, BETAS)
        copier = torch.optim.Adam(self.autoencoder.parameters(), self.learning_rate, BETAS)
        updates = [Update(self.discriminator_loss, judge), Update(self.copying_loss, copier)]
        yield Train("divide and assemble", updates, self.epochs, [self], self.batch_size)

    def discriminator_loss(self, batch: Batch) -> dict[str, Tensor]:
        """Tell OK images from their copies."""
        images = batch.images * 2 - 1
        with torch.no_grad():
            copies = self.autoencoder(images)
        real, copied = self.discriminator(torch.cat([images, copies])).chunk(2)  # (B,) each
        return bounded({"real": F.softplus(-real).mean(), "copied": F.softplus(copied).mean()}, LIMIT)

    def copying_loss(self, batch: Batch) -> dict[str, Tensor]:
        """Copy OK images, so that the discriminator can't tell and sees the same."""
        images = batch.images * 2 - 1
        copies = self.autoencoder(images)  # (B, C, H, W)
        with judging_only(self.discriminator):
            deceived = F.softplus(-self.discriminator(copies)).mean()
            latent = self.latent_distance(images, copies).mean()
        losses = {
            "copies": self.reconstruction_weight * (copies - images).abs().mean(),
            "adversarial": self.adversarial_weight * deceived,
            "latent": self.latent_weight * latent,
        }
        bounded({"adversarial": deceived}, LIMIT)
        return losses

    def latent_distance(self, images: Tensor, copies: Tensor) -> Tensor:
        """The mean squared difference (B,) of what the discriminator sees in `images` and in `copies`."""
        return (self.discriminator.look(images) - self.discriminator.look(copies)).square().mean((1, 2, 3))

    def forward(self, images: Tensor) -> Scores:
        """`map` (B, H, W): squared errors of the copies, means over channels; `image` (B,): of the map and features."""
        images = images * 2 - 1
        copies = self.autoencoder(images)  # (B, C, H, W)
        errors = (copies - images).square().mean(1)  # (B, H, W)
        latent = self.latent_distance(images, copies)
        return Scores((1 - self.latent_share) * errors.mean((1, 2)) + self.latent_share * latent, errors)
