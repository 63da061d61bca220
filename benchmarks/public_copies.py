"""Methods that judge by how well they guess, find again, repair or copy an image beside public code, for public_code.py."""

from __future__ import annotations

import contextlib
import copy
import functools
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F
from public_adversarial import ranged
from same_weights import Beside, Both, Load, batch_of, gradients, images, in_order, layers, lively, weights
from their_steps import here, steady, written
from torch import Tensor, nn

from okng.detectors.catalogue import create

SIDE, SIXTY_FOUR = 32, 64
SINGLE = {
    "Generator": ("Generator.OutputN", "Generator.Output"), "Discriminator": ("Discriminator.Output",),
    "Encoder": ("Encoder.Output",),
}  # fmt: skip  # of the authors' networks of f-AnoGAN, what belongs to no block and follows the first layer


def bordered(layer: Any) -> Any:
    """`layer`, which shrinks an image by a pixel at each border, of images whose border is repeated."""
    return lambda pixels: layer(F.pad(pixels, (1, 1, 1, 1), mode="replicate"))


def mirrored(pixels: Tensor, window: Tensor, padding: int, groups: int) -> Tensor:
    """A convolution that meets the image mirrored beyond its border, in place of zeros."""
    return F.conv2d(F.pad(pixels, [padding] * 4, mode="reflect"), window, groups=groups)


