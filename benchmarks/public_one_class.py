"""The one-class methods beside their public code, for public_code.py."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import torch
from same_weights import Beside, Both, Load, given, gradients, images, lively, weights
from scipy import signal
from their_steps import gone_through, here
from torch import Tensor, nn

from okng.detectors.base import Batch, Train
from okng.detectors.catalogue import create
from okng.detectors.one_class.fcdd import gaussians, receptive_field, sliding

DIGITS = {"image_size": (28, 28), "channels": 1, "widths": (8, 4), "code": 32}
COLOURS = {"image_size": (32, 32), "channels": 3, "widths": (32, 64, 128), "code": 128}
ENCODERS = {  # okng's beginnings of names and theirs
    "MNIST": {"0.": "conv1.", "1.": "bn1.", "4.": "conv2.", "5.": "bn2.", "9.": "fc1."},
    "CIFAR10": {
        "0.": "conv1.", "1.": "bn2d1.", "4.": "conv2.", "5.": "bn2d2.", "8.": "conv3.", "9.": "bn2d3.", "13.": "fc1.",
    },
}  # fmt: skip
DECODER = {
    "3.": "deconv1.", "4.": "bn2d4.", "7.": "deconv2.", "8.": "bn2d5.", "11.": "deconv3.", "12.": "bn2d6.",
    "15.": "deconv4.",
}  # fmt: skip
NU, ETA = 0.5, 2.0


def made(kind: dict[str, Any], count: int, seed: int) -> Tensor:
    """Images of the size and the channels of a `kind`."""
    return images(count, kind["image_size"][0], seed)[:, : kind["channels"]]


def loaders(learnt: list[tuple[Tensor, ...]], judged: tuple[Tensor, ...] | None = None) -> Any:
    """A data set of theirs: batches to learn from and one to judge, which they find images of both kinds in."""
    return SimpleNamespace(loaders=lambda **_: (learnt, [judged]))


def losses_of_steps(phase: Train, batches: list[Batch]) -> list[Tensor]:
    """The losses of okng's steps on `batches`."""
    (update,) = phase.updates
    losses = []
    for batch in batches:
        update.optimizer.zero_grad()
        loss: Any = update.loss(batch)
        loss.backward()
        update.optimizer.step()
        losses.append(loss.detach())
    return losses


def parts(pixels: Tensor, labels: Tensor | None = None) -> list[Batch]:
    """`pixels` as three batches."""
    index = torch.arange(len(pixels))
    chosen = [index[i::3] for i in range(3)]
    return [Batch(pixels[i], i, labels=None if labels is None else labels[i]) for i in chosen]  # type: ignore[arg-type]


def deep_svdd(load: Load) -> dict[str, Both]:
    """Three steps of Adam of each objective: by their trainer, which is told to leave the warm-up out."""
    found: dict[str, Both] = {}
    normalised = load("datasets.preprocessing").global_contrast_normalization
    trainers, autoencoding = load("optim.deepSVDD_trainer"), load("optim.ae_trainer")
    for told, kind in (("MNIST", DIGITS), ("CIFAR10", COLOURS)):
        networks = load(f"networks.{told.lower()}_LeNet")
        learning, judged = made(kind, 12, 1), made(kind, 4, 2)
        for objective in ("one-class", "soft-boundary"):
            name = f", {told}" + (", soft boundary" if objective != "one-class" else "")
            net = getattr(networks, f"{told}_LeNet")()
            detector: Any = create("deep_svdd", objective=objective, nu=NU, **kind)
            lively(detector.encoder)
            pairs = given(net, detector.encoder, ENCODERS[told])
            phases = gone_through(detector, Batch(learning, torch.arange(12)))
            raw = torch.stack([normalised(each.clone(), "l1") for each in torch.cat([learning, judged])])
            low, high = raw[:12].aminmax()
            inputs = (raw - low) / (high - low)
            if objective == "one-class":
                found[f"inputs{name}"] = inputs, detector.normalised(torch.cat([learning, judged]))
            trainer = trainers.DeepSVDDTrainer(objective, 0.0, None, NU, lr=1e-4, n_epochs=1, weight_decay=5e-7,
                                               device="cpu")  # fmt: skip
            trainer.warm_up_n_epochs = 0
            batches = parts(learning)
            data = loaders(
                [(inputs[batch.index], 0, 0) for batch in batches],
                (inputs[12:], torch.tensor([0, 1, 0, 1]), torch.arange(4)),
            )
            with here() as losses:
                trainer.train(data, net)
            found[f"centre{name}"] = trainer.c, detector.centre
            detector.train()
            detector.radius = torch.zeros(())
            phase = phases["one-class" if objective == "one-class" else "soft boundary"]
            found[f"losses{name}"] = torch.stack(losses), torch.stack(losses_of_steps(phase, batches))
            found[f"gradient{name}"] = gradients(pairs)
            found[f"weights after 3 steps{name}"] = weights(pairs)
            detector.eval()
            with here(), torch.no_grad():
                trainer.test(data, net)
                scores = torch.tensor([score for *_, score in trainer.test_scores])
                found[f"score{name}"] = scores, detector(judged).image
            if objective != "one-class":
                found[f"radius{name}"] = trainer.R, detector.radius
                scores, mine = found[f"score{name}"]
                found[f"score{name}"] = scores, mine - detector.radius.square()
    both = networks.CIFAR10_LeNet_Autoencoder()
    both.bn1d = nn.Identity()  # okng has none
    names = {f"encoder.{mine}": one for mine, one in ENCODERS["CIFAR10"].items()}
    names |= {f"decoder.{mine}": one for mine, one in DECODER.items()}
    pairs = given(both, nn.ModuleDict({"encoder": detector.encoder, "decoder": detector.decoder}), names)
    detector.train()
    with here() as losses:
        autoencoding.AETrainer(lr=0, n_epochs=1, device="cpu").train(loaders([(inputs[:12], 0, 0)]), both)
    detector.zero_grad()
    mine = detector.copying(Batch(learning, torch.arange(12)))
    mine.backward()
    found["autoencoder's loss"] = losses[0], mine
    found["autoencoder's gradient"] = gradients(pairs)
    return found


