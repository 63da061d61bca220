"""Flows, patches and what is made of features beside their public code, for public_code.py."""

from __future__ import annotations

import math
import sys
from functools import partial
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import scipy.ndimage  # noqa: F401  # before theirs is imported, whose Gaussian is exchanged
import torch
import torch.nn.functional as F
import torchvision
from public_today import normalised
from same_weights import Beside, Both, Load, batch_of, enlarged, given, gradients, images, in_order, lively, weights
from their_steps import here
from torch import Tensor, nn
from torchvision.transforms.functional import to_pil_image, to_tensor

from okng.detectors.base import Batch
from okng.detectors.catalogue import create
from okng.detectors.normalizing_flow import differnet as rotations
from okng.detectors.normalizing_flow import nf_ood as pixel_flows
from okng.detectors.synthetic_anomalies.glass import is_sphere
from okng.nn.flows import convolutional_flow as pixel_affine
from okng.nn.networks.sspcab import SSPCAB


class Fixed(nn.Module):
    """okng's backbone where theirs has its own, of images that are normalised already; it never trains."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def features(self, inputs: Tensor) -> Tensor:
        (found,) = self.net(inputs)
        return found

    def train(self, mode: bool = True) -> Fixed:
        """It stays as it is."""
        return self


class Loader(list):
    """Batches as a loader of theirs gives them."""

    dataset = SimpleNamespace()


def augmented(detector: Any, pixels: Tensor) -> Batch:
    """A batch with the views that `detector` draws of its images."""
    draw = torch.Generator().manual_seed(0)
    views = zip(*[detector.augment(each, draw) for each in pixels], strict=True)
    return Batch(pixels, torch.arange(len(pixels)), views=tuple(map(torch.stack, views)))


def differnet(load: Load) -> dict[str, Both]:
    """Their own training and their own maps; the backbone is okng's on both sides, and random."""
    side, angles, steps, found = 64, 4, 3, {}
    detector: Any = create("differnet", weights="none", scales=2, blocks=3, hidden=32, test_rotations=angles)
    detector.backbone.std.fill_(0.25)  # theirs has gradients of images that are normalised: so colours weigh the same
    pixels, judged = images(3, side), images(2, side, 1)
    with mock.patch.object(torch.cuda, "set_device"):
        config = load("config")
    config.device, config.img_size, config.fc_internal, config.n_coupling_blocks = "cpu", (side, side), 32, 3
    config.n_feat, config.n_transforms_test = detector.pooled(pixels).shape[1], angles
    config.n_scales = detector.scales
    config.meta_epochs, config.sub_epochs, config.grad_map_viz = 1, steps, True
    config.save_model, config.verbose, config.hide_tqdm_bar = False, False, True
    trainer, maps, flows = load("train"), load("localization"), load("freia_funcs")

    turn, blur, published = rotations.rotated, maps.gaussian_filter, flows.glow_coupling_layer.log_e
    pillow = load("multi_transform_loader").rotate(to_pil_image(pixels[0].float()), 30, False, False, None)
    same = (to_tensor(pillow) - turn(pixels[:1], torch.tensor([math.pi / 6]))[0]).abs().amax(0) < 1e-3
    found["other pixels of an image turned by 30°, share"] = torch.ones(1), same.double().mean()

    circle = 2 * math.pi * torch.arange(angles) / angles
    draw = torch.Generator().manual_seed(0)
    views = torch.stack([detector.turn(each, draw) for each in pixels])  # (B, T, 3, H, W)
    turned = torch.stack([turn(each.expand(angles, -1, -1, -1), circle) for each in judged])
    learning = Loader([(normalised(detector, views.flatten(0, 1)).view_as(views), torch.zeros(3))])
    testing = Loader([(normalised(detector, turned.flatten(0, 1)).view_as(turned), torch.ones(2))])
    batch = Batch(pixels, torch.arange(3), views=(views,))
    first = {name: tensor.clone() for name, tensor in detector.state_dict().items()}

    def exact(layer: Any, raw: Tensor) -> Tensor:
        """Their bounded log-scale with 2 / π, which they say is 0.636."""
        return layer.clamp * 2 / math.pi * torch.atan(raw / layer.clamp)  # type: ignore[no-any-return]

    for told, scale, border in (("", exact, "mirror"), (" as published", published, "reflect")):
        detector.load_state_dict(first)
        with mock.patch.object(load("model"), "alexnet", lambda pretrained: Fixed(detector.backbone.net)):
            model, pairs, own = load("model").DifferNet(), [], iter(detector.flow.flows)
        for layer in model.nf.module_list:
            if isinstance(layer, flows.permute_layer):
                layer.perm = next(own).order
            elif isinstance(layer, flows.glow_coupling_layer):
                for net in (layer.s2, layer.s1):
                    linear = nn.ModuleList([net.fc1, net.fc2, net.fc2b, net.fc3])
                    pairs += in_order(linear, next(own).network)
        (phase,) = detector.phases()
        optimizer = phase.updates[0].optimizer
        with (
            mock.patch.object(flows.glow_coupling_layer, "log_e", scale),
            mock.patch.object(trainer, "DifferNet", return_value=model),
            mock.patch.object(trainer, "roc_auc_score", return_value=0.5) as judge,
            mock.patch.object(maps, "save_imgs", return_value=0) as saved,
            mock.patch.object(maps, "gaussian_filter", partial(blur, mode=border)),
            here(),
        ):
            z, volume = detector.flow(detector.pooled(views.flatten(0, 1)))
            told_z = model(learning[0][0].flatten(0, 1))
            found[f"z{told}"] = told_z, z
            found[f"log-determinant{told}"] = model.nf.jacobian(run_forward=False), volume
            theirs = load("utils").get_loss(told_z, model.nf.jacobian(run_forward=False))
            optimizer.zero_grad()
            ours = detector.loss(batch) - math.log(2 * math.pi) / 2
            theirs.backward(), ours.backward()
            found[f"loss{told}"], found[f"gradient{told}"] = (theirs, ours), gradients(pairs)
            trainer.train(learning, testing)
        for _ in range(steps):
            optimizer.zero_grad()
            detector.loss(batch).backward()
            optimizer.step()
        found[f"weights after {steps} steps{told}"] = weights(pairs)
        with mock.patch.object(rotations, "rotated", lambda some, angle: turn(some, angle - math.pi / angles)):
            scores = detector(judged)
        found[f"score{told}"] = torch.from_numpy(judge.call_args.args[1]), scores.image
        shown = torch.from_numpy(saved.call_args.args[1])
        mine = scores.map * (0.25 / turned[:, :, 0, 0, 0].numel()) ** 2  # theirs is of the mean over all, normalised
        found[f"map{told}"] = shown, mine
        inner = slice(13, -13)  # where no Gaussian meets the border
        found[f"map away from the border{told}"] = shown[:, inner, inner], mine[:, inner, inner]
    return found


