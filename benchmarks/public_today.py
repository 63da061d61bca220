"""Five of today's methods beside their public code, for public_code.py."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import timm
import torch
import torch.nn.functional as F
import torchvision
from PIL import Image
from same_weights import Beside, Both, Load, given, images, lively, theirs
from torch import Tensor, nn

from okng.detectors.base import Batch, Collect, Detector
from okng.detectors.catalogue import create
from okng.nn.learning.focal import focal_loss

DINOV2 = "facebookresearch/dinov2@b8931f7"  # by which AnomalyDINO sees
WIDTH, HEADS = 48, 4  # of a token, and its attention
SIDE = 70  # of the images that transformers get


def with_small_transformer(method: str, **arguments: Any) -> Detector:
    """okng's detector on a transformer of its kind that is small and random."""
    make = timm.create_model
    small = {"embed_dim": WIDTH, "num_heads": HEADS, "img_size": SIDE}
    with mock.patch.object(timm, "create_model", lambda name, **more: make(name, **{**small, **more})):
        return create(method, weights="none", **arguments)


def dinov2(load: Load, net: Any, antialias: bool, offset: float) -> Any:
    """The authors' DINOv2 with the weights of timm's `net`."""
    transformer, layers = load("dinov2.models.vision_transformer"), load("dinov2.layers")
    block = getattr(layers, "Block", layers.NestedTensorBlock)
    made = transformer.DinoVisionTransformer(
        img_size=SIDE, patch_size=14, embed_dim=WIDTH, depth=len(net.blocks), num_heads=HEADS, mlp_ratio=4,
        block_fn=partial(block, attn_class=layers.MemEffAttention), init_values=1.0, block_chunks=0,
        num_register_tokens=0 if net.reg_token is None else 4,
        interpolate_antialias=antialias, interpolate_offset=offset,
    )  # fmt: skip
    tensors = {name.replace("reg_token", "register_tokens"): tensor for name, tensor in net.state_dict().items()}
    if net.no_embed_class:  # timm has added the class token's position to it
        tensors["pos_embed"] = F.pad(tensors["pos_embed"], (0, 0, 1, 0))
    made.load_state_dict({**made.state_dict(), **tensors})
    return made.eval()


def normalised(detector: Any, pixels: Tensor) -> Tensor:
    """What the authors' loaders hand to the network."""
    backbone = detector.encoder.network.backbone if hasattr(detector, "encoder") else detector.backbone
    normalised: Tensor = (pixels - backbone.mean) / backbone.std
    return normalised


BLOCK = {
    "norm.": "norm1.", "attention.project_in.": "attn.qkv.", "attention.project_out.": "attn.proj.",
    "feed_forward.0.": "norm2.", "feed_forward.1.": "mlp.fc1.", "feed_forward.4.": "mlp.fc2.",
}  # fmt: skip
GUIDED = {
    **BLOCK, "scale": "attn.learn_scale", "query.": "attn.q.", "key_value.": "attn.kv.", "project_out.": "attn.proj.",
}  # fmt: skip


def restoring(load: Load, detector: Any, model: Any, pairs: list, loss: Callable[..., Tensor]) -> dict[str, Both]:
    """What is compared of Dinomaly and INP-Former: `model` and `loss` are theirs."""
    utils, pixels, found = load("utils"), images(3, SIDE), {}
    inputs = normalised(detector, pixels)
    tokens = model.encoder.prepare_tokens(inputs)
    levels = []
    for block in model.encoder.blocks:
        tokens = block(tokens)
        levels.append(tokens)
    found["features"] = torch.stack(levels[2:10], 1), detector.encoder(pixels)
    detector.train(), model.train()
    torch.manual_seed(0)
    said = loss(model(inputs))
    torch.manual_seed(0)
    mine = sum(detector.loss(Batch(pixels, torch.arange(3), tuple(detector.prepared(pixels)))).values())
    said.backward(), mine.backward()
    found["loss"] = said.detach(), mine.detach()
    found["gradient"] = tuple(torch.cat([p.grad.flatten() for p in side]) for side in zip(*pairs, strict=True))
    detector.eval(), model.eval()
    with torch.no_grad():
        en, de = model(inputs)[:2]
        scores, side = detector(pixels), 8 * SIDE // 14
        maps = {}
        for name, size, border in (
            ("at okng's size, border repeated", side, "replicate"),
            ("as published", 256, "zeros"),
        ):
            anomaly, _ = utils.cal_anomaly_maps(en, de, size if border == "replicate" else SIDE)
            if border == "zeros":
                anomaly = F.interpolate(anomaly, size=size, mode="bilinear", align_corners=False)
            blur = utils.get_gaussian_kernel(kernel_size=5, sigma=4).to(anomaly)
            blur.padding_mode = border
            maps[name] = blur(anomaly)
            highest = maps[name].flatten(1).sort(dim=1, descending=True)[0]
            found[f"score {name}"] = highest[:, : int(highest.shape[1] * 0.01)].mean(1), scores.image
        found["map at okng's size, border repeated"] = maps["at okng's size, border repeated"][:, 0], scores.map
    return found


