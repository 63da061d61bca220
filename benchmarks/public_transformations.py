"""The methods that name transformations beside their public code, for public_code.py.

Those of GEOM and GOAD move images by Keras's function: they need keras-preprocessing, which is that function as it was.
"""

from __future__ import annotations

import copy
import itertools
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import PIL
import torch
import torch.nn.functional as F
import torchvision.transforms.functional as TF
from PIL import Image
from same_weights import Beside, Both, Load, given, gradients, images
from scipy.special import polygamma, psi
from their_steps import behind, gone_through, here, shared, steady, written
from torch import Tensor, nn
from torch.utils.data import DataLoader

from okng.detectors.base import Batch
from okng.detectors.catalogue import create
from okng.detectors.self_supervised.geom import dirichlet
from okng.nn.images.geometric import Transformations
from okng.nn.networks import residual

SIDE = 32


def wide_resnet(depth: int) -> dict[str, str]:
    """okng's beginnings of names in a `WideResNet`, and theirs."""
    count = (depth - 4) // 6
    names = {"body.0.": "conv1.", f"body.{3 * count + 1}.": "bn1."}
    for mine, (group, block) in enumerate(itertools.product((1, 2, 3), range(count)), 1):
        for inner, outer in (
            ("first_norm", "bn1"), ("first", "conv1"), ("second_norm", "bn2"), ("second", "conv2"),
            ("short_cut", "convShortcut"),
        ):  # fmt: skip
            names[f"body.{mine}.{inner}."] = f"block{group}.layer.{block}.{outer}."
    return names


def as_rows(pixels: Tensor) -> np.ndarray:
    """(B, H, W, C) in [-1, 1]."""
    rows: np.ndarray = (pixels * 2 - 1).permute(0, 2, 3, 1).numpy()
    return rows


def keras(load: Load) -> AbstractContextManager[Any]:
    """Of Keras what moves an image, as it was then."""
    moving = load("keras_preprocessing.image")
    return mock.patch.dict(
        sys.modules,
        {"keras": mock.MagicMock(), "keras.preprocessing": mock.MagicMock(), "keras.preprocessing.image": moving},
    )


def unshuffled() -> AbstractContextManager[Any]:
    """Theirs does not shuffle what it learns."""
    return mock.patch.object(np.random, "permutation", np.arange)


def as_written(block: Any, features: Tensor) -> Tensor:
    """GOAD's block, whose second convolution takes the first one's output as it is."""
    active = F.relu(block.first_norm(features))
    kept: Tensor = features if block.short_cut is None else block.short_cut(active)
    return kept + block.second(block.first(active))


def goad(load: Load) -> dict[str, Both]:
    """One step of a rate of 0, on three images in all of 8 transformations; without what their blocks leave out."""
    found: dict[str, Both] = {}
    with keras(load):
        fitting, data, moving = load("opt_tc"), load("train_ad"), load("transformations")
    with mock.patch.object(residual._PreActivation, "forward", as_written), unshuffled(), here() as losses:
        asked = SimpleNamespace(
            depth=10, widen_factor=4, batch_size=24, epochs=1, m=0.1, reg=True, lmbda=0.1, eps=0,
        )  # fmt: skip
        tried = fitting.TransClassifier(8, asked)
        tried.optimizer.param_groups[0]["lr"] = 0.0
        detector: Any = create("goad", shifts=False)
        steady(detector.network)
        pairs = given(tried.netWRN, shared(detector, "head"), behind(wide_resnet(10), head="fc"))
        learning, judged = images(3, SIDE, 1), images(4, SIDE, 2)
        moved = [
            data.transform_data(as_rows(pixels), moving.SimpleTransformer())[0].transpose(0, 3, 1, 2)
            for pixels in (learning, judged)
        ]
        with torch.no_grad():
            detector.centres = copy.deepcopy(detector).train().features(learning).mean(0)  # in training, as theirs
        with mock.patch.object(fitting, "roc_auc_score") as spy:
            tried.fit_trans_classifier(*moved, np.array([0, 1, 0, 1]))
        detector.train()
        loss = sum(detector.loss(Batch(learning, torch.arange(3))).values())
        loss.backward()
        found["loss"] = losses[0], loss.detach()
        found["gradient"] = gradients(pairs)
        detector.eval()
        with torch.no_grad():
            found["score"] = torch.from_numpy(-spy.call_args.args[1]), detector(judged).image
    return found


