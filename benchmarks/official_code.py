"""Public implementations of eight methods behind one small interface, for official.py: imported, not copied.

Each class builds the authors' networks, losses and optimisers out of a checkout of their repository. What they could
not be used as they are for is said in its docstring. Their networks for ResNets get the widths of another backbone by
their own makers of layers.
"""

from __future__ import annotations

import hashlib
import importlib
import math
import random
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision.io
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from okng.detectors.base import Batch, freeze
from okng.nn.features.backbones import Backbone

Pairs = list[tuple[nn.Module, nn.Module]]  # theirs and okng's, whose tensors stand in the same order


class Rectified(Backbone):
    """A backbone whose features end in a ReLU, as those do for which the authors' decoders were made."""

    def forward(self, images: Tensor) -> list[Tensor]:
        return [features.relu().contiguous() for features in super().forward(images)]


class Remembering(nn.Module):
    """A frozen backbone that computes the features of an image once, as okng's training does."""

    def __init__(self, backbone: Backbone):
        super().__init__()
        self.backbone, self.strides, self.channels = (freeze(backbone), backbone.strides, backbone.channels)
        self.known: dict[bytes, list[Tensor]] = {}

    def forward(self, images: Tensor) -> list[Tensor]:
        each = []
        for image in images:
            key = hashlib.sha256(image.numpy().tobytes()).digest()
            if key not in self.known:
                with torch.no_grad():
                    self.known[key] = [features[0] for features in self.backbone(image[None])]
            each.append(self.known[key])
        return [torch.stack(level) for level in zip(*each, strict=True)]


@contextmanager
def imported_from(folder: Path) -> Iterator[Callable[[str], Any]]:
    """Import modules of `folder` by their plain names, which repositories share, and forget the names at the end."""
    before = dict(sys.modules)
    sys.path.insert(0, str(folder))
    try:
        yield importlib.import_module
    finally:
        sys.path.remove(str(folder))
        for name, module in list(sys.modules.items()):
            if name not in before and str(getattr(module, "__file__", None) or "").startswith(str(folder)):
                del sys.modules[name]


def stay_on_cpu() -> None:
    """The authors' code asks for a GPU by name, and imports what is gone."""
    torch.Tensor.cuda = lambda self, *_, **__: self  # type: ignore[method-assign]
    nn.Module.cuda = lambda self, *_, **__: self  # type: ignore[method-assign]
    torch.cuda.set_device = lambda *_: None
    torchvision.io.read_video = None  # which newer versions lack, and only videos need


def he(*modules: nn.Module) -> None:
    """The first weights that the constructors of ResNets give; layers made afterwards lack them."""
    for module in modules:
        for layer in module.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")


class Images(Dataset):
    """Images, or tuples of an image and what a loader of theirs would give beside it."""

    def __init__(self, images: Tensor, *beside: Any):
        self.images, self.beside = images, beside

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Any:
        return (self.images[index], *self.beside) if self.beside else self.images[index]


class Official:
    """A method by its authors: learns `images` (N, 3, H, W) in [0, 1], and scores others.

    `settings` are okng's arguments. `modules` is what trains, `optimizer` theirs.
    """

    repository = ""  # owner/name, at the commit that was run
    commit = ""
    folder = ""  # of the checkout; "" for a package
    modules: list[nn.Module]
    optimizer: torch.optim.Optimizer

    def __init__(self, checkout: Path, settings: dict[str, Any], size: int):
        self.settings, self.size = settings, size
        self.build(checkout)

    def build(self, checkout: Path) -> None:
        """Networks, loss and optimiser."""
        raise NotImplementedError

    def loss(self, inputs: Any) -> Tensor:
        """Of what a batch of their loader is, or `as_theirs` makes of okng's."""
        raise NotImplementedError

    def scores(self, images: Tensor) -> tuple[np.ndarray, np.ndarray | None]:
        """Of images, and maps, (B,) and (B, h, w)."""
        raise NotImplementedError

    def pairs(self, detector: Any) -> Pairs:
        """Which module of theirs is which of okng's."""
        raise NotImplementedError

    def as_theirs(self, detector: Any, batch: Batch) -> Any:
        """The inputs of `loss` in okng's batch."""
        return batch.images

    def step(self, inputs: Any) -> float:
        """One step of theirs."""
        loss = self.loss(inputs)
        self.optimizer.zero_grad()
        loss.backward()
        self.before_step()
        self.optimizer.step()
        return float(loss.detach())

    def before_step(self) -> None:
        """Clipping."""

    def fit(self, images: Tensor) -> None:
        """Their loop."""
        loader = DataLoader(Images(images), self.settings["batch_size"], shuffle=True)
        for module in self.modules:
            module.train()
        for _ in range(self.settings["epochs"]):
            for inputs in loader:
                self.step(inputs)
        for module in self.modules:
            module.eval()