def weights_after_steps(load: Load, detector: Any, pairs: list, decay: float) -> Both:
    """The weights after five steps of either side's StableAdamW by the same gradients, which are random."""
    (phase,) = detector.phases()
    ours = phase.updates[0].optimizer
    ours.param_groups[0]["weight_decay"] = decay
    their = load("optimizers").StableAdamW(
        [one for one, _ in pairs], lr=2e-3, betas=(0.9, 0.999), weight_decay=decay, amsgrad=True, eps=1e-10
    )
    for step in range(5):
        for one, other in pairs:
            one.grad = torch.randn(one.shape, generator=torch.Generator().manual_seed(step))
            other.grad = one.grad.reshape(other.shape).clone()
        their.step()
        ours.step()
    after = [torch.cat([parameter.detach().flatten() for parameter in side]) for side in zip(*pairs, strict=True)]
    return after[0], after[1]


def dinomaly(load: Load) -> dict[str, Both]:
    detector: Any = with_small_transformer("dinomaly", backbone="vit_small_patch14_reg4_dinov2", heads=HEADS)
    lively(detector.bottleneck, detector.decoder)
    vit, uad, utils = load("models.vision_transformer"), load("models.uad"), load("utils")
    bottleneck = nn.ModuleList([vit.bMlp(WIDTH, WIDTH * 4, WIDTH, drop=0.2)])
    norm = partial(nn.LayerNorm, eps=1e-8)
    decoder = nn.ModuleList(
        vit.Block(WIDTH, HEADS, mlp_ratio=4.0, qkv_bias=True, norm_layer=norm, attn=vit.LinearAttention2)
        for _ in detector.decoder
    )
    pairs = given(bottleneck[0], detector.bottleneck, {"1.": "fc1.", "4.": "fc2."})
    for one, other in zip(decoder, detector.decoder, strict=True):
        pairs += given(one, other, BLOCK)
    halves = [[0, 1, 2, 3], [4, 5, 6, 7]]
    encoder = dinov2(load, detector.encoder.network.backbone.net.net, antialias=True, offset=0.0)
    model = uad.ViTill(encoder, bottleneck, decoder, fuse_layer_encoder=halves, fuse_layer_decoder=halves)
    detector.steps_done.fill_(500)
    found = restoring(
        load, detector, model, pairs, lambda out: utils.global_cosine_hm_percent(*out, p=0.9 * 500 / 1000, factor=0.1)
    )
    for told, decay in ((" without decay", 0.0), ("", 1e-4)):
        found[f"weights after 5 steps{told}"] = weights_after_steps(load, detector, pairs, decay)
    large = normalised(detector, images(2, 2 * SIDE))
    with torch.no_grad():
        tokens = encoder.prepare_tokens(large)
        for block in encoder.blocks:
            tokens = block(tokens)
        found["features at twice the size"] = tokens, detector.encoder(images(2, 2 * SIDE))[:, -1]
    return found