def goad_tabular(load: Load) -> dict[str, Both]:
    """One step of a rate of 0, on 20 rows of 64 columns."""
    found: dict[str, Both] = {}
    fitting, normalised = load("opt_tc_tabular"), load("data_loader").Data_Loader().norm_data
    detector: Any = create("goad_tabular", image_size=(8, 8), channels=1, maps=16, mapped=12, width=8)
    asked = SimpleNamespace(
        dataset="kdd", m=1.0, lmbda=0.1, batch_size=20, ndf=8, n_rots=16, d_out=12, eps=0, n_epoch=1, lr=0.0,
    )  # fmt: skip
    learning, judged = images(20, 8, 1)[:, :1], images(6, 8, 2)[:, :1]
    learning[:, :, 0, 0] = 0.5  # a column that does not vary
    gone_through(detector, Batch(learning, torch.arange(20)))
    table = normalised(*(part.flatten(1).numpy() for part in (learning, judged, judged)))
    rows = [np.stack([part @ matrix for matrix in detector.matrices.numpy()], 2) for part in table[:2]]
    with torch.no_grad():
        score = detector(judged).image
    loss = sum(detector.loss(Batch(learning, torch.arange(20))).values())
    loss.backward()
    for told, in_place in (("", False), (", rectified in place", True)):
        with unshuffled(), here() as losses, mock.patch.object(fitting, "f_score") as spy:
            tried = fitting.TransClassifierTabular(asked)
            tried.netC.head[0].inplace = in_place  # it is True, and changes the features, too
            pairs = given(tried.netC, shared(detector, "head"), {"network.": "trunk.", "head.": "head."})
            tried.fit_trans_classifier(*rows, np.array([0, 1] * 3), 50)
        found[f"loss{told}"] = losses[0], loss.detach()
        found[f"gradient{told}"] = gradients(pairs)
        found[f"score{told}"] = torch.from_numpy(spy.call_args.args[0]), score
    return found


