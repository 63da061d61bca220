"""Adversarial methods beside their public code, for public_code.py."""

from __future__ import annotations

from contextlib import chdir
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from same_weights import Beside, Both, Load, batch_of, gradients, images, in_order, lively, ranged, weights
from their_steps import here, stepped
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from okng.detectors.catalogue import create

SIDE, WIDTH, CODE, COUNT = 32, 8, 20, 6


def options(**more: Any) -> SimpleNamespace:
    """Those of the scripts of GANomaly and Skip-GANomaly; weights and rates are their defaults."""
    return SimpleNamespace(
        manualseed=-1, device="cpu", gpu_ids=[], ngpu=1, batchsize=COUNT, isize=SIDE, nc=3, nz=CODE, ngf=WIDTH,
        ndf=WIDTH, extralayers=0, resume="", isTrain=True, lr=2e-4, beta1=0.5, w_adv=1, w_con=50, outf="", name="",
        metric="roc", display_id=0, load_weights=False, save_test_images=False, verbose=False, **more,
    )  # fmt: skip


def tested(model: Any, module: Any, loader: str, judge: str, inputs: Tensor) -> Tensor:
    """The scores that the authors' own loop over a test set notes, in float32 and in [0, 1]."""
    test = DataLoader(TensorDataset(inputs, torch.zeros(len(inputs))), batch_size=len(inputs))
    setattr(model, loader, {"test": test} if loader == "dataloader" else SimpleNamespace(valid=test))

    def take(data: list[Tensor]) -> None:
        model.input, model.gt = data

    with mock.patch.object(model, "set_input", take), mock.patch.object(module, judge):
        model.test()
    scores: Tensor = model.an_scores
    return scores


def ganomaly(load: Load) -> dict[str, Both]:
    module, pixels, found = load("lib.model"), images(COUNT, SIDE), {}
    inputs = 2 * pixels - 1

    def built() -> tuple[Any, Any, list, list]:
        """Theirs, okng's, and the parameters of both by pairs, of the generator and of the discriminator."""
        torch.manual_seed(0)
        detector: Any = create("ganomaly", image_size=(SIDE, SIDE), channels=3, code=CODE, width=WIDTH)
        with mock.patch.object(module, "Visualizer"):
            model = module.Ganomaly(options(w_enc=1), None)
        model.input, model.real_label, model.fake_label = inputs, torch.ones(COUNT), torch.zeros(COUNT)
        lively(detector)
        generator = nn.ModuleList([detector.encoder, detector.decoder, detector.second_encoder])
        return model, detector, in_order(model.netg, generator), in_order(model.netd, detector.discriminator)

    model, detector, makes, judges = built()
    detector.eval(), model.netg.eval()
    with torch.no_grad():
        copies, codes, again = model.netg(inputs)
        mine = detector.generate(inputs)
        found["codes"] = torch.cat([codes, again], 1), torch.cat([mine[0], mine[2]], 1)
        found["copies"] = copies, mine[1]
        squares = ranged((mine[0] - mine[2]).square().mean(1))
        found["score, of squares"] = tested(model, module, "dataloader", "evaluate", inputs), squares
        absolute = ranged(detector(pixels).image)
        found["score, of absolute differences"] = ranged((codes - again).abs().mean(1)), absolute
        model.netg.train()
        found["score as published"] = tested(model, module, "dataloader", "evaluate", inputs), absolute
    detector.train(), model.netd.train()
    model.forward_g(), model.forward_d()
    model.optimizer_g.zero_grad(), model.backward_g()
    made = sum(detector.generator_loss(batch_of(pixels)).values())
    made.backward()
    found["loss of the generator"], found["gradient of the generator"] = (model.err_g, made), gradients(makes)
    model.optimizer_d.zero_grad(), model.backward_d()
    judged = sum(detector.discriminator_loss(batch_of(pixels)).values())
    judged.backward()
    found["loss of the discriminator"] = model.err_d, judged
    found["gradient of the discriminator"] = gradients(judges)
    for told, at_once in (("", False), (", losses before either", True)):
        model, detector, makes, judges = built()
        detector.train()
        for _ in range(3):
            model.optimize_params()
        (phase,) = detector.phases()
        stepped(phase, batch_of(pixels), 3, at_once)
        found[f"weights after 3 steps{told}"] = weights(makes + judges)
    return found