def inp_former(load: Load) -> dict[str, Both]:
    detector: Any = with_small_transformer("inp_former", backbone="vit_small_patch14_reg4_dinov2", heads=HEADS)
    lively(detector.bottleneck, detector.decoder, detector.extractor)
    vit, uad, utils = load("models.vision_transformer"), load("models.uad"), load("utils")
    more = {"mlp_ratio": 4.0, "qkv_bias": True, "norm_layer": partial(nn.LayerNorm, eps=1e-8)}
    bottleneck = nn.ModuleList([vit.Mlp(WIDTH, WIDTH * 4, WIDTH)])
    extractor = nn.ModuleList([vit.Aggregation_Block(WIDTH, HEADS, **more)])
    decoder = nn.ModuleList(vit.Prototype_Block(WIDTH, HEADS, **more) for _ in detector.decoder)
    prototypes = nn.ParameterList([nn.Parameter(detector.queries.detach().clone())])
    pairs = given(bottleneck[0], detector.bottleneck, {"0.": "fc1.", "3.": "fc2."})
    pairs += given(extractor[0], detector.extractor, GUIDED)
    for one, other in zip(decoder, detector.decoder, strict=True):
        pairs += given(one, other, GUIDED)
    pairs.append((prototypes[0], detector.queries))
    halves = [[0, 1, 2, 3], [4, 5, 6, 7]]
    model = uad.INP_Former(
        dinov2(load, detector.encoder.network.backbone.net.net, antialias=True, offset=0.0), bottleneck, extractor,
        decoder, fuse_layer_encoder=halves, fuse_layer_decoder=halves, remove_class_token=True,
        prototype_token=prototypes,
    )  # fmt: skip
    return restoring(
        load, detector, model, pairs, lambda out: utils.global_cosine_hm_adaptive(*out[:2], y=3) + 0.2 * out[2]
    )


def learnt(detector: Detector, pixels: Tensor) -> None:
    """Let a detector collect from `pixels`."""
    for phase in detector.phases():
        assert isinstance(phase, Collect) and phase.prepare is not None
        with torch.no_grad():
            phase.visit(Batch(pixels, torch.arange(len(pixels)), prepared(phase, pixels)))
        list(phase.finish() or ())


def prepared(phase: Any, pixels: Tensor) -> tuple[Tensor, ...]:
    """What the frozen part makes of `pixels`, for a phase of either kind."""
    made = phase.prepare(pixels)
    return (made,) if isinstance(made, Tensor) else tuple(made)