class ReverseDistillation(Official):
    """hq-deng/RD4AD. Embedding and decoder for ResNet-18, of the widths of the teacher here."""

    repository, commit, folder = ("hq-deng/RD4AD", "6554076872c65f8784f6ece8cfb39ce77e1aee12", "RD4AD")

    def build(self, checkout: Path) -> None:
        with imported_from(checkout) as module:
            main, encoders, decoders, self.judging = map(module, ("main", "resnet", "de_resnet", "test"))
        self.theirs = main.loss_fucntion
        self.teacher = Remembering(Rectified("efficientnet_lite0", self.settings["strides"]))
        fine, middle, coarse = self.teacher.channels
        self.embedding = encoders.BN_layer(encoders.AttnBasicBlock, 2)
        self.embedding.conv1, self.embedding.bn1 = (encoders.conv3x3(fine, middle, 2), nn.BatchNorm2d(middle))
        self.embedding.conv2, self.embedding.bn2 = (encoders.conv3x3(middle, coarse, 2), nn.BatchNorm2d(coarse))
        self.embedding.conv3, self.embedding.bn3 = (encoders.conv3x3(middle, coarse, 2), nn.BatchNorm2d(coarse))
        self.embedding.inplanes = coarse
        self.embedding.bn_layer = self.embedding._make_layer(encoders.AttnBasicBlock, 2 * coarse, 2, stride=2)
        self.decoder = decoders.de_resnet18(pretrained=False)
        self.decoder.inplanes = 2 * coarse
        for name, width in (("layer1", coarse), ("layer2", middle), ("layer3", fine)):
            setattr(self.decoder, name, self.decoder._make_layer(decoders.BasicBlock, width, 2, stride=2))
        he(self.embedding, self.decoder)
        self.modules = [self.decoder, self.embedding]
        parameters = [*self.decoder.parameters(), *self.embedding.parameters()]
        self.optimizer = torch.optim.Adam(parameters, self.settings["learning_rate"], betas=(0.5, 0.999))

    def loss(self, inputs: Any) -> Tensor:
        with torch.no_grad():
            taught = self.teacher(inputs)
        return self.theirs(taught, self.decoder(self.embedding(taught)))

    def scores(self, images: Tensor) -> tuple[np.ndarray, np.ndarray | None]:
        maps = []
        with torch.no_grad():
            for image in images:
                taught = self.teacher(image[None])
                found, _ = self.judging.cal_anomaly_map(taught, self.decoder(self.embedding(taught)), self.size, "a")
                maps.append(self.judging.gaussian_filter(found, sigma=4))
        return np.stack(maps).max((1, 2)), np.stack(maps)

    def pairs(self, detector: Any) -> Pairs:
        theirs, ours = self.embedding, detector.embedding
        finest = nn.Sequential(theirs.conv1, theirs.bn1, nn.ReLU(), theirs.conv2, theirs.bn2)
        found = [(finest, ours.shrink[0]), (nn.Sequential(theirs.conv3, theirs.bn3), ours.shrink[1])]
        stages = (self.decoder.layer1, self.decoder.layer2, self.decoder.layer3)
        return [*found, (theirs.bn_layer, ours.embed), *zip(stages, detector.decoder, strict=True)]


