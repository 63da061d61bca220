"""WinCLIP."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from okng.checks import at_least, check_input
from okng.detectors.base import Batch, Collect, Detector, Phase, Scores, freeze
from okng.errors import OkngError, missing_extra, nearest_names
from okng.nn.features.backbones import _weights_file
from okng.nn.features.vit import is_transformer

CLIPS = {  # timm's name of the image tower: open_clip's of both
    "vit_base_patch16_plus_clip_240": "ViT-B-16-plus-240",
    "vit_base_patch16_clip_224": "ViT-B-16",
    "vit_base_patch32_clip_224": "ViT-B-32",
}
TEMPERATURE = 0.07
NORMAL = (
    "{}",
    "flawless {}",
    "perfect {}",
    "unblemished {}",
    "{} without flaw",
    "{} without defect",
    "{} without damage",
)
ODD = ("damaged {}", "{} with flaw", "{} with defect", "{} with damage")
LOOKS = ("cropped", "close-up", "bright", "dark", "jpeg corrupted", "blurry")  # of a photo
SIZES = ("", "small ", "large ")  # of what is on it
ENDS = (" for visual inspection", " for anomaly detection")
CLOSEST = 1e-6  # a distance or score below it counts as this: harmonic means divide by them


class WinCLIP(Detector):
    """Windows of an image are compared with words for OK and odd, and with those of a few OK images.

    Jeong, Zou, Kim, Zhang, Ravichandran, Dabeer, "WinCLIP: Zero-/Few-Shot Anomaly Classification and Segmentation",
    CVPR 2023. CLIP's image tower embeds the image, and each window of a few tokens by itself. How odd one is in words
    is a softmax over its cosines to the mean embeddings of phrases for OK and for damaged ones. How odd it is beside
    the references is its distance to the nearest of them. At a place, all windows that cover it count.

    `backbone`: the image tower, by timm's name. `weights`: a file of CLIP's, with both towers as open_clip names the
    tensors; "none": random ones, which know no words, so that words say nothing. `product`: what is on the images, in
    English words, such as "printed circuit board". `shots`: of how many OK images, drawn at random, the references
    are; without any, words alone decide. `scales`: sides of the windows, in tokens. `image_size`: (h, w) of the input,
    multiples of the patch. Weights have to be of open_clip's own networks, such as LAION's: OpenAI's have another GELU.

    `okng weights winclip` says where the file is. The text tower runs once, while learning, by the package
    open_clip_torch (okng's extra "clip"); what it makes is stored, and inspection needs neither. All OK images are for
    the threshold, whatever `shots` is.

    Deliberately otherwise: the paper has the references at hand, here they are drawn by the seed. Where both words and
    references count, the map is the mean of theirs. A distance, or score in words, is at least 1e-6.
    """

    fixed_size = True
    pretrained = True
    collects_only = True
    text: Tensor

    def __init__(
        self,
        backbone: str = "vit_base_patch16_plus_clip_240",
        weights: str = "imagenet",
        product: str = "object",
        shots: int = 4,
        scales: tuple[int, ...] = (2, 3),
        image_size: tuple[int, int] = (240, 240),
    ):
        super().__init__()
        at_least(0, shots=shots)
        check_input(image_size, 3)
        if not scales or min(scales) < 1 or len({*scales}) < len(scales):
            raise OkngError(f"scales are sides of windows in tokens such as 2,3, each once, not {scales}")
        if not is_transformer(backbone):
            raise OkngError(f"backbone is one of {', '.join(CLIPS)}, and {backbone} has no tokens to make windows of")
        if weights == "imagenet":
            raise OkngError(
                "weights is a file with both of CLIP's towers that you copied here, weights=FILE "
                "(okng weights winclip says from where), or none for random ones"
            )
        if weights != "none" and backbone not in CLIPS:
            raise OkngError(f"backbone: no words are known of {backbone}; {nearest_names(backbone, CLIPS)}")
        self.names, self.weights, self.product, self.shots, self.scales = (
            CLIPS.get(backbone),
            weights,
            product,
            shots,
            scales,
        )
        self.tower = freeze(ImageTower(backbone, image_size, weights))
        h, w = self.tower.grid
        if max(scales) > min(h, w):
            raise OkngError(f"scales: a window of {max(scales)} tokens is larger than the grid of {h} x {w}")
        for k in scales:
            self.register_buffer(f"windows_{k}", windows(h, w, k))  # (W, k²)
            self.register_buffer(f"references_{k}", torch.zeros(0, self.tower.joint))  # (M, E), fitting sizes it
        self.register_buffer("references_1", torch.zeros(0, self.tower.width))
        self.register_buffer("text", torch.zeros(2, self.tower.joint))  # for OK, for odd

    @property
    def multiple(self) -> int:
        """A patch's side."""
        return self.tower.patch

    def phases(self) -> Iterator[Phase]:
        """The words; then the references, drawn from all OK images, of which only those are embedded."""
        if self.names is not None and self.weights != "none":
            self.text.copy_(phrases(self.names, self.weights, self.product))
        if not self.shots:
            return
        drawn: list[tuple[float, Tensor]] = []

        def visit(batch: Batch) -> None:
            (images,) = batch.prepared
            drawn.extend((float(torch.rand(())), image.clone()) for image in images)  # (3, H, W) each
            drawn.sort(key=lambda each: each[0])
            del drawn[self.shots :]

        def finish() -> None:
            found = [self.embedded(image[None])[1:] for _, image in drawn]  # for each scale (1, W, E)
            for k, each in zip((1, *self.scales), zip(*found, strict=True), strict=True):
                setattr(self, f"references_{k}", torch.cat(each).flatten(0, 1))

        yield Collect("references", visit, finish, prepare=lambda images: images)  # to embed all would cost the most

    def embedded(self, images: Tensor) -> tuple[Tensor, ...]:
        """Of `images` the embedding (B, E), of tokens (B, L, D), and for each scale of windows (B, W, E); length 1."""
        tokens = self.tower.tokens(images)  # (B, 1 + L, D)
        whole, patches = self.tower.encoded(tokens)
        found = [whole, patches]
        for k in self.scales:
            index = self.get_buffer(f"windows_{k}")  # (W, k²)
            inside = tokens[:, 1:][:, index.flatten()].unflatten(1, tuple(index.shape))  # (B, W, k², D)
            classes = tokens[:, None, :1].expand(-1, len(index), -1, -1)  # (B, W, 1, D)
            short = torch.cat([classes, inside], 2).flatten(0, 1)  # (B*W, 1 + k², D)
            found.append(self.tower.encoded(short)[0].unflatten(0, (-1, len(index))))
        return tuple(F.normalize(each, dim=-1) for each in found)

    def in_words(self, embedded: Tensor) -> Tensor:
        """How odd words call what is `embedded` (..., E): in (0, 1)."""
        cosines = embedded @ F.normalize(self.text, dim=1).T  # (..., 2)
        return (cosines / TEMPERATURE).softmax(-1)[..., 1].clamp_min(CLOSEST)

    def beside(self, embedded: Tensor, k: int) -> Tensor:
        """How far what is `embedded` (B, W, E) lies from the nearest reference of scale `k`: (B, W) in [0, 1]."""
        nearest = (embedded @ self.get_buffer(f"references_{k}").T).amax(2)
        return ((1 - nearest) / 2).clamp_min(CLOSEST)

    def spread(self, scores: Tensor, k: int) -> Tensor:
        """For each token the harmonic mean of the `scores` (B, W) of the windows of scale `k` that cover it: (B, L)."""
        covers = F.one_hot(self.get_buffer(f"windows_{k}"), self.tower.count).sum(1).to(scores)  # (W, L)
        return covers.sum(0) / ((1 / scores) @ covers)

    def forward(self, images: Tensor) -> Scores:
        """`map` (B, h, w): the mean of words' and references'. `image` (B,): in words, and their maximum."""
        whole, patches, *sized = self.embedded(images)
        score = self.in_words(whole)  # (B,)
        said = [score[:, None].expand(-1, self.tower.count)]  # (B, L) each
        said += [self.spread(self.in_words(each), k) for k, each in zip(self.scales, sized, strict=True)]
        anomaly = len(said) / (1 / torch.stack(said)).sum(0)
        if self.shots:
            near = [self.beside(patches, 1)]
            near += [self.spread(self.beside(each, k), k) for k, each in zip(self.scales, sized, strict=True)]
            apart = torch.stack(near).mean(0)  # (B, L)
            anomaly, score = (anomaly + apart) / 2, (score + apart.amax(1)) / 2
        return Scores(score, anomaly.unflatten(1, self.tower.grid))


class ImageTower(nn.Module):
    """CLIP's image tower, by timm, that embeds all tokens of an image or a few of them.

    `grid` (h, w) and `count` of its tokens, `patch` a token's side in px, `width` of tokens, `joint` of embeddings.
    """

    net: Any  # untyped, as timm's
    mean: Tensor
    std: Tensor

    def __init__(self, name: str, image_size: tuple[int, int], weights: str):
        super().__init__()
        import timm
        from timm.models import vision_transformer

        config: Any = timm.get_pretrained_cfg(name)
        self.net = timm.create_model(name, img_size=image_size, num_classes=config.num_classes)
        if weights != "none":
            given = vision_transformer.checkpoint_filter_fn(_weights_file(Path(weights)), self.net)
            fill(self.net, given, name)
        self.grid: tuple[int, int] = self.net.patch_embed.grid_size
        self.count, self.patch = self.grid[0] * self.grid[1], int(self.net.patch_embed.patch_size[0])
        self.width, self.joint = int(self.net.embed_dim), int(config.num_classes)
        self.register_buffer("mean", torch.tensor(config.mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(config.std).view(1, 3, 1, 1))

    def tokens(self, images: Tensor) -> Tensor:
        """The class token and those of the patches of `images` (B, 3, H, W), with their positions: (B, 1 + L, D)."""
        patches = self.net.patch_embed((images - self.mean) / self.std)  # (B, L, D)
        found: Tensor = (
            torch.cat([self.net.cls_token.expand(patches.shape[0], -1, -1), patches], 1) + self.net.pos_embed
        )
        return found

    def encoded(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Of `tokens` (N, 1 + k, D), the class token first, the embedding (N, E), and the patches' tokens (N, k, D)."""
        found = self.net.norm(self.net.blocks(self.net.norm_pre(tokens)))
        return self.net.head(self.net.fc_norm(found[:, 0])), found[:, 1:]


def windows(h: int, w: int, k: int) -> Tensor:
    """The tokens of each `k` × `k` window of a grid of `h` × `w`: (W, k²)."""
    places = torch.arange(h * w).view(h, w)
    return places.unfold(0, k, 1).unfold(1, k, 1).flatten(0, 1).flatten(1)


def prompts(states: tuple[str, ...], product: str) -> list[str]:
    """Each of the `states` of a `product` in each of 22 phrases that a photo of it may be described by."""
    phrases = [f"a {look} photo of {article} {{}}." for look in LOOKS for article in ("a", "the")]
    phrases += [f"a photo of {article} {size}{{}}." for size in SIZES for article in ("a", "the")]
    phrases += [f"a photo of {article} {{}}{end}." for end in ENDS for article in ("a", "the")]
    return [phrase.format(state.format(product)) for state in states for phrase in phrases]


def phrases(name: str, weights: str, product: str) -> Tensor:
    """The mean embeddings (2, E) of all phrases for an OK and an odd `product`, by the text tower in a file."""
    try:
        import open_clip
    except ModuleNotFoundError as error:
        raise missing_extra("open_clip_torch", "train,clip") from error
    towers: Any = open_clip.create_model(name).eval()
    fill(towers, _weights_file(Path(weights)), name)
    tokenizer: Any = open_clip.get_tokenizer(name)
    with torch.no_grad():
        means = [towers.encode_text(tokenizer(prompts(states, product))).mean(0) for states in (NORMAL, ODD)]
    return torch.stack(means)


def fill(net: Any, given: dict[str, Tensor], name: str) -> None:
    """Load `given` tensors, of which those that `net` does not have are left behind."""
    own = net.state_dict()
    if missing := [each for each in own if each not in given]:
        raise OkngError(f"the weights lack {missing[0]} and {len(missing) - 1} more; are they of {name}, both towers?")
    try:
        net.load_state_dict({each: given[each] for each in own})
    except RuntimeError as error:
        raise OkngError(f"the weights do not fit {name}: tensors of other shapes") from error