def patch_svdd(load: Load) -> dict[str, Both]:
    """Their search is a tree's on both scales: what they take for the fine one searches no less exactly, by a graph."""
    side, code, found = 96, 16, {}
    networks, data, judge = load("codes.networks"), load("codes.datasets"), load("codes.inspection")
    search = load("codes.nearest_neighbor")
    detector: Any = create("patch_svdd", image_size=(side, side), code=code, samples=2)
    lively(detector)
    encoder, coarse, fine = (
        networks.EncoderHier(64, code), networks.PositionClassifier(64, code), networks.PositionClassifier(32, code)
    )  # fmt: skip
    pairs = in_order(
        nn.ModuleList([encoder.enc, encoder.conv1, encoder.conv2]),
        nn.ModuleList([detector.encoder, detector.join, detector.joined]),
    )
    for one, mine in ((coarse, detector.coarse_position), (fine, detector.fine_position)):
        pairs += given(one, mine, {"hidden.0.": "fc1.", "hidden.2.": "fc2.", "last.": "fc3."})
    learning, judged = images(2, side), images(2, side, 1)
    mean, training, memory = detector.phases()
    mean.visit(batch_of(learning)), mean.finish()
    standard = (255 * learning).mean(0)

    def ready(pixels: Tensor) -> np.ndarray:
        """What their loader makes of images, channels last."""
        return ((255 * pixels - standard) / 255).permute(0, 2, 3, 1).numpy()

    batch = augmented(detector, learning)
    views = batch.views

    def loss() -> Tensor:
        """Theirs of the views: of positions and of neighbours, of coarse and of fine patches."""
        total = torch.zeros(())
        for (apart, directions, near), classes, enc in (
            (views[:3], coarse, encoder), (views[3:], fine, encoder.enc),
        ):  # fmt: skip
            first, second = apart.transpose(0, 1).flatten(1, 2)  # (B * R, C, K, K) each
            total = total + classes.infer(classes, enc, (first, second, directions.flatten()))
            total = total + data.SVDD_Dataset.infer(enc, tuple(near.transpose(0, 1).flatten(1, 2)))
        return total

    optimizer = torch.optim.Adam([one for one, _ in pairs], 1e-4)
    published, update = networks.NormalizedLinear.forward, training.updates[0]
    for told, last in (
        ("", lambda layer, x: F.linear(x, F.normalize(layer.weight), layer.bias)), (" as published", published),
    ):  # fmt: skip
        with mock.patch.object(networks.NormalizedLinear, "forward", last):
            optimizer.zero_grad(), update.optimizer.zero_grad()
            theirs, ours = loss(), sum(update.loss(batch).values())
            theirs.backward(), ours.backward()
            found[f"loss{told}"], found[f"gradient{told}"] = (theirs, ours), gradients(pairs)
            if told:
                continue
            for _ in range(3):
                optimizer.zero_grad(), update.optimizer.zero_grad()
                loss().backward(), sum(update.loss(batch).values()).backward()
                optimizer.step(), update.optimizer.step()
            found["weights after 3 steps"] = weights(pairs)
    with torch.no_grad():
        memory.visit(batch_of(learning)), memory.finish()
        with here(), mock.patch.object(search, "search_NN_ngt", partial(search.search_NN, method="kdt")):
            known, new = (
                [judge.infer(ready(pixels), enc, K, S) for enc, K, S in ((encoder, 64, 16), (encoder.enc, 32, 4))]
                for pixels in (learning, judged)
            )
            with mock.patch.object(judge, "assess_anomaly_maps", return_value=(0, 0)):
                maps = judge.eval_embeddings_NN_multiK("", *zip(known, new, strict=True))
        for name, one, mine in zip(("coarse", "fine"), new, detector.codes(judged), strict=True):
            found[f"codes, {name}"] = torch.from_numpy(one), mine.permute(0, 2, 3, 1)
        scores = detector(judged)
        product = torch.from_numpy(maps["maps_mult"])[:, :side, :side]
        found["map, of which okng's is the root"] = product, scores.map.square()
        found["score, of which okng's is the root"] = product.amax((1, 2)), scores.image.square()
    return found


