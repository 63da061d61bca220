"""Methods that judge by how they guess, find again, repair or copy an image beside public code, for public_code.py."""

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
from same_weights import Beside, Both, Load, batch_of, gradients, images, layers, lively, ranged, weights
from their_steps import here, steady, written
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torchvision import transforms

from okng.detectors.base import Batch
from okng.detectors.catalogue import create
from okng.detectors.synthetic_anomalies import salad as salad_module

SIDE, SIXTY_FOUR, WHOLE = 32, 64, 256  # RIAD's images; those of the authors of f-AnoGAN and of SALAD
ENLARGE = F.interpolate
# Of the networks of f-AnoGAN: what belongs to no block and comes after the first layer.
SINGLE = {
    "Generator": ("Generator.OutputN", "Generator.Output"), "Discriminator": ("Discriminator.Output",),
    "Encoder": ("Encoder.Output",),
}  # fmt: skip


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
    np.random.seed(0)  # noqa: NPY002  by which theirs draws
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
    """The gradients that each step of an optimiser follows."""
    known: list[Tensor] = []

    def noted(optimizer: Any, *_: Any) -> None:
        known.append(torch.cat([p.grad.flatten() for group in optimizer.param_groups for p in group["params"]]))

    hook = register_optimizer_step_pre_hook(noted)
    try:
        yield known
    finally:
        hook.remove()


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


def kinds_of(pixels: Tensor) -> Tensor:
    """A composition of six kinds of `pixels` (B, 3, H, W), one-hot (B, 6, H, W)."""
    index = (6 * pixels.mean(1)).long().clamp(max=5)
    return F.one_hot(index, 6).movedim(3, 1).to(pixels)


def as_it_is(each: Tensor, size: Any = None, *rest: Any, **more: Any) -> Tensor:
    """Interpolation, but no map is enlarged to the side of an image."""
    return each if size == (WHOLE, WHOLE) else ENLARGE(each, size, *rest, **more)


def whitening(covariance: Tensor) -> Tensor:
    """okng's without what it adds to the diagonal: of directions without any variance nothing is left."""
    variances, directions = torch.linalg.eigh(covariance)
    varies = variances > 1e-15 * variances.amax()
    return torch.where(varies, variances.clamp_min(1e-300).rsqrt(), 0.0)[:, None] * directions.T


def judged_by_salad(training: Any, detector: Any, usual: bool) -> Both:
    """Scores, with okng's networks on both sides; `usual`: with their sizes of maps."""
    learnt, held, judged = (images(count, WHOLE, seed) for count, seed in ((8, 1), (4, 2), (3, 3)))
    a = detector.appearance
    size = transforms.Resize if usual else lambda size: lambda mask: F.avg_pool2d(mask, 4)[:, :, 4:-4, 4:-4]

    def loader(pixels: Tensor) -> list[tuple]:
        each = zip(a.normalised(pixels).split(1), kinds_of(pixels).split(1), strict=True)
        return [((image, image), kinds, None, None, None) for image, kinds in each]

    told = {"teacher": a.teacher, "student": a.student, "autoencoder": a.autoencoder}
    told |= {"teacher_mean": a.mean[None], "teacher_std": a.deviation[None]}
    networks = {"comp_ae": detector.repairer, "comp_unet": lambda joined: detector.finder(joined)}
    with (
        mock.patch.multiple(training, on_gpu=True, transforms=SimpleNamespace(Resize=size), tqdm=lambda all, **_: all),
        mock.patch.object(F, "interpolate", ENLARGE if usual else as_it_is),
        mock.patch.object(salad_module, "whitening_of", salad_module.whitening_of if usual else whitening),
        mock.patch.object(training, "roc_auc_score", return_value=0.5) as judge,
        torch.no_grad(),
    ):
        at = dict(zip(("q_st_start", "q_st_end", "q_ae_start", "q_ae_end"),
            training.map_normalization(validation_loader=loader(held), **told), strict=True))  # fmt: skip
        maxima = training.score_normalization(validation_loader=loader(held), **told, **networks, **at)
        found = training.extract_features_mahalanobis(
            loader(learnt), range(len(learnt)), a.student, a.mean[None], a.deviation[None]
        )
        vectors = dict(zip(
            ("feature_vectors_mean", "feature_vectors_covinv", "feature_vectors_mean_seg",
             "feature_vectors_covinv_seg", "feature_vectors_mean_seg_area", "feature_vectors_covinv_seg_area"),
            found, strict=True,
        ))  # fmt: skip
        lengths = training.map_normalization_mahalanobis(
            loader(held), a.student, a.mean[None], a.deviation[None], **vectors
        )
        at |= dict(zip(("q_eff_start", "q_eff_end", "q_seg_start", "q_seg_end", "q_start_mah", "q_end_mah"),
            (*maxima, *lengths), strict=True))  # fmt: skip
        each = [(image[0][0], kinds[0], None, "good/0.png") for image, kinds, *_ in loader(judged)]
        training.test(each, **told, **networks, **vectors, **at)
        for phase, pixels in ((a.usual_maps(), held), (detector.gaussians(), learnt), (detector.usual_terms(), held)):
            for pixel in pixels.split(1):
                phase.visit(batch_of(pixel))
            phase.finish()
        image = detector(judged).image
    return torch.tensor(np.array(judge.call_args_list[0].kwargs["y_score"])), image


