"""What tells EfficientAD from a toy: patches of 33 px, hard errors, an autoencoder that sees all, quantiles."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.detectors.scenes import discs, in_colour
from torch import Tensor, nn

from okng.detectors.base import Batch, Train
from okng.detectors.catalogue import create
from okng.detectors.distillation.efficientad import CUT, EfficientAD, PatchDescription, for_the_student
from okng.errors import OkngError
from okng.inspection.reading.images import Preprocess
from okng.training.images.data import TrainingImages
from okng.training.loop.phases import run_phases

SMALL = {"width": 4, "descriptor": 6, "code": 4, "image_size": (64, 96)}


def built(**arguments: object) -> EfficientAD:
    torch.manual_seed(0)
    detector = create("efficientad", **{**SMALL, "weights": "none", **arguments})
    assert isinstance(detector, EfficientAD)
    return detector.eval()


def images(count: int = 2, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, 64, 96, generator=torch.Generator().manual_seed(seed))


def batch(detector: EfficientAD, auxiliary: Tensor | None = None) -> Batch:
    return Batch(images(), torch.arange(2), views=(images(seed=1), images(seed=2)), auxiliary=auxiliary)


@pytest.mark.parametrize("network", ["S", "M"])
def test_a_description_is_of_33_px_around_a_cell_of_the_backbone(network: str) -> None:
    """Exactly these: the features that the teacher learns there are those of the cell in their middle."""
    pdn = PatchDescription(network, 4, 6)
    shown = images(1).requires_grad_()
    described = pdn(shown)
    assert described.shape == (1, 6, 64 // 4 - 2 * CUT, 96 // 4 - 2 * CUT)
    for weight in pdn.parameters():
        nn.init.constant_(weight, 0.1)  # nothing is cut off by a ReLU
    (slope,) = torch.autograd.grad(pdn(shown)[0, 0, 3, 5], shown)
    rows, columns = slope[0].abs().sum(0).nonzero().T
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (12, 44, 20, 52)
    assert (3 + CUT) * 4 == (12 + 44) // 2 and (5 + CUT) * 4 == (20 + 52) // 2


def test_the_autoencoder_sees_all_of_the_image_at_each_place() -> None:
    detector = built()
    shown = images(1).requires_grad_()
    described = detector.autoencoder(shown)
    assert described.shape == detector.teacher(shown).shape
    for weight in detector.autoencoder.parameters():
        nn.init.constant_(weight, 0.1)
    (slope,) = torch.autograd.grad(detector.autoencoder(shown)[0, 0, 0, 0], shown)
    assert float(slope[0, :, -1, -1].abs().min()) > 0  # the far corner


def test_a_student_like_both_finds_nothing() -> None:
    detector = built()
    detector.mean.uniform_(-1, 1)
    detector.deviation.uniform_(0.5, 2)
    with torch.no_grad():
        normalised = detector.normalised(images())
        taught, restored = detector.taught(normalised), detector.autoencoder(normalised)
        torch.testing.assert_close(taught, (detector.teacher(normalised) - detector.mean) / detector.deviation)
        alike = torch.cat([taught, restored], 1)
        detector.student.forward = lambda _: alike  # type: ignore[method-assign]
        assert all(not found.any() for found in detector.maps(images()))
        detector.student.forward = lambda _: alike + torch.arange(12.0).view(-1, 1, 1)  # type: ignore[method-assign]
        local, whole = detector.maps(images())
    torch.testing.assert_close(local, torch.full_like(local, float(np.mean(np.arange(6) ** 2))), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(whole, torch.full_like(whole, float(np.mean(np.arange(6, 12) ** 2))), rtol=1e-4, atol=0)


def test_the_student_learns_from_the_thousandth_where_it_errs_most() -> None:
    detector = built(descriptor=64)
    with torch.no_grad():
        found = detector.learning(batch(detector))
        errors = (
            detector.taught(detector.normalised(images())) - detector.student(detector.normalised(images()))[:, :64]
        )
    squared = errors.square().flatten(1)  # (2, 64 * 8 * 16)
    hard = torch.stack([each[each >= each.quantile(0.999)].mean() for each in squared]).mean()
    torch.testing.assert_close(found["student"], hard, rtol=0.02, atol=0)
    assert found["student"] > 2 * squared.mean()


def test_the_penalty_is_on_auxiliary_images_where_there_are_any_else_on_drawn_textures() -> None:
    detector = built()
    with torch.no_grad():
        for beside, given in ((images(seed=2), None), (images(seed=3), images(seed=3))):
            penalty = detector.learning(batch(detector, given))["penalty"]
            expected = detector.student(detector.normalised(beside))[:, :6].square().mean()
            torch.testing.assert_close(penalty, expected)


def test_the_teacher_learns_the_backbones_features_of_its_own_cells() -> None:
    detector = built()
    torch.manual_seed(1)
    detector.feature_mean.uniform_(-1, 1)
    detector.feature_deviation.uniform_(0.5, 2)
    with torch.no_grad():
        features = detector.features(torch.cat([images(seed=1), images(seed=2)]))
        assert features.shape == (4, 6, 16, 24)
        wanted = ((features - detector.feature_mean) / detector.feature_deviation)[:, :, 4:12, 4:20]
        detector.teacher.forward = lambda _: wanted + 0.5  # type: ignore[method-assign]
        torch.testing.assert_close(detector.teaching(batch(detector)), torch.tensor(0.25))


def test_one_of_brightness_contrast_and_saturation_changes_a_little() -> None:
    image, moved = images(1)[0], []
    for seed in range(30):
        jittered, texture = for_the_student(image, torch.Generator().manual_seed(seed))
        assert jittered.shape == texture.shape == image.shape and jittered.min() >= 0 and jittered.max() <= 1
        assert 0 < float((jittered - image).abs().max()) <= 0.2
        moved.append(float((jittered - image).mean()))
    assert min(moved) < -0.02 and max(moved) > 0.02  # brightness
    assert sum(abs(by) < 1e-3 for by in moved) > 5  # the others


def test_a_fit_knows_ok_images_and_its_maps_are_told_by_those_held_back() -> None:
    detector = built(
        weights="imagenet", image_size=(64, 64), width=8, descriptor=16, teacher_epochs=2, teacher_batch_size=4,
        epochs=4, learning_rate=2e-3, teacher_learning_rate=2e-3,
    )  # fmt: skip
    shown: list[int] = []
    learnt: set[int] = set()
    phases = list(detector.phases())
    student = phases[3]
    assert isinstance(student, Train) and student.holds_back and [p.name for p in phases][4] == "maps"
    learning, maps = detector.learning, detector.maps
    detector.learning = lambda b: (learnt.update(b.index.tolist()), learning(b))[1]  # type: ignore[method-assign]

    def looked_at(images: Tensor) -> tuple[Tensor, Tensor]:
        shown.extend(len(images) * [1])
        return maps(images)

    detector.maps = looked_at  # type: ignore[method-assign]
    ok = discs(15)
    run_phases(detector, TrainingImages(list(ok), Preprocess("RGB", (64, 64), detector.multiple)), device="cpu")
    held_back = sorted({*range(15)} - learnt)
    assert len(held_back) == 3 and len(shown) == 3
    with torch.no_grad():
        for found, usual in zip(maps(in_colour(ok[held_back])), detector.usual, strict=True):
            at = [float(np.quantile(0.1 * ((found - usual[0]) / (usual[1] - usual[0])), q)) for q in (0.9, 0.995)]
            np.testing.assert_allclose(at, [0, 0.1], atol=1e-3)
        scores = detector(in_colour(ok))
        noise = detector(torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1)))
        described = detector.taught(detector.normalised(in_colour(ok)))
    torch.testing.assert_close(described.mean((0, 2, 3)), torch.zeros(16), rtol=0, atol=1e-3)
    assert scores.map is not None and scores.map.shape == (15, 16, 16)
    assert not scores.map[:, :CUT].any() and not scores.map[:, :, -CUT:].any()  # of which nothing is known
    assert noise.image.min() > 2 * scores.image.max()


def test_the_papers_networks() -> None:
    detector = built(width=128, code=64, descriptor=384, image_size=(256, 256), backbone="resnet18", teacher_steps=7)
    layers = [
        [(c.kernel_size[0], c.out_channels) for c in n if isinstance(c, nn.Conv2d)]
        for n in (detector.teacher, detector.autoencoder)
    ]
    assert layers[0] == [(4, 128), (4, 256), (3, 256), (4, 384)]
    assert layers[1] == [*[(4, c) for c in (32, 32, 64, 64, 64)], (8, 64), *6 * [(4, 64)], (3, 64), (3, 384)]
    assert [u.size for u in detector.autoencoder if isinstance(u, nn.Upsample)] == [
        (n, n) for n in (3, 8, 15, 32, 63, 127, 56)
    ]
    medium = PatchDescription("M", 128, 384)
    assert [(c.kernel_size[0], c.out_channels) for c in medium if isinstance(c, nn.Conv2d)] == [
        (4, 256), (4, 512), (1, 512), (3, 512), (4, 384), (1, 384),
    ]  # fmt: skip
    teacher, student = [p for p in detector.phases() if isinstance(p, Train)]
    assert (teacher.batch_size, teacher.steps, student.batch_size) == (16, 7, 1)
    for phase in (teacher, student):
        defaults = phase.updates[0].optimizer.defaults
        assert (defaults["lr"], defaults["weight_decay"]) == (1e-4, 1e-5)
    schedule = student.updates[0].schedule
    assert schedule is not None and [schedule(share) for share in (0, 0.94, 0.96)] == [1, 1, 0.1]


@pytest.mark.parametrize("arguments", [{"network": "L"}, {"code": 1}, {"image_size": (32, 64)}])
def test_ranges(arguments: dict[str, object]) -> None:
    with pytest.raises(OkngError, match="efficientad: "):
        built(**arguments)