def effective(convolution: Any) -> Tensor:
    """The kernels of okng's weight-normalised convolution, of the length that it gives them."""
    kernels: Tensor = convolution.weight * (convolution.gain / convolution.weight.flatten(1).norm(dim=1)).view(
        -1, 1, 1, 1
    )
    return kernels.detach()


def put(convolution: Any, kernels: Tensor, bias: Tensor) -> None:
    """Into theirs, which keeps a kernel's length beside it."""
    convolution.weight_v.data = kernels.detach().clone()
    convolution.weight_g.data = kernels.detach().flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    convolution.bias.data = bias.detach().clone()


def coupled(one: Any, mine: Any) -> list[tuple[nn.Parameter, nn.Parameter]]:
    """Their coupling takes the weights of okng's; the parameters that both have by pairs.

    Theirs has only the channels that it sees and changes, its network begins with what is above 0 and what is below,
    and the first convolution of a block has no bias.
    """
    channels = mine.reach.shape[1]
    half = mine.seen.shape[1] == channels and channels > 1
    seen = mine.seen[0, :, 0, 0].bool() if half else torch.ones(channels, dtype=torch.bool)
    changed = ~seen if half else seen
    network, pairs = mine.network, []
    one.st_net.skip = False
    kernels = effective(network.enter)[:, seen]
    put(one.st_net.in_conv.conv, torch.cat([kernels, -kernels], 1), network.enter.bias)
    pairs.append((one.st_net.in_conv.conv.bias, network.enter.bias))
    put(one.st_net.out_conv.conv, network.leave.weight[changed.repeat(2)], network.leave.bias[changed.repeat(2)])
    for block, own in zip(one.st_net.blocks, network.blocks, strict=True):
        nn.init.zeros_(own[1].bias)
        for convolution, known in ((block.in_conv.conv, own[1]), (block.out_conv.conv, own[3])):
            convolution.weight_v.data = known.weight.detach().clone()
            convolution.weight_g.data = known.gain.detach().view(-1, 1, 1, 1).clone()
            pairs += [(convolution.weight_v, known.weight), (convolution.weight_g, known.gain)]
        block.out_conv.conv.bias.data = own[3].bias.detach().clone()
        pairs.append((block.out_conv.conv.bias, own[3].bias))
    nn.init.ones_(one.rescale.weight_v)
    one.rescale.weight_g.data = mine.reach[0, changed].detach().clone()
    if not half:
        pairs.append((one.rescale.weight_g, mine.reach))
    return pairs


