"""Methods that reconstruct beside their public code, for public_code.py."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
import torchvision
from same_weights import Beside, Both, Load, batch_of, enlarged, gradients, images, in_order, layers, lively
from torch import Tensor, nn
from torch.utils.data import dataloader

from okng.detectors.base import Collect
from okng.detectors.catalogue import create

COUNT, CODE = 5, 16


def grey(count: int, side: int, seed: int = 0) -> Tensor:
    """(count, 1, side, side)"""
    return images(count, side, seed)[:, :1]


def shown(maps: Tensor) -> Tensor:
    """Each of `maps` (B, h, w) to [0, 1], as it is shown."""
    least, most = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    return (maps - least) / (most - least)


def settled(detector: Any, pixels: Tensor) -> None:
    """Its statistics become those of `pixels`, so that random layers hand on what differs."""
    for layer in layers(detector, "Norm"):
        layer.momentum = 1.0  # type: ignore[assignment]
    detector.train()
    with torch.no_grad():
        detector.loss(batch_of(pixels))


def lsa(load: Load) -> dict[str, Both]:
    """Both of their networks; what they judge by are okng's ranges, of other images than those judged."""
    found: dict[str, Both] = {}
    gone = dict.fromkeys(("_use_shared_memory", "int_classes", "numpy_type_map", "string_classes"))
    with mock.patch.multiple(dataloader, create=True, **gone):  # which their loader of videos needs
        utils = load("utils")
    measure = load("models.loss_functions").LSALoss(cpd_channels=100)
    for told, pixels, name, hidden in (
        ("", grey(2 * COUNT, 28), "mnist.LSAMNIST", 64),
        (", colour", images(2 * COUNT, 32), "cifar10.LSACIFAR10", 256),
    ):
        channels, side = pixels.shape[1], pixels.shape[2]
        module, kind = name.split(".")
        model = getattr(load(f"models.LSA_{module}"), kind)((channels, side, side), CODE, 100)
        detector: Any = create("lsa", image_size=(side, side), channels=channels, code=CODE, hidden=hidden)
        lively(detector)
        settled(detector, pixels)
        pairs = in_order(model, detector)
        detector.eval(), model.eval()
        if channels == 3:  # theirs pads all layers but the first
            model.encoder.conv[0].padding = (1, 1)
        with torch.no_grad():
            copies, codes, densities = model(pixels)
            found[f"code{told}"] = codes, detector.encode(pixels)
            found[f"copies{told}"] = copies, detector.decode(codes, pixels.shape[2:])
            found[f"densities{told}"] = densities.transpose(1, 2), detector.estimator(codes)

            def parts(pixels: Tensor, model: Any = model) -> Tensor:
                """Likelihood and likeness of each image, higher is more normal, as their test collects them."""
                collected = []
                for one in pixels.split(1):
                    measure(one, *model(one))
                    collected.append([-measure.autoregression_loss, -measure.reconstruction_loss])
                return torch.tensor(collected)

            _, ranges = detector.phases()
            assert isinstance(ranges, Collect)
            ranges.visit(batch_of(pixels[:COUNT]))
            list(ranges.finish() or ())
            known, judged = parts(pixels[:COUNT]), parts(pixels[COUNT:])
            normal = [utils.normalize(judged[:, i], known[:, i].min(), known[:, i].max()) for i in (0, 1)]
            score = 2 - utils.novelty_score(*normal)  # odd is high, and 0 the least of what was learnt
            least = (detector.parts(pixels[:COUNT])[0].amin(0) / detector.ranges).sum()
            found[f"score{told}"] = score, detector(pixels[COUNT:]).image - least
        detector.train(), model.train()
        theirs = measure(pixels, *model(pixels))
        ours = sum(detector.loss(batch_of(pixels)).values())
        theirs.backward(), ours.backward()
        for one, _ in pairs:
            one.grad *= getattr(one, "mask", 1)  # which theirs puts on the weight before each use
        found[f"loss{told}"], found[f"gradient{told}"] = (theirs, ours), gradients(pairs)
    return found