class CFLOW(Official):
    """gudovskiy/cflow-ad with FrEIA. The encoder is okng's backbone; training and testing are theirs.

    How the likelihoods become a map stands in the middle of their `train` and is written anew here.
    """

    repository, commit, folder = ("gudovskiy/cflow-ad", "b2ebf9e673a0aa46992a3b18367ec066a57bba89", "cflow-ad")
    fiber, images_a_batch = 256, 32

    def build(self, checkout: Path) -> None:
        with imported_from(checkout) as module:
            self.training, self.model = module("train"), module("model")
        given, rate = self.settings, self.settings["learning_rate"]
        self.meta_epochs, self.warm_epochs = (given["epochs"], max(1, round(0.08 * given["epochs"])))
        lowest = rate * 0.1**3
        warm = lowest + (rate - lowest) * (1 + math.cos(math.pi * self.warm_epochs / self.meta_epochs)) / 2
        self.config = types.SimpleNamespace(
            condition_vec=given["condition"], pool_layers=3, sub_epochs=1,
            meta_epochs=self.meta_epochs, enc_arch="efficientnet_lite0", dec_arch="freia-cflow",
            coupling_blocks=given["blocks"], clamp_alpha=1.9, device="cpu", lr=rate, lr_decay_rate=0.1, lr_warm=True,
            lr_cosine=True, lr_warm_epochs=self.warm_epochs, lr_warmup_from=rate / 10, lr_warmup_to=warm,
            verbose=False, hide_tqdm_bar=True, viz=False,
        )  # fmt: skip
        self.backbone = Remembering(Backbone("efficientnet_lite0", (8, 16, 32)))
        self.modules = [self.model.load_decoder_arch(self.config, width) for width in self.backbone.channels]
        self.layers = [f"layer{i}" for i in range(3)]
        self.optimizer = torch.optim.Adam([p for flow in self.modules for p in flow.parameters()], rate)

    def encoder(self, images: Tensor) -> None:
        """In place of their hooks."""
        with torch.no_grad():
            self.model.activation.update(zip(self.layers, self.backbone(images), strict=True))

    def loss(self, inputs: Any) -> Tensor:
        self.encoder(inputs)
        total = torch.zeros(())
        for flow, layer in zip(self.modules, self.layers, strict=True):
            features = self.model.activation[layer]
            b, c, h, w = features.shape
            code = self.model.positionalencoding2d(self.config.condition_vec, h, w)
            codes = code.flatten(1).T.repeat(b, 1)
            z, volume = flow(features.permute(0, 2, 3, 1).reshape(-1, c), [codes])
            total = total - self.training.log_theta(self.training.get_logp(c, z, volume) / c).mean()
        return total

    def fit(self, images: Tensor) -> None:
        beside = (0, torch.zeros(1, self.size, self.size))
        loader = DataLoader(Images(images, *beside), self.images_a_batch, shuffle=True, drop_last=True)
        for epoch in range(self.meta_epochs):
            given = (self.config, epoch, loader, self.encoder, self.modules, self.optimizer, self.layers, self.fiber)
            self.training.train_meta_epoch(*given)

    def scores(self, images: Tensor) -> tuple[np.ndarray, np.ndarray | None]:
        loader = DataLoader(Images(images, 0, torch.zeros(1, self.size, self.size)), self.images_a_batch)
        given = (self.config, 0, loader, self.encoder, self.modules, self.layers, self.fiber)
        heights, widths, _, found, _, _ = self.training.test_meta_epoch(*given)
        likely = torch.zeros(())
        for flat, h, w in zip(found, heights, widths, strict=True):
            logarithms = torch.tensor(flat, dtype=torch.double)
            shares = (logarithms - logarithms.max()).exp().view(-1, 1, h, w)
            likely = likely + nn.functional.interpolate(shares, self.size, mode="bilinear", align_corners=True)[:, 0]
        maps = (likely.max() - likely).numpy()
        return maps.max((1, 2)), maps

    def pairs(self, detector: Any) -> Pairs:
        found: Pairs = []
        for theirs, ours in zip(self.modules, detector.flows, strict=True):
            for block, step in zip(theirs.module_list, ours.flows, strict=True):
                found += all_in_one(block, step)
        return found


class Loose(nn.Module):
    """Tensors of a module under other names or of another shape, so that they meet those of okng's in order."""

    def __init__(self, *tensors: Tensor):
        super().__init__()
        for number, tensor in enumerate(tensors):
            self.register_buffer(str(number), tensor.detach())


def all_in_one(block: Any, step: Any) -> Pairs:
    """A step of FrEIA's and of okng's: network, affine map, and the permutation or rotation."""
    coupling, affine, mixing = step.flows
    flat = block.w_perm.flatten(1)
    order = mixing.matrix if hasattr(mixing, "matrix") else None
    mixed = Loose(flat if order is not None else flat.argmax(1))
    scale = Loose(block.global_scale.flatten(), block.global_offset.flatten())
    return [(block.subnet, coupling.network), (scale, affine), (mixed, mixing)]