def nf_ood(load: Load) -> dict[str, Both]:
    """Their networks without normalisation and without skips to the last layer; okng's masks begin as theirs do."""
    side, width, depth, found = 16, 8, 2, {}
    pixels = images(4, side)
    size = pixels[0].numel()
    realnvp, couplings = load("flow_ssl.realnvp.realnvp"), load("flow_ssl.realnvp.coupling_layer")
    prior = torch.distributions.MultivariateNormal(torch.zeros(size), torch.eye(size))
    measure, bits = load("flow_ssl.flow_loss").FlowLoss(prior), load("experiments.train_flows.utils.optim_util")
    board, squeeze = pixel_flows.board, F.pixel_unshuffle
    for told, masks, kind in (("", "checkerboard", "RealNVP"), (", cycle", "cycle", "RealNVPCycleMask")):
        with mock.patch.object(pixel_flows, "board", lambda h, w, number: board(h, w, number + 1)):
            detector: Any = create(
                "nf_ood", image_size=(side, side), channels=3, masks=masks, scales=3, width=width, depth=depth
            )
        model = getattr(realnvp, kind)(
            num_scales=3, in_channels=3, mid_channels=width, num_blocks=depth, use_batch_norm=False, skip=False,
            img_shape=(3, side, side),
        )  # fmt: skip
        lively(detector)
        flow, own = detector.flow, []
        if masks == "cycle":
            own = [*flow.flows]
        else:
            for before, after in zip(flow.before, flow.after, strict=True):
                own += [*before.flows, *after.flows]
            own += [*flow.last.flows]
        pairs = []
        layers = [layer for layer in model.modules() if isinstance(layer, couplings.CouplingLayer)]
        for one, mine in zip(layers, own, strict=True):
            pairs += coupled(one, mine)

        def nats(one: bool, model: Any = model) -> Tensor:
            """Theirs, the mean or of each image."""
            z = model(pixels)
            told: Tensor = measure(z, sldj=model.logdet(), mean=one)
            return told

        with mock.patch.object(F, "pixel_unshuffle", lambda x, by: squeeze(x, by).roll(2 * x.shape[1], 1)):
            torch.manual_seed(0)
            theirs = nats(True)
            torch.manual_seed(0)
            ours = detector.loss(batch_of(pixels))
            theirs.backward(), ours.backward()
            found[f"loss{told}"], found[f"gradient{told}"] = (
                (theirs, ours + size * math.log(256 / 255)),
                gradients(pairs),
            )
            found[f"loss as published{told}"] = theirs, ours
            with torch.no_grad():
                score = detector(pixels).image
                found[f"score as published{told}"] = bits.bits_per_dim(pixels, nats(False)), score
                with mock.patch.object(torch, "rand_like", lambda x: torch.full_like(x, 0.5)):
                    middle = bits.bits_per_dim(pixels, nats(False))
                found[f"score, middle of a level{told}"] = middle, score + math.log2(256 / 255)
    return found


def sspcab(load: Load) -> dict[str, Both]:
    """The block alone, with two sizes of kernels."""
    found, channels = {}, 16
    for told, kernel, dilation in (("", 1, 1), (", kernel 3, dilation 2", 3, 2)):
        block, mine = load("sspcab_torch").SSPCAB(channels, kernel, dilation), SSPCAB(channels, kernel, dilation)
        lively(mine)
        corners = [block.conv1, block.conv3, block.conv2, block.conv4]
        pairs = in_order(nn.ModuleList([*corners, block.se]), nn.ModuleList([mine.corners, mine.gate]))
        features = torch.randn(3, channels, 9, 7, generator=torch.Generator().manual_seed(0)).double()
        one, other = block(features), mine(features)
        theirs, ours = F.mse_loss(features, one), F.mse_loss(other, features)
        theirs.backward(), ours.backward()
        found[f"features{told}"], found[f"loss{told}"], found[f"gradient{told}"] = (
            (one, other), (theirs, ours), gradients(pairs)
        )  # fmt: skip
    return found