class Reached(Exception):
    """Their script has come to where it no longer trains."""


class Told(list):
    """What their bar of progress goes over."""

    set_description = print


def focal_by_likelihoods(likelihoods: Tensor, kinds: Tensor) -> Tensor:
    """What the repository that their script downloads makes, but of likelihoods in place of logits."""
    met = likelihoods.gather(1, kinds[:, None])
    return ((1 - met).square() * -met.log()).mean()


def learnt_by_salad(training: Any, detector: Any) -> dict[str, Both]:
    """A step of their own script, without the dice loss, with okng's networks on both sides."""
    a = detector.appearance
    pixels, jittered, texture = (images(1, SIXTY_FOUR, seed) for seed in (1, 2, 3))
    clean, spoilt = (kinds_of(images(1, SIXTY_FOUR, seed)) for seed in (1, 4))
    changed = (clean.argmax(1) != spoilt.argmax(1)).to(pixels)
    detector.train()
    networks = [a.student, a.autoencoder, detector.repairer, detector.finder]
    student, autoencoder, repairer, finder = copy.deepcopy(networks)
    given = ((a.normalised(pixels), a.normalised(jittered)), clean, spoilt, changed, None)
    asked = SimpleNamespace(
        seed=5, mvtec_loco_path="", mvtec_loco_seg_path="", imagenet_train_path="", output_dir="", category="parts",
        weights="", train_steps=2,
    )  # fmt: skip
    absent = dict.fromkeys(
        ("ImageFolderWithoutTarget", "ImageFolderWithPath", "ImageFolderWithoutTargetWithSeg",
         "ImageFolderWithPathWithSeg", "DataLoader"),
        mock.MagicMock(),
    )  # fmt: skip
    with (
        tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder), here() as losses, followed() as slopes,
        mock.patch.multiple(
            training, get_argparse=lambda: asked, **absent, tqdm=Told, AutoEncoder=lambda _: repairer,
            InfiniteDataloader=mock.Mock(side_effect=[iter([a.normalised(texture)]), iter([given])]),
            get_pdn_medium=mock.Mock(side_effect=[a.teacher, student]), get_autoencoder=lambda **_: autoencoder,
            UNet=lambda _: finder, teacher_normalization=lambda *_: (a.mean[None], a.deviation[None]),
            get_weights=lambda _: [1.0] * 6, DiceLoss=lambda _: mock.Mock(cuda=lambda: lambda *_: 0.0),
            map_normalization=mock.Mock(side_effect=Reached), out_channels=a.descriptor,
        ),
        mock.patch.object(torch, "load", lambda _: a.teacher), mock.patch.object(torch, "save"),
        mock.patch.object(torch.hub, "load", lambda *_, **__: mock.Mock(cuda=lambda: focal_by_likelihoods)),
        contextlib.suppress(Reached),
    ):  # fmt: skip
        training.main()
    kinds = clean.argmax(1).to(torch.uint8)
    batch = Batch(pixels, torch.arange(1), (kinds,), views=(jittered, texture))
    detector.pool = kinds
    torch.manual_seed(asked.seed)  # for what the autoencoder drops
    index = spoilt[0].argmax(0).to(torch.uint8).numpy()
    with here(), mock.patch.object(salad_module, "corrupted", lambda *_: index):
        told = a.learning(batch) | detector.composing(batch)
        dice = told.pop("dice")
        loss = sum(told.values())
        loss.backward()
    slope = torch.cat([p.grad.flatten() for network in networks for p in network.parameters()])
    found = {"loss": (losses[0], loss.detach()), "gradient": (slopes[0], slope)}
    both = torch.cat([spoilt, clean])
    with torch.no_grad(), here():
        likelihoods = detector.repaired(both)[0].softmax(1)
        truth = torch.cat([clean, clean]).argmax(1)
        found["dice loss as published"] = training.DiceLoss([1.0] * 6)(likelihoods, truth), dice
    detector.eval()
    return found