class FastFlow(Official):
    """anomalib's, for the authors published none; its flows, LayerNorm, loss and map on another backbone."""

    repository, commit = "open-edge-platform/anomalib", "2.7.0"

    def build(self, checkout: Path) -> None:
        from anomalib.models.image.fastflow.loss import FastflowLoss
        from anomalib.models.image.fastflow.torch_model import FastflowModel, create_fast_flow_block

        self.model = FastflowModel((self.size, self.size), "resnet18", pre_trained=False, flow_steps=1)
        backbone = Remembering(Backbone("efficientnet_lite0", self.settings["strides"]))
        self.model.feature_extractor = backbone
        sides = [self.size // stride for stride in backbone.strides]
        shapes = [[width, side, side] for width, side in zip(backbone.channels, sides, strict=True)]
        self.model.norms = nn.ModuleList(nn.LayerNorm(shape) for shape in shapes)
        steps = self.settings["flow_steps"]
        flows = [create_fast_flow_block(shape, False, 1.0, steps) for shape in shapes]
        self.model.fast_flow_blocks = nn.ModuleList(flows)
        self.theirs, self.modules = FastflowLoss(), [self.model]
        rate = self.settings["learning_rate"]
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=rate, weight_decay=1e-5)

    def loss(self, inputs: Any) -> Tensor:
        return self.theirs(*self.model(inputs))

    def scores(self, images: Tensor) -> tuple[np.ndarray, np.ndarray | None]:
        with torch.no_grad():
            found = [self.model(part) for part in images.split(10)]
        return (
            torch.cat([each.pred_score.flatten() for each in found]).numpy(),
            torch.cat([each.anomaly_map[:, 0] for each in found]).numpy(),
        )

    def pairs(self, detector: Any) -> Pairs:
        found: Pairs = []
        for norm, theirs, ours in zip(self.model.norms, self.model.fast_flow_blocks, detector.flows, strict=True):
            found.append((norm, ours.flows[0]))
            for block, step in zip(theirs.module_list, list(ours.flows)[1:], strict=True):
                found += all_in_one(block, step)
        return found