def halves(tensor: Tensor) -> Tensor:
    """The first half of the first axis behind the second."""
    return tensor.roll(len(tensor) // 2, 0)


def skip_ganomaly(load: Load) -> dict[str, Both]:
    detector: Any = create("skip_ganomaly", image_size=(SIDE, SIDE), channels=3, width=WIDTH, code=CODE)
    module, pixels, found = load("lib.models.skipganomaly"), images(COUNT, SIDE), {}
    with mock.patch.object(load("lib.models.basemodel"), "Visualizer"):
        model = module.Skipganomaly(options(w_lat=1, lr_policy="lambda", iter=0, niter=15, niter_decay=100))
    lively(detector)
    unet = detector.generator[0]
    joints = [*(up[0].weight for up in list(unet.up)[1:]), unet.last.weight]  # whose first half theirs has second
    for joint in joints:
        joint.data = halves(joint.data)
    makes = in_order(model.netg, detector.generator)
    for joint in joints:
        joint.data = halves(joint.data)
    judges = in_order(model.netd.feat, detector.features)
    last, linear = model.netd.clas.classifier.weight, detector.judge[0]  # of 3 × 3 values, of which one meets any
    nn.init.zeros_(linear.bias).requires_grad_(False)
    last.data[:, :, 1, 1] = linear.weight.data
    inputs = 2 * pixels - 1
    model.input, model.noise = inputs, torch.zeros_like(inputs)
    model.real_label, model.fake_label = torch.ones(COUNT), torch.zeros(COUNT)

    detector.eval(), model.netg.eval(), model.netd.eval()
    with torch.no_grad():
        found["features"] = model.netd(inputs)[1], detector.features(inputs)
        found["judgement"] = torch.logit(model.netd(inputs)[0]), detector.judge(detector.features(inputs))
        told = tested(model, module, "data", "roc", inputs)
        found["copies"] = model.netg(inputs), detector.generator(inputs)
        found["score"] = told, ranged(detector(pixels).image)
    detector.train(), model.netg.train(), model.netd.train()
    model.forward()
    model.optimizer_g.zero_grad(), model.backward_g()
    made = sum(detector.generator_loss(batch_of(pixels)).values())
    made.backward()
    for joint in joints:
        joint.grad = halves(joint.grad)
    found["loss of the generator"], found["gradient of the generator"] = (model.err_g, made), gradients(makes)
    ours = sum(detector.discriminator_loss(batch_of(pixels)).values())
    ours.backward()
    for told, more in (("", torch.zeros(())), (" as published", model.err_g_lat)):
        model.err_g_lat = more
        model.optimizer_d.zero_grad(), model.backward_d()
        found[f"loss of the discriminator{told}"] = model.err_d, ours
        one, other = gradients(judges)
        both = torch.cat([one, last.grad[:, :, 1, 1].flatten()]), torch.cat([other, linear.weight.grad.flatten()])
        found[f"gradient of the discriminator{told}"] = both
    return found


def avid(load: Load) -> dict[str, Both]:
    """The authors' own training, a step of either network, without noise and without padding in both."""
    torch.manual_seed(0)
    detector: Any = create("avid", image_size=(224, 224), channels=1, noise=0.0)
    pixels, module, found = images(2, 224)[:, :1], load("solver"), {}
    inputs = 2 * pixels - 1
    batches = [[inputs, ""]]
    config = SimpleNamespace(
        g_conv_dim=64, d_conv_dim=32, z_dim=100, beta1=0.9, beta2=0.9, image_size=224, num_epochs=1, batch_size=2,
        sample_size=100, lr_g=2e-4, lr_d=2e-4, log_step=10, sample_step=50, fake_images_path="", sample_path="",
        model_path="", gen_dcgan=0, load_sample="", save_test=0,
    )  # fmt: skip
    solver = module.Solver(config, batches, batches, [])
    lively(detector.inpainter)
    joints = [(merge[0].weight, wide) for merge, wide in zip(detector.inpainter.merge, (64, 256, 64, 64), strict=True)]
    for joint, wide in joints:  # theirs has what comes from below behind its level's features
        joint.data = joint.data.roll(-wide, 1)
    makes = in_order(solver.generator, detector.inpainter)
    for joint, wide in joints:
        joint.data = joint.data.roll(wide, 1)
    judges = in_order(solver.discriminator, detector.detector)
    solver.generator.eval(), detector.eval()
    with torch.no_grad():
        found["copies"] = solver.generator(inputs), detector.copies(inputs)
        found["judgement"] = solver.discriminator(inputs), detector.detector(inputs)
    solver.generator.train(), detector.train()
    detector.judge = lambda images: detector.detector(images)
    losses, slopes = [], []
    (phase,) = detector.phases()
    for update, joined, pairs in zip(phase.updates, ([], joints), (judges, makes), strict=True):
        update.optimizer.zero_grad()
        losses.append(sum(update.loss(batch_of(pixels)).values()))
        losses[-1].backward()
        for joint, wide in joined:
            joint.grad = joint.grad.roll(-wide, 1)
        slopes.append(gradients(pairs)[1])
        if not joined:
            update.optimizer.step()
    met: list[Tensor] = []
    solver.d_optimizer.register_step_pre_hook(lambda *_: met.append(gradients(judges)[0]))
    with here() as told, chdir(Path(module.__file__).parent):
        solver.train()
    names = ("of the detector", "of the inpainter")
    for name, one, other in zip(names, told, losses, strict=True):
        found[f"loss {name}"] = one, other
    for name, one, other in zip(names, (*met, gradients(makes)[0]), slopes, strict=True):
        found[f"gradient {name}"] = one, other
    return found


SIZES = {"side": SIDE, "width": WIDTH, "code": CODE}
METHODS = {
    "ganomaly": Beside("samet-akcay/ganomaly@78da4ea", ganomaly, SIZES),
    "skip_ganomaly": Beside("samet-akcay/skip-ganomaly@b33bd55", skip_ganomaly, {**SIZES, "levels": 5}),
    "avid": Beside("masoudpz/AVID-Adversarial-Visual-Irregularity-Detection@42cc497", avid, {"side": 224}),
}
