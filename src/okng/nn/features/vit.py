"""Vision transformers as sources of features: the patch tokens of chosen blocks as maps, and the class token."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from okng.errors import OkngError, nearest_names
from okng.nn.features.backbones import Backbone, _downloaded_before, _weights_file


def backbone_of(name: str, strides: Sequence[int], blocks: Sequence[int], weights: str) -> Backbone:
    """A network of either kind as a source of maps: a CNN's at `strides`, or a transformer's after `blocks`."""
    if is_transformer(name):
        return VisionTransformer(name, blocks, weights)
    _without_blocks(name, blocks)
    return Backbone(name, strides, weights)


class Tokens(nn.Module):
    """Patch tokens on their grids, and class tokens, of a network of either kind.

    Of a vision transformer they are those after each of `blocks`, of the last where none is named. Of a CNN the
    features at each of `strides` are the patch tokens, finest first, and a level's class token is the mean of them.
    Levels are what `blocks` or `strides` choose, in the order of the network. `channels`, `strides`: of each level.
    Other arguments as `VisionTransformer`.
    """

    def __init__(
        self,
        name: str,
        strides: Sequence[int] = (8, 16),
        blocks: Sequence[int] = (),
        weights: str = "imagenet",
        normed: bool = False,
    ):
        super().__init__()
        self.transformer = is_transformer(name)
        self.backbone: Backbone
        if self.transformer:
            self.backbone = VisionTransformer(name, blocks or (-1,), weights, normed, prefix=True)
        else:
            _without_blocks(name, blocks)
            self.backbone = Backbone(name, strides, weights)
        self.channels, self.strides = self.backbone.channels, self.backbone.strides

    @property
    def multiple(self) -> int:
        """What both sides of an input have to be multiples of: the patch's side, or the coarsest stride."""
        return max(self.strides)

    def forward(self, images: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Of `images` (B, 3, H, W) in [0, 1]: each level's patch tokens (B, D, h, w), and what precedes them (B, P, D).

        What precedes them is the class token, then the registers where the network has some.
        """
        found = self.backbone(images)
        levels = len(self.channels)
        return found[:levels], found[levels:] if self.transformer else [f.mean((2, 3))[:, None] for f in found]


class VisionTransformer(Backbone):
    """Patch tokens of a timm vision transformer as maps, one for each of `blocks`.

    `name` is a `VisionTransformer` of timm, such as vit_small_patch14_dinov2 or vit_small_patch14_reg4_dinov2, or a
    DINOv3, such as vit_small_patch16_dinov3. `blocks` are counted from 1, or from the end: -1 is the last. `weights`:
    "imagenet" for the pre-trained ones that timm has by that name, whatever images they are of, "none" (random), or a
    file of them, as timm or the authors name the tensors. `normed` takes tokens through the last LayerNorm. `prefix`
    appends, after all maps, the class token and registers (B, P, D) of each block.

    Images may have any size in multiples of the patch: positions are interpolated as timm does for other sizes than
    the pre-trained one (bicubic, with antialiasing), for a DINOv3 they are angles. Nothing is cropped: whoever makes
    the inputs resizes both sides to `multiple`s of `strides`, in training and on the line alike, which loses no border
    and changes an aspect ratio by half a patch at most.
    """

    net: Any  # untyped, as timm's

    def __init__(
        self, name: str, blocks: Sequence[int], weights: str = "imagenet", normed: bool = False, prefix: bool = False
    ):
        nn.Module.__init__(self)  # not the CNN's way: what is shared is the normalisation and what runs the network
        import timm

        if not is_transformer(name):
            raise OkngError(f"{name} is no vision transformer that okng knows; take e.g. vit_small_patch14_dinov2")
        config: Any = timm.get_pretrained_cfg(name)
        if weights == "imagenet":
            try:
                net: Any = timm.create_model(
                    name, pretrained=True, pretrained_cfg_overlay=_downloaded_before(name), num_classes=0
                )
            except Exception as error:  # the hub client raises of many kinds when there is no network
                raise OkngError(
                    f"the weights of {name} can't be downloaded; give weights=FILE that you copied here "
                    "(okng weights says from where), or take backbone=efficientnet_lite0, whose weights are installed"
                ) from error
        else:
            net = timm.create_model(name, num_classes=0)
            _fill(net, weights)
        depth = len(net.blocks)
        if not blocks:
            raise OkngError(f"{name} is a vision transformer of {depth} blocks; say which, such as blocks={depth}")
        chosen = sorted(block + depth * (block < 0) for block in (b - (b > 0) for b in blocks))  # from 0
        if 0 in blocks or chosen[0] < 0 or chosen[-1] >= depth:
            raise OkngError(f"blocks are 1 to {depth} of {name}, or -1 for the last, not {tuple(blocks)}")
        if len({*chosen}) < len(chosen):
            raise OkngError(f"blocks: one of {tuple(blocks)} is there twice; give each once")
        self.net = _Blocks(net, chosen, normed, prefix)
        self.strides = (net.patch_embed.patch_size[0],) * len(chosen)
        self.channels = [net.embed_dim] * len(chosen)
        self.register_buffer("mean", torch.tensor(config.mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(config.std).view(1, 3, 1, 1))


class _Blocks(nn.Module):
    """A timm transformer up to the last of the blocks that are `chosen` (from 0), for images of any size."""

    def __init__(self, net: Any, chosen: Sequence[int], normed: bool, prefix: bool):
        super().__init__()
        net.blocks = net.blocks[: chosen[-1] + 1]  # what lies behind is left behind
        self.net, self.chosen, self.normed, self.prefix = net, chosen, normed, prefix

    def forward(self, images: Tensor) -> list[Tensor]:
        """Maps (B, D, h, w) after each block, and with `prefix` then the tokens before them, (B, P, D)."""
        net = self.net
        grid = net.patch_embed.proj(images)  # (B, D, h, w)
        h, w = grid.shape[2:]
        tokens = net.patch_embed.norm(grid.flatten(2).transpose(1, 2))  # (B, h*w, D)
        before = [
            token.expand(tokens.shape[0], -1, -1) for token in (net.cls_token, net.reg_token) if token is not None
        ]
        if net.pos_embed is None:
            tokens = torch.cat([*before, tokens], 1)  # (B, P + h*w, D)
        else:
            first = 0 if net.no_embed_class else net.num_prefix_tokens
            positions = resized_positions(net.pos_embed[:, first:], net.patch_embed.grid_size, h, w)  # (1, h*w, D)
            tokens = torch.cat([*before, tokens + positions], 1)
            if first:
                tokens = torch.cat([tokens[:, :first] + net.pos_embed[:, :first], tokens[:, first:]], 1)
        tokens = net.norm_pre(tokens)
        turned = {} if getattr(net, "rope", None) is None else {"rope": rotations(net.rope.periods, h, w)}
        maps, prefixes = [], []
        for number, block in enumerate(net.blocks):
            tokens = block(tokens, **turned)  # (B, P + h*w, D)
            if number in self.chosen:
                found = net.norm(tokens) if self.normed else tokens
                patches = found[:, net.num_prefix_tokens :].transpose(1, 2)  # (B, D, h*w)
                maps.append(patches.reshape(-1, patches.shape[1], h, w))
                prefixes.append(found[:, : net.num_prefix_tokens])
        return [*maps, *prefixes] if self.prefix else maps


@functools.cache
def is_transformer(name: str) -> bool:
    """Whether `name` is a timm vision transformer that `VisionTransformer` takes; `OkngError` if timm has none."""
    import timm
    from timm.layers.patch_embed import PatchEmbed
    from timm.models.eva import Eva
    from timm.models.vision_transformer import VisionTransformer as Plain

    if not name.startswith(("vit_", "deit", "eva")):  # so that CNNs are not built twice
        return False
    if not timm.is_model(name):
        raise OkngError(f"there is no backbone {name!r} in timm; {nearest_names(name, timm.list_models())}")
    with torch.device("meta"):  # nothing is computed
        net: Any = timm.create_model(name)
    plain = type(net) is Plain or (type(net) is Eva and hasattr(net.rope, "periods") and not net.rope_mixed)
    return plain and net.cls_token is not None and type(net.patch_embed) is PatchEmbed


def resized_positions(positions: Tensor, grid: tuple[int, int], h: int, w: int) -> Tensor:
    """Embeddings (1, H*W, D) of the positions of a `grid` (H, W), for one of (h, w): (1, h*w, D).

    Bicubic with antialiasing, as PyTorch's `interpolate`, which no ONNX graph has, by one matrix for each axis.
    """
    square = positions[0].unflatten(0, grid)  # (H, W, D)
    rows, columns = resampling(grid[0], h, positions), resampling(grid[1], w, positions)
    tall = (rows @ square.flatten(1)).unflatten(1, square.shape[1:])  # (h, W, D)
    wide: Tensor = columns @ tall  # (h, w, D)
    return wide.flatten(0, 1)[None]


def resampling(old: int, new: int, like: Tensor) -> Tensor:
    """The matrix (new, old) that resamples `old` cells to `new`: cubic (a = -0.5), widened where they become fewer."""
    cells = torch.arange(old, device=like.device, dtype=like.dtype) + 0.5
    # Of a traced graph `new` is a tensor: what is computed of it must be, too.
    shrunk = old / torch.as_tensor(new, device=like.device, dtype=like.dtype)
    centres = (torch.arange(new, device=like.device, dtype=like.dtype) + 0.5) * shrunk
    apart = (cells - centres[:, None]) / shrunk.clamp_min(1)  # (new, old)
    apart = torch.maximum(apart, -apart)  # not abs(), which OpenVINO 2026.4 drops of what is derived from a shape
    near = (1.5 * apart - 2.5) * apart.square() + 1
    far = ((-0.5 * apart + 2.5) * apart - 4) * apart + 2
    weights = torch.where(apart < 1, near, torch.where(apart < 2, far, torch.zeros_like(far)))
    return weights / weights.sum(1, keepdim=True)


def rotations(periods: Tensor, h: int, w: int) -> Tensor:
    """DINOv3's rotary embedding of the positions of a grid: sines, then cosines, (h*w, 2*d), d a head's width.

    Simeoni et al., DINOv3, arXiv 2508.10104: places from -1 to 1 along either axis, by the `periods` (d / 4,).
    """
    along = [
        (torch.arange(n, device=periods.device, dtype=periods.dtype) + 0.5)
        * 2
        / torch.as_tensor(n, device=periods.device, dtype=periods.dtype)
        - 1
        for n in (h, w)
    ]
    places = torch.stack(torch.meshgrid(*along, indexing="ij"), 2).flatten(0, 1)  # (h*w, 2)
    angles = (2 * torch.pi * places[:, :, None] / periods).flatten(1).repeat(1, 2)  # (h*w, d)
    return torch.cat([angles.sin(), angles.cos()], 1)


def _without_blocks(name: str, blocks: Sequence[int]) -> None:
    """OkngError where somebody names blocks of a CNN."""
    if blocks:
        raise OkngError(f"blocks are of a vision transformer, and {name} is none; leave out blocks, strides say where")


def _fill(net: Any, weights: str) -> None:
    """Load a file of `weights`, or make random ones ("none") such as let every block do something."""
    if weights == "none":
        for name, parameter in net.named_parameters():
            if name.endswith(("gamma", "gamma_1", "gamma_2")):  # LayerScale begins at 1e-5: the blocks would do nothing
                nn.init.ones_(parameter)
        return
    from timm.models import eva, vision_transformer

    family: Any = eva if isinstance(net, eva.Eva) else vision_transformer
    own = net.state_dict()
    try:
        given = family.checkpoint_filter_fn(_weights_file(Path(weights)), net)
    except OkngError:
        raise
    except Exception as error:  # it is of another network
        raise OkngError("the weights do not fit this backbone: they are of another network") from error
    if missing := [name for name in own if name not in given]:
        raise OkngError(f"the weights lack {missing[0]} and {len(missing) - 1} more; are they of this backbone?")
    try:
        net.load_state_dict({name: given[name] for name in own})  # a classifier's stay behind
    except RuntimeError as error:
        raise OkngError("the weights do not fit this backbone: tensors of other shapes") from error
