"""Methods of features beside anomalib, for public_code.py: DFM, DFKDE and FRE."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest import mock

import torch
from public_features import learnt
from public_today import prepared
from same_weights import Beside, Both, Load, enlarged, given, gradients, images, lively
from their_steps import here
from torch import Tensor, nn

from okng.detectors.base import Batch
from okng.detectors.catalogue import create

SIDE, LAYER = 64, "layer3"


class Extractor(nn.Module):
    """okng's backbone as theirs, which never is in training mode."""

    def __init__(self, backbone: Any):
        super().__init__()
        self.backbone = backbone

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        return {LAYER: self.backbone.eval()(pixels)[0]}


PACKAGES = ("", "data", "models", "models.components", "models.components.base", "models.image")


@contextmanager
def model_of(load: Load, method: str, backbone: Any) -> Iterator[Any]:
    """The module of a method's network, on okng's `backbone`, without anomalib's training, loading and drawing."""
    packages = {}
    for name in (*PACKAGES, f"models.image.{method}"):
        package: Any = ModuleType(f"anomalib.{name}".rstrip("."))
        package.__path__ = [str(Path(sys.path[0], "anomalib", *name.split(".")))]
        packages[package.__name__] = package
    with mock.patch.dict(sys.modules, packages), here():
        components = packages["anomalib.models.components"]
        packages["anomalib.data"].InferenceBatch = SimpleNamespace
        components.TimmFeatureExtractor = lambda **_: Extractor(backbone)
        dynamic = load("anomalib.models.components.base.dynamic_buffer")
        for place in (components, packages["anomalib.models.components.base"]):
            place.DynamicBufferMixin = dynamic.DynamicBufferMixin
        components.PCA = load("anomalib.models.components.dimensionality_reduction").PCA
        components.GaussianKDE = load("anomalib.models.components.stats").GaussianKDE
        yield load(f"anomalib.models.image.{method}.torch_model")


def fitted(model: Any, learning: Tensor) -> Any:
    """`model` when it has seen what it learns; its Gaussian hands `torch.mean` a device, which that doesn't take."""
    model.train()
    model(learning)
    with mock.patch.object(torch, "mean", lambda values, dim, device=None: values.mean(dim)):
        model.fit()
    return model.eval()


def of_a_copy(pca: Any) -> None:
    """From here on `pca` learns without taking the mean off what it is given, from which it would be taken again."""
    fit = pca.fit
    pca.fit = lambda vectors: fit(vectors.clone())


def dfm(load: Load) -> dict[str, Both]:
    found: dict[str, Both] = {}
    learning, judged = images(12, SIDE, 1), images(4, SIDE, 2)
    for score in ("fre", "nll"):
        detector: Any = create("dfm", weights="none", pool=2, score=score)
        learnt(detector, learning)
        count, deviations = detector.components.shape[1], detector.deviations
        for told, components in (("", count), (" as published", 0.97)):
            with model_of(load, "dfm", detector.backbone) as module, torch.no_grad():
                model = module.DFMModel("", LAYER, pooling_kernel_size=2, n_comps=components, score_type=score)
                if not told:
                    of_a_copy(model.pca_model)
                    detector.deviations = deviations * (11 / 12) ** 0.5  # of 12 images, by 12
                said = fitted(model, learning)(judged)
                mine = detector(judged)
                detector.deviations = deviations
            found[f"score, {score}{told}"] = said.pred_score, mine.image
            if score == "fre":
                found[f"map{told}"] = said.anomaly_map, enlarged(mine.map, SIDE)
    return found


def dfkde(load: Load) -> dict[str, Both]:
    learning, judged = images(30, SIDE, 1), images(4, SIDE, 2)
    detector: Any = create("dfkde", weights="none")
    learnt(detector, learning)
    with model_of(load, "dfkde", detector.backbone) as module, torch.no_grad():
        model = fitted(module.DfkdeModel("", [LAYER]), learning)
        density = model.classifier.compute_kde_scores(model.get_features(judged), as_log_likelihood=True)
        found = {"features": (model.get_features(judged), detector.averaged(judged))}
        found["score"] = density - model.classifier.kde_model.norm.log(), -detector(judged).image
    return found


def fre(load: Load) -> dict[str, Both]:
    pixels = images(6, SIDE, 1)
    detector: Any = create("fre", image_size=(SIDE, SIDE), weights="none", latent=8)
    lively(detector.autoencoder)
    with torch.no_grad():
        batch = Batch(pixels, torch.arange(len(pixels)), prepared(learnt(detector), pixels))
    with model_of(load, "fre", detector.backbone) as module:
        model = module.FREModel("", LAYER, detector.autoencoder.weight.shape[1], 8, pooling_kernel_size=2)
    names = {"weight": "weight", "inner": "encoder_bias", "outer": "decoder_bias"}
    pairs = given(model.fre_model, detector.autoencoder, names)
    with torch.no_grad():
        said, mine = model(pixels), detector(pixels)
    found = {"map": (said.anomaly_map, enlarged(mine.map, SIDE)), "score": (said.pred_score, mine.image)}
    features, restored, _ = model.get_features(pixels)
    theirs, ours = nn.MSELoss()(features, restored), detector.loss(batch)
    theirs.backward(), ours.backward()
    found["loss"], found["gradient"] = (theirs, ours), gradients(pairs)
    return found


SIZES = {"side": SIDE, "pool": 2}
METHODS = {
    name: Beside("open-edge-platform/anomalib@b723368", compare, SIZES, folder="src")
    for name, compare in (("dfm", dfm), ("dfkde", dfkde), ("fre", fre))
}
