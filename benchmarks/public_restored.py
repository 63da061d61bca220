"""UniNet, which restores features, and DSR, which restores codes, beside their public code, for public_code.py."""

from __future__ import annotations

import itertools
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F
from public_features import of_resnet18
from same_weights import Beside, Both, Load, gradients, images, in_order, layers, weights
from scipy.ndimage import gaussian_filter
from their_steps import here, steady, stepped, written
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from okng.detectors.base import Batch
from okng.detectors.catalogue import create
from okng.detectors.synthetic_anomalies import dsr as dsr_module
from okng.nn.images.perlin import perlin_noise

SIDE, WHOLE = 64, 256  # of the images that are learnt; of those that DSR's test crops
WIDTH, CODE, CODES = 16, 12, 100  # of DSR's general model


def their_uninet(load: Load, detector: Any, learns: bool) -> tuple[list[Any], list]:
    """Their teachers, embedding, decoder and selection with the weights of `detector`; and parameters by pairs.

    `learns`: whether how much is selected is learnt. In theirs these parameters are lost on the way to the GPU.
    """
    resnet, reverse, selection = (load(f"UniNet_lib.{name}") for name in ("resnet", "de_resnet", "DFS"))

    class Block(resnet.AttnBasicBlock):
        """The block of a ResNet-18, called as that of a wider one."""

        def __init__(self, _: Any, *given: Any, halve: int, **more: Any):
            super().__init__(*given, **more)

    source, target = (resnet.ResNet(resnet.BasicBlock, [2] * 4) for _ in range(2))
    decoder = reverse.ResNet(reverse.BasicBlock, [2] * 4)
    for network in (source, target, decoder):
        network.layer4 = network.fc = None  # which see nothing
    embedding = resnet.BN_layer(None, Block, 2)
    with mock.patch.object(Tensor, "to", lambda self, _: self if learns else self.clone()):
        selected = selection.DomainRelated_Feature_Selection(64)
    in_order(source, detector.source)
    shrink = [getattr(embedding, name + n) for n in "123" for name in ("conv", "bn")]
    pairs = in_order(nn.ModuleList([*shrink, embedding.bn_layer]), detector.embedding)
    pairs += in_order(target, detector.target) + in_order(decoder, detector.decoder)
    for theta, chosen in zip(selected.parameters(), detector.chosen, strict=False):
        theta.data.copy_(nn.init.normal_(chosen).detach().view_as(theta))
        pairs.append((theta, chosen))
    return [source, target, embedding, decoder, selected], pairs


