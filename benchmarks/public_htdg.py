"""HTDG beside its public code, for public_code.py."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F
from same_weights import Beside, Both, Load, batch_of, gradients, images, in_order, layers, lively
from torch import Tensor

from okng.detectors.adversarial.htdg import BORDER, GREY, MOVES, Moves
from okng.detectors.catalogue import create

SIDE, WIDTH, COUNT, SCALES, COARSEST, SHOTS = 32, 8, 6, 4, 20, 2


def drawn(*shape: int) -> Tensor:
    """Noise that either side gets, whichever of its draws comes first."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(shape[-1]))


def moved(images: Tensor, flip: Any, x: Any, y: Any, turns: Any, grey: Any) -> Tensor:
    """okng's transformation in the place of theirs."""
    made: Tensor = Moves(((bool(grey), int(flip), int(x), int(y), int(turns)),), tuple(images.shape[2:]))(images)
    return made


def htdg(load: Load) -> dict[str, Both]:
    """In float32, for their transformations leave an image as it is in any other."""
    found: dict[str, Both] = {}
    training, functions = load("FewShot_models.training_parallel"), load("FewShot_models.functions")
    models, evaluation = load("FewShot_models.models"), load("anomaly_detection_evaluation")
    detector: Any = create(
        "htdg", image_size=(SIDE, SIDE), channels=3, shots=SHOTS, scales=SCALES, coarsest=COARSEST,
        transformations="all", width=WIDTH,
    )  # fmt: skip
    moves = [tuple(map(int, move)) for move in (*MOVES["all"], *GREY)]
    opt = SimpleNamespace(
        nc_im=3, nc_z=3, nfc=WIDTH, min_nfc=WIDTH, ker_size=3, num_layer=5, padd_size=0, stride=1, alpha=100, niter=1,
        Dsteps=1, Gsteps=1, device=torch.device("cpu"), device_ids=[0], list_transformations=moves, outf=[],
        num_transforms=len(moves), num_images=SHOTS, noise_amp=0.1, manualSeed=0, niter_gray=1, input_name="name.png",
        scale_factor=0.75, not_cuda=True, size_image=SIDE, min_size=COARSEST, max_size=SIDE, pos_class="any",
        dataset="made", index_download=1, global_outf="",
    )  # fmt: skip
    functions.post_config(opt)
    pixels = images(COUNT, SIDE)
    functions.adjust_scales2image(pixels, opt)
    assert opt.stop_scale + 1 == SCALES
    coarse = functions.creat_reals_pyramid(2 * pixels[:1] - 1, {}, opt, 0)[0][0]
    mine = detector.shrunk(2 * pixels[:1] - 1, 0)  # theirs is a pixel larger, by rounding up
    found["smaller image as published"] = coarse[..., : mine.shape[2], : mine.shape[3]], mine

    judged = [models.WDiscriminatorMulti(opt) for _ in range(SCALES)]
    lively(detector)
    for scale, (one, other) in enumerate(zip(judged, detector.discriminators, strict=True)):
        for layer in layers(other, "Norm"):  # with the statistics of these images, or all transformations seem alike
            layer.momentum = 1.0  # type: ignore[assignment]
        other.train()(detector.moves[scale](detector.shrunk(2 * pixels - 1, scale)))
        in_order(one, other.eval())
    with mock.patch.object(Tensor, "cuda", lambda self, *_, **__: self):
        for told, chosen in (
            ("flips and turns", [move for move in moves if move[2] == move[3] == move[0] == 0]),
            ("greys", [move for move in moves if move[0] and move[2] == move[3] == 0]),
            ("shifts as published", [move for move in moves if move[2] or move[3]]),
        ):
            pairs = [(training.apply_augmentation(pixels, *m[1:], m[0]), moved(pixels, *m[1:], m[0])) for m in chosen]
            found[told] = torch.stack([one for one, _ in pairs]), torch.stack([mine for _, mine in pairs])
        found |= scored(evaluation, functions, judged, detector, opt, pixels)
        found |= taught(training, models, detector, opt, 2 * pixels[:SHOTS] - 1)
    return found