def salad(load: Load) -> dict[str, Both]:
    """Their losses and scores; okng's networks are on both sides, and compositions are given."""
    training = load("train_salad")
    sizes = {"width": 4, "code": 8, "composition_width": 8, "scale": 1, "strides": (8, 16, 32)}
    found: dict[str, Both] = {}
    detectors: list[Any] = []
    for side in (SIXTY_FOUR, WHOLE):
        detectors.append(create("salad", weights="none", image_size=(side, side), **sizes).eval())
        a = detectors[-1].appearance
        a.mean.normal_(0, 0.1), a.deviation.uniform_(0.5, 1.5)
        detectors[-1].kind_logits = lambda pixels: 10 * kinds_of(pixels)
    found |= learnt_by_salad(training, detectors[0])
    grids = [(None, kinds_of(images(1, SIXTY_FOUR)), None, None, None)]
    with here():
        with mock.patch.object(training, "tqdm", lambda every, **_: every):
            found["weights of kinds as published"] = training.get_weights(grids), torch.ones(6)
        for told, usual in (("score", False), ("score as published", True)):
            found[told] = judged_by_salad(training, detectors[1], usual)
    return found


def ssim_autoencoder(load: Load) -> dict[str, Both]:
    """A public SSIM, by which okng's network learns on both sides; it meets no pixel beyond the border."""
    detector: Any = create("ssim_autoencoder", image_size=(64, 64), width=4, code=8)
    pixels = images(3, 64)
    measure = load("pytorch_msssim").SSIM(data_range=1.0, size_average=False)
    window = torch.exp(-(torch.arange(-5, 6) ** 2) / (2 * 1.5**2))
    measure.win = (window / window.sum()).expand_as(measure.win)  # which theirs makes in float32
    network = copy.deepcopy(detector)
    copies = network.decoder(network.encoder(pixels))
    found: dict[str, Both] = {}
    loss = sum(detector.loss(batch_of(pixels)).values())
    loss.backward()
    for told, beyond in (("", 5), (" as published", 0)):
        mirrored = (F.pad(each, [beyond] * 4, mode="reflect") for each in (pixels, copies))
        likeness = measure(*mirrored)
        network.zero_grad(), ((1 - likeness.mean()) / 2).backward(retain_graph=True)
        pairs = [*zip(network.parameters(), detector.parameters(), strict=True)]
        found[f"loss{told}"] = (1 - likeness.mean()) / 2, loss
        found[f"gradient{told}"] = gradients(pairs)
        found[f"score{told}"] = (1 - likeness) / 2, detector(pixels).image
    return found


