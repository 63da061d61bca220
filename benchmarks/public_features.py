"""Methods that compare features beside their public code, for public_code.py."""

from __future__ import annotations

import collections
import io
import itertools
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext, redirect_stderr
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar
from unittest import mock

import numpy as np
import timm
import torch
import torch.nn.functional as F
import torchvision
import torchvision.transforms.functional as TF
from PIL import Image
from public_today import prepared
from same_weights import Beside, Both, Load, batch_of, enlarged, gradients, images, in_order, lively, ranged, weights
from scipy.ndimage import gaussian_filter
from their_steps import here, steady, stepped
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from okng.detectors.base import Batch, Collect, Detector, Train
from okng.detectors.catalogue import create
from okng.detectors.distillation.efficientad import PatchDescription, adam, rows
from okng.detectors.distillation.uninformed_students import LAYERS, PatchNetwork, compactness
from okng.detectors.feature_matching import mahalanobis as okng_mahalanobis
from okng.nn.features.patches import on_finest_grid
from okng.nn.images.blur import gaussian_blur
from okng.nn.vectors.coreset import covering_radius
from okng.nn.vectors.covariance import principal_components
from okng.nn.vectors.distances import squared_distances
from okng.nn.vectors.moments import Moments

SIDE = 64  # of the images
SIGMA = 4.0  # of the Gaussian that smooths a map, in pixels
EVEN = (8, 16, 16, 16)  # channels at strides of 4 to 32: pooled to one width they are averages of a channel each


def on_even_levels(method: str, **arguments: Any) -> Any:
    """okng's detector on a small random ConvNeXt that has as many channels at a stride of 16 as at 8."""
    make = timm.create_model
    small = {"depths": (1, 1, 1, 1), "dims": EVEN}
    with mock.patch.object(timm, "create_model", lambda name, **more: make(name, **{**small, **more})):
        detector = create(method, backbone="convnext_atto", strides=(8, 16), weights="none", **arguments)
    lively(detector.backbone)
    return detector


class Levels(nn.Module):
    """okng's backbone as one that has a layer for each of its levels, which others' hooks find by name."""

    def __init__(self, backbone: Any):
        super().__init__()
        self.backbone = backbone
        for stride in backbone.strides:
            self.add_module(f"at{stride}", nn.Sequential(nn.Identity()))

    def forward(self, pixels: Tensor) -> None:
        for stride, features in zip(self.backbone.strides, self.backbone(pixels), strict=True):
            self.get_submodule(f"at{stride}")(features)


def learnt(detector: Detector, *batches: Tensor) -> Train | None:
    """The first phase that trains, untrained, after what is collected of `batches` before."""
    detector.eval()
    for phase in detector.phases():
        if isinstance(phase, Train):
            return phase
        assert isinstance(phase, Collect)
        with torch.no_grad():
            for pixels in batches:
                phase.visit(Batch(pixels, torch.arange(len(pixels)), prepared(phase, pixels)))
            list(phase.finish() or ())
    return None


@contextmanager
def drawn() -> Iterator[None]:
    """Normal noise is the same on both sides, whatever else they draw."""
    for_theirs, for_okng = (torch.Generator().manual_seed(0) for _ in range(2))
    with (
        mock.patch.object(torch, "normal", lambda _, std, size: std * torch.randn(size, generator=for_theirs)),
        mock.patch.object(torch, "randn_like", lambda like: torch.randn(like.shape, generator=for_okng)),
    ):
        yield


def mirrored(strides: int) -> Callable[..., Any]:
    """SciPy's Gaussian filter, on a grid of cells of `strides` pixels, with okng's border."""
    return lambda values, sigma: gaussian_filter(values, sigma / strides, mode="mirror")


def on_patches(model: Any, backbone: Any, **more: Any) -> Any:
    """`model`, which describes patches by the authors' code, on okng's backbone; pooled to its width at each stride."""
    wide = backbone.channels[0]
    names = [f"at{stride}" for stride in backbone.strides]
    model.load(Levels(backbone), names, "cpu", (3, SIDE, SIDE), wide, len(names) * wide, **more)
    return model