def memae(load: Load) -> dict[str, Both]:
    """Theirs is of videos: here of one frame, for which the middle of each kernel counts, and of its first answer."""
    items, threshold = 50, 1.5 / 50
    models = load("models")
    model = models.AutoEncoderCov3DMem(1, items, shrink_thres=threshold)
    detector: Any = create(
        "memae", image_size=(32, 32), channels=1, widths=(96, 128, 256, 256), items=items, query="position",
        shrinkage=threshold * items,
    )  # fmt: skip
    lively(detector, model)
    frames = [layer for layer in model.modules() if isinstance(layer, nn.Conv3d | nn.ConvTranspose3d)]
    flat = [layer for layer in detector.modules() if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)]
    for one, mine in zip(frames, flat, strict=True):
        one.weight.data[:, :, 1], one.bias.data = mine.weight.data, mine.bias.data
    frames[-1].weight.data[:, :, 0] = 0  # by which the second frame would reach the first
    for one, mine in zip(layers(model, "Norm"), layers(detector, "Norm"), strict=True):
        one.load_state_dict(mine.state_dict())
    model.mem_rep.memory.weight.data = detector.memory.items.data
    pixels, found = grey(COUNT, 32), {}
    detector.eval(), model.eval()
    said = model(pixels[:, :, None])
    copies, weights = detector.recall(pixels)
    codes = detector.encoder(pixels)
    found["code"] = model.encoder(pixels[:, :, None]), codes
    found["weights of the memory"] = said["att"].flatten(2).transpose(1, 2).flatten(0, 1), weights
    found["copies"] = said["output"][:, :, 0], copies
    entropy = models.EntropyLossEncap()(said["att"])
    theirs = nn.MSELoss()(said["output"][:, :, 0], pixels) + 2e-4 * entropy
    losses = detector.loss(batch_of(pixels))
    ours = sum(losses.values())
    found["entropy"], found["loss"] = (2e-4 * entropy, losses["entropy"]), (theirs, ours)
    theirs.backward(), ours.backward()
    pairs = [(one.weight.grad[:, :, 1], mine.weight.grad) for one, mine in zip(frames, flat, strict=True)]
    pairs.append((model.mem_rep.memory.weight.grad, detector.memory.items.grad))
    one, other = (torch.cat([each.flatten() for each in side]) for side in zip(*pairs, strict=True))
    found["gradient"] = one, other
    residual = said["output"][:, :, 0] - pixels
    score = residual.square().sum(1).sqrt().mean((1, 2))  # as their script of tests has it
    found["score as published"] = score / score.max(), (lambda own: own / own.max())(detector(pixels).image)
    return found


class Encode(nn.Module):
    """Their autoencoder's first half as okng's, of images in [0, 1] to means and variances of codes."""

    def __init__(self, net: Any):
        super().__init__()
        self.net = net

    def forward(self, pixels: Tensor) -> Tensor:
        code = self.net.feature(2 * pixels - 1)
        return torch.cat([code, torch.zeros_like(code)], 1)


class Decode(nn.Module):
    """And its second half; `held`: without a gradient."""

    def __init__(self, net: Any, held: bool):
        super().__init__()
        self.net, self.held = net, held

    def forward(self, code: Tensor) -> Tensor:
        copies: Tensor = (self.net.decode(code) + 1) / 2
        return copies.detach() if self.held else copies


