"""OCGAN with attention."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from okng.checks import at_least, positive
from okng.detectors.adversarial.ocgan import BETAS, check
from okng.detectors.base import Batch, Collect, Detector, Phase, Scores, Train, Update
from okng.errors import OkngError
from okng.nn.learning.adversarial import judging_only
from okng.nn.networks.cbam import CBAM
from okng.nn.networks.one_class_gan import Contraction, OneClassGAN, cross_entropy, frame

MIXED = 16  # channels of each feature layer where they come together, and after that


class AttentionOCGAN(Detector):
    """The background is noise to a class: a mask of the pixels that make it is learnt, a second OCGAN learns the
    masked images, and what either cannot rebuild is odd.

    The attention model of the slides "Anomaly detection - one class novelty detection", Vision and Display System
    Lab, Sogang University; its base is OCGAN (Perera, Nallapati, Xiang, CVPR 2019).

    To an OCGAN three networks are added. An attention map generator takes the feature layers of the OCGAN's
    decoder, each weighed by CBAM, and gives every pixel a weight. A second OCGAN learns images × attention. A
    classifier guides the mask: it tells OK images from abnormal ones, with and without the mask; abnormal are the
    images that the first OCGAN decodes from its mined codes, masked by their own attention, so OK images are all
    that is needed. The score is the sum of both reconstruction errors, that of the masked image per pixel of the mask.

    The author's plans are part of it. Early masks are bad and the second OCGAN learns from them, so after a
    warm-up it is begun anew, weights and statistics. From then on the sigmoid of the attention is divided by a
    temperature, which makes the mask more decided, and both OCGANs mine.

    `image_size` (h, w) and `channels` (1 or 3) of the input. `code`, `width`, `visual_width`,
    `classifier_width`, `noise`, `dropout`, `reconstruction_weight`, `latent_weight`, `visual_weight`,
    `mining_steps`, `mining_rate`: of both OCGANs, as there; the classifier that guides has `classifier_width`
    too. `temperature`: what the attention's logits are divided by after the warm-up, 1 before. `reinitialise`:
    whether the second OCGAN begins anew then. `area`: the smallest and largest share of an image that a mask is
    pulled to, with `area_weight`. `smoothness`: the weight of the mean difference of neighbouring weights.
    `warm_up`: the share of the epochs before the second OCGAN begins anew. `epochs`, `batch_size`,
    `learning_rate`: of Adam. For thousands of 28 × 28 or 32 × 32 images `width=16,
    classifier_width=16, dropout=0.0, reconstruction_weight=100.0, epochs=10, batch_size=32, learning_rate=1e-3`
    take about ten minutes.

    Deliberately otherwise: the slides give no sizes, weights or schedule; OCGAN's are used, as in `ocgan`, and the
    rest is this library's choice. The guide compares decoded mined codes with rebuilt OK images, as OCGAN's own
    classifier does: between originals and decoded images the decoder's smoothness would tell, which is no matter of
    pixels. The attention learns from the guide alone, not from a reconstruction, which an empty mask would
    make perfect, and its loss does not reach the decoder, so the first OCGAN learns what it would learn alone.
    Nothing in the slides keeps a mask from being empty or full: `area` does, with a pull that does not vanish
    where the sigmoid is flat, and a small upper share, because a mask that may keep most of an image can as well
    keep the background, in which the object is left as a hole. The slides add the two errors as they are; but the
    smaller a mask, the less there is to rebuild, and an odd image that is hardly attended to would look less odd.
    So the second error is divided by the share of the image that its mask weighs, or by the least that `area` means
    one to weigh, below which next to nothing is divided by next to nothing. As no loss of the second OCGAN reaches the
    attention, beginning it anew is the same as training the mask first, the author's other plan. After the warm-up
    Adam's moments begin anew for all networks. On digits, which have no background to take away, two OCGANs of half
    the width have found no more than one (docs/tables.md).
    """

    fixed_size = True
    temperature: Tensor

    def __init__(
        self,
        image_size: tuple[int, int] = (61, 61),
        channels: int = 3,
        code: int = 16,
        width: int = 64,
        visual_width: int = 12,
        classifier_width: int = 64,
        noise: float = 0.2,
        dropout: float = 0.5,
        reconstruction_weight: float = 10.0,
        latent_weight: float = 1.0,
        visual_weight: float = 1.0,
        mining_steps: int = 5,
        mining_rate: float = 1.0,
        temperature: float = 0.3,
        reinitialise: bool = True,
        area: tuple[float, float] = (0.05, 0.3),
        area_weight: float = 1.0,
        smoothness: float = 0.1,
        warm_up: float = 0.4,
        epochs: int = 201,
        batch_size: int = 512,
        learning_rate: float = 2e-4,
    ):
        super().__init__()
        check(epochs, batch_size, learning_rate, warm_up, mining_steps)
        at_least(0, area_weight=area_weight, smoothness=smoothness)
        positive(temperature=temperature)
        if not 0 < area[0] <= area[1] < 1:
            raise OkngError(f"area is two shares between 0 and 1 in order, such as 0.05,0.3, not {area}")
        self.mining_steps, self.learning_rate = mining_steps, learning_rate
        self.epochs, self.warm_up_epochs, self.batch_size = epochs, round(warm_up * (epochs - 1)), batch_size
        self.later_temperature, self.reinitialise = temperature, reinitialise
        self.area, self.area_weight, self.smoothness = area, area_weight, smoothness
        self.first, self.second = (
            OneClassGAN(
                image_size, channels, code, width, visual_width, classifier_width, noise, dropout,
                reconstruction_weight, latent_weight, visual_weight, mining_rate,
            )
            for _ in range(2)
        )  # fmt: skip
        self.attention = AttentionMaps(self.first.decoder.widths, image_size)
        self.guide = Contraction(image_size, channels, classifier_width, 1)
        self.register_buffer("temperature", torch.ones(()))

    def phases(self) -> Iterator[Phase]:
        """Warm up; begin the second OCGAN anew; learn on with a sharper mask and mined codes."""
        if self.warm_up_epochs:
            yield self.training_phase("attention_ocgan: warm-up", self.warm_up_epochs, mining_steps=0)
        # A phase of its own, so that a fit resumed at its end finds it done and one resumed before it does it again.
        yield Collect("attention_ocgan: a new second GAN", lambda batch: None, self.begin_anew)
        yield self.training_phase("attention_ocgan", self.epochs - self.warm_up_epochs, self.mining_steps)

    def begin_anew(self) -> None:
        """Sharpen the attention, and give the second OCGAN new random weights."""
        self.temperature.fill_(self.later_temperature)
        if self.reinitialise:
            self.second.reset()

    def training_phase(self, name: str, epochs: int, mining_steps: int) -> Train:
        """On each batch first the networks that judge in either OCGAN, then all that make images or masks."""

        def critics(batch: Batch) -> dict[str, Tensor]:
            images = 2 * batch.images - 1
            masked = 2 * self.masked(batch.images) - 1
            return named("first", self.first.critic_losses(images)) | named("second", self.second.critic_losses(masked))

        def makers(batch: Batch) -> dict[str, Tensor]:
            first, mined = self.first.generator_losses(2 * batch.images - 1, mining_steps)
            masked, guiding = self.guiding_losses(batch.images, mined)
            second, _ = self.second.generator_losses(2 * masked.detach() - 1, mining_steps)
            return named("first", first) | guiding | named("second", second)

        gans = (self.first, self.second)
        judging = [parameter for gan in gans for parameter in gan.critic_parameters()]
        making = [parameter for gan in gans for parameter in gan.generator_parameters()]
        making += [*self.attention.parameters(), *self.guide.parameters()]
        updates = [
            Update(critics, torch.optim.Adam(judging, self.learning_rate, BETAS)),
            Update(makers, torch.optim.Adam(making, self.learning_rate, BETAS)),
        ]
        return Train(name, updates, epochs, [*gans, self.attention, self.guide], self.batch_size)

    def attend(self, images: Tensor) -> Tensor:
        """The weight of each pixel, (B, 1, H, W) in (0, 1), of `images` (B, C, H, W) in [0, 1]."""
        layers = self.first.decoder.features(self.first.encoder(2 * images - 1))
        return (self.attention(layers) / self.temperature).sigmoid()  # type: ignore[no-any-return]

    def masked(self, images: Tensor) -> Tensor:
        """Images × attention, (B, C, H, W) in [0, 1], for what does not teach the attention."""
        with torch.no_grad(), judging_only(self.first.encoder, self.first.decoder):  # as they are when it scores
            return images * self.attend(images)

    def guiding_losses(self, images: Tensor, mined: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The masked `images`, in [0, 1], and the losses of attention and guide; `mined` (B, code) are the abnormal."""
        with torch.no_grad(), judging_only(self.first.encoder, self.first.decoder):
            codes = torch.cat([self.first.encoder(2 * images - 1), mined])  # (2B, code)
            layers = self.first.decoder.features(codes)
            decoded = (self.first.decoder.image(layers) + 1) / 2  # (2B, C, H, W)
        logits = self.attention(layers) / self.temperature  # (2B, 1, H, W)
        weights = logits.sigmoid()
        told = self.guide(2 * torch.cat([decoded, decoded * weights]) - 1)  # (4B, 1)
        ok, ng, masked_ok, masked_ng = told.chunk(4)
        steps = weights.diff(dim=2).abs().mean() + weights.diff(dim=3).abs().mean()
        return images * weights[: len(images)], {
            "guide, images": (cross_entropy(ok, 1) + cross_entropy(ng, 0)) / 2,
            "guide, masked": (cross_entropy(masked_ok, 1) + cross_entropy(masked_ng, 0)) / 2,
            "area": self.area_weight * outside(logits, *self.area).mean(),
            "smoothness": self.smoothness * steps,
        }

    def forward(self, images: Tensor) -> Scores:
        """The sum of both copies' squared errors, the second's per share of its mask: `map` (B, H, W) the mean over
        channels, `image` (B,) over all.
        """
        weights = self.attend(images)  # (B, 1, H, W)
        share = weights.mean((2, 3)).clamp_min(self.area[0])  # (B, 1)
        errors = self.first.errors(images) + self.second.errors(images * weights) / share[:, :, None]  # (B, H, W)
        return Scores(errors.mean((1, 2)), errors)