def patch_maps(model: Any, common: Any, pixels: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """The scores and maps that the authors' networks for patches predict: not smoothed, smoothed, as published."""
    maps, segmentor, grid = {}, model.anomaly_segmentor, (SIDE // 8,) * 2
    for name, size, blur in (
        ("not smoothed", grid, lambda values, sigma: values),
        ("at okng's size, mirrored", grid, mirrored(8)),
        ("as published", (SIDE, SIDE), gaussian_filter),
    ):
        segmentor.target_size = size
        with mock.patch.object(common.ndimage, "gaussian_filter", blur):
            scores, found = model._predict(pixels)[:2]
        maps[name] = torch.stack([torch.as_tensor(each) for each in found])
    return torch.tensor([float(each) for each in scores]), maps


def simplenet(load: Load) -> dict[str, Both]:
    found: dict[str, Both] = {}
    sys.modules["torch.utils.tensorboard"] = mock.MagicMock()
    module, common, pixels = load("simplenet"), load("common"), images(4, SIDE)

    def built(steps: int) -> tuple[Any, Any, list]:
        """Theirs, okng's, and their parameters by pairs."""
        torch.manual_seed(0)
        detector = on_even_levels("simplenet", hidden=24, noise=0.5)
        lively(detector.projection, detector.discriminator)
        model = on_patches(
            module.SimpleNet("cpu"), detector.backbone, gan_epochs=steps, noise_std=0.5, dsc_margin=0.5,
            dsc_hidden=24, pre_proj=1,
        )  # fmt: skip
        model.logger = mock.MagicMock()
        pairs: list = []
        mine = (detector.projection, *(detector.discriminator[place] for place in (0, 1, 3)))
        first = model.discriminator.body[0]
        for one, other in zip(
            (model.pre_projection.layers[0], first[0], first[1], model.discriminator.tail), mine, strict=True
        ):
            one.load_state_dict(other.state_dict())
            pairs += zip(one.parameters(), other.parameters(), strict=True)
        return model, detector, pairs

    with mock.patch.object(torch, "float", torch.get_default_dtype()), here() as said, drawn():
        model, detector, pairs = built(1)
        patches = detector.patches(pixels)
        batch = Batch(pixels, torch.arange(len(pixels)), (patches,))
        found["features"] = model._embed(pixels)[0], patches
        scores, maps = patch_maps(model, common, pixels)
        with torch.no_grad():
            mine = detector.eval()(pixels)
            found["map, not smoothed"] = maps["not smoothed"], detector.doubts(patches)
        found["map at okng's size, mirrored"] = maps["at okng's size, mirrored"], mine.map
        found["map as published"] = maps["as published"], enlarged(mine.map, SIDE)
        found["score"] = scores, mine.image
        detector.train()
        model._train_discriminator([{"image": pixels}])
        loss = sum(detector.loss(batch).values())
        loss.backward()
        found["loss"], found["gradient"] = (said[0], loss), gradients(pairs)
        for told, optimizer in (("", torch.optim.Adam), (", AdamW in both", torch.optim.AdamW)):
            model, detector, pairs = built(3)
            (phase,) = detector.phases()
            detector.train()
            model.dsc_opt = optimizer(model.discriminator.parameters(), lr=model.dsc_lr, weight_decay=1e-5)
            model._train_discriminator([{"image": pixels}])
            stepped(phase, batch, 3)
            found[f"weights after 3 steps{told}"] = weights(pairs)
    return found


def patchcore(load: Load) -> dict[str, Both]:
    """In float32, as faiss. The weights of equation 7 are in anomalib's code alone."""
    found: dict[str, Both] = {}
    module, sampler, common = (load(f"patchcore.{name}") for name in ("patchcore", "sampler", "common"))
    learning, judged, share = images(6, SIDE, 1), images(4, SIDE, 2), 0.1
    detector = on_even_levels("patchcore", coreset=share, score="max").eval()
    width = sum(detector.backbone.channels)
    plain = sampler.GreedyCoresetSampler(share, "cpu", dimension_to_project_features_to=width)
    with here():
        model = on_patches(module.PatchCore("cpu"), detector.backbone, featuresampler=plain)
        with torch.no_grad():
            patches = detector.patches(learning).flatten(0, 2)
            found["features"] = torch.tensor(np.stack(model._embed(learning))), patches
        chosen = plain._compute_greedy_coreset_indices(patches)
        with mock.patch.object(torch, "randint", lambda *_: torch.tensor(int(chosen[0]))):  # okng begins anywhere
            learnt(detector, learning)
        model.fit([learning])
        memory = torch.from_numpy(model.anomaly_scorer.detection_features)
        found["memory, in the order chosen"] = memory, detector.bank + detector.centre
        np.random.seed(0)  # noqa: NPY002 - theirs draws from it
        approximate = sampler.ApproximateGreedyCoresetSampler(share, "cpu")  # projected to 128 numbers, as published
        radii = [covering_radius(patches, points) for points in (approximate.run(patches), memory)]
        found["covering radius, approximate as published"] = torch.tensor(radii[0]), torch.tensor(radii[1])
        scores, maps = patch_maps(model, common, judged)
        with torch.no_grad():
            mine = detector(judged)
            patches = detector.patches(judged)
            distances = detector.nearest((patches - detector.centre).flatten(0, 2))[0].view(patches.shape[:3])
            found["squared distances"] = maps["not smoothed"], distances
            root = partial(mirrored(8), sigma=SIGMA)
            found["map at okng's size, mirrored, of distances"] = (
                torch.stack([torch.from_numpy(root(each)) for each in maps["not smoothed"].sqrt().numpy()]), mine.map
            )  # fmt: skip
            found["map as published, of squared distances"] = maps["as published"], enlarged(mine.map, SIDE)
            found["score, the highest"] = scores.sqrt(), mine.image
            detector.score = "reweighted"
            found["score, weighted, of anomalib"] = anomalibs_score(detector, patches), detector(judged).image
    return found


def anomalibs_score(detector: Any, patches: Tensor) -> Tensor:
    """The score that anomalib's PatchCore gives to images of `patches` (B, h, w, D), of okng's memory."""
    from anomalib.models.image.patchcore.torch_model import PatchcoreModel

    model: Any = SimpleNamespace(
        num_neighbors=detector.neighbours, memory_bank=detector.bank + detector.centre,
        euclidean_dist=PatchcoreModel.euclidean_dist,
    )  # fmt: skip
    model.nearest_neighbors = partial(PatchcoreModel.nearest_neighbors, model)
    flat = patches.flatten(0, 2)
    near = model.nearest_neighbors(flat, 1)
    distances, places = (each.view(len(patches), -1) for each in near)
    weighted: Tensor = PatchcoreModel.compute_anomaly_score(model, distances, places, flat)
    return weighted


def of_resnet18(method: str, **arguments: Any) -> Any:
    """okng's detector on a random ResNet-18, for which the authors' code was made, at strides of 4, 8 and 16."""
    detector = create(method, backbone="resnet18", strides=(4, 8, 16), weights="none", **arguments)
    return detector.eval()


def cfa(load: Load) -> dict[str, Both]:
    """The radius and the features are of a size at which patches lie within the spheres, too."""
    found: dict[str, Both] = {}
    module, metric, pixels = load("utils.cfa"), load("utils.metric"), images(6, SIDE, 1)
    batches, judged = pixels.split(3), images(4, SIDE, 2)
    for steps in (1, 3):
        torch.manual_seed(0)
        detector = of_resnet18("cfa", image_size=(SIDE, SIDE))
        steady(detector.backbone)
        with here() as said:
            loader = [(each, None, None) for each in batches]
            with redirect_stderr(io.StringIO()):
                model = module.DSVDD(detector.backbone, loader, "res18", 1, 1, "cpu")
            detector.descriptor.layer.load_state_dict(model.Descriptor.layer.conv.state_dict())
            phase = learnt(detector, *batches)
            patches = detector.patches(batches[0])
            with torch.no_grad():
                far = squared_distances(detector.descriptor(patches).flatten(0, 2), detector.memories)
                radius = far.topk(4, largest=False).values[:, 3].mean().sqrt()
                model.r.fill_(float(radius)), detector.descriptor.radius.fill_(float(radius))
            pairs = [
                *zip(model.Descriptor.layer.conv.parameters(), detector.descriptor.layer.parameters(), strict=True),
                (model.r, detector.descriptor.radius),
            ]
            batch = Batch(batches[0], torch.arange(3), (patches,))
            if steps == 1:
                found["memories"] = model.C.T, detector.memories
                with torch.no_grad():
                    levels = model.eval(), detector.backbone(judged)
                    described = model.Descriptor(levels[1])
                    mine = detector.descriptor(detector.patches(judged))
                    found["described patches"] = described.permute(0, 2, 3, 1), mine
                    maps = model(levels[1])[1][:, 0]
                    found["map, not smoothed"] = maps, detector.distances(mine)
                    scores = detector(judged)
                smooth = torch.stack([torch.from_numpy(mirrored(4)(each, SIGMA)) for each in maps.numpy()])
                found["map at okng's size, mirrored"] = smooth, scores.map
                found["score at okng's size, mirrored"] = smooth.amax((1, 2)), scores.image
                whole = torch.from_numpy(metric.gaussian_smooth(metric.upsample(maps, SIDE, "bilinear"), SIGMA))
                found["map as published"] = whole, enlarged(scores.map, SIDE)
                found["score as published"] = whole.amax((1, 2)), scores.image
            model.train()
            optimizer = torch.optim.AdamW(
                model.parameters(), lr=1e-3, weight_decay=5e-4, amsgrad=True
            )  # their script's
            for _ in range(steps):
                optimizer.zero_grad()
                model(detector.backbone(batches[0]))[0].backward()
                optimizer.step()
            found |= learnt_beside(detector, phase, batch, steps, said, pairs)
    return found


def learnt_beside(
    detector: Any, phase: Train, batch: Batch, steps: int, said: list[Tensor], pairs: list
) -> dict[str, Both]:
    """After theirs took so many `steps` and `said` their losses: of one the loss and gradient, of more the weights."""
    if steps > 1:
        stepped(phase, batch, steps)
        return {f"weights after {steps} steps": weights(pairs)}
    loss = sum(detector.loss(batch).values())
    loss.backward()
    return {"loss": (said[0], loss), "gradient": gradients(pairs)}


def stfpm(load: Load) -> dict[str, Both]:
    """By their own training and test, of 256 px."""
    found: dict[str, Both] = {}
    module, pixels = load("main"), images(4, 256)
    learning, held = pixels.split(2)
    for steps in (1, 3):
        torch.manual_seed(0)
        detector = of_resnet18("stfpm")
        steady(detector.teacher), steady(detector.student)
        teacher, student = (module.ResNet18_MS3() for _ in range(2))
        for one in (teacher, student):
            one.model = one.model[:7]  # nothing is taken of what follows
        in_order(teacher.eval(), detector.teacher)
        pairs = in_order(student.eval(), detector.student)
        batch = Batch(learning, torch.arange(2), detector.teach(learning))
        ready = (pixels - detector.teacher.mean) / detector.teacher.std
        fit, check = (DataLoader(TensorDataset(each, each), batch_size=2) for each in ready.split(2))
        told = SimpleNamespace(epochs=steps, model_save_path="", category="")
        (phase,) = detector.phases()
        with here() as said, mock.patch.object(torch, "save"), mock.patch.object(module.os, "makedirs"):
            if steps == 1:
                with torch.no_grad():
                    levels = zip(teacher(ready[:2]), detector.teacher(learning), strict=True)
                    one, other = (torch.cat([each.flatten() for each in side]) for side in zip(*levels, strict=True))
                    found["features"], scores = (one, other), detector(held)
                product, mine = torch.from_numpy(module.test(teacher, student, check)), scores.map**3
                found["map, the product"] = product, mine
                found["score, the map's maximum"] = product.amax((1, 2)), mine.amax((1, 2))
                large = [torch.from_numpy(module.cv2.resize(each, (256, 256))) for each in product.numpy()]
                found["map as published"] = torch.stack(large), enlarged(mine, 256)
                found["score as published"] = torch.stack(large).amax((1, 2)), mine.amax((1, 2))
                kept = detector.on_held_out(Batch(held, torch.arange(2), detector.teach(held)))
                found["error of held-out images"] = product.mean(), kept
            detector.student.train()
            module.train_val(teacher, student, fit, check, told)
        found |= learnt_beside(detector, phase, batch, steps, said, pairs)
    return found


def torchvisions(backbone: Any) -> Any:
    """torchvision's ResNet-18, of which okng's backbone, timm's, takes the weights; of images in [0, 1]."""
    net = torchvision.models.resnet18()
    steady(net)
    own = net.state_dict()
    backbone.net.load_state_dict({name: own[name] for name in backbone.net.state_dict()})
    net.register_forward_pre_hook(lambda _, inputs: ((inputs[0] - backbone.mean) / backbone.std,))
    return net.eval()


class Learning:
    """What stands in the place of the scripts' data sets: OK images to learn and others to judge, with masks."""

    parts: ClassVar[dict[bool, Tensor]] = {}

    def __init__(self, *_: Any, is_train: bool, **__: Any):
        self.part = self.parts[is_train]

    def __len__(self) -> int:
        return len(self.part)

    def __getitem__(self, index: int) -> tuple[Tensor, int, Tensor]:
        mask = torch.zeros_like(self.part[index][:1])
        mask[:, : SIDE // 4] = index % 2
        return self.part[index], index % 2, mask


@dataclass
class Script:
    """A script for MVTec AD, all of whose steps stand in its `main`, on made images.

    `blur` and `enlarge` stand in the place of SciPy's Gaussian filter and of torch's interpolation.
    """

    module: Any
    networks: dict[str, Any]
    options: dict[str, Any]
    draws: str  # its function that is handed the maps

    def run(self, learning: Tensor, judged: Tensor, blur: Any, enlarge: Any) -> tuple[list, list, list[Tensor]]:
        """What it judges by and draws, call by call, and what it enlarges."""
        Learning.parts = {True: learning, False: judged}
        noted: list[Tensor] = []

        def sized(maps: Tensor, **more: Any) -> Tensor:
            noted.append(maps)
            made: Tensor = enlarge(maps, **more)
            return made

        curve = np.zeros(1)
        module = self.module
        with ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            stack.enter_context(here())
            stack.enter_context(redirect_stderr(io.StringIO()))
            change = mock.patch.object
            for where, name, what in (
                (module, "parse_args", lambda: SimpleNamespace(save_path=folder, **self.options)),
                *((module, name, lambda net=net, **_: net) for name, net in self.networks.items()),
                (module.mvtec, "CLASS_NAMES", ["made"]),
                (module.mvtec, "MVTecDataset", Learning),
                (module.plt, "subplots", lambda *_, **__: (mock.MagicMock(), [mock.MagicMock()] * 2)),
                (module, "roc_curve", lambda *_: (curve, curve, curve)),
                (module, "precision_recall_curve", lambda *_: (curve, curve, curve)),
                (module, "gaussian_filter", blur),
                (F, "interpolate", sized),
            ):
                stack.enter_context(change(where, name, what))
            judge = stack.enter_context(change(module, "roc_auc_score", return_value=0.0))
            draw = stack.enter_context(change(module, self.draws))
            module.main()
        return [call[0] for call in judge.call_args_list], [call[0] for call in draw.call_args_list], noted


def at_okng_size(stride: int) -> tuple[Any, Any]:
    """What smooths, and what enlarges, so that a map stays on okng's grid and has its border."""
    return mirrored(stride), lambda maps, **_: maps


def padim(load: Load) -> dict[str, Both]:
    """The whole of their script, on a grid of 16 × 16 positions; it brings the maps to [0, 1]."""
    found: dict[str, Both] = {}
    sys.modules.setdefault("skimage.segmentation", mock.MagicMock())
    module, learning, judged = load("main"), images(12, SIDE, 1), images(4, SIDE, 2)
    detector = of_resnet18("padim")
    script = Script(
        module, {"resnet18": torchvisions(detector.backbone)}, {"data_path": "", "arch": "resnet18"}, "plot_fig"
    )
    module.random.seed(1024)
    detector.subset = torch.tensor(sorted(module.sample(range(448), 100)))  # as their script draws them
    learnt(detector, learning)
    with torch.no_grad():
        distances, scores = detector.distances(judged), detector(judged)
    for name, changes in (
        ("at okng's size, mirrored", at_okng_size(4)),
        ("as published", (gaussian_filter, F.interpolate)),
    ):
        _, drawn, noted = script.run(learning, judged, *changes)
        maps = torch.from_numpy(drawn[0][1])
        mine = scores.map if "okng" in name else enlarged(scores.map, SIDE)
        found["distances"] = noted[-1][:, 0], distances
        found[f"map {name}"] = maps, ranged(mine)
        found[f"score {name}"] = maps.amax((1, 2)), ranged(scores.image, mine)
    return found


def spade(load: Load) -> dict[str, Both]:
    """The whole of their script; in okng each stride by itself, for their maps are a mean over strides.

    It was written for a torch whose `pairwise_distance` is that of the second axis, and leaves out positions past a
    multiple of 100, of which 25 neighbours have none.
    """
    found: dict[str, Both] = {}
    module, learning, judged = load("main"), images(40, SIDE, 1), images(3, SIDE, 2)
    torch.manual_seed(0)
    detector = of_resnet18("spade", neighbours=25)
    network = torchvisions(detector.backbone)
    script = Script(module, {"wide_resnet50_2": network}, {"top_k": 25}, "visualize_loc_result")
    resize = F.interpolate
    runs = []
    with mock.patch.object(torch, "pairwise_distance", lambda one, other: (one - other + 1e-6).norm(dim=1)):
        for side, blur in ((SIDE // 4, mirrored(4)), (SIDE, gaussian_filter)):
            runs.append(
                script.run(learning, judged, blur, lambda maps, size, side=side, **more: resize(maps, side, **more))
            )
    (judges, drawn, noted), (_, published, _) = runs
    learnt(detector, learning)
    with torch.no_grad():
        scores = detector(judged)
        pooled, *pyramid = detector.described(judged)
        squared, nearest = detector.retrieved(pooled)
        alone = []
        for place, stride in enumerate((4, 8, 16)):
            detector.strides = [stride]
            alone.append(detector.distances([pyramid[place]], nearest).sqrt())
            theirs = torch.cat(noted[place::3])[:, 0]
            found[f"distances, stride {stride}"] = theirs, alone[-1]
        mean = gaussian_blur(on_finest_grid([each[:, None] for each in alone]).mean(1), SIGMA / 4)
    one, large = (torch.from_numpy(np.stack(each[0][2])) for each in (drawn, published))
    found["map at okng's size, mirrored, of each stride"] = one, mean
    joined = enlarged(scores.map, SIDE)
    found["map as published"] = ranged(large), ranged(joined)
    score = torch.from_numpy(judges[0][1])
    found["score, of distances"] = score, squared.sqrt().mean(1)
    found["score as published"] = score / score.max(), scores.image / scores.image.max()
    return found


def mahalanobis(load: Load) -> dict[str, Both]:
    """Their statistics and distances of what okng's backbone makes, of fewer and of more images than features."""
    found: dict[str, Both] = {}
    for name in (
        "albumentations", "albumentations.pytorch.transforms", "tqdm", "efficientnet_pytorch",
        "efficientnet_pytorch.model", "efficientnet_pytorch.utils", "src.common.augmentation", "src.common.dataset",
        "src.common.evaluation",
    ):  # fmt: skip
        sys.modules[name] = mock.MagicMock()
    sys.modules["tqdm"].tqdm = iter  # type: ignore[attr-defined]
    sys.modules["pytorch_lightning"] = SimpleNamespace(LightningModule=nn.Module, data_loader=lambda f: f)  # type: ignore[assignment]
    with mock.patch.object(collections, "Iterable", Iterable, create=True):  # of an older Python
        module = load("src.gaussian.model")
    learning, judged = images(130, SIDE // 2, 1), images(4, SIDE // 2, 2)
    told_of = principal_components
    border = mock.patch.object(
        okng_mahalanobis, "principal_components", lambda *asked: (told_of(*asked)[0], told_of(*asked)[1] - 1)
    )
    for name, kind in (("all", "all"), ("PCA", "pca"), ("NPCA as published", "npca"), ("NPCA, one more", "npca")):
        detector: Any = create("mahalanobis", components=kind).to(torch.get_default_dtype())
        model = module.Mahalanobis.__new__(module.Mahalanobis)
        nn.Module.__init__(model)
        model.hparams = SimpleNamespace(
            pca=kind == "pca", npca=kind == "npca", variance_threshold=0.95, ocsvm=False, sed=False, l2=False,
            batch_size=65,
        )  # fmt: skip
        model.normalization_epochs, model.statistics_computed, model._device = 1, False, "cpu"
        model.model = lambda pixels, net=detector.backbone: module.TensorList(net(pixels))
        model.datasplit, model.test_saver = mock.MagicMock(), mock.MagicMock()
        model.datasplit.train = lambda: [{"image": each} for each in learning]
        loader = mock.patch.object(module, "DataLoader", lambda data, **_: DataLoader(data, batch_size=65))
        with here(), loader, torch.no_grad():
            told = model.test_step({"image": judged, "target": None, "mask": None}, 0)["maha"]
            with border if "more" in name else nullcontext():
                learnt(detector, learning)
            mine, scores = detector.distances(judged), detector(judged)
        found[f"distances, {name}, strides of 2 to 16"] = torch.stack([*told][:-1]), torch.stack(mine[:-1])
        found[f"distances, {name}, stride of 32"] = told[-1], mine[-1]
        found[f"score, {name}"] = told.mean(dim=0) * len(mine), scores.image
    return found


def efficientad(load: Load) -> dict[str, Both]:
    """On okng's number of features; of the training the step of student and autoencoder, with their script's images."""
    found: dict[str, Both] = {}
    module, common, pixels = load("efficientad"), load("common"), images(3, 256)
    detector: Any = create("efficientad", width=128, code=64, image_size=(256, 256)).eval()
    module.out_channels = d = detector.descriptor
    teacher, student, autoencoder = common.get_pdn_small(d), common.get_pdn_small(2 * d), common.get_autoencoder(d)
    in_order(teacher, detector.teacher)
    pairs = in_order(student, detector.student) + in_order(autoencoder, detector.autoencoder)
    large, other_large = common.get_pdn_medium(d), PatchDescription("M", 128, d)
    in_order(large, other_large)
    inputs = detector.normalised(pixels)
    learning, judged = inputs[:2], inputs[2:]
    with torch.no_grad():
        torch.manual_seed(0)
        copies = autoencoder(judged)
        torch.manual_seed(0)
        found["autoencoder, in training"] = copies, detector.autoencoder.train()(judged)
        autoencoder.eval(), detector.autoencoder.eval()
        networks = ((teacher, detector.teacher), (student, detector.student), (large, other_large))
        for name, (one, other) in zip(("teacher", "student", "network M"), networks, strict=True):
            found[name] = one(judged), other(judged)
        loader = [(each, None) for each in learning.split(1)]
        with redirect_stderr(io.StringIO()):
            mean, std = module.teacher_normalization(teacher, loader)
            moments = Moments()
            moments.add(rows(detector.teacher(learning)))
            detector.take(moments, of="mean", and_of="deviation")
            found["mean and deviation"] = (
                torch.stack([mean[0], std[0]]),
                torch.stack([detector.mean, detector.deviation]),
            )
            given = {
                "teacher": teacher,
                "student": student,
                "autoencoder": autoencoder,
                "teacher_mean": mean,
                "teacher_std": std,
            }
            ends = module.map_normalization(validation_loader=loader, **given)
            phase = detector.usual_maps()
            phase.visit(Batch(pixels[:2], torch.arange(2)))
            list(phase.finish() or ())
        found["quantiles of the maps"] = torch.stack(ends), detector.usual.flatten()
        names = ("q_st_start", "q_st_end", "q_ae_start", "q_ae_end")
        anomaly, *_ = module.predict(image=judged, **given, **dict(zip(names, ends, strict=True)))
        scores = detector(pixels[2:])
        found["map"] = F.pad(anomaly, (4, 4, 4, 4))[:, 0], scores.map
        found["score, the map's maximum"] = anomaly.amax((1, 2, 3)), scores.image
        whole = F.interpolate(F.pad(anomaly, (4, 4, 4, 4)), (256, 256), mode="bilinear")
        found["score as published"] = whole.amax((1, 2, 3)), scores.image
    for layer in (*autoencoder.modules(), *detector.autoencoder.modules()):
        if isinstance(layer, nn.Dropout):
            layer.p = 0.0
    step = one_step(module, teacher, student, autoencoder, pixels[:2])
    detector.backbone.mean.copy_(torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1))  # as their script has it
    detector.backbone.std.copy_(torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1))
    image, beside, jittered = (each * detector.backbone.std + detector.backbone.mean for each in step["inputs"])
    detector.mean, detector.deviation = (each[0] for each in step["usual"])
    detector.student.train(), detector.autoencoder.train()
    batch = Batch(image, torch.arange(1), views=(jittered, beside), auxiliary=beside)
    loss = sum(detector.learning(batch).values())
    loss.backward()
    adam(detector.learning_rate, detector.student, detector.autoencoder).step()
    found["loss"], found["gradient"] = (step["loss"], loss), gradients(pairs)
    found["weights after a step"] = weights(pairs)
    return found


def one_step(module: Any, teacher: Any, student: Any, autoencoder: Any, pixels: Tensor) -> dict[str, Any]:
    """A step of the script that trains EfficientAD, without dropout: what it was of, its loss, and what it left."""
    noted: dict[str, Any] = {"inputs": []}
    usual = module.teacher_normalization

    def normalised_by(*asked: Any) -> Any:
        noted["usual"] = usual(*asked)
        return noted["usual"]

    hook = student.register_forward_pre_hook(lambda _, inputs: noted["inputs"].append(inputs[0]))
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        for part in ("made/train/good", "made/test/good", "any/any"):
            (Path(folder) / part).mkdir(parents=True)
            for i, each in enumerate((pixels * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()):
                Image.fromarray(each).save(Path(folder) / part / f"{i}.png")
        told = SimpleNamespace(
            dataset="mvtec_ad", mvtec_ad_path=folder, subdataset="made", output_dir=f"{folder}/out", weights="",
            imagenet_train_path=folder + "/any", model_size="small", train_steps=1,
        )  # fmt: skip
        losses = stack.enter_context(here())
        stack.enter_context(redirect_stderr(io.StringIO()))
        for where, name, what in (
            (module, "get_argparse", lambda: told),
            (module, "get_pdn_small", mock.Mock(side_effect=[teacher, student])),
            (module, "get_autoencoder", lambda _: autoencoder),
            (module, "DataLoader", lambda data, **_: DataLoader(data, batch_size=1)),
            (module, "transform_ae", lambda image: TF.adjust_brightness(image, 1.1)),
            (module, "teacher_normalization", normalised_by),
            (module, "map_normalization", lambda **_: (0, 0, 0, 0)),
            (module, "test", lambda **_: 0.0),
            (torch, "load", lambda *_, **__: teacher.state_dict()),
            (torch, "save", mock.Mock()),
            (torch.optim.lr_scheduler, "StepLR", mock.Mock()),  # whose rate falls at the end
        ):
            stack.enter_context(mock.patch.object(where, name, what))
        module.main()
    hook.remove()
    return {**noted, "loss": losses[0]}


def uninformed_students(load: Load) -> dict[str, Both]:
    """Their networks without the linear layer to the backbone's features, behind which students learn in theirs.

    Of 65 px theirs has 256 channels in its third layer where okng has 128; in the comparison okng has as many.
    """
    found: dict[str, Both] = {}
    sys.modules["pytorch_lightning"] = SimpleNamespace(LightningModule=nn.Module)  # type: ignore[assignment]
    sys.modules["torchsummary"] = mock.MagicMock()
    names = ("AnomalyNet", "anomaly_detection", "teacher_training", "students_training", "utils")
    nets, module, teaching, learning, utils = map(load, names)
    judged = images(2, SIDE // 2, 2)
    wider = mock.patch.dict(LAYERS, {65: (*LAYERS[65][:2], (5, 2, True), *LAYERS[65][3:])})
    for field in (17, 65, 33):
        torch.manual_seed(0)
        with wider:
            detector: Any = create(
                "uninformed_students", weights="none", receptive_fields=(field,), width=128, descriptor=128
            ).eval()
        networks = [detector.networks(0)[0], *detector.networks(0)[1]]
        made = [nets.AnomalyNet.create(field).eval() for _ in networks]
        pairs = []
        for one, mine in zip(made, networks, strict=True):
            one.decode = nn.Identity()
            pairs.append(in_order(one, mine))
        ready = (judged - detector.backbone.mean) / detector.backbone.std
        padded = zeros_around(ready, networks[0], field)
        with torch.no_grad():
            dense = torch.cat([made[0].fdfe(each) for each in ready.split(1)])  # of one, as their script
            found[f"descriptors, {field} px"] = dense.permute(0, 3, 1, 2), bent(networks[0](padded))
    described = [one.fdfe(ready) for one in made]
    usual = utils.increment_mean_and_var(0, 0, 0, described[0].detach())[:2]
    detector.mean, detector.deviation = usual[0][None], usual[1].sqrt()[None]
    target, students = (described[0] - usual[0]) / usual[1].sqrt(), torch.stack(described[1:], 1)
    parts = module.get_error_map(students, target.detach()), module.get_variance_map(students)
    detector.padded = lambda i, _: padded
    changes = (mock.patch.object(PatchNetwork, name, behind_both(getattr(PatchNetwork, name))) for name in WAYS)
    with ExitStack() as stack:
        for change in changes:
            stack.enter_context(change)
        found["error and variance"] = torch.stack(parts), torch.stack(detector.compare(0, padded))
        places = list(itertools.product(range(networks[0].spacing), repeat=2))
        with mock.patch.object(torch, "randint", side_effect=[torch.tensor(side) for each in places for side in each]):
            losses = [detector.learning(0, batch_of(judged))["student 1"] for _ in places]
        loss, own = learning.student_loss(target.detach(), described[1]), torch.stack(losses).mean()
        found["loss of a student, mean over places"] = loss, own
        loss.backward(), own.backward()
        found["gradient of a student, mean over places"] = gradients(pairs[1])
        moments = [utils.increment_mean_and_var(0, 0, 0, each.detach())[:2] for each in parts]
        detector.usual[0] = torch.stack([torch.stack([mean, spread.sqrt()]) for mean, spread in moments], 1)
        shown = {
            "teacher": {"mu": usual[0], "var": usual[1]},
            "students": {
                name: {"mu": mean, "var": spread} for name, (mean, spread) in zip(("err", "var"), moments, strict=True)
            },
        }
        maps = module.get_score_map(ready, made[0], made[1:], shown)
        with torch.no_grad():
            scores = detector(judged)
        found["map"] = maps, scores.map
        found["score, the map's maximum"] = maps.amax((1, 2)), scores.image
    some = torch.randn(64, 128, generator=torch.Generator().manual_seed(0))
    found["compactness as published"] = teaching.compactness_loss(some), compactness(some)
    return found


WAYS = ("forward", "spaced")  # in which okng's network sees all patches, or some


def bent(described: Tensor) -> Tensor:
    """okng's descriptors behind the leaky rectifiers of theirs, of the last convolution and of the linear layer."""
    return F.leaky_relu(F.leaky_relu(described, 5e-3), 5e-3)


def behind_both(forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """okng's network with both of them."""
    return lambda network, images: bent(forward(network, images))


def zeros_around(pixels: Tensor, network: Any, field: int) -> Tensor:
    """As in their code, where okng repeats the border."""
    half = field // 2
    return F.pad(pixels, (half, network.reach - 1 - half) * 2)


METHODS = {
    "simplenet": Beside("DonaldRR/SimpleNet@351a2b8", simplenet, {"side": SIDE, "channels": EVEN[1]}),
    "cfa": Beside("sungwool/CFA_for_anomaly_localization@0708086", cfa, {"side": SIDE}),
    "patchcore": Beside(
        "amazon-science/patchcore-inspection@fcaa92f", patchcore, {"side": SIDE, "channels": EVEN[1]}, folder="src",
        kind=torch.float32,
    ),
    "stfpm": Beside("gdwang08/STFPM@2598a5e", stfpm, {"side": 256}),
    "padim": Beside("xiahaifeng1995/PaDiM-Anomaly-Detection-Localization-master@616004b", padim, {"side": SIDE}),
    "mahalanobis": Beside("ORippler/gaussian-ad-mvtec@bc10bd7", mahalanobis, {"side": SIDE // 2}),
    "spade": Beside("byungjae89/SPADE-pytorch@077c67b", spade, {"side": SIDE}, folder="src"),
    "efficientad": Beside("nelson1425/EfficientAD@fcab514", efficientad, {"side": 256}),
    "uninformed_students": Beside(
        "denguir/student-teacher-anomaly-detection@fc279ef", uninformed_students, {"side": SIDE // 2}, folder="src"
    ),
}  # fmt: skip
