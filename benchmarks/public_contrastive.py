"""The contrastive methods beside their public code, for public_code.py."""

from __future__ import annotations

import itertools
import operator
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F
from same_weights import Beside, Both, Load, given, gradients, images
from their_steps import behind, gone_through, here, shared, steady
from torch import Tensor, nn

from okng.detectors.base import Batch
from okng.detectors.catalogue import create
from okng.detectors.self_supervised import csi as csi_module
from okng.detectors.self_supervised import droc as droc_module
from okng.nn.images.augmentation import DRAWN, Augmentation, view
from okng.nn.learning.contrastive import info_nce
from okng.nn.vectors.kmeans import assigned

SIDE = 32
CROPPED = Augmentation(crop=(0.3, 1), jittered=0, grey=0, mirrored=0)


def resnet(blocks: tuple[int, ...]) -> dict[str, str]:
    """okng's beginnings of names in a `ResNet`, and theirs."""
    names = {"body.0.": "conv1.", "body.1.": "bn1."}
    places = ((group, block) for group, count in enumerate(blocks, 1) for block in range(count))
    for mine, (group, block) in enumerate(places, 3):
        for layer in range(3):
            names[f"body.{mine}.path.{3 * layer}."] = f"layer{group}.{block}.conv{layer + 1}."
            names[f"body.{mine}.path.{3 * layer + 1}."] = f"layer{group}.{block}.bn{layer + 1}."
        names[f"body.{mine}.short_cut."] = f"layer{group}.{block}.shortcut."
    return names


def cropping(layers: Any, drawn: Tensor) -> Callable[[Tensor], Tensor]:
    """Their crop of as many images as there are rows `drawn`."""
    _, left, top, width, height, *_ = drawn.unbind(1)
    where = torch.stack([width, height, 2 * left + width - 1, 2 * top + height - 1], 1)
    return lambda pixels: layers.RandomResizedCropLayer()(pixels, where)


def mirrored(pixels: Tensor, mirror: Tensor) -> Tensor:
    """Those of `pixels` (B, C, H, W) where `mirror` (B,) is 1."""
    return torch.where(mirror[:, None, None, None] == 1, pixels.flip(3), pixels)


