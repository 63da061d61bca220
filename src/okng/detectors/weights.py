"""Which pre-trained weights there are on this machine, which ones a method names, and where they come from."""

from __future__ import annotations

import hashlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from okng.detectors.cards import cards
from okng.detectors.catalogue import find, name_of, parameters

# A network that no argument names, and the weights that are taken of it.
INSIDE = {"vgg11": ("vgg11_bn", "weights=imagenet"), "rkde": ("fasterrcnn_resnet50_fpn", "weights=coco")}
BYTES_OF_DETECTOR = 167_502_836  # of torchvision's file for rkde, about
# Where timm's file has one of CLIP's towers, the file with both, and about how many bytes it has.
BOTH_TOWERS = {"vit_base_patch16_plus_clip_240": ("open_clip_model.safetensors", 833_000_000)}


@dataclass(frozen=True)
class Weights:
    """The weights of a backbone.

    `name`: what `-p backbone=` takes. `used`: by which methods, each with "default" or "paper" for the arguments that
    name it. `here`: "pip" for a package that is installed, "hub" for the hub's cache on this machine, or nothing.
    `path`: the file. `url`: where to download it. `licence`: as timm states it. `size`: bytes, of the file or about.
    `sha256`: of the file that is here. `known`: whether that is the checksum that okng or the hub has of it.
    """

    name: str
    used: dict[str, str]
    here: str
    path: str | None
    url: str
    licence: str
    size: int
    sha256: str | None
    known: bool


def named_by(detector: str) -> dict[str, str]:
    """The backbones that `detector` names in its defaults and in the budget "paper": name → which of the two."""
    import timm

    from okng.nn.features.backbones import BROUGHT

    detector = name_of(detector)
    given = [(parameter.default, "default") for parameter in parameters(detector).values()]
    given += [(value, "paper") for value in find(detector).arguments.get("paper", {}).values()]
    given += [INSIDE[detector]] if detector in INSIDE else []
    found: dict[str, str] = {}
    for value, whose in given:
        if isinstance(value, str) and (value in BROUGHT or timm.is_model(value) or value == INSIDE["rkde"][0]):
            found.setdefault(value, whose)
    return found


def weights(detector: str | None = None) -> list[Weights]:
    """All weights that methods of okng name, or only those of `detector`; what is installed comes first."""
    used: dict[str, dict[str, str]] = {}
    for method in cards() if detector is None else [name_of(detector)]:
        for name, whose in named_by(method).items():
            used.setdefault(name, {})[method] = whose
    found = [described(name, methods) for name, methods in used.items()]
    return sorted(found, key=lambda each: (not each.here, each.here != "pip", each.name))


def described(name: str, used: dict[str, str]) -> Weights:
    """What is known of the weights of backbone `name`."""
    import timm
    import torch
    from huggingface_hub import constants

    from okng.nn.features.backbones import BROUGHT

    if name == INSIDE["rkde"][0]:
        return _of_torchvision(name, used)
    brought = BROUGHT.get(name)
    timm_name = name if brought is None else f"tf_{name}"
    config: Any = timm.get_pretrained_cfg(timm_name)
    repository, _, revision = (config.hf_hub_id or "").partition("@")
    other, bytes_of_it = BOTH_TOWERS.get(name, (None, None))
    file = other or config.hf_hub_filename or "model.safetensors"
    url = f"{constants.ENDPOINT}/{repository}/resolve/{revision or 'main'}/{file}" if repository else config.url
    path, here, expected = None, "", None
    if brought is not None:
        package = importlib.util.find_spec(brought.package)
        url = f"pip install {brought.package}"
        if package is not None and package.origin is not None:
            path, here, expected = Path(package.origin).parent / brought.file, "pip", brought.sha256
    elif cached := _in_hub_cache(repository, revision, other or config.hf_hub_filename):
        path, here = cached, "hub"
        expected = path.resolve().name  # the cache names a large file by its checksum
    if path is not None:
        size, sha256 = path.stat().st_size, checksum(path)
    elif bytes_of_it is not None:
        size, sha256 = bytes_of_it, None
    else:
        with torch.device("meta"):  # shapes only
            size = sum(4 * tensor.numel() for tensor in timm.create_model(timm_name).state_dict().values())
        sha256 = None
    licence = config.license or "not stated"
    return Weights(
        name, used, here, None if path is None else str(path), url or "not stated", licence, size, sha256,
        known=sha256 is not None and sha256 == expected,
    )  # fmt: skip


def _of_torchvision(name: str, used: dict[str, str]) -> Weights:
    """The one network that is torchvision's: its file is called by the first digits of its checksum."""
    from okng.detectors.feature_matching.rkde import source

    url, path = source()
    there = path.is_file()
    size, sha256 = (path.stat().st_size, checksum(path)) if there else (BYTES_OF_DETECTOR, None)
    known = sha256 is not None and sha256.startswith(path.stem.rpartition("-")[2])
    here = "hub" if there else ""
    return Weights(name, used, here, str(path) if there else None, url, "not stated", size, sha256, known)


def checksum(path: Path) -> str:
    """The SHA-256 of a file, as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _in_hub_cache(repository: str, revision: str, file: str | None) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    for name in [file] if file else ["model.safetensors", "pytorch_model.bin"] if repository else []:
        found = try_to_load_from_cache(repository, name, revision=revision or None)
        if isinstance(found, str):
            return Path(found)
    return None