class AttentionMaps(nn.Module):
    """From the decoder's feature layers to one logit per pixel."""

    def __init__(self, widths: Sequence[int], image_size: tuple[int, int]):
        super().__init__()
        self.image_size = image_size
        _, _, self.frame = frame(image_size)
        self.layers = nn.ModuleList(nn.Sequential(CBAM(width), nn.Conv2d(width, MIXED, 1)) for width in widths)
        together = nn.Conv2d(MIXED * len(widths), MIXED, 3, padding=1)
        self.join = nn.Sequential(together, nn.ReLU(), nn.Conv2d(MIXED, 1, 1))

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Logits (B, 1, H, W) of `features`, each (B, widths[i], h_i, w_i)."""
        finest = features[-1].shape[-2:]
        mixed = [over(layer(f), finest) for layer, f in zip(self.layers, features, strict=True)]
        logits = self.join(torch.cat(mixed, 1))  # (B, 1, *finest)
        height, width = self.image_size
        return over(logits, self.frame)[..., :height, :width]


def outside(logits: Tensor, low: float, high: float) -> Tensor:
    """How far the share a that a mask weighs is below `low`, ln(low / a), or above `high`, ln((1 - high) / (1 - a)).

    (B,) of `logits` (B, 1, H, W). The share itself stops changing where all weights are next to 0 or 1, and a mask
    that got there would stay; the logarithms go on.
    """
    count = math.log(logits[0].numel())
    log_share = F.logsigmoid(logits).flatten(1).logsumexp(1) - count  # (B,)
    log_rest = F.logsigmoid(-logits).flatten(1).logsumexp(1) - count  # (B,)
    return (math.log(low) - log_share).clamp_min(0) + (math.log(1 - high) - log_rest).clamp_min(0)


def over(features: Tensor, size: Sequence[int]) -> Tensor:
    """`features` (B, C, h, w) bilinearly where they stand on the grid of a later layer, or the frame: (B, C, *size).

    A transposed layer of stride 2 and kernel 5 without padding makes 2h + 3 of h and puts position i over 2i + 2.
    Continued by two positions to each side, features span the finer grid and two of its positions to each side,
    however many layers lie between.
    """
    wide = F.pad(features, (2, 2, 2, 2), mode="replicate")  # (B, C, h + 4, w + 4)
    wide = F.interpolate(wide, (size[0] + 4, size[1] + 4), mode="bilinear", align_corners=True)
    return wide[..., 2:-2, 2:-2]


def named(prefix: str, losses: dict[str, Tensor]) -> dict[str, Tensor]:
    """The losses of one of the two OCGANs."""
    return {f"{prefix} {name}": loss for name, loss in losses.items()}