class Apart(nn.Module):
    """`net` for each third of a batch by itself, as if it were three batches."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, pixels: Tensor) -> Tensor:
        return torch.cat([self.net(part) for part in pixels.chunk(3)])


def riad(load: Load) -> dict[str, Both]:
    """A public implementation by others than the authors. Its network is on both sides, with its own loops."""
    notebook = mock.MagicMock(version_info=(9, 0), get_ipython=lambda: None)  # which one of their modules asks for
    with mock.patch.dict(sys.modules, {"IPython": notebook, "IPython.display": notebook}):
        training, judging, drawing = load("train"), load("test"), load("utils.gen_mask")
        gradient, structure, model = load("losses.gms_loss"), load("losses.ssim_loss"), load("models.unet").UNet()
    pixels, sides = images(2, SIDE), [2, 4, 8]
    found: dict[str, Both] = {}
    steady(model)
    for layer in layers(model, "Norm"):
        layer.momentum = 0.0  # so that what has trained judges by the same statistics
    detector: Any = create("riad", image_size=(SIDE, SIDE), cells=tuple(sides), window=1)
    np.random.seed(0)
    masks = {k: next(drawing.gen_mask([k], 3, SIDE)) for k in sides}
    divisions = {k: torch.from_numpy(1 - np.stack(drawn))[:, None] == 1 for k, drawn in masks.items()}
    detector.divided = lambda side: divisions[side]
    gms = gradient.GMS

    def equal(one: Tensor, other: Tensor, edge_filter: Any, median_filter: Any) -> Tensor:
        return gms(one, other, bordered(edge_filter), lambda pixels: pixels)

    def given(sides: list[int], *_: Any) -> Any:
        return iter([masks[sides[0]]])

    def slope() -> Tensor:
        """Of the network's parameters, which then have none."""
        of_all = torch.cat([p.grad.flatten() for p in model.parameters()])
        model.zero_grad()
        return of_all

    empty = torch.zeros(len(pixels))
    for told, usual in (("", False), (" as published", True)):
        changes = (
            mock.patch.object(gradient, "GMS", gms if usual else equal),
            mock.patch.object(structure, "F", F if usual else SimpleNamespace(conv2d=mirrored)),
            mock.patch.multiple(training, gen_mask=given, tqdm=iter, print_log=mock.Mock()),
            mock.patch.multiple(judging, gen_mask=given, tqdm=iter),
            mock.patch.object(judging, "gaussian_filter", judging.gaussian_filter if usual else lambda map, sigma: map),
        )
        detector.window = 21 if usual else 1
        with here() as losses, contextlib.ExitStack() as stack:
            for change in changes:
                stack.enter_context(change)
            asked = SimpleNamespace(k_value=[4], img_size=SIDE, alpha=1.0, belta=1.0, gamma=1.0)
            training.train(asked, model, 1, [(pixels, empty, empty)], mock.Mock(), mock.Mock())
            theirs = losses[0], slope()
            asked.k_value = sides if usual else sides[1:2]
            maps, _, copies, *_ = judging.test(asked, model, [(pixels, empty, pixels[:, :1])])
        model.train()
        detector.net, detector.cells = model if usual else Apart(model), (4,)
        loss = sum(detector.loss(batch_of(pixels)).values())
        loss.backward()
        found[f"loss{told}"], found[f"gradient{told}"] = (theirs[0], loss.detach()), (theirs[1], slope())
        detector.divisions = torch.stack([divisions[k] for k in asked.k_value])
        model.eval()
        with torch.no_grad():
            found["copies"] = torch.from_numpy(np.stack(copies)), detector.guessed(pixels, detector.divisions[-1])
            scores = detector(pixels)
        map, mine = torch.from_numpy(np.stack(maps)), scores.map
        if usual:  # to [0, 1] over all images, as their script does
            map, mine = (ranged(each) for each in (map, mine))
        else:  # theirs is a quarter of 1 - 4 MSGMS, by the number of cells
            map = map * (SIDE // 4) ** 2 + 3 / 4
        found[f"map{told}"] = map, mine
        found[f"score{told}"] = map.amax((1, 2)), mine.amax((1, 2))
    return found


class Critic(nn.Module):
    """okng's critic as their loops call it."""

    def __init__(self, critic: Any):
        super().__init__()
        self.forward_features, self.last_layer = critic

    def forward(self, pixels: Tensor) -> Tensor:
        told: Tensor = self.last_layer(self.forward_features(pixels))
        return told


@contextlib.contextmanager
def followed() -> Iterator[list[Tensor]]:
    """The gradients that each step of an optimiser of Adam's follows."""
    known: list[Tensor] = []
    step = torch.optim.Adam.step

    def noted(optimizer: Any, closure: Any = None) -> Any:
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        known.append(torch.cat([p.grad.flatten() for p in parameters]))
        return step(optimizer, closure)

    with mock.patch.object(torch.optim.Adam, "step", noted):
        yield known


def f_anogan(load: Load) -> dict[str, Both]:
    """A public implementation by others than the authors. okng's networks are on both sides, in its own loops."""
    latent = 12
    found: dict[str, Both] = {}
    gan, learning = load("fanogan.train_wgangp"), load("fanogan.train_encoder_izif")
    with mock.patch.object(torch.utils.model_zoo, "tqdm", iter, create=True):
        judging = load("fanogan.test_anomaly_detection")
    asked = SimpleNamespace(lr=1e-4, b1=0.0, b2=0.9, n_epochs=1, n_critic=5, latent_dim=latent, sample_interval=400)
    detector: Any = create("f_anogan", image_size=(28, 28), latent=latent, width=4)
    steady(detector.train())
    pixels = images(4, 28)[:, :1]
    batches, batch = [(2 * pixels - 1, None)] * 3, batch_of(pixels)
    generator, critic, encoder = (copy.deepcopy(m) for m in (detector.generator, detector.critic, detector.encoder))
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        torch.manual_seed(1)
        with here() as losses, followed() as slopes, mock.patch.object(gan, "save_image"):
            gan.train_wgangp(asked, generator, Critic(critic), batches, "cpu")
        phase, second = detector.phases()
        judge, make = phase.updates
        torch.manual_seed(1)
        for i in range(3):
            before = torch.get_rng_state()
            mine = [step(judge, batch)]
            if not i:
                with torch.random.fork_rng([]):  # theirs makes the same images for the generator, okng others
                    torch.set_rng_state(before)
                    mine.append(step(make, batch))
                for told, one, slope, both in zip(("critic", "generator"), losses, slopes, mine, strict=False):
                    found[f"loss of the {told}"], found[f"gradient of the {told}"] = (one, both[0]), (slope, both[1])
        pairs = zip([*generator.parameters(), *critic.parameters()], phase_parameters(detector), strict=True)
        found["weights after 3 steps"] = weights(list(pairs))
        detector.generator.load_state_dict(generator.state_dict()), detector.critic.load_state_dict(critic.state_dict())
        with here() as losses, followed() as slopes, mock.patch.object(learning, "save_image"):
            learning.train_encoder_izif(asked, generator, Critic(critic), encoder, batches[:1], "cpu")
        detector.eval(), detector.encoder.train()
        loss, slope = step(second.updates[0], batch)
        found["loss of the encoder"], found["gradient of the encoder"] = (losses[0], loss), (slopes[0], slope)
        detector.eval(), detector.encoder.load_state_dict(encoder.state_dict())
        ones = [(pixel[None] * 2 - 1, torch.zeros(1)) for pixel in pixels]
        judging.test_anomaly_detection(asked, generator, Critic(critic), encoder, ones, "cpu")
        scores = np.genfromtxt("results/score.csv", delimiter=",", names=True)["anomaly_score"]
    with torch.no_grad():
        found["score"] = torch.from_numpy(scores), detector(pixels).image
    # whose repository has the same name, and lies under another
    return found | authors_networks(Path(gan.__file__).parents[2] / "tSchlegl-f-AnoGAN")


def authors_networks(folder: Path) -> dict[str, Both]:
    """Those of f-AnoGAN out of a Python that is gone, with what they call of TensorFlow replaced by torch's."""
    detector: Any = create("f_anogan", image_size=(SIXTY_FOUR, SIXTY_FOUR), width=8, latent=12)
    steady(detector)
    parts: dict[str, Any] = {}
    for name, trunk, last in (
        ("Generator", detector.generator.net, ()),
        ("Discriminator", detector.critic[0].net, detector.critic[1:]),
        ("Encoder", detector.encoder[0].net, detector.encoder[1:]),
    ):
        blocks = [block for block in trunk if hasattr(block, "shortcut")]
        single = [layer for layer in [*trunk, *last] if isinstance(layer, nn.Linear | nn.Conv2d | nn.BatchNorm2d)]
        parts |= dict(zip((f"{name}.Input", *SINGLE[name]), single, strict=True))
        for i, block in enumerate(blocks, 1):
            first, second = (layer for layer in block.body if isinstance(layer, nn.Conv2d))
            nn.init.zeros_(first.bias)  # which theirs lacks
            norms = [layer for layer in block.body if isinstance(layer, nn.BatchNorm2d | nn.GroupNorm)]
            (shortcut,) = (layer for layer in block.shortcut if isinstance(layer, nn.Conv2d))
            named = zip(("Conv1", "Conv2", "BN1", "BN2", "Shortcut"), (first, second, *norms, shortcut), strict=True)
            parts |= {f"{name}.Res{i}.{what}": layer for what, layer in named}

    def layer(name: str, *sizes: Any, **more: Any) -> Tensor:
        """The one of that name, of what is given last."""
        made: Tensor = parts[name](more["inputs"] if "inputs" in more else sizes[-1])
        return made

    ops = SimpleNamespace(
        conv2d=SimpleNamespace(Conv2D=layer), linear=SimpleNamespace(Linear=layer),
        layernorm=SimpleNamespace(Layernorm=layer),
    )  # fmt: skip
    tf = mock.MagicMock()
    tf.layers.batch_normalization = lambda inputs, axis, training, name: parts[name](inputs)
    tf.nn.relu, tf.tanh, tf.nn.tanh, tf.reshape = torch.relu, torch.tanh, torch.tanh, torch.reshape
    tf.add_n, tf.concat, tf.transpose = sum, torch.cat, torch.permute
    tf.depth_to_space = lambda each, by: F.pixel_shuffle(
        each.permute(0, 3, 1, 2).unflatten(1, (by * by, -1)).transpose(1, 2).flatten(1, 2), by
    ).permute(0, 2, 3, 1)
    known = {
        "tf": tf, "lib": SimpleNamespace(ops=ops), "functools": functools, "MODE": "wgan-gp", "DIM": 8, "ZDIM": 12,
        "RAND_SAMPLING": "normal", "OUTPUT_DIM": SIXTY_FOUR**2,
    }  # fmt: skip
    newer = {"print ": "0, ", "<checkpoint-iter>": "0"}
    names = {
        "Normalize", "my_Normalize", "ConvMeanPool", "MeanPoolConv", "UpsampleConv", "ResidualBlock", "GoodGenerator",
        "GoodDiscriminator",
    }  # fmt: skip
    theirs = written(folder / "wgangp_64x64.py", names, known, newer)
    encode = written(folder / "z_encoding_izif.py", {"Encoder"}, known, newer).Encoder
    pixels = images(3, SIXTY_FOUR)[:, :1]
    inputs = 2 * pixels - 1
    detector.eval()
    with torch.no_grad():
        codes = detector.encoder(inputs)
        told, features = theirs.GoodDiscriminator(inputs)
        return {
            "codes of the authors": (encode(inputs, False, z_reg_type="tanh_fc"), codes),
            "copies of the authors": (theirs.GoodGenerator(3, codes, is_training=False), detector.generator(codes)),
            "features of the authors": (features, detector.critic[0](inputs)),
            "judgement of the authors": (told, detector.critic(inputs)),
        }


def phase_parameters(detector: Any) -> list[nn.Parameter]:
    return [*detector.generator.parameters(), *detector.critic.parameters()]


def step(update: Any, batch: Any) -> tuple[Tensor, Tensor]:
    """The loss and the gradient that an `update` of okng's follows."""
    update.optimizer.zero_grad()
    told = update.loss(batch)
    loss = sum(told.values()) if isinstance(told, dict) else told
    loss.backward()
    slope = torch.cat([p.grad.flatten() for group in update.optimizer.param_groups for p in group["params"]])
    update.optimizer.step()
    return loss.detach(), slope


METHODS = {
    "riad": Beside(
        "plutoyuxie/Reconstruction-by-inpainting-for-visual-anomaly-detection@7c0aaf9", riad, {"side": SIDE}
    ),
    "f_anogan": Beside(
        "A03ki/f-AnoGAN@900f9d6, tSchlegl/f-AnoGAN@35b1de9", f_anogan, {"sides": (28, 64), "widths": (4, 8)}
    ),
}