def deep_sad(load: Load) -> dict[str, Both]:
    """Images of both labels, and eta of 2."""
    found: dict[str, Both] = {}
    networks, trainers = load("networks.cifar10_LeNet"), load("optim.DeepSAD_trainer")
    learning, judged = made(COLOURS, 12, 1), made(COLOURS, 4, 2)
    labels = (torch.arange(12) % 4 == 1).long()
    detector: Any = create("deep_sad", eta=ETA, **COLOURS)
    lively(detector.encoder)
    with torch.no_grad():
        detector.encoder[-1].weight *= 0.02  # distances of about 1, so that either label counts
    both = networks.CIFAR10_LeNet_Autoencoder()
    parts_of_both = given(both.encoder, detector.encoder, ENCODERS["CIFAR10"])
    parts_of_both += given(both.decoder, detector.decoder, DECODER)
    detector.train()
    with here() as losses:
        trainer = load("optim.ae_trainer").AETrainer(lr=0, n_epochs=1, device="cpu")
        trainer.train(loaders([(learning, 0, 0, 0)]), both)
    mine = detector.copying(Batch(learning, torch.arange(12)))
    mine.backward()
    found["autoencoder's loss, summed over an image"] = losses[0] * learning[0].numel(), mine
    one, other = gradients(parts_of_both)
    found["autoencoder's gradient, the same"] = one * learning[0].numel(), other
    detector.zero_grad()
    net = networks.CIFAR10_LeNet()
    pairs = given(net, detector.encoder, ENCODERS["CIFAR10"])
    phases = gone_through(detector, Batch(learning, torch.arange(12), labels=labels))
    batches = parts(learning, labels)
    data = loaders(
        [(learning[batch.index], 0, -batch.labels, 0) for batch in batches],
        (judged, torch.tensor([0, 1, 0, 1]), torch.zeros(4), torch.arange(4)),
    )
    trainer = trainers.DeepSADTrainer(None, ETA, lr=1e-4, n_epochs=1, weight_decay=5e-7, device="cpu")
    with here() as losses:
        trainer.train(data, net)
    found["centre"] = trainer.c, detector.centre
    detector.train()
    found["losses"] = torch.stack(losses), torch.stack(losses_of_steps(phases["one-class"], batches))
    found["gradient"] = gradients(pairs)
    found["weights after 3 steps"] = weights(pairs)
    detector.eval()
    with here(), torch.no_grad():
        trainer.test(data, net)
        found["score"] = torch.tensor([score for *_, score in trainer.test_scores]), detector(judged).image
    return found