class CSFlow(Official):
    """marco-rudolph/cs-flow, whose settings are a module; the features are okng's backbone's."""

    repository, commit, folder = ("marco-rudolph/cs-flow", "88a13b8b3c6eeb1e9bfdcef453adb552fb476cd3", "cs-flow")

    def build(self, checkout: Path) -> None:
        given = self.settings
        self.backbone = Remembering(Backbone("efficientnet_lite0", (given["stride"],)))
        sys.modules.setdefault("efficientnet_pytorch", types.ModuleType("efficientnet_pytorch")).EfficientNet = None  # type: ignore[attr-defined]
        with imported_from(checkout) as module:
            config = module("config")
            config.device, config.n_feat = "cpu", self.backbone.channels[0]
            config.map_size = (self.size // given["stride"],) * 2
            config.n_coupling_blocks, config.kernel_sizes = (len(given["kernels"]), list(given["kernels"]))
            config.fc_internal = given["hidden"]
            self.model, self.utils = module("model"), module("utils")
        self.flow, self.clip = self.model.get_cs_flow_model(), config.max_grad_norm
        self.modules = [self.flow]
        rate = given["learning_rate"]
        self.optimizer = torch.optim.Adam(self.flow.parameters(), lr=rate, eps=1e-4, weight_decay=1e-5)

    def pyramid(self, images: Tensor) -> list[Tensor]:
        """Of the image, its half and its quarter, as their extractor scales them."""
        sides = [self.size // 2**scale for scale in range(3)]
        with torch.no_grad():
            return [self.backbone(nn.functional.interpolate(images, side))[0] for side in sides]

    def loss(self, inputs: Any) -> Tensor:
        return self.utils.get_loss(*self.model.nf_forward(self.flow, self.pyramid(inputs)))

    def before_step(self) -> None:
        torch.nn.utils.clip_grad_norm_(self.flow.parameters(), self.clip)

    def scores(self, images: Tensor) -> tuple[np.ndarray, np.ndarray | None]:
        scores, maps = [], []
        with torch.no_grad():
            for part in images.split(10):
                z, _ = self.model.nf_forward(self.flow, self.pyramid(part))
                scores.append((self.utils.concat_maps(z) ** 2 / 2).mean((1, 2)))
                maps.append((z[0] ** 2).mean(1))
        return torch.cat(scores).numpy(), torch.cat(maps).numpy()

    def pairs(self, detector: Any) -> Pairs:
        found: Pairs = []
        blocks = [m for m in self.flow.module_list if hasattr(m, "s1")]
        permutations = [m for m in self.flow.module_list if hasattr(m, "perm")]
        for order, block, ours in zip(permutations, blocks, detector.blocks, strict=True):
            found += [(Loose(one), other) for one, other in zip(order.perm, ours.permutations, strict=True)]
            for theirs, network in ((block.s2, ours.for_first), (block.s1, ours.for_second)):
                found += zip(
                    [theirs.conv_scale0_0, theirs.conv_scale1_0, theirs.conv_scale2_0, theirs.conv_scale0_1,
                     theirs.conv_scale1_1, theirs.conv_scale2_1, theirs.down_conv01, theirs.down_conv12,
                     theirs.up_conv10, theirs.up_conv21],
                    [*network.enter, *network.leave, *network.down, *network.up],
                    strict=True,
                )  # fmt: skip
        return found


class MKD(Official):
    """rohban-lab/Knowledge_Distillation_AD; the source is okng's backbone, the cloner theirs with its widths."""

    repository = "rohban-lab/Knowledge_Distillation_AD"
    commit, folder = ("0c574ae9ad12666982a1ccc2c7148acd6bf442fe", "Knowledge_Distillation_AD")

    def build(self, checkout: Path) -> None:
        with imported_from(checkout) as module:
            networks, losses, self.judging = map(module, ("models.network", "loss_functions", "test_functions"))
        self.source = freeze(Rectified("efficientnet_lite0", self.settings["strides"]))
        w, (a, b, c, d) = self.settings["width"], self.source.channels
        widths = [w, w, "M", w, a, "M", w, w, b, "M", w, w, c, "M", w, w, d, "M"]
        self.cloner = networks.make_arch("here", {"here": widths}, False, True)
        self.theirs = losses.MseDirectionLoss(self.settings["magnitude_weight"])
        self.modules = [self.cloner]
        self.optimizer = torch.optim.Adam(self.cloner.parameters(), self.settings["learning_rate"])

    def wanted(self, images: Tensor) -> list[Tensor]:
        """The source's levels at the places where theirs, VGG-16, has its second to fifth pool."""
        levels: list[Any] = [None] * 13
        for place, features in zip((3, 6, 9, 12), self.source(images), strict=True):
            levels[place] = nn.functional.max_pool2d(features, 2).contiguous()
        return levels

    def normalised(self, images: Tensor) -> Tensor:
        """What the cloner sees; their loader of MVTec AD does not normalise, on either side."""
        return (images - self.source.mean) / self.source.std

    def loss(self, inputs: Any) -> Tensor:
        return self.theirs(self.cloner.forward(self.normalised(inputs)), self.wanted(inputs))

    def scores(self, images: Tensor) -> tuple[np.ndarray, np.ndarray | None]:
        scores, maps = [], []
        for image in images:
            image = image[None].clone().requires_grad_()
            found, wanted = (self.cloner.forward(self.normalised(image)), self.wanted(image))
            wanted[3] = found[3]  # their score leaves out the finest level
            odd = self.theirs(found, wanted)
            (gradient,) = torch.autograd.grad(odd, image)
            scores.append(float(odd.detach()))
            maps.append(self.judging.gaussian_filter(gradient[0].abs().sum(0).numpy(), sigma=4))
        return np.array(scores), np.stack(maps)

    def pairs(self, detector: Any) -> Pairs:
        layers = [m for m in self.cloner.modules() if isinstance(m, nn.Conv2d | nn.BatchNorm2d)]
        wanted = [m for m in detector.cloner.modules() if isinstance(m, nn.Conv2d | nn.BatchNorm2d)]
        return list(zip(layers, wanted, strict=True))


class DRAEM(Official):
    """VitjanZ/DRAEM: networks and losses. Its anomalies, made with imgaug of DTD, stay out of the comparison."""

    repository, commit, folder = ("VitjanZ/DRAEM", "2dbf67397ab5c10a1494e5ae70ab59a25d7c35ef", "DRAEM")

    def build(self, checkout: Path) -> None:
        with imported_from(checkout) as module:
            networks, losses = module("model_unet"), module("loss")
        self.restoring = networks.ReconstructiveSubNetwork(3, 3, self.settings["width"])
        self.telling = networks.DiscriminativeSubNetwork(6, 2, self.settings["discriminator_width"])
        self.l2, self.ssim, self.focal = nn.MSELoss(), losses.SSIM(), losses.FocalLoss()
        self.modules = [self.restoring, self.telling]
        for module_ in self.modules:
            for layer in module_.modules():  # their `weights_init` lies in a module that needs TensorBoard
                if isinstance(layer, nn.Conv2d):
                    nn.init.normal_(layer.weight, 0, 0.02)
                elif isinstance(layer, nn.BatchNorm2d):
                    nn.init.normal_(layer.weight, 1, 0.02)
        parameters = [{"params": m.parameters(), "lr": self.settings["learning_rate"]} for m in self.modules]
        self.optimizer = torch.optim.Adam(parameters)

    def as_theirs(self, detector: Any, batch: Batch) -> Any:
        clean, mask, _, _ = batch.views
        return {"image": clean, "augmented_image": detector.spoilt(batch), "anomaly_mask": mask.float()}

    def loss(self, inputs: Any) -> Tensor:
        clean, spoilt = inputs["image"], inputs["augmented_image"]
        restored = self.restoring(spoilt)
        told = torch.softmax(self.telling(torch.cat((restored, spoilt), 1)), 1)
        return self.l2(restored, clean) + self.ssim(restored, clean) + self.focal(told, inputs["anomaly_mask"])

    def scores(self, images: Tensor) -> tuple[np.ndarray, np.ndarray | None]:
        scores, maps = [], []
        with torch.no_grad():
            for part in images.split(10):
                odd = torch.softmax(self.telling(torch.cat((self.restoring(part), part), 1)), 1)[:, 1:]
                window = self.settings["window"]
                averaged = nn.functional.avg_pool2d(odd, window, stride=1, padding=window // 2)
                scores.append(averaged.amax((1, 2, 3)))
                maps.append(odd[:, 0])
        return torch.cat(scores).numpy(), torch.cat(maps).numpy()

    def pairs(self, detector: Any) -> Pairs:
        encoder, decoder = self.restoring.encoder, self.restoring.decoder
        ours = [m for m in detector.encoder if len(list(m.parameters()))] + [detector.innermost]
        blocks = [getattr(encoder, f"block{i}") for i in range(1, 6)]
        found = list(zip(blocks, ours, strict=True))
        ups = [getattr(decoder, f"{kind}{i}") for i in range(1, 5) for kind in ("up", "db")]
        ups.append(decoder.fin_out)
        found += zip(ups, [m for m in detector.decoder if len(list(m.parameters()))], strict=True)
        encoder, decoder, unet = (self.telling.encoder_segment, self.telling.decoder_segment, detector.discriminator)
        found += zip([getattr(encoder, f"block{i}") for i in range(1, 7)], unet.down, strict=True)
        found += zip([getattr(decoder, f"up{i}") for i in ("_b", 1, 2, 3, 4)], unet.enlarge, strict=True)
        found += zip([getattr(decoder, f"db{i}") for i in ("_b", 1, 2, 3, 4)], unet.merge, strict=True)
        return [*found, (decoder.fin_out, unet.last)]


class CutPaste(Official):
    """Runinho/pytorch-cutpaste, which is not the authors': ResNet-18 with its head, and the density."""

    repository, commit = ("Runinho/pytorch-cutpaste", "10d8bf71df76d3a97f0106efee1d76f81d983149")
    folder = "pytorch-cutpaste"

    def build(self, checkout: Path) -> None:
        from torchvision import models, transforms

        with imported_from(checkout) as module:
            model, density = module("model"), module("density")
        model.resnet18 = lambda pretrained: models.resnet18()
        self.net = model.ProjectionNet(pretrained=False, head_layers=list(self.settings["head"]), num_classes=3)
        scale = transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
        self.scale, self.density, self.modules = (scale, density.GaussianDensityTorch(), [self.net])
        rate = self.settings["learning_rate"]
        self.optimizer = torch.optim.SGD(self.net.parameters(), lr=rate, momentum=0.9, weight_decay=3e-5)

    def as_theirs(self, detector: Any, batch: Batch) -> Any:
        self.learnt = batch.images
        return [self.scale(view) for view in batch.views]

    def loss(self, inputs: Any) -> Tensor:
        _, logits = self.net(torch.cat(list(inputs)))
        return nn.functional.cross_entropy(logits, torch.arange(len(inputs)).repeat_interleave(len(inputs[0])))

    def embedded(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            found = torch.cat([self.net(self.scale(part))[0] for part in images.split(32)])
        return nn.functional.normalize(found, p=2, dim=1)  # as in their test

    def scores(self, images: Tensor) -> tuple[np.ndarray, np.ndarray | None]:
        self.density.fit(self.embedded(self.learnt))
        return self.density.predict(self.embedded(images)).numpy(), None

    def pairs(self, detector: Any) -> Pairs:
        theirs = [m for m in self.net.resnet18.modules() if isinstance(m, nn.Conv2d | nn.BatchNorm2d)]
        ours = [m for m in detector.backbone.modules() if isinstance(m, nn.Conv2d | nn.BatchNorm2d)]
        # A bias before a normalisation does nothing, and okng's head has none.
        head = [Loose(m.weight) if isinstance(m, nn.Linear) else m for m in self.net.head]
        return [*zip(theirs, ours, strict=True), *zip([*head, self.net.out], detector.head, strict=True)]


class PatchSVDD(Official):
    """nuclearboy95/Anomaly-Detection-PatchSVDD-PyTorch: encoder, classifiers and losses, for images of 256 px alone."""

    repository = "nuclearboy95/Anomaly-Detection-PatchSVDD-PyTorch"
    commit = "934d6238e5e0ad511e2a0e7fc4f4899010e7d892"
    folder = "Anomaly-Detection-PatchSVDD-PyTorch"

    def build(self, checkout: Path) -> None:
        with imported_from(checkout) as module:
            self.networks, self.data = (module("codes.networks"), module("codes.datasets"))
        code = self.settings["code"]
        self.encoder = self.networks.EncoderHier(64, code)
        self.coarse, self.fine = (self.networks.PositionClassifier(side, code) for side in (64, 32))
        self.modules = [self.encoder, self.coarse, self.fine]
        parameters = [p for module_ in self.modules for p in module_.parameters()]
        self.optimizer = torch.optim.Adam(parameters, lr=self.settings["learning_rate"])

    def as_theirs(self, detector: Any, batch: Batch) -> Any:
        found = {}
        for side, (apart, directions, near) in ((64, batch.views[:3]), (32, batch.views[3:])):
            first, second = apart.transpose(0, 1).flatten(1, 2)  # (2, B * R, C, K, K)
            found[f"pos_{side}"] = (first, second, directions.flatten())
            found[f"svdd_{side}"] = tuple(near.transpose(0, 1).flatten(1, 2))
        return found

    def loss(self, inputs: Any) -> Tensor:
        told, data = self.networks.PositionClassifier, self.data.SVDD_Dataset
        kind = self.encoder.conv1.weight.dtype  # NumPy's noise is of float64
        inputs = {
            key: [part.to(kind) if part.is_floating_point() else part for part in pair] for key, pair in inputs.items()
        }
        position = told.infer(self.coarse, self.encoder, inputs["pos_64"])
        position = position + told.infer(self.fine, self.encoder.enc, inputs["pos_32"])
        near = data.infer(self.encoder, inputs["svdd_64"]) + data.infer(self.encoder.enc, inputs["svdd_32"])
        return position + self.settings["svdd_weight"] * near

    def scores(self, images: Tensor) -> tuple[np.ndarray, np.ndarray | None]:
        raise NotImplementedError

    def pairs(self, detector: Any) -> Pairs:
        found: Pairs = [(self.encoder.enc, detector.encoder), (self.encoder.conv1, detector.join)]
        found.append((self.encoder.conv2, detector.joined))
        for theirs, ours in ((self.coarse, detector.coarse_position), (self.fine, detector.fine_position)):
            found += [(theirs.fc1, ours.hidden[0]), (theirs.fc2, ours.hidden[2]), (theirs.fc3, ours.last)]
        return found


def seeded(seed: int) -> None:
    """All three generators that the authors' code draws from."""
    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    random.seed(seed)


OFFICIAL: dict[str, type[Official]] = {
    "reverse_distillation": ReverseDistillation, "cflow": CFLOW, "fastflow": FastFlow, "csflow": CSFlow, "mkd": MKD,
    "draem": DRAEM, "cutpaste": CutPaste, "patch_svdd": PatchSVDD,
}  # fmt: skip