def uflow(load: Load) -> dict[str, Both]:
    """On a random ResNet-18, as in the paper; the authors' flow is FrEIA's."""
    side, steps, found = 64, 2, {}
    detector: Any = create(
        "uflow", image_size=(side, side), backbone="resnet18", weights="none", strides=(4, 8, 16), flow_steps=steps
    )
    with mock.patch.dict(sys.modules, {"lightning": SimpleNamespace(LightningModule=nn.Module)}):
        extraction, module = load("src.feature_extraction"), load("src.model")
    with mock.patch.object(extraction.timm, "create_model", lambda *_, **__: detector.backbone.net):
        model = module.UFlow(side, steps, "resnet18")
    lively(detector.flow)
    for affine in detector.flow.affines:  # (C, h, w): so that some positions are far less probable than others
        nn.init.normal_(affine.weight).data.mul_(20 * torch.rand_like(affine.weight[0]))
    pairs = []
    for norm, affine in zip(model.feature_extractor.feature_normalizations, detector.flow.affines, strict=True):
        norm.weight.data, norm.bias.data = affine.weight.detach().clone(), affine.bias.detach().clone()
        pairs += [(norm.weight, affine.weight), (norm.bias, affine.bias)]
    blocks = [block for block in model.flow.modules() if type(block).__name__ == "AllInOneBlock"]
    own = [step for stage in reversed(detector.flow.stages) for step in stage.flows]
    for block, step in zip(blocks, own, strict=True):
        network, affine, mixing = step.flows
        pairs += in_order(block.subnet, network.network)
        block.global_scale.data = affine.raw.detach().view_as(block.global_scale).clone()
        block.global_offset.data = affine.offset.detach().view_as(block.global_offset).clone()
        pairs += [(block.global_scale, affine.raw), (block.global_offset, affine.offset)]
        block.w_perm.data = torch.eye(len(mixing.order))[mixing.order][:, :, None, None]
    pixels = images(2, side)
    inputs = normalised(detector, pixels)
    plain = pixel_affine.PositionAffine.forward
    for told, forward in (
        ("", lambda self, x, condition=None: (plain(self, x)[0], x.new_zeros(len(x)))), (" as published", plain),
    ):  # fmt: skip
        with mock.patch.object(pixel_affine.PositionAffine, "forward", forward):
            z, volume = model(inputs)
            prepared = tuple(detector.normalised(pixels))
            latents, mine = detector.flow(prepared)
            size = sum(each[0].numel() for each in latents)
            halves = torch.stack([0.5 * each.square().sum((1, 2, 3)) for each in z]).sum(0)
            theirs = (halves - volume).mean()  # as the step of their trainer, which asks for a logger
            detector.zero_grad(), model.zero_grad()
            ours = detector.loss(Batch(pixels, torch.arange(2), prepared)) - size * math.log(2 * math.pi) / 2
            theirs.backward(), ours.backward()
            found[f"log-determinant{told}"] = volume, mine
            found[f"loss{told}"], found[f"gradient{told}"] = (theirs, ours), gradients(pairs)
    found["z"] = tuple(torch.cat([each.flatten() for each in some]) for some in (z, latents))
    with torch.no_grad():
        scores = detector(pixels)
        for told, size in (("", side // 4), (" as published", side)):
            likely = model.get_probability(z, size)[:, 0]
            wide = enlarged(scores.map, size)
            found[f"map, of the probability{told}"] = likely, (-wide).exp()
            found[f"score, of the probability{told}"] = 1 - likely.amin((1, 2)), 1 - (-scores.image).exp()
    return found


def glass(load: Load) -> dict[str, Both]:
    """Their own step of training, of features that okng makes: theirs are pooled to a width of their own."""
    side, found = 64, {}
    detector: Any = create("glass", image_size=(side, side), weights="none", hidden=32, hypothesis="manifold")
    detector.backbone.std.fill_(0.25)
    learning, judged = images(3, side), images(2, side, 1)
    with mock.patch.dict(sys.modules, {"torch.utils.tensorboard": mock.MagicMock()}):
        module, utils = load("glass"), load("utils")
    batch = augmented(detector, learning)
    batch.prepared = (detector.patches(learning),)
    mask = F.max_pool2d(batch.views[0].to(learning), min(detector.backbone.strides))
    collect, training = detector.phases()
    collect.visit(batch), list(collect.finish() or ())
    width, grid = detector.centre.shape[2], detector.centre.shape[:2]
    first = {name: tensor.clone() for name, tensor in detector.state_dict().items()}

    def embed(inputs: Tensor, **_: Any) -> tuple[Tensor, list]:
        """okng's patches of what their loader gives."""
        pixels = inputs * detector.backbone.std + detector.backbone.mean
        return detector.patches(pixels).flatten(0, 2), [list(grid)] * 2

    for told, sphere, smooth in (
        (", manifold", False, 0.0), (", hypersphere", True, 0.0), (", manifold, as published", False, 1e-5),
    ):  # fmt: skip
        detector.load_state_dict(first)
        detector.sphere = torch.tensor(sphere)
        detector.eval(), detector.projection.train(), detector.discriminator.train()
        model = module.GLASS("cpu")
        model.load(
            torchvision.models.resnet18(), ["layer2", "layer3"], "cpu", (3, side, side), width, width, dsc_hidden=32,
            svd=int(sphere),
        )  # fmt: skip
        model.focal_loss.smooth = smooth  # by which theirs keeps its logarithm finite
        model._embed, model.logger = embed, mock.MagicMock()
        pairs = in_order(
            nn.ModuleList([model.pre_projection, model.discriminator]),
            nn.ModuleList([detector.projection, detector.discriminator]),
        )
        model.c = detector.projection(detector.centre.flatten(0, 1)).detach()
        item = {
            "aug": normalised(detector, detector.spoilt(batch)), "image": normalised(detector, learning),
            "mask_s": mask,
        }  # fmt: skip
        torch.manual_seed(0)
        with here() as losses, mock.patch.object(torch, "float", torch.float64):
            model._train_discriminator([item], 0, mock.MagicMock(), "")
        update = training.updates[0]
        update.optimizer.zero_grad()
        torch.manual_seed(0)
        said = update.loss(batch)
        sum(said.values()).backward()
        found[f"loss{told}"], found[f"gradient{told}"] = (losses[0], sum(said.values())), gradients(pairs)
    detector.load_state_dict(first)
    in_order(
        nn.ModuleList([model.pre_projection, model.discriminator]),
        nn.ModuleList([detector.projection, detector.discriminator]),
    )
    detector.eval()
    blur, rescale = load("common").ndimage.gaussian_filter, model.anomaly_segmentor
    with torch.no_grad(), mock.patch.object(torch, "float", torch.float64):
        scores = detector(judged)
        for told, size, sigma, border in (
            ("", tuple(grid), detector.sigma / min(detector.backbone.strides), "mirror"),
            (" as published", (side, side), 4, "reflect"),
        ):  # fmt: skip
            rescale.target_size, rescale.smoothing = size, sigma
            with mock.patch.object(load("common").ndimage, "gaussian_filter", partial(blur, mode=border)):
                whole, maps = model._predict(normalised(detector, judged))
            mine = enlarged(scores.map, size)
            found[f"map{told}"] = torch.from_numpy(np.stack(maps)), mine
        found["score, of the likelihood"] = torch.tensor(np.array(whole)).flatten(), scores.image.sigmoid()
    judgements = []
    for pixels in means():
        bgr = (255 * pixels).round().byte().flip(0).permute(1, 2, 0).numpy()
        with mock.patch.object(utils.cv2, "imwrite"), mock.patch.object(utils.os, "makedirs"), here():
            judgements.append((utils.distribution_judge(bgr, ""), is_sphere(pixels)))
    theirs, ours = torch.tensor(judgements, dtype=torch.float64).T
    found[f"hypothesis of {len(theirs)} mean images, {int(theirs.sum())} of spheres"] = theirs, ours
    return found


def means() -> list[Tensor]:
    """Made mean OK images, (3, 288, 288) in [0, 1]: textures, and a disc or a bar on a plain ground."""
    textures = [*images(3, 288), *(0.5 + 0.2 * (images(3, 288, 1) - 0.5))]
    y, x = torch.meshgrid(torch.arange(-144.0, 144), torch.arange(-144.0, 144), indexing="ij")
    objects = [inside < size for size in (20, 60, 110) for inside in (torch.hypot(y, x), y.abs() + 3 * x.abs())]
    return [*textures, *(torch.where(inside, 0.9, 0.1).expand(3, -1, -1).double() for inside in objects)]


METHODS = {
    "differnet": Beside("marco-rudolph/differnet@9bdf026", differnet, {"side": 64}),
    "patch_svdd": Beside("nuclearboy95/Anomaly-Detection-PatchSVDD-PyTorch@934d623", patch_svdd, {"side": 96}),
    "nf_ood": Beside("PolinaKirichenko/flows_ood@26a920a", nf_ood, {"side": 16, "width": 8}),
    "sspcab": Beside("ristea/sspcab@07d416c", sspcab, {"channels": 16}),
    "glass": Beside("cqylunlun/GLASS@f788d56", glass, {"side": 64}),
    "uflow": Beside("mtailanian/uflow@d621784", uflow, {"side": 64}),
}