class Logits(nn.Module):
    """A network of okng's as theirs."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network, self.collect_params = network, network.parameters
        self.load_params = mock.Mock()

    def forward(self, each: Tensor) -> Tensor:
        made: Tensor = self.network(each)
        return made


def ocgan(load: Load) -> dict[str, Both]:
    """A step of the authors' loop on okng's networks, with what it calls of MXNet replaced by torch's."""
    script = Path(sys.path[0], "andgan.py")
    found: dict[str, Both] = {}
    detector: Any = create(
        "ocgan", image_size=(28, 28), channels=1, code=6, width=4, visual_width=4, classifier_width=4, noise=0.0,
        reconstruction_weight=5.0, latent_weight=10.0, mining_rate=2.0,
    )  # fmt: skip
    lively(detector)
    gan, count = detector.gan.eval(), 4
    pixels = images(count, 28)[:, :1]
    inputs, codes = 2 * pixels - 1, 2 * torch.rand(count, 6) - 1
    judges = [gan.visual_discriminator, gan.latent_discriminator, gan.classifier]
    networks = [gan.encoder, gan.decoder, *judges]
    losses, slopes, backward = [], {}, Tensor.backward

    def summed(loss: Tensor) -> None:
        """A gradient takes the place of the one before."""
        for network in networks:
            network.zero_grad()
        losses.append(loss.mean())
        backward(loss.sum())

    def trainer(name: str, network: nn.Module) -> Any:
        def step(size: int) -> None:
            slopes[name] = torch.cat([p.grad.flatten() / size for p in network.parameters()])
            if name == "encoder":
                raise Reached

        return SimpleNamespace(step=step)

    def entropy(logits: Tensor, truth: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(logits, truth, reduction="none").mean(1)

    gluon = SimpleNamespace(loss=SimpleNamespace(
        SigmoidBinaryCrossEntropyLoss=lambda: entropy,
        L2Loss=lambda: lambda one, other: (one - other).square().flatten(1).mean(1) / 2,
    ))  # fmt: skip
    drawn = SimpleNamespace(uniform=lambda **_: codes.clone())
    nd = SimpleNamespace(
        random=drawn, tanh=torch.tanh, mean=torch.mean, zeros=lambda shape, ctx: torch.zeros(shape),
        ones=lambda shape, ctx: torch.ones(shape),
    )  # fmt: skip
    known = {
        "gluon": gluon, "nd": nd, "mx": mock.MagicMock(), "autograd": SimpleNamespace(record=torch.enable_grad),
        "datetime": mock.MagicMock(), "time": mock.MagicMock(), "logging": mock.MagicMock(),
    }  # fmt: skip
    train = written(script, {"trainadnov", "facc"}, known).trainadnov
    batch = SimpleNamespace(data=[inputs, inputs])

    class Data(list):
        reset = mock.Mock()

    for told, epoch in (("", 0), (", mined", 150)):
        losses.clear()
        asked = SimpleNamespace(
            continueEpochFrom=epoch or -1, epochs=epoch + 2, lambda1=10.0, batch_size=count, expname="", append=0
        )
        names = ("encoder", "decoder", "visual", "latent", "classifier")
        trainers = [trainer(name, network) for name, network in zip(names, networks, strict=True)]
        with (
            tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder), contextlib.suppress(Reached), here(),
            torch.no_grad(), mock.patch.object(Tensor, "backward", summed),
            mock.patch.object(Tensor, "as_in_context", lambda self, _: self, create=True),
            mock.patch.object(Tensor, "attach_grad", Tensor.requires_grad_, create=True),
            mock.patch.object(Tensor, "asscalar", Tensor.item, create=True),
        ):  # fmt: skip
            Path("checkpoints").mkdir()
            train(asked, Data([batch]), None, None, [*map(Logits, networks), *trainers])
        gan.random_codes = lambda *_: codes
        gan.zero_grad()
        judged = sum(gan.critic_losses(inputs).values())
        judged.backward()
        if not told:
            theirs = torch.cat([slopes[name] for name in ("visual", "latent", "classifier")])
            mine = torch.cat([p.grad.flatten() for judge in judges for p in judge.parameters()])
            found["losses of the judges"] = losses[0] + losses[1], judged
            found["gradients of the judges"] = theirs, mine
        gan.random_codes = lambda *_: codes.tanh()  # theirs begins from these before it has taken the tanh
        gan.zero_grad()
        made = sum(gan.generator_losses(inputs, int(bool(told)))[0].values())
        made.backward()
        theirs = torch.cat([slopes["encoder"], slopes["decoder"]])
        mine = torch.cat([p.grad.flatten() for network in networks[:2] for p in network.parameters()])
        found[f"loss of the generator{told}"], found[f"its gradient{told}"] = (losses[-1], made), (theirs, mine)
    return found


METHODS = {
    "riad": Beside(
        "plutoyuxie/Reconstruction-by-inpainting-for-visual-anomaly-detection@7c0aaf9", riad, {"side": SIDE}
    ),
    "f_anogan": Beside(
        "A03ki/f-AnoGAN@900f9d6, tSchlegl/f-AnoGAN@35b1de9", f_anogan, {"sides": (28, 64), "widths": (4, 8)}
    ),
    "ocgan": Beside("PramuPerera/OCGAN@0dda279", ocgan, {"side": 28, "width": 4, "code": 6}),
    "salad": Beside("MaticFuc/SALAD@4b7e43a", salad, {"sides": (64, 256), "width": 4, "composition_width": 8}),
    "ssim_autoencoder": Beside("VainF/pytorch-msssim@b057b07", ssim_autoencoder, {"side": 64, "width": 4}),
}