def anomalydino(load: Load) -> dict[str, Both]:
    """In float32, as faiss. By their own loop over a data set, of which the masks are left out."""
    found: dict[str, Both] = {}
    backbones, detection = load("src.backbones"), load("src.detection")
    checkouts = Path(backbones.__file__).parents[2]
    for told, side in (("", SIDE), (" at twice the size", 2 * SIDE)):
        torch.manual_seed(0)
        detector: Any = with_small_transformer("anomalydino", backbone="vit_small_patch14_dinov2", rotations=1)
        learning, judged = images(4, side, 1), images(3, side, 2)
        learnt(detector, learning)
        with theirs(checkouts, DINOV2) as beside:
            net = dinov2(beside, detector.backbone.backbone.net.net, antialias=False, offset=0.1)
        with mock.patch("torch.hub.load", return_value=net):
            model = backbones.DINOv2Wrapper("dinov2_vits14", "cpu", side)
        with tempfile.TemporaryDirectory() as folder, mock.patch("torch.cuda.synchronize"):
            for part, pixels in (("train/good", learning), ("test/good", judged)):
                (Path(folder) / "part" / part).mkdir(parents=True)
                for i, each in enumerate((pixels * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()):
                    Image.fromarray(each).save(Path(folder) / "part" / part / f"{i}.png")
            scores, *_ = detection.run_anomaly_detection(
                model, "part", folder, -1, {"part": []}, f"{folder}/out", faiss_on_cpu=True
            )
            kept = sorted(Path(folder, "out/anomaly_maps").rglob("*.npy"))
            distances = torch.from_numpy(np.stack([np.load(each) for each in kept]))
        with torch.no_grad():
            tokens = detector.tokens(judged)
            mine = detector.distances(detector.directions(tokens))
            features = np.stack([model.extract_features(each) for each in normalised_for(detector, judged)])
            found[f"features{told}"] = torch.from_numpy(features), tokens.flatten(1, 2)
            found[f"distances of patches{told}"] = distances, mine
            theirs_scores = torch.tensor([scores[f"good/{i}.png"] for i in range(len(judged))])
            found[f"score{told}"] = theirs_scores, detector(judged).image
    return found


def normalised_for(detector: Any, pixels: Tensor) -> Tensor:
    """For DINOv2 by itself."""
    network = detector.backbone.backbone
    ready: Tensor = (pixels - network.mean) / network.std
    return ready


def subspace_ad(load: Load) -> dict[str, Both]:
    """Of patches that okng's backbones make, the offline one and a random transformer."""
    pca, scoring = load("subspacead.core.pca"), load("subspacead.post_process.scoring")
    found: dict[str, Both] = {}
    detectors: dict[str, Any] = {
        "offline CNN": create("subspace_ad"),
        "transformer": with_small_transformer(
            "subspace_ad", backbone="vit_small_patch14_reg4_dinov2", blocks=(7, 8, 9)
        ),
    }
    for told, side in (("offline CNN, 400 patches", 160), ("offline CNN, 256 patches", 128), ("transformer", SIDE)):
        detector = detectors[told.partition(",")[0]].to(torch.get_default_dtype())
        learning, judged = images(6, side, 1), images(3, side, 2)
        learnt(detector, learning)
        with torch.no_grad():
            ok, new = (detector.patches(detector.backbone(pixels)) for pixels in (learning, judged))
            scores = detector(judged)
        flat = ok.flatten(0, 2).numpy()
        model = pca.PCAModel(ev=detector.explained)
        model.fit(lambda flat=flat: iter(np.array_split(flat, 4)), flat.shape[1], len(flat), 4)
        residuals = scoring.calculate_anomaly_scores(new.flatten(0, 2).numpy(), model.pca_params, "reconstruction")
        maps = residuals.reshape(tuple(new.shape[:3]))
        found[f"map, {told}"] = torch.from_numpy(maps), scores.map
        whole = [scoring.aggregate_image_score(each, "mtop1p") for each in maps]
        found[f"score, {told}"] = torch.tensor(whole), scores.image
    return found


def supersimplenet(load: Load) -> dict[str, Both]:
    """On a random ResNet-18, for theirs is made for torchvision's."""
    detector: Any = create("supersimplenet", backbone="resnet18", weights="none", hidden=1024)
    made = torchvision.models.resnet18
    with mock.patch.object(torchvision.models, "resnet18", lambda weights: made()):
        model = load("model.supersimplenet").SuperSimpleNet(
            (128, 128), {"backbone": "resnet18", "stop_grad": True, "noise": False}
        )
    lively(detector.adaptor, detector.segmentation, detector.classification, detector.verdict)
    net, taken = model.feature_extractor.feature_extractor, detector.backbone.net.state_dict()
    lively(net)
    own = net.state_dict()
    detector.backbone.net.load_state_dict({name: own[name] for name in taken})
    given(model.feature_adaptor, detector.adaptor, {"": "projection."})
    given(model.discriminator.seg, detector.segmentation, {"": ""})
    given(model.discriminator.dec_head, detector.classification, {"": ""})
    given(model.discriminator.fc_score, detector.verdict, {"": ""})
    pixels, found = images(4, 128), {}
    inputs = normalised(detector, pixels)
    detector.eval(), model.eval()
    with torch.no_grad():
        adapted, mine = (
            model.feature_adaptor(model.feature_extractor(inputs)),
            detector.adapted(detector.backbone(pixels)),
        )
        found["adapted features"] = adapted, mine
        for told in ("", ", in training"):
            where, whether = model.discriminator(adapted)
            found[f"map{told}"], found[f"score{told}"] = zip((where, whether), detector.told(mine), strict=True)
            detector.train(), model.train()
        mask = (torch.rand(where.shape, generator=torch.Generator().manual_seed(0)) > 0.7).to(where)
        said = load("common.loss").focal_loss(torch.sigmoid(where), mask)  # which they compute in float32
        found["focal loss of the map"] = said, focal_loss(where, mask, 4).mean()
    return found


SIZES = {"side": SIDE, "width": WIDTH}
METHODS = {
    "dinomaly": Beside("guojiajeremy/Dinomaly@c5c76d0", dinomaly, SIZES),
    "inp_former": Beside("luow23/INP-Former@17d2653", inp_former, SIZES),
    "anomalydino": Beside("dammsi/AnomalyDINO@b3435f0", anomalydino, SIZES, kind=torch.float32),
    "subspace_ad": Beside("CLendering/SubspaceAD@2ca687e", subspace_ad, SIZES, folder="src"),
    "supersimplenet": Beside("blaz-r/SuperSimpleNet@60d1e74", supersimplenet, SIZES),
}