def uninet(load: Load) -> dict[str, Both]:
    """On a ResNet-18, for which their embedding has one branch as okng's; by their own training and evaluation.

    The teacher that learns has other weights than the one that does not, from the first step on.
    """
    found: dict[str, Both] = {}
    module, deciding = load("UniNet_lib.model"), load("UniNet_lib.mechanism")
    script, judging = load("train_unsupervisedAD"), load("eval")
    learning, judged = images(9, SIDE).split([3, 6])
    asked = SimpleNamespace(
        dataset="VisA", domain="industrial", _class_="made", epochs=1, lr_s=5e-3, lr_t=1e-6, T=2, alpha=0.01, beta=3e-5,
        weighted_decision_mechanism=True,
    )  # fmt: skip

    def both(learns: bool = True) -> tuple[Any, list[Any], list]:
        torch.manual_seed(0)
        detector = of_resnet18("uninet")
        steady(detector)
        for layer in [*layers(detector.source, "Norm"), *layers(detector.target, "Norm")]:
            layer.weight.data *= 0.3  # of long features one position alone would be selected
        return detector, *their_uninet(load, detector, learns)

    def standing(teachers: Any, *_: Any) -> None:
        """The statistics of neither teacher are those of a batch."""
        teachers.eval()

    known = {"torch": torch, "F": F}
    plain = written(Path(module.__file__).with_name("Loss.py"), {"losses"}, known, {"1e-8": "0.0"}).losses
    usual = module.losses, module.Teachers.train_eval
    for told, steps, losses, statistics in (
        ("", 1, plain, standing),
        ("", 3, plain, standing),
        (", 1e-8 added to likelihoods", 1, usual[0], standing),
        (" as published", 1, *usual),
    ):
        detector, parts, pairs = both(learns=statistics is standing)
        ready = (learning - detector.source.mean) / detector.source.std
        with (
            here() as said,
            mock.patch.object(module, "losses", losses),
            mock.patch.object(module.Teachers, "train_eval", statistics),
            mock.patch.object(script.copy, "deepcopy", return_value=parts[1]),
            mock.patch.object(script, "loading_dataset", return_value=([(ready,)] * steps, None)),
            mock.patch.object(script, "wide_resnet50_2", return_value=(parts[0], parts[2])),
            mock.patch.object(script, "de_wide_resnet50_2", return_value=parts[3]),
            mock.patch.object(script, "DomainRelated_Feature_Selection", return_value=parts[4]),
        ):
            script.train(asked)
        with torch.no_grad():
            batch = Batch(learning, torch.arange(3), tuple(detector.source(learning)))
        (phase,) = detector.phases()
        for each in phase.trains:
            each.train()
        if steps > 1:
            stepped(phase, batch, steps)
            found[f"weights after {steps} steps"] = weights(pairs)
        else:
            loss = sum(detector.loss(batch).values())
            loss.backward()
            found[f"loss{told}"], found[f"gradient{told}"] = (said[0], loss), gradients(pairs)
    detector, parts, _ = both()
    model = module.UniNet(asked, *parts[:-1], DFS=parts[-1]).train_or_eval("eval")
    ready = (judged - detector.source.mean) / detector.source.std
    with torch.no_grad():
        pairs, scores = detector.pairs(detector.source(judged), judged), detector(judged)
        taught, restored = model(ready)
    for what, side, place in (("features of the teachers", taught, 0), ("restored features", restored, 1)):
        mine = [pair[place] for pair in [*pairs[::2], *pairs[1::2]]]
        found[what] = torch.cat([each.flatten() for each in side]), torch.cat([each.flatten() for each in mine])
    blank = torch.zeros(len(judged), 1, SIDE, SIDE)
    for told, border in (("", "mirror"), (" as published", "reflect")):
        with (
            here(),
            mock.patch.object(deciding, "gaussian_filter", partial(gaussian_filter, mode=border)),
            mock.patch.object(
                judging, "weighted_decision_mechanism", partial(deciding.weighted_decision_mechanism, out_size=SIDE)
            ),
            mock.patch.object(judging, "eval_seg_pro", return_value=0.0),
            mock.patch.object(judging, "roc_auc_score", return_value=0.0) as metric,
        ):
            judging.evaluation_indusAD(asked, model, DataLoader(TensorDataset(ready, blank[:, 0, 0, 0], blank)), "cpu")
        (_, maps), (_, whole) = (call[0] for call in metric.call_args_list)
        found["map"] = torch.from_numpy(maps), scores.map
        found[f"score{told}"] = torch.from_numpy(np.concatenate(whole)), scores.image
    found["restored features, bottlenecks"] = of_bottlenecks(load)
    return found