def scored(evaluation: Any, functions: Any, judged: list, detector: Any, opt: Any, pixels: Tensor) -> dict[str, Both]:
    """By their own loop over files, with their smaller images and shifts and with okng's."""
    found = {}
    own = {
        "imresize": lambda image, *_: image, "imresize_to_shape": lambda image, size, _: F.interpolate(image, size),
        "apply_augmentation": moved,
    }  # fmt: skip
    smaller = mock.patch.object(
        functions, "creat_reals_pyramid",
        lambda real, *_: {0: [detector.shrunk(real, scale) for scale in range(len(judged))]},
    )  # fmt: skip
    for told in (" as published", ""):
        given = SimpleNamespace(**vars(opt))
        with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder), contextlib.ExitStack() as replaced:
            for scale, net in enumerate(judged):
                part = Path(f"TrainedModels/name/scale_factor=0.750000,alpha=100/{scale}")
                part.mkdir(parents=True)
                torch.save(net.state_dict(), part / "netD.pth")
            np.save("TrainedModels/name/transformations.npy", opt.list_transformations)
            Path(f"made_test_scale{SIDE}_any_{opt.num_images}").mkdir()
            for what, array in (("data", pixels.numpy()), ("labels", np.zeros(len(pixels)))):
                np.save(f"made_test_scale{SIDE}_any_{opt.num_images}/made_{what}_test_any{SIDE}_1.npy", array)
            if not told:
                replaced.enter_context(mock.patch.multiple(evaluation, **own))
                replaced.enter_context(smaller)
            called = replaced.enter_context(mock.patch.object(evaluation, "roc_auc_score"))
            evaluation.anomaly_detection("name.png", len(pixels), given)
        right = torch.tensor(called.call_args_list[0].args[1]) / len(opt.list_transformations)
        found[f"score{told}"] = right, 1 - detector(pixels).image.detach()
    return found


def taught(training: Any, models: Any, detector: Any, opt: Any, real: Tensor) -> dict[str, Both]:
    """Gradients of both networks at the first scale and at the second, at which all sides get okng's smaller images."""
    found, n = {}, len(real)
    detector.images, detector.noise = (real + 1) / 2, torch.zeros(SCALES, n)
    still = SimpleNamespace(step=lambda: None, param_groups=[])  # neither network takes its step
    reals = {i: [detector.shrunk(real[i : i + 1], scale) for scale in (0, 1)] for i in range(n)}
    before: list[Any] = []
    codes: dict[int, list[Tensor]] = {i: [] for i in range(n)}
    noises: dict[int, list[Tensor]] = {i: [torch.ones(1, 1)] for i in range(n)}
    start = torch.zeros(n, 3, *reals[0][0].shape[2:])
    for scale in (0, 1):
        h, w = opt.nzx, opt.nzy = reals[0][scale].shape[2:]
        maker, judge = models.GeneratorConcatSkip2CleanAdd(opt), models.WDiscriminatorMulti(opt)
        code = F.pad(drawn(1, 1, h, w).expand(n, 3, h, w), [BORDER] * 4)
        with (
            mock.patch.object(torch, "randn_like", lambda like: drawn(*like.shape)),
            mock.patch.object(training.functions, "generate_noise", lambda size, num_samp, **_: drawn(num_samp, *size)),
            mock.patch.object(training.functions, "save_networks"),
            mock.patch.object(torch, "save"),
            mock.patch.object(torch.cuda, "LongTensor", torch.LongTensor),
            mock.patch.multiple(
                training, apply_augmentation=moved,
                imresize=lambda image, *_: F.interpolate(image, reals[0][1].shape[2:], mode="bilinear"),
                pad_image_id=lambda image, which: torch.cat(
                    [image, torch.tensor([*which])[:, None, None, None].expand_as(image[:, :1]) / n], 1
                ),  # okng's share for their number
            ),
        ):  # fmt: skip
            phase = detector.scale_phase(scale)
            makes, judges = detector.generators[scale].train(), detector.discriminators[scale].train()
            lively(makes, judges)
            made, told = in_order(maker, makes), in_order(judge, judges)
            training.train_single_scale(
                judge, maker, reals, before, codes, start, noises, opt, range(n), code, *[still] * 4, False
            )
            if scale:
                found["noise as published"] = opt.noise_amp[:, 0], detector.noise[scale].clone()
                detector.noise[scale] = opt.noise_amp[:, 0]
            for update in phase.updates:
                sum(update.loss(batch_of(real)).values()).backward()
        for name, pairs in (("discriminator", told), ("generator", made)):
            found[f"gradient of the {name}, scale {scale + 1}"] = gradients(pairs)
        in_order(maker, makes.eval())  # as often as each was called, its statistics have moved
        before.append(maker.eval().requires_grad_(False))
        for i in range(n):
            codes[i].append(code[i : i + 1])
    return found


METHODS = {
    "htdg": Beside(
        "shellysheynin/A-Hierarchical-Transformation-Discriminating-Generative-Model-for-Few-Shot-Anomaly-Detection"
        "@ab47850", htdg, {"side": SIDE, "width": WIDTH, "scales": SCALES, "shots": SHOTS}, kind=torch.float32,
    ),
}  # fmt: skip