def fcdd(load: Load) -> dict[str, Both]:
    """Their smaller network for Fashion-MNIST, whose second layer is without normalisation and rectifier."""
    found: dict[str, Both] = {}
    sys.modules.setdefault("kornia", mock.MagicMock())  # which confetti alone asks for
    with (  # as they were called
        mock.patch.object(signal, "gaussian", signal.windows.gaussian, create=True),
        mock.patch.object(np, "infty", np.inf, create=True),
    ):
        bases, trainers = load("fcdd.models.bases"), load("fcdd.training.fcdd")
        preprocessing = load("fcdd.datasets.preprocessing")
        net = load("fcdd.models.fcdd_cnn_28").FCDD_CNN28((1, 28, 28), bias=True)
        detector: Any = create(
            "fcdd", image_size=(28, 28), channels=1, backbone="none", widths=(8, 16), sigma=1.2, masks=False
        )
        detector.layers[5] = detector.layers[6] = nn.Identity()
        lively(detector.layers)
        with torch.no_grad():
            detector.layers[-1].weight *= 0.02  # cells of about 1, so that either label counts
        pairs = given(net, detector.layers, {"0.": "conv1.", "1.": "bn2d1.", "4.": "conv2.", "8.": "conv_final."})
        ok, anomalies, judged = (images(8, 28, seed)[:, :1] for seed in (1, 2, 3))
        judged[0] = 0.5  # without any contrast
        gone_through(detector, Batch(ok, torch.arange(8)))
        raw = [preprocessing.local_contrast_normalization(each.clone(), "l1") for each in ok]
        low, high = torch.stack(raw).aminmax()

        def ready(pixels: Tensor) -> Tensor:
            each = [preprocessing.local_contrast_normalization(image.clone(), "l1") for image in pixels]
            return (torch.stack(each) - low) / (high - low)

        trainer = trainers.FCDDTrainer(net, None, None, (None, None), None, "fcdd", 1.2, 0.97, 64, device="cpu")
        where = (torch.rand(8, 1, 28, 28) > 0.8) & (torch.arange(8) % 4 > 0)[:, None, None, None]
        upsampled = {"receptive_upsample": lambda heat, **_: detector.enlarged(heat[:, 0])[:, None]}  # compared below
        for told, masks in (("", None), (", with masks", where)):
            detector.train(), net.train()
            detector.masks = masks is not None
            net.zero_grad(), detector.zero_grad()
            torch.manual_seed(0)
            odd = torch.rand(8) < 0.5  # as okng draws, too
            mask = None if masks is None else (where & odd[:, None, None, None]).to(ok)
            with here() as losses, mock.patch.multiple(net, **upsampled):
                outputs = net(ready(torch.where(odd[:, None, None, None], anomalies, ok)))
                trainer.loss(outputs, None, odd.long(), mask).backward()
            torch.manual_seed(0)
            mine = detector.loss(Batch(ok, torch.arange(8), views=(anomalies, where)))
            mine.backward()
            found[f"loss{told}"] = losses[0], mine.detach()
            found[f"gradient{told}"] = gradients(pairs)
        detector.eval(), net.eval()
        with here(), torch.no_grad():
            heat = trainer.anomaly_score(trainer.loss(net(ready(judged)), None, torch.zeros(8), reduce="none"))
            scores = detector(judged)
            found["cells"] = heat[:, 0], detector.heat(judged)
            found["score"] = trainer.reduce_ascore(heat), scores.image
            found["map, times 4"] = 4 * net.receptive_upsample(heat, std=1.2), scores.map
            field = receptive_field(sliding(detector.layers), 4)
            found["receptive field"] = torch.tensor([net.reception[key] for key in "rjs"]), torch.tensor(field)
            large = load("fcdd.models.fcdd_cnn_224").FCDD_CNN224_VGG_NOPT((3, 224, 224), bias=True)
            odd_sided, layers = bases.FCDDNet((1, 28, 28)), ((3, 1, 1), (3, 2, 1), (5, 2, 2), (3, 1, 1))
            for kernel, stride, padding in layers:
                odd_sided._create_conv2d(1, 1, kernel, stride, padding)
            for told, model, each, sigma in (
                ("map, of fields with odd sides", odd_sided, layers, 1.2),
                ("map, times 4, of the network for MVTec AD", large, sliding(large.features), 12.0),
            ):
                side, jump = model.in_shape[1], model.reception["j"]
                heat = torch.rand(2, 1, side // jump, side // jump)
                size, _, middle = receptive_field(each, jump)
                along = gaussians(side, jump, size, middle, sigma)
                theirs = model.receptive_upsample(heat, std=sigma) * (4 if "times" in told else 1)
                found[told] = theirs, along @ heat @ along.T
    return found


METHODS = {
    "deep_svdd": Beside("lukasruff/Deep-SVDD-PyTorch@1901612", deep_svdd, {"nu": NU}, folder="src"),
    "deep_sad": Beside("lukasruff/Deep-SAD-PyTorch@2e7aca3", deep_sad, {"eta": ETA}, folder="src"),
    "fcdd": Beside("liznerski/fcdd@4fa8502", fcdd, {"widths": (8, 16), "sigma": 1.2}, folder="python"),
}