def of_bottlenecks(load: Load) -> Both:
    """What UniNet's decoder for a Wide ResNet-50 makes of an embedding."""
    detector: Any = create("uninet", backbone="wide_resnet50_2", weights="none")
    decoder, mine = load("UniNet_lib.de_resnet").de_wide_resnet50_2().eval(), detector.decoder.eval()
    del decoder.fc, detector
    steady(mine)
    in_order(decoder, mine)
    features = torch.rand(2, 2048, 2, 2, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        theirs, ours = decoder(features), []
        for stage in mine:
            features = stage(features).relu()
            ours.append(features.flatten())
    return torch.cat([each.flatten() for each in theirs]), torch.cat(ours[::-1])


def unet(network: Any) -> nn.ModuleList:
    """okng's U-Net, its layers in the order of theirs."""
    ups = [layer for pair in zip(network.enlarge, network.merge, strict=True) for layer in pair]
    return nn.ModuleList([network.down, *ups, network.last])


def of_dsr(load: Load) -> tuple[Any, dict[str, Any], dict[str, list]]:
    """okng's detector, whose codes are features; their networks with its weights, and parameters by pairs."""
    torch.manual_seed(0)
    detector: Any = create("dsr", image_size=(SIDE, SIDE), width=WIDTH, code=CODE, codes=CODES)
    general, networks = detector.general, load("dsr_model")
    with here(), torch.no_grad():
        general.train()(images(8, SIDE, 1))
        general.follow()
    model = load("discrete_model").DiscreteLatentModel(WIDTH, 2, WIDTH // 2, CODES, CODE, 0.25, 0.99).eval()
    for book, own in ((model._vq_vae_bot, general.high), (model._vq_vae_top, general.low)):
        book._embedding.weight.data.copy_(own.rows), book._ema_w.data.copy_(own.sums)
        book._ema_cluster_size.copy_(own.chosen)
    convolutions = model._pre_vq_conv_bot, model._pre_vq_conv_top, model.upsample_t
    parts = {
        "general": nn.ModuleList([model._encoder_b, model._encoder_t, *convolutions, model._decoder_b]),
        "restrict_high": networks.SubspaceRestrictionModule(CODE),
        "restrict_low": networks.SubspaceRestrictionModule(CODE),
        "decoder": networks.ImageReconstructionNetwork(2 * CODE, WIDTH, 2, WIDTH // 2),
        "detector": networks.AnomalyDetectionModule(),
        "refiner": networks.UpsamplingModule(),
    }
    own = [general.fine, general.coarse, general.to_high, general.to_low, general.enlarge, general.decoder]
    mine = {"general": nn.ModuleList(own), "detector": unet(detector.detector), "refiner": unet(detector.refiner)}
    pairs = {name: in_order(part, mine.get(name) or getattr(detector, name)) for name, part in parts.items()}
    return detector.eval(), {**parts, "general": model}, pairs


def flat(*tensors: Any) -> Tensor:
    """All of them as one."""
    return torch.cat([each.flatten() for each in tensors])


def learning() -> tuple[Tensor, Tensor]:
    """Images (4, 3, SIDE, SIDE), and where each has an anomaly, in 0 and 1: the fourth has none."""
    mask = torch.zeros(4, 1, SIDE, SIDE)
    mask[0, :, 9:30, 21:42] = mask[1, :, 40:51, 3:18] = mask[2, :, 13:33, 33:62] = 1
    return images(4, SIDE), mask


def of_codes(load: Load) -> dict[str, Both]:
    """What the general model makes of images, and a step of its codes. Its training is not public."""
    found: dict[str, Both] = {}
    pixels, _ = learning()
    not_in_place = SimpleNamespace(mse_loss=F.mse_loss, relu=lambda x: F.relu(x).clone())  # else there is no gradient
    for told, epsilon in (("", 0.0), (" as published", 1e-5)):
        detector, parts, pairs = of_dsr(load)
        model, general = parts["general"].train(), detector.general.train()
        model._vq_vae_bot._epsilon = model._vq_vae_top._epsilon = epsilon
        with here(), mock.patch.object(load("discrete_model"), "F", not_in_place):
            *apart, copies, low, high = model(pixels)
            mine, _, codes = general(pixels)
            losses = detector.copying(Batch(pixels, torch.arange(4), auxiliary=pixels))
            sum(losses.values()).backward()
            (sum(apart) + dsr_module.COPIES * F.mse_loss(copies, pixels)).backward()
            general.follow()
        found["codes"], found["copies"] = (flat(high, low), flat(*codes)), (copies, mine)
        found["distance of features from codes"] = sum(apart), losses["commitment"]
        found["gradient of the general model"] = gradients(pairs["general"])
        books = model._vq_vae_bot._embedding.weight, model._vq_vae_top._embedding.weight
        found[f"codebooks after a step{told}"] = flat(*books), flat(general.high.rows, general.low.rows)
    return found


def of_anomalies(load: Load) -> dict[str, Both]:
    """Steps of what restores and tells. Of one image both levels are changed, of one the lower, of one the higher."""
    found: dict[str, Both] = {}
    training, share = load("train_dsr"), 0.6  # how far down the list of codes each wrong one is
    pixels, mask = learning()
    high, low = torch.tensor([[0.1, 0.9, 0.5, 0.3], [0.8, 0.2, 0.4, 0.6]])  # of the strengths
    both, lower = torch.tensor([[1, 0, 0, 1], [0, 1, 0, 1]])
    level = torch.where(both == 1, 0.25, torch.where(lower == 1, 0.6, 0.9))  # the same for okng
    drawn = torch.stack([*(dsr_module.WEAKEST + (1 - dsr_module.WEAKEST) * each for each in (high, low)), level], 1)
    batch = Batch(pixels, torch.arange(4), views=(pixels, mask.bool(), drawn))
    for told, steps, smooth in (("", 1, 0.0), ("", 3, 0.0), (" as published", 1, 1e-5)):
        detector, parts, pairs = of_dsr(load)
        focal, seen = mock.Mock(wraps=load("loss").FocalLoss(smooth=smooth)), []
        for name in ("restrict_high", "restrict_low"):
            parts[name].register_forward_pre_hook(lambda _, given, seen=seen: seen.append(given[0]))
        strengths, levels = itertools.cycle([low, high]), itertools.cycle([both, lower])

        def whole(most: int, *_: Any, size: Any = None, levels: Any = levels) -> Tensor:
            """Which code, or which levels."""
            return torch.full(size, int(share * most)) if size else next(levels)[:, None, None, None]

        with (
            here() as said,
            mock.patch.multiple(
                training, DiscreteLatentModel=mock.Mock(return_value=parts["general"]),
                SubspaceRestrictionModule=mock.Mock(side_effect=[parts["restrict_low"], parts["restrict_high"]]),
                AnomalyDetectionModule=mock.Mock(return_value=parts["detector"]), weights_init=mock.Mock(),
                ImageReconstructionNetwork=mock.Mock(return_value=parts["decoder"]),
                FocalLoss=mock.Mock(return_value=focal), TrainWholeImageDataset=mock.MagicMock(),
                DataLoader=mock.Mock(return_value=[{"image": pixels, "mask": mask}] * steps),
            ),
            mock.patch.object(torch, "load", return_value=parts["general"].state_dict()),
            mock.patch.object(training.optim.lr_scheduler, "MultiStepLR"),  # whose rate falls at the end
            mock.patch.object(torch, "rand", lambda _, strengths=strengths: next(strengths)),
            mock.patch.object(torch, "randint", whole),
        ):  # fmt: skip
            training.train_on_device(["made"], "", "", 2e-4, 4, 1)
        _, phase, _ = detector.phases()
        learnt = [pair for name in parts if name not in ("general", "refiner") for pair in pairs[name]]
        with here(), mock.patch.object(torch, "rand", lambda count: torch.full((count,), share)):
            if steps > 1:
                stepped(phase, batch, steps)
                found[f"weights after {steps} steps"] = weights(learnt)
                continue
            with torch.no_grad():
                codes, _, odd = detector.swapped(*batch.views)
            loss = sum(detector.telling(batch).values())
            loss.backward()
        found["codes of anomalies"], found["where they are"] = (flat(*seen), flat(*codes)), (focal.call_args[0][1], odd)
        found[f"loss{told}"], found[f"gradient{told}"] = (said[0], loss), gradients(learnt)
    return found


def of_maps(load: Load) -> dict[str, Both]:
    """A step of what makes maps finer; maps and scores."""
    found: dict[str, Both] = {}
    training, judging = load("train_dsr"), load("test_dsr")
    pixels, mask = learning()
    for told, smooth in (("", 0.0), (" as published", 1e-5)):
        detector, parts, pairs = of_dsr(load)
        *others, refiner = parts.values()
        with (
            here() as said,
            mock.patch.multiple(
                training, UpsamplingModule=mock.Mock(return_value=refiner), MVTecImageAnomTrainDataset=mock.MagicMock(),
                FocalLoss=mock.Mock(return_value=load("loss").FocalLoss(smooth=smooth)),
                DataLoader=mock.Mock(return_value=[{"augmented_image": pixels, "anomaly_mask": mask}]),
            ),
            mock.patch.object(torch, "save"),
        ):  # fmt: skip
            training.train_upsampling_module(*others, "", "", "", 2e-4, 4, 2, 0.2)
            loss = detector.refining(Batch(pixels, torch.arange(4), views=(pixels, pixels, mask)))
            loss.backward()
        found[f"loss of the finer map{told}"] = said[0], loss
        found[f"gradient of the finer map{told}"] = gradients(pairs["refiner"])
    detector, parts, _ = of_dsr(load)
    judged, blank = images(2, WHOLE, 2), {"has_anomaly": torch.zeros(1, 1), "mask": torch.zeros(1, 1, WHOLE, WHOLE)}
    with (
        here(), torch.no_grad(),
        mock.patch.multiple(
            judging, TestMVTecDataset=mock.Mock(), average_precision_score=mock.Mock(return_value=0.0),
            DataLoader=mock.Mock(return_value=[{"image": each, **blank} for each in judged.split(1)]),
        ),
        mock.patch.object(judging, "roc_auc_score", return_value=0.0) as metric,
    ):  # fmt: skip
        judging.evaluate_model(*parts.values(), "made", "", 0)
        scores = detector(judged)
    (_, whole), (_, maps) = (call[0] for call in metric.call_args_list)
    middle = scores.map[:, 16:-16, 16:-16]  # of which theirs are
    found["map"], found["score"] = (torch.from_numpy(maps), middle.flatten()), (torch.from_numpy(whole), scores.image)
    return found


def of_smudges(load: Load) -> dict[str, Both]:
    """Perlin noise of the same directions, and a smudge of the same colour. imgaug's turns were not compared."""
    perlin, data, cells = load("perlin"), load("data_loader"), (4, 8)
    (image, *_), (mask, *_) = learning()
    detector: Any = create("dsr", width=WIDTH, code=CODE, codes=CODES, detector_width=2)
    directions, colour, through = torch.rand(5, 9), torch.rand(3, 1, 1), torch.rand(1)
    with mock.patch.object(perlin.np.random, "rand", return_value=directions.numpy()):
        noise = torch.from_numpy(perlin.rand_perlin_2d_np((SIDE, 2 * SIDE), cells))
    with mock.patch.object(torch, "rand", return_value=0.25 - directions):  # theirs begin at the other axis
        own = perlin_noise((SIDE, 2 * SIDE), cells)
    script = SimpleNamespace(resize_shape=(SIDE, SIDE), rot=lambda image: image)
    with (
        mock.patch.object(data, "rand_perlin_2d_np", return_value=mask[0].numpy()),
        mock.patch.object(data.np.random, "rand", return_value=colour.movedim(0, 2).numpy()),
        mock.patch.object(torch, "rand", side_effect=[through, torch.zeros(1)]),
    ):
        pixels = image.movedim(0, 2).numpy()
        smudged, where, _ = data.MVTecImageAnomTrainDataset.augment_image(script, pixels)
    with (
        mock.patch.object(dsr_module, "blot", return_value=mask.bool()),
        mock.patch.object(torch, "rand", side_effect=[torch.ones(2), colour, through.view(1, 1, 1)]),
    ):
        _, mine, odd = detector.with_smudge(image, torch.Generator())
    theirs, at = (torch.from_numpy(each).movedim(2, 0) for each in (smudged, where))
    return {"noise": (noise, own), "smudge, in float32": (theirs, mine), "where it is": (at, odd)}


def dsr(load: Load) -> dict[str, Both]:
    """By their own training and test, but for the turns of images and blots."""
    return of_codes(load) | of_anomalies(load) | of_maps(load) | of_smudges(load)


METHODS = {
    "uninet": Beside("pangdatangtt/UniNet@7b3469f", uninet, {"side": SIDE}),
    "dsr": Beside("VitjanZ/DSR_anomaly_detection@672bfb8", dsr, {"side": SIDE, "width": WIDTH}),
}