def csi(load: Load) -> dict[str, Both]:
    """By their loops over batches; flips and crops are drawn by okng, and carried out by either."""
    found: dict[str, Both] = {}
    training, judging = load("training.unsup.simclr_CSI"), load("evals.ood_pre")
    classifier, layers = load("models.classifier"), load("models.transform_layers")
    model = classifier.get_shift_classifer(classifier.get_classifier("resnet18"), 4)
    model.linear = model.joint_distribution_layer = nn.Identity()  # for classes that are known
    detector: Any = create("csi", views=2)
    steady(detector.network)
    nn.init.constant_(detector.head.bias, 100)  # all logits above 0, where okng weighs as they do
    names = behind(resnet((2, 2, 2, 2)), projection="simclr_layer", head="shift_cls_layer")
    pairs = given(model, shared(detector, "projection", "head"), names)
    learning, judged = images(3, SIDE, 1), images(4, SIDE, 2)
    asked = SimpleNamespace(
        sim_lambda=1.0, K_shift=4, n_gpus=1, dataset="cifar10", multi_gpu=False, shift_trans=layers.Rotation(),
        ood_samples=2, resize_fix=True, resize_factor=0.54, ood_layer=("simclr", "shift"), one_class_idx=None,
        print_score=False,
    )  # fmt: skip
    mirror, drawn = torch.tensor([[0, 1], [1, 1], [1, 0]]), torch.stack([CROPPED.draw() for _ in range(24)])
    drawn = drawn.view(3, 2, 4, -1)  # (B, 2, K, _), of which they want (2, K, B, _)
    crop = cropping(layers, drawn.permute(1, 2, 0, 3).flatten(0, 2))
    still = torch.optim.SGD(model.parameters(), 0.0)
    with here() as losses, mock.patch.object(training, "hflip", lambda both: mirrored(both, mirror.T.flatten())):
        training.train(
            asked, 1, model, nn.CrossEntropyLoss(), still, mock.Mock(), [(learning, torch.zeros(3).long())],
            mock.Mock(), crop, nn.Linear(512, 2), mock.Mock(),
        )  # fmt: skip
    detector.train()
    loss = sum(detector.loss(Batch(learning, torch.arange(3), views=(mirror, drawn))).values())
    loss.backward()
    found["loss"] = losses[0], loss.detach()
    found["gradient"] = gradients(pairs)
    torch.manual_seed(1)  # of which one view is mirrored, and one isn't
    with mock.patch.object(csi_module, "JUDGING", Augmentation(crop=(0.54, 0.54), jittered=0, grey=0, mirrored=0)):
        gone_through(detector, Batch(learning, torch.arange(3)))
    flips, crops = (i // 4 % 2 for i in itertools.count()), (i % 2 for i in itertools.count())
    said, scores_of = [], judging.get_scores

    def noted(*given: Any) -> Tensor:
        said.append(scores_of(*given))
        return said[-1]

    def flip(pixels: Tensor) -> Tensor:
        return mirrored(pixels, detector.mirror[next(flips)].repeat(len(pixels)))

    def look(pixels: Tensor) -> Tensor:
        each = detector.drawn[next(crops)].repeat_interleave(len(pixels) // 4, 0)
        return cropping(layers, each)(pixels)

    with (
        here(), tempfile.TemporaryDirectory() as folder,
        mock.patch.multiple(judging, hflip=flip, get_scores=noted),
    ):  # fmt: skip
        asked.load_path = f"{folder}/model"
        batches = [[(pixels, torch.zeros(len(pixels)))] for pixels in (learning, judged)]
        judging.eval_ood_detection(asked, model, batches[1], {"OK": batches[0]}, ["CSI"], batches[0], look)
    found["weights of the scores"] = (
        torch.tensor([asked.weight_sim, asked.weight_shi]), torch.stack([1 / detector.norms, 1 / detector.logits]),
    )  # fmt: skip
    with torch.no_grad():
        found["score"] = -said[0], detector(judged).image
        for told, colours, where in (
            ("brightness", {"brightness": 0.7}, {"brightness": 0.7}),
            ("contrast", {"contrast": 0.7}, {"contrast": 0.7}),
            ("saturation", {"saturation": 0.7}, {"saturation": 0.7}),
            ("hue", {"hue": 0.1}, {"hue": 0.1}),
            ("hue, 360 / 255 as far", {"hue": 0.1 * 360 / 255}, {"hue": 0.1}),
            ("grey", None, {"grey": 1.0}),
        ):
            layer = layers.RandomColorGrayLayer(p=1.0)
            if colours:
                usual = {"brightness": 1.0, "contrast": 1.0, "saturation": 1.0, "hue": 0.0} | colours
                layer = layers.ColorJitterLayer(p=1.0, **{name: (value, value) for name, value in usual.items()})
            usual = dict.fromkeys(DRAWN, 0.0) | dict.fromkeys(DRAWN[3:8], 1.0) | where
            found[f"colours: {told}"] = layer(judged), view(judged, torch.tensor([[*usual.values()]]).repeat(4, 1))
    return found


def vectors(count: int, seed: int) -> Tensor:
    """(count, 32) that lean towards some directions."""
    draw = torch.Generator().manual_seed(seed)
    mix = torch.randn(32, 32, generator=torch.Generator().manual_seed(0))
    return F.normalize(torch.randn(count, 32, generator=draw) @ mix + seed, dim=1)


def ssd(load: Load) -> dict[str, Both]:
    """Their loop over batches, and their distances of given features, for which their networks are too wide."""
    found: dict[str, Both] = {}
    models, losses_of = load("models"), load("losses")
    for told, blocks, bottleneck in (("18", (2, 2, 2, 2), False), ("50", (3, 4, 6, 3), True)):
        model, detector = models.SSLResNet(arch=f"resnet{told}"), create("ssd", blocks=blocks, bottleneck=bottleneck)
        steady(detector.network)
        names = behind(resnet(blocks), "encoder.", projection="head")
        pairs = given(model, shared(detector, "projection"), names)
        model.eval(), detector.eval()
        pixels = images(2, SIDE, 2)
        with torch.no_grad():
            found[f"features of ResNet-{told}"] = F.normalize(model.encoder(pixels * 2 - 1)), detector.features(pixels)
        if bottleneck:
            break
        learning, drawn = images(4, SIDE, 1), torch.stack([CROPPED.draw() for _ in range(8)]).view(4, 2, -1)
        detector.train()
        loss = detector.loss(Batch(learning, torch.arange(4), views=(drawn,)))
        loss.backward()
        views = [view(learning, drawn[:, i]) * 2 - 1 for i in range(2)]
        for name, more in (("", {"base_temperature": 0.5}), (" as published", {})):
            asked = SimpleNamespace(training_mode="SimCLR", batch_size=4, print_freq=1)
            criterion, still = losses_of.SupConLoss(0.5, **more), torch.optim.SGD(model.parameters(), 0.0)
            with here() as losses:
                load("trainers").ssl(model, "cpu", [(views, torch.zeros(4))], criterion, still, args=asked)
            found[f"loss{name}"] = losses[0], loss.detach()
            found[f"gradient{name}"] = gradients(pairs)
    sys.modules.setdefault("faiss", mock.MagicMock())  # clusters are okng's
    judging, usual, judged = load("eval_ssd"), vectors(300, 1), vectors(6, 2)
    for clusters in (1, 3):
        small: Any = create("ssd", blocks=(1,), width=32, clusters=clusters)
        small.features = lambda given: given
        small.conclude(usual, usual[:0])
        near = assigned((usual - small.mean) / small.deviation, small.centres)[1].numpy()
        asked = SimpleNamespace(clusters=clusters, training_mode="SimCLR")
        judging.get_clusters = lambda *_, near=near: near
        with here(), mock.patch.object(judging, "get_roc_sklearn") as spy:
            judging.get_eval_results(usual.numpy().copy(), judged.numpy().copy(), usual.numpy().copy(), None, asked)
        found[f"score, {clusters} cluster" + "s" * (clusters > 1)] = (
            torch.from_numpy(spy.call_args.args[0]), small(judged).image,
        )  # fmt: skip
    return found


def ssdk(load: Load) -> dict[str, Both]:
    """Of given features."""
    sys.modules.setdefault("faiss", mock.MagicMock())
    judging, usual, odd, judged = load("eval_ssdk"), vectors(300, 1), vectors(40, 2), vectors(6, 3)
    detector: Any = create("ssdk", blocks=(1,), width=32)
    detector.features = lambda given: given
    detector.conclude(usual, odd)
    with here(), mock.patch.object(judging, "get_roc_sklearn") as spy:
        each = [part.numpy().copy() for part in (usual, judged, odd, usual)]
        judging.get_eval_results(*each, SimpleNamespace(clusters=1))
    return {"score": (torch.from_numpy(spy.call_args.args[0]), detector(judged).image)}


def droc(load: Load) -> dict[str, Both]:
    """Their loss and their scores of given features, with what little of TensorFlow these call replaced by torch's."""
    found: dict[str, Both] = {}
    tf = mock.MagicMock()
    tf.function = lambda method: method
    tf.nn.l2_normalize = lambda rows, axis: F.normalize(torch.as_tensor(rows), dim=axis)
    tf.matmul = lambda one, other, transpose_b: one @ other.T
    tf.concat, tf.divide, tf.range, tf.argmax = torch.cat, torch.divide, torch.arange, torch.argmax
    tf.split = torch.chunk
    tf.one_hot = lambda which, count: F.one_hot(which, count)
    tf.math.floordiv = operator.floordiv
    tf.math.reduce_variance = lambda rows: float(rows.var(correction=0))
    tf.reduce_sum = lambda each, axis: each.sum() if axis is None else each.sum(axis)
    tf.reduce_mean = lambda each, axis: each.mean(axis)
    tf.reduce_logsumexp = torch.logsumexp
    tf.nn.top_k = lambda each, k: each.topk(k)
    tf.keras.losses.categorical_crossentropy = lambda right, logits, from_logits: F.cross_entropy(
        logits, right.to(logits), reduction="none"
    )
    tf.distribute.get_replica_context = lambda: SimpleNamespace(num_replicas_in_sync=1, replica_id_in_sync_group=0)
    absent = {"tensorflow": tf, "absl": mock.MagicMock()}
    absent |= {name: mock.MagicMock() for name in ("tensorflow.compat", "tensorflow.compat.v1", "tensorflow_datasets")}
    with mock.patch.dict(sys.modules, absent):
        contrastive, metric = load("contrastive").Contrastive, load("util.metric")
    with here():
        tried = contrastive.__new__(contrastive)
        embedded = vectors(16, 1)
        tried.temperature, tried.weight_decay, tried.optimizer = 0.2, 0.0, mock.Mock()
        tried.strategy = SimpleNamespace(run=lambda step, args: step(*args))
        tried.metrics, tried.loss_l2 = defaultdict(mock.Mock), lambda _: 0.0
        tried.model = mock.Mock(return_value={"embeds": embedded}, trainable_weights=[])
        tried.train_step(iter([(embedded[:8], embedded[8:])]))
        (loss,) = tried.metrics["loss.xe"].update_state.call_args.args
        found["loss"] = loss, info_nce(*embedded.chunk(2), 0.2)
        learnt, judged = vectors(300, 1) * 3, vectors(6, 2) * 2
        tried.extract = lambda pixels: (None, None, pixels, pixels, torch.zeros(len(pixels)))
        tried.eval_metrics = dict.fromkeys(("pool.kde", "pool.kocsvm"))
        with mock.patch.object(metric, "roc", lambda pr, gt: pr):
            tried.eval_embed(learnt, judged)
    for density in ("kde", "ocsvm"):
        detector: Any = create("droc", density=density, blocks=(1,), width=32, head=(8,))
        detector.features = lambda given: F.normalize(given, dim=1)
        with here(), mock.patch.object(droc_module, "SHARPNESS", 10 * learnt.numel() / (learnt.numel() - 1)):
            gone_through(detector, Batch(learnt, torch.arange(300)))  # by the variance that theirs takes
        score, gamma = detector(judged).image, detector.gamma
        if density == "kde":  # which they leave constants out of
            found["score, density"] = tried.eval_metrics["pool.kde"] + 2 + np.log(300) / gamma, score
        else:  # their sum of kernels, whose weights sum to nu times the images
            found["score, SVM"] = torch.from_numpy(tried.eval_metrics["pool.kocsvm"]), -150 * (-gamma * score).exp()
    return found


METHODS = {
    "csi": Beside("alinlab/CSI@60742b6", csi, {"blocks": (2, 2, 2, 2), "width": 64, "views": 2}),
    "ssd": Beside("inspire-group/SSD@cf2e162", ssd, {"width": 64, "features": 32}),
    "ssdk": Beside("inspire-group/SSD@cf2e162", ssdk, {"features": 32}),
    "droc": Beside("google-research/deep_representation_one_class@a36feaa", droc, {"features": 32}),
}
