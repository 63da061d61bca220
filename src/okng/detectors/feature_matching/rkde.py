"""RKDE: regions and kernel density estimation."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from okng.checks import at_least
from okng.detectors.base import Batch, Collect, Detector, Phase, Scores, freeze
from okng.errors import OkngError
from okng.nn.features.backbones import _weights_file
from okng.nn.vectors.kernel_density import KernelDensity

LIKELY = 1e-3  # how likely a box has to show something of any class
OVERLAP = 0.3  # of two boxes, intersection over union; above it the less likely one goes
MOST = 100  # boxes of an image
HIGHEST = 1e9  # score; finite, for a score is written to files and drawn
KEPT = 40_000  # regions that have a kernel
ASKED = 400  # images whose scores tell how odd one without a box is
CELL = 4  # px of the map
DEPTHS = (18, 34, 50, 101, 152)  # of ResNets
CLASSES, FEATURES = 91, 1024  # of COCO, the background first; of a region


class RKDE(Detector):
    """Gaussian kernels at what a network for finding things finds on OK images; odd is a thing where few kernels are.

    Adey et al., "Region Based Anomaly Detection With Real-Time Training and Analysis", ICMLA 2019, as the library
    anomalib had it before its version 2. Faster R-CNN (Ren, He, Girshick, Sun, NeurIPS 2015) with a ResNet-50 and a
    feature pyramid puts boxes around what may be anything of COCO. The features of each box are put among those of OK
    images' boxes as DFKDE puts images: few principal components, kernels of their covariance.

    `weights`: "coco", torchvision's; a file of them; "none" for random ones, whose boxes mean nothing. `okng weights
    rkde` says where the file is. `components`: how many principal components are kept, at most. `proposals`: how many
    boxes the network looks at. `smallest`: the least side of a box, in px of the input. `depth`: of the ResNet, 18, 34,
    50, 101 or 152; torchvision's weights are of 50.

    What no box covers is not judged; its map is 0. So it is for scenes of things; on parts and surfaces there may be
    nothing that COCO knows. An image without any box is as odd as it is rare: if a tenth of the learnt OK images have
    none, its score is what a tenth of the others exceed, each of them judged by the kernels of the others. If all have
    one, its score is twice the highest of theirs: an empty scene, or one that can't be seen, is NG. Its map has that
    score everywhere.

    Deliberately otherwise: features are the 1024 by which this network itself judges a box, where the original has the
    4096 of a second one, an AlexNet, whose weights could not be had. Boxes are of all classes together and go by how
    likely they show any; the network's own choice by classes is left out. As in `dfkde`, the density goes by logarithms
    and through no sigmoid, and vectors are not divided by the longest. The map is this library's: each cell of 4 px has
    the highest score of the boxes that cover its middle. The input is not enlarged to the network's 800 px; a `size` of
    800 does that. What an image without a box gets is this library's, too.
    """

    pretrained = True
    collects_only = True
    exportable = False  # how many boxes there are is known only then
    mean: Tensor
    std: Tensor
    bare: Tensor

    def __init__(
        self,
        weights: str = "coco",
        components: int = 16,
        proposals: int = 1000,
        smallest: int = 25,
        depth: int = 50,
    ):
        super().__init__()
        at_least(1, components=components, proposals=proposals, smallest=smallest)
        if depth not in DEPTHS:
            raise OkngError(f"depth is one of {', '.join(map(str, DEPTHS))}, not {depth}")
        self.smallest = smallest
        self.net: Any = freeze(faster_rcnn(weights, depth, proposals))  # untyped, as torchvision's
        self.density = KernelDensity(FEATURES, components)
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1))
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1))
        self.register_buffer("bare", torch.tensor(HIGHEST))  # the score of an image without a region

    @property
    def multiple(self) -> int:
        """The coarsest stride of the ResNet."""
        return 32

    def phases(self) -> Iterator[Phase]:
        """Gather the features of all regions, then their principal components; and how rare an image without one is."""
        seen: list[Tensor] = []
        counted: list[Tensor] = []

        def visit(batch: Batch) -> None:
            features, there = batch.prepared
            seen.append(features[there])
            counted.append(there.sum(1))  # (B,)

        def finish() -> None:
            vectors = torch.cat(seen)  # (N, 1024)
            if not len(vectors):
                raise OkngError(
                    f"rkde finds no region of {self.smallest} px or more on any OK image; take larger images, another "
                    "smallest, or a method that needs no regions, such as patch_memory"
                )
            kept = torch.randperm(len(vectors))[:KEPT].to(vectors.device)
            self.density.learn(vectors[kept])
            self.bare.fill_(self.as_rare(torch.cat(counted), vectors, kept))

        yield Collect("kernels", visit, finish, prepare=self.features)

    def as_rare(self, counts: Tensor, vectors: Tensor, kept: Tensor) -> float:
        """The score that as large a share of OK images exceed as have no box; twice the highest if all have one.

        `counts` (n,) says how many of the `vectors` (N, 1024) are of each image, `kept` (K,) which have a kernel.
        """
        image = torch.arange(len(counts), device=counts.device).repeat_interleave(counts)  # (N,) whose each is
        with_box = counts.nonzero()[:, 0]
        scores = []
        for one in with_box[torch.randperm(len(with_box))[:ASKED].to(with_box.device)]:
            odd = self.density.among(vectors[image == one], self.density.references[image[kept] != one])  # (R,)
            scores.append(odd.amax().clamp_max(HIGHEST / 2))
        share = float((counts == 0).float().mean())
        times = 2 if share == 0 else 1
        return times * float(torch.stack(scores).quantile(1 - share, interpolation="higher"))

    def features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Of `images` (B, 3, H, W) the features of regions (B, 100, 1024), and which are there, bool (B, 100)."""
        features = images.new_zeros(len(images), MOST, FEATURES)
        there = torch.zeros(len(images), MOST, dtype=torch.bool, device=images.device)
        for i, image in enumerate(images):
            found = self.regions(image)[1]
            features[i, : len(found)], there[i, : len(found)] = found, True
        return features, there

    def regions(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """The boxes on an `image` (3, H, W), left, top, right, bottom in px (R, 4), and their features (R, 1024)."""
        from torchvision.models.detection.image_list import ImageList
        from torchvision.ops import clip_boxes_to_image, nms

        heads, size = self.net.roi_heads, (image.shape[1], image.shape[2])
        normalised = ((image - self.mean) / self.std)[None]  # (1, 3, H, W)
        levels = self.net.backbone(normalised)  # (1, 256, H / s, W / s) each, s from 4 to 64
        proposals, _ = self.net.rpn(ImageList(normalised, [size]), levels)
        logits, offsets = heads.box_predictor(self.described(levels, proposals[0], size))  # (P, 91), (P, 91 * 4)
        boxes = heads.box_coder.decode(offsets, proposals)[:, 1:].flatten(0, 1)  # (P * 90, 4), without the background
        boxes, likely = clip_boxes_to_image(boxes, size), logits.softmax(1)[:, 1:].flatten()
        kept = (likely > LIKELY) & ((boxes[:, 2:] - boxes[:, :2]).amin(1) >= self.smallest)
        boxes, likely = boxes[kept], likely[kept]
        boxes = boxes[nms(boxes, likely, OVERLAP)[:MOST]]
        return boxes, self.described(levels, boxes, size)

    def described(self, levels: Any, boxes: Tensor, size: tuple[int, int]) -> Tensor:
        """The features (R, 1024) of `boxes` (R, 4)."""
        heads = self.net.roi_heads
        features: Tensor = heads.box_head(heads.box_roi_pool(levels, [boxes], [size]))
        return features

    def forward(self, images: Tensor) -> Scores:
        """`image` (B,) the score of its oddest region, 0 to `HIGHEST`; `map` (B, H / 4, W / 4)."""
        scores, maps = [], []
        for image in images:
            boxes, features = self.regions(image)
            odd = self.density(features).clamp_max(HIGHEST)  # (R,)
            where = drawn(boxes, odd, (image.shape[1], image.shape[2]))  # (h, w)
            scores.append(odd.amax() if len(odd) else self.bare)
            maps.append(where if len(odd) else self.bare.expand_as(where))
        return Scores(torch.stack(scores), torch.stack(maps))


def drawn(boxes: Tensor, scores: Tensor, size: tuple[int, int]) -> Tensor:
    """The highest of the `scores` (R,), 0 or more, of the `boxes` (R, 4) that cover a cell's middle: (h, w), else 0."""
    y, x = ((torch.arange(-(-side // CELL), device=boxes.device) + 0.5) * CELL for side in size)
    left, top, right, bottom = boxes[:, :, None].unbind(1)  # (R, 1) each
    down, across = (top <= y) & (y < bottom), (left <= x) & (x < right)  # (R, h), (R, w)
    covered = down[:, :, None] & across[:, None]  # (R, h, w)
    there = torch.where(covered, scores[:, None, None], 0)
    return torch.cat([there, there.new_zeros(1, len(y), len(x))]).amax(0)


def faster_rcnn(weights: str, depth: int, proposals: int) -> Any:
    """Torchvision's Faster R-CNN with a ResNet and a feature pyramid, which looks at so many `proposals`."""
    from torchvision.models.detection import FasterRCNN
    from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
    from torchvision.ops import FrozenBatchNorm2d

    body = resnet_fpn_backbone(backbone_name=f"resnet{depth}", weights=None, trainable_layers=5)
    net = FasterRCNN(body, CLASSES, rpn_post_nms_top_n_test=proposals)
    if weights == "none":
        return net
    if weights != "coco" and not Path(weights).is_file():
        raise OkngError(f"weights: there is no file {weights}; give one, or coco, or none for random ones")
    given = _weights_file(downloaded() if weights == "coco" else Path(weights))
    try:
        net.load_state_dict(given)
    except RuntimeError as error:
        raise OkngError(
            f"weights: they are not of torchvision's Faster R-CNN with a ResNet-{depth} and a feature pyramid"
        ) from error
    for layer in net.modules():
        if isinstance(layer, FrozenBatchNorm2d):
            layer.eps = 0.0  # as torchvision's own loading has it: these weights were got without
    return net


def source() -> tuple[str, Path]:
    """Where torchvision's weights are, and the file that torch's hub keeps of them."""
    from torch.hub import get_dir
    from torchvision.models.detection import FasterRCNN_ResNet50_FPN_Weights

    url: str = FasterRCNN_ResNet50_FPN_Weights.COCO_V1.url
    return url, Path(get_dir()) / "checkpoints" / url.rpartition("/")[2]


def downloaded() -> Path:
    """The file of torchvision's weights, from its cache if it is there."""
    from torch.hub import download_url_to_file

    url, path = source()
    if path.is_file():
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        download_url_to_file(url, str(path), hash_prefix=path.stem.rpartition("-")[2], progress=False)
    except (OSError, RuntimeError) as error:  # no network; another file than was meant
        raise OkngError(
            "weights: those of COCO can't be downloaded; give weights=FILE that you copied here "
            "(okng weights rkde says from where), or none for random ones"
        ) from error
    return path
