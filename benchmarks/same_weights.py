"""What public_code.py's comparisons share: made images, others' modules, and the same weights on both sides."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from official_code import imported_from
from torch import Tensor, nn

from okng.detectors.base import Batch

UNUSED = (
    "pandas",
    "seaborn",
    "skimage",
    "skimage.feature",
    "skimage.measure",
    "matplotlib",
    "matplotlib.pyplot",
    "adeval",
    "aug_funcs",
    "cv2",
    "tifffile",
    "dataset",
    "tabulate",
    "skimage.transform",
    "skimage.filters",
    "diffdist",
    "diffdist.functional",
    "tensorboardX",
    "ssim",
    "imageio",
    "torchsummary",
    "skimage.segmentation",
    "imgaug",
    "imgaug.augmenters",
    "positional_encodings",
    "positional_encodings.torch_encodings",
)
Load = Callable[[str], Any]  # one of their modules by its name
Both = tuple[Tensor, Tensor]  # theirs and okng's


@dataclass(frozen=True)
class Beside:
    """A method of okng's beside its public code.

    `public`: OWNER/NAME@COMMIT. `compare`: what both make of the same, by name. `arguments`: the sizes of both.
    `folder`: where in the repository its modules are. `kind`: of the numbers.
    """

    public: str
    compare: Callable[[Load], dict[str, Both]]
    arguments: dict[str, Any]
    folder: str = ""
    kind: torch.dtype = torch.float64


def images(count: int, side: int, seed: int = 0) -> Tensor:
    """(count, 3, side, side) in [0, 1] and in steps of 1 / 255, smooth with some noise."""
    draw = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 6, 6, generator=draw, dtype=torch.float32)
    made = F.interpolate(coarse, (side, side), mode="bicubic") + 0.05 * torch.randn(
        count, 3, side, side, generator=draw, dtype=torch.float32
    )
    return (made.clamp(0, 1) * 255).round().to(torch.get_default_dtype()) / 255


def batch_of(pixels: Tensor) -> Batch:
    """What okng's losses take."""
    return Batch(pixels, torch.arange(len(pixels)))


@contextmanager
def theirs(checkouts: Path, public: str, folder: str = "") -> Iterator[Load]:
    """Their modules by name; what they import, nothing here runs, and is not installed, is an empty one."""
    repository = public.partition("@")[0].rpartition("/")[2]
    with imported_from(checkouts / repository / folder) as load, mock.patch.dict(sys.modules):
        for name in UNUSED:
            try:
                load(name)
            except ImportError:
                sys.modules[name] = mock.MagicMock()
        yield load


def given(module: nn.Module, other: nn.Module, names: dict[str, str]) -> list[tuple[nn.Parameter, nn.Parameter]]:
    """`module`, theirs, takes the tensors of `other`, okng's; `names` are okng's beginnings and theirs, by pairs."""
    own, parameters, pairs, taken = module.state_dict(), dict(module.named_parameters()), [], {}
    for name, tensor in other.state_dict().items():
        begins = max((each for each in names if name.startswith(each)), key=len)
        known = names[begins] + name[len(begins) :]
        if own[known].numel() != tensor.numel():
            raise SystemExit(f"{known} of theirs and {name} of okng's differ in shape")
        taken[known] = tensor.reshape(own[known].shape)
        if known in parameters:
            pairs.append((parameters[known], dict(other.named_parameters())[name]))
    if missing := own.keys() - taken.keys():
        raise SystemExit(f"nothing of okng's is {sorted(missing)}")
    module.load_state_dict(taken)
    return pairs


def in_order(module: nn.Module, other: nn.Module) -> list[tuple[nn.Parameter, nn.Parameter]]:
    """`module`, theirs, takes the layers of `other`, okng's, kind by kind in the order in which they were made.

    A bias of okng's that theirs lacks becomes 0 and learns nothing.
    """
    pairs = []
    for kind in ("Conv", "Norm", ""):
        for one, mine in zip(layers(module, kind), layers(other, kind), strict=True):
            tensors = {**dict(mine.named_parameters(recurse=False)), **dict(mine.named_buffers(recurse=False))}
            for name in ("weight", "bias", "running_mean", "running_var"):
                known, tensor = getattr(one, name, None), tensors.get(name)
                if known is None and tensor is not None:
                    nn.init.zeros_(tensor).requires_grad_(False)
                elif known is not None:
                    assert tensor is not None
                    known.data.copy_(tensor.detach().reshape(known.shape))
                    if isinstance(known, nn.Parameter):
                        pairs.append((known, tensor))
    return pairs  # type: ignore[return-value]


def layers(module: nn.Module, kind: str) -> list[nn.Module]:
    """Those with weights of their own, of a `kind` by their names; "" is all but convolutions and normalisations."""
    own = [layer for layer in module.modules() if isinstance(getattr(layer, "weight", None), nn.Parameter)]
    named = {layer: [word for word in ("Conv", "Norm") if word in type(layer).__name__] for layer in own}
    return [layer for layer in own if named[layer] == ([kind] if kind else [])]


def weights(pairs: list[tuple[nn.Parameter, nn.Parameter]]) -> Both:
    """Of all parameters at once."""
    one, other = (torch.cat([p.detach().flatten() for p in side]) for side in zip(*pairs, strict=True))
    return one, other


def gradients(pairs: list[tuple[nn.Parameter, nn.Parameter]]) -> Both:
    """Of all parameters at once."""
    found = [
        torch.cat([torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in side])
        for side in zip(*pairs, strict=True)
    ]
    return found[0], found[1]


def lively(*modules: nn.Module) -> None:
    """Random weights under which every layer counts, and statistics of a training that was none."""
    for module in modules:
        for parameter in module.parameters():
            nn.init.normal_(parameter, 1.0 if parameter.ndim == 1 else 0.0, 0.1)
        for layer in module.modules():
            if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
                nn.init.normal_(layer.running_mean, 0, 0.1)  # type: ignore[arg-type]
                nn.init.uniform_(layer.running_var, 0.5, 1.5)  # type: ignore[arg-type]


def apart(both: Both) -> float:
    """The largest difference as a share of the largest value of theirs."""
    one, other = (side.detach().double() for side in both)
    return float((one - other.reshape(one.shape)).abs().max() / one.abs().max())


def ranged(values: Tensor, by: Tensor | None = None) -> Tensor:
    """To [0, 1] over all of them, or by the range of others."""
    by = values if by is None else by
    return (values - by.min()) / (by.max() - by.min())


def enlarged(maps: Tensor, size: int | tuple[int, int]) -> Tensor:
    """Maps (B, h, w) to (B, H, W), bilinearly, as they would be for a picture of `size`."""
    return F.interpolate(maps[:, None], size, mode="bilinear")[:, 0]