def ssl_ad(load: Load) -> dict[str, Both]:
    """Their scripts for one class of ImageNet at 32 px, around okng's network; and that beside theirs for CIFAR-10."""
    found: dict[str, Both] = {}
    with mock.patch.object(PIL, "PILLOW_VERSION", PIL.__version__, create=True):
        moving = load("opencv_functional")
    wide = load("multiclass_ood.models.wrn").WideResNet(16, 10, 4)
    detector: Any = create("ssl_ad")
    steady(detector.network)
    given(wide, shared(detector, "heads"), behind(wide_resnet(16), heads="fc"))
    detector.eval(), wide.eval()
    learning, judged = images(2, SIDE, 1), images(3, SIDE, 2)
    with torch.no_grad():
        found["logits"] = wide(judged * 2 - 1), detector.logits(judged)
    steps = ((0, -SIDE // 4, SIDE // 4),) * 2
    known: dict[str, Any] = {
        "torch": torch, "np": np, "F": F, "cv2f": moving, "cv2": load("cv2"), "trnF": TF,
        "net": nn.Sequential(detector.network, detector.heads), "n_p1": 3, "n_p2": 3,
        "resize_and_crop": lambda image: image, "optimizer": mock.Mock(), "scheduler": mock.Mock(),
        "state": {}, "args": SimpleNamespace(test_bs=2), "to_np": lambda made: made.numpy(),
    }  # fmt: skip
    folder, changes = Path(moving.__file__).parent, {"224": str(SIDE)}
    pictures = [(Image.fromarray(np.uint8(each)), 0) for each in (judged * 255).round().permute(0, 2, 3, 1)]
    told = {"expanded_params": (*steps, range(4)), "pert_configs": [*itertools.product(*steps, range(4))]}
    test = written(
        folder / "test.py", {"PerturbDataset", "get_ood_scores"}, {**known, **told, "num_perts": 36}, changes
    )
    data = test.PerturbDataset(pictures)
    moved, answers = [], []
    for data.pert_number in range(36):
        each = [data[i] for i in range(3)]
        moved.append(torch.stack([image for image, _ in each]))
        answers.append(each[0][1])
    found["transformed images"] = torch.stack(moved, 1), detector.transformations(judged)
    found["answers"] = torch.tensor(answers), torch.stack(detector.answers(), 1)
    with here(), torch.no_grad():
        found["score"] = torch.from_numpy(test.get_ood_scores(DataLoader(data, 2))), detector(judged).image
    told = {"expanded_params": steps, "pert_configs": [*itertools.product(*steps)], "num_perts": 9}
    train = written(folder / "train.py", {"PerturbDataset", "train"}, {**known, **told}, changes)
    pictures = [(Image.fromarray(np.uint8(each)), 0) for each in (learning * 255).round().permute(0, 2, 3, 1)]
    data, chosen = train.PerturbDataset(pictures), torch.tensor([[1, 5], [0, 7]])  # mirrored, shift
    with (
        mock.patch.object(np.random, "uniform", side_effect=[0.0, 1.0]),
        mock.patch.object(torch, "FloatTensor", torch.DoubleTensor),
    ):
        each = [data[9 * image + int(shift)] for image, (_, shift) in enumerate(chosen)]
    batch = tuple(torch.stack([torch.as_tensor(part[i]) for part in each]) for i in range(2))
    parameters = [*detector.parameters()]
    with here() as losses:
        train.train.__globals__["train_loader"] = [batch]
        train.train()
    theirs = torch.cat([p.grad.flatten() for p in parameters])
    detector.zero_grad()
    detector.train()
    loss = sum(detector.loss(Batch(learning, torch.arange(2), views=(chosen,))).values())
    loss.backward()
    found["loss"] = losses[0], loss.detach()
    found["gradient"] = theirs, torch.cat([p.grad.flatten() for p in parameters])
    return found


def with_border(move: Callable[..., Any], border: dict[str, str], *image: Any, **how: Any) -> Any:
    """What moves an image, and another border than it asks for."""
    return move(*image, **{**how, **border})


def geom(load: Load) -> dict[str, Both]:
    """The transformations, and the score of made softmax vectors; their network is Keras's."""
    found: dict[str, Both] = {}
    pixels = images(2, SIDE, 1)
    for told, border in ((", the edge met once", {"fill_mode": "mirror"}), ("", {})):
        with keras(load):
            moving = load("transformations")
        moved_by = partial(with_border, moving.apply_affine_transform, border)
        with mock.patch.object(moving, "apply_affine_transform", moved_by):
            every = moving.Transformer(8, 8)
            moved = [every.transform_batch(as_rows(pixels), [which] * 2) for which in range(72)]
        mine = Transformations((SIDE, SIDE), flips=True, shifts=True)
        # their x are rows and their y columns, and both the other way round
        other = torch.tensor([0, 2, 1])
        order = 36 * mine.flipped + 12 * other[mine.moved_y] + 4 * other[mine.moved_x] + mine.turns
        theirs = torch.from_numpy(np.stack(moved, 1)).permute(0, 1, 4, 2, 3)[:, order]
        found[f"transformed images{told}"] = theirs, mine(pixels) * 2 - 1
    names = {"calc_approx_alpha_sum", "inv_psi", "fixed_point_dirichlet_mle", "dirichlet_normality_score"}
    script = Path(moving.__file__).with_name("experiments.py")
    fitting = written(script, names, {"np": np, "psi": psi, "polygamma": polygamma})
    draw = torch.Generator().manual_seed(0)
    learnt, judged = (torch.randn(count, 3, 72, generator=draw) * 1.5 for count in (200, 4))
    learnt, judged = (each.softmax(2) for each in (learnt, judged))
    alphas, scores = [], []
    for which in range(3):
        seen = learnt[:, which].numpy()
        start = seen.mean(0) * fitting.calc_approx_alpha_sum(seen)
        alphas.append(fitting.fixed_point_dirichlet_mle(start, np.log(seen).mean(0)))
        scores.append(fitting.dirichlet_normality_score(alphas[-1], judged[:, which].numpy()))
    mine_of = dirichlet(learnt.mean(0), learnt.log().mean(0))
    found["concentrations"] = torch.from_numpy(np.stack(alphas)), mine_of
    score = -((mine_of - 1) * judged.log()).sum(2).mean(1)
    found["score"] = -torch.from_numpy(np.stack(scores)).mean(0), score
    return found


METHODS = {
    "goad": Beside("lironber/GOAD@3655b86", goad, {"depth": 10, "width": 64, "shifts": False}),
    "goad_tabular": Beside("lironber/GOAD@3655b86", goad_tabular, {"maps": 16, "mapped": 12, "width": 8}),
    "ssl_ad": Beside("hendrycks/ss-ood@8051356", ssl_ad, {"depth": 16, "width": 64}),
    "geom": Beside("izikgo/AnomalyDetectionTransformations@6327041", geom, {"side": SIDE}),
}