def vae_grad(load: Load) -> dict[str, Both]:
    """A public implementation by others than the authors. Its network is on both sides, and its own loop over files."""
    energy, side, found = load("energy"), 64, {}
    pixels = (images(3, side) * 0.8 + 0.1).mul(255).round() / 255  # no step leaves [0, 1]
    net = load("models").AE(CODE, 1, img_size=side)
    net.eval()
    asked = SimpleNamespace(cuda=0, exp="", ls=CODE, mp=1, c=0)

    def moved(steps: int) -> tuple[Tensor, Tensor]:
        """How far their loop moves the images, in [0, 1], and its scores."""
        unmoved = lambda self, *_, **__: self  # noqa: E731
        with (
            tempfile.TemporaryDirectory() as folder,
            contextlib.chdir(folder),
            mock.patch.multiple(energy, DATA_PATH=folder, IMG_SIZE=side, ITERS=steps, save_image=mock.DEFAULT) as saved,
            mock.patch.object(energy.metrics, "roc_auc_score") as judged,
            mock.patch.object(torch, "load", lambda *_, **__: net.state_dict()),
            mock.patch.object(Tensor, "to", unmoved),
            mock.patch.object(nn.Module, "to", unmoved),
        ):
            for i, each in enumerate(pixels):
                path = Path(folder, "bottle/test/good", f"{i}.png")
                path.parent.mkdir(parents=True, exist_ok=True)
                torchvision.transforms.functional.to_pil_image(each.float()).save(path)
            energy.visualize(asked)
        calls = [call.args for call in saved["save_image"].call_args_list]
        order = sorted(range(len(calls)), key=lambda i: Path(calls[i][1]).name)
        ways = torch.stack([calls[i][0][2] - calls[i][0][1] for i in order])
        return ways, torch.from_numpy(judged.call_args.args[1])[order]

    detector: Any = create(
        "vae_grad", image_size=(side, side), prior=False, step_size=4 * energy.LR, tie=energy.ALPHA / 2
    )  # of images half as far apart as theirs, which are in [-1, 1]
    detector.encoder = Encode(net)
    for steps in (1, 10):
        ways, scores = moved(steps)
        detector.steps = steps
        for told, held in ((", copies held", True), (" as published", False)):
            detector.decoder = Decode(net, held)
            of = "1 step" if steps == 1 else f"{steps} steps"
            found[f"way of {of}{told}"] = ways, (detector.project(pixels) - pixels).detach()
            found[f"score of {of}{told}"] = scores, 8 * detector(pixels).image.detach()
    return found


def advae(load: Load) -> dict[str, Both]:
    """Their network for digits. Their maps are of its second convolution, and here also of the rectifier behind it."""
    latent, side, found = 6, 28, {}
    model = load("model").ConvVAE(latent)
    detector: Any = create("advae", image_size=(side, side), channels=1, latent=latent)
    pairs = in_order(model, detector)
    pixels = grey(COUNT, side)
    detector.train(), model.train()
    torch.manual_seed(0)
    copies, mean, log_variance = model(pixels)
    theirs = load("train_expVAE").loss_function(copies, pixels, mean, log_variance) / COUNT
    torch.manual_seed(0)
    ours = sum(detector.loss(batch_of(pixels)).values())
    theirs.backward(), ours.backward()
    found["loss"], found["gradient"] = (theirs, ours), gradients(pairs)
    detector.eval(), model.eval()
    with torch.no_grad():
        features, hidden = detector.encode(pixels)
        copies, mean, _ = model(pixels)
        found["latent means"] = mean, detector.mean(hidden)
        found["copies"] = copies, detector.decoder(mean).sigmoid()
        attention = detector.attention(features, hidden)

    def attended(layer: str, published: bool) -> Tensor:
        cam = load("gradcam").GradCAM(model, layer, cuda=False)
        _, mean, log_variance = cam.forward(pixels)
        cam.backward(mean, log_variance, 0, 1)
        if not published:
            cam.image_size, cam.normalize = 7, lambda gradient: gradient
        with mock.patch.object(torch, "abs", torch.abs if published else lambda map: map):
            maps: Tensor = cam.generate()[:, 0].detach()
        return maps

    with mock.patch.object(Tensor, "cuda", lambda self, *_, **__: self):
        every = attended("encoder.2", published=True)
        rows, maps = model.fc1.weight.detach().clone(), []
        for i in range(latent):
            model.fc1.weight.data = rows * (torch.arange(latent) == i)[:, None]  # one latent mean alone
            maps.append(attended("encoder.3", published=False))
    found["map"] = torch.stack(maps).relu().mean(0), attention
    wide = enlarged(attention, side)
    found["map as published"] = shown(every), shown(wide)
    return found


SIZES = {"code": CODE}
METHODS = {
    "lsa": Beside("aimagelab/novelty-detection@055d393", lsa, {**SIZES, "sides": (28, 32)}),
    "memae": Beside("donggong1/memae-anomaly-detection@ceece77", memae, {"side": 32, "items": 50}),
    "vae_grad": Beside("dbbbbm/energy-projection-anomaly@f53d5e3", vae_grad, {**SIZES, "side": 64}),
    "advae": Beside("liuem607/expVAE@b9afcf5", advae, {"side": 28, "latent": 6}, folder="code"),
}
