"""What tells style distillation from two networks that happen to differ."""

from __future__ import annotations

import typing

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from okng.benchmark.tables import TABLES, Run
from okng.detectors.base import Batch, Train
from okng.detectors.catalogue import create
from okng.detectors.reconstruction.style_distillation import OESDN, SDN, Auxiliary, distance
from okng.errors import OkngError
from okng.inspection.reading.images import Preprocess
from okng.training.images.data import TrainingImages
from okng.training.loop.phases import run_phases

TINY = {"image_size": (16, 16), "channels": 1, "code": 8, "width": 8, "filters": 4, "groups": 2, "batch_size": 8}
KINDS = typing.get_args(Auxiliary)


def built(name: str, **arguments: object) -> SDN:
    torch.manual_seed(0)
    detector = create(name, **{**TINY, **arguments})
    assert isinstance(detector, SDN)
    return detector


def bars(count: int = 12) -> TrainingImages:
    x = np.broadcast_to(np.arange(16), (16, 16))
    made = [(255 * (np.abs(x - c) < 2)).astype(np.uint8) for c in np.linspace(3, 12, count)]
    return TrainingImages(made, Preprocess("L", (16, 16)))


def fitted(name: str, **arguments: object) -> SDN:
    detector = built(name, teacher_epochs=4, teacher_learning_rate=2e-3, epochs=2, learning_rate=2e-3, **arguments)
    run_phases(detector, bars(), device="cpu")
    return detector


def test_the_distance_is_the_sum_of_both_errors() -> None:
    """Equal images have none; an offset of flat images costs its square and little structure."""
    a = torch.full((2, 3, 16, 16), 0.5)
    assert distance(a, a).shape == (2, 16, 16) and float(distance(a, a).max()) < 1e-6
    luminance = (2 * 0.5 * 0.7 + 1e-4) / (0.5**2 + 0.7**2 + 1e-4)
    expected = torch.full((2, 16, 16), (1 - luminance) / 2 + 0.2**2)
    torch.testing.assert_close(distance(a, a + 0.2), expected, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("name", ["sdn", "oe_sdn"])
def test_a_student_starts_as_a_copier_with_the_autoencoders_own_score(name: str) -> None:
    detector = built(name)
    images = torch.rand(3, 1, 16, 16)
    with torch.no_grad():
        scores = detector(images)
        assert torch.equal(scores.map, distance(images, detector.teach(images)))
    torch.testing.assert_close(scores.image, scores.map.mean((1, 2)))


def test_the_teacher_can_be_scored_alone_and_is_the_same_to_the_bit() -> None:
    """Its errors in the distance it learns by; training the student, with exposure or not, changes nothing of it."""
    alone = fitted("sdn", score="teacher")
    unseen = torch.rand(3, 1, 16, 16)
    with torch.no_grad():
        scores = alone(unseen)
        assert torch.equal(scores.map, distance(unseen, alone.teach(unseen)))
    torch.testing.assert_close(scores.image, scores.map.mean((1, 2)))
    for name in ("sdn", "oe_sdn"):
        taught = fitted(name)
        assert taught.student.tail.weight.any() and not alone.student.tail.weight.any()  # the second was not trained
        for key, tensor in alone.teacher.state_dict().items():
            assert torch.equal(tensor, taught.teacher.state_dict()[key]), key
        taught.score = "teacher"
        with torch.no_grad():
            assert torch.equal(taught(unseen).map, scores.map)


def test_without_weight_outlier_exposure_is_sdn_to_the_bit() -> None:
    one, other = fitted("sdn"), fitted("oe_sdn", outlier_weight=0.0)
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name
    exposed = fitted("oe_sdn")
    for name, tensor in one.state_dict().items():
        same = torch.equal(tensor, exposed.state_dict()[name])
        assert same or name.startswith("student."), name
    assert not torch.equal(one.student.tail.weight, exposed.student.tail.weight)


def test_only_the_student_learns_in_the_second_phase() -> None:
    """Its targets are the finished autoencoder's copies, made once."""
    detector = built("sdn", teacher_epochs=3, epochs=1)
    teaching, learning = (phase for phase in detector.phases() if isinstance(phase, Train))
    own = {id(p) for p in detector.student.parameters()}
    (group,) = learning.updates[0].optimizer.param_groups
    assert {id(p) for p in group["params"]} == own and learning.trains == [detector.student]
    (group,) = teaching.updates[0].optimizer.param_groups
    assert {id(p) for p in group["params"]} == {id(p) for p in detector.teacher.parameters()}
    images = torch.rand(4, 1, 16, 16)
    assert learning.prepare is not None
    copies = learning.prepare(images)
    assert isinstance(copies, Tensor) and torch.equal(copies, detector.teach(images))


@pytest.mark.parametrize("kind", KINDS)
def test_every_auxiliary_set_teaches(kind: str) -> None:
    """Images of the batch's shape and range, without gradient; both losses reach the student and nothing else."""
    detector = built("oe_sdn", auxiliary=kind)
    assert isinstance(detector, OESDN)
    images = torch.rand(4, 1, 16, 16)
    batch = Batch(images, torch.arange(4), (detector.teach(images).detach(),))
    outliers = detector.outliers(batch)
    assert outliers.shape == images.shape and not outliers.requires_grad
    assert float(outliers.min()) >= 0 and float(outliers.max()) <= 1
    assert not torch.equal(outliers, images)
    nn.init.normal_(detector.student.tail.weight, std=0.1)  # it starts as the identity, where exposure is at its best
    losses = detector.loss(batch)
    assert list(losses) == ["distillation", "exposure"]
    losses["exposure"].backward()
    assert all(p.grad is None for p in detector.teacher.parameters())
    assert detector.student.tail.weight.grad is not None and detector.student.tail.weight.grad.any()


def test_the_slides_ae_is_the_teacher() -> None:
    """One distance is given for all; a row of AE and one of SDN are then of the same autoencoder."""
    for table, ae in (("oe-sdn/table1", "AE"), ("oe-sdn/table2", "AE (ours)")):
        assert TABLES[table].runs[ae] == Run("sdn", {"score": "teacher"}) and TABLES[table].runs["SDN"] == Run("sdn")


def test_auxiliary_sets_are_the_nine_of_table_3() -> None:
    assert len(KINDS) == 9
    with pytest.raises(OkngError, match="oe_sdn: auxiliary takes one of adversarial_noise"):
        create("oe_sdn", auxiliary="colour")


def test_adversarial_noise_raises_the_autoencoders_error() -> None:
    detector = fitted("oe_sdn", auxiliary="adversarial_noise")
    assert isinstance(detector, OESDN)
    images = torch.rand(4, 1, 16, 16)
    made = detector.outliers(Batch(images, torch.arange(4)))
    assert float((made - images).abs().max()) <= 0.1 + 1e-6

    def error(some: Tensor) -> float:
        with torch.no_grad():
            return float(distance(some, detector.teach(some)).mean())

    random = (images + 0.1 * torch.randn_like(images).sign()).clamp(0, 1)
    assert error(made) > error(images) and error(made) > error(random)


@pytest.mark.slow
def test_the_student_learns_the_blur_and_with_exposure_leaves_the_rest() -> None:
    """The autoencoder loses the noise of upright bars and makes upright ones of bars that lie.

    On unseen upright bars the student agrees with it. Lying ones only the exposed student leaves alone, noise and all:
    the other takes away theirs too.
    """
    rng = np.random.default_rng(0)
    x = np.broadcast_to(np.arange(16), (16, 16))
    bars = [60 + 150 * (np.abs(x - c) < 2) + rng.normal(0, 25, (16, 16)) for c in rng.uniform(3, 12, 72)]
    noisy = [bar.clip(0, 255).astype(np.uint8) for bar in bars]
    upright = torch.from_numpy(np.stack(noisy[48:]))[:, None] / 255  # (24, 1, 16, 16)
    lying = upright.mT
    agreement, changed = {}, {}
    for name in ("sdn", "oe_sdn"):
        settings = {"teacher_epochs": 25, "teacher_batch_size": 8, "epochs": 16, "batch_size": 8}
        detector = built(name, teacher_learning_rate=3e-3, learning_rate=5e-3, **settings)
        run_phases(detector, TrainingImages(noisy[:48], Preprocess("L", (16, 16))), device="cpu")
        with torch.no_grad():
            copies = detector.teach(upright)
            agreement[name] = float(distance(detector.student(upright), copies).mean())
            changed[name] = float(distance(detector.student(lying), lying).mean())
            blur = float(distance(upright, copies).mean())
            damage = float(distance(lying, detector.teach(lying)).mean())
            assert detector(lying).image.min() > 1.5 * detector(upright).image.max(), name
    print(f"blur {blur:.3f}, left {agreement}; lying bars: damage {damage:.3f}, student's {changed}")
    assert agreement["sdn"] < 0.5 * blur and agreement["oe_sdn"] < 0.8 * blur
    assert changed["oe_sdn"] < 0.1 * damage and changed["sdn"] > 3 * changed["oe_sdn"]


@pytest.mark.parametrize("name", ["sdn", "oe_sdn"])
@pytest.mark.parametrize("size", [(16, 16), (29, 35), (64, 64)])
def test_sizes(name: str, size: tuple[int, int]) -> None:
    detector = built(name, image_size=size, channels=3, attention_grid=8)
    with torch.no_grad():
        scores = detector(torch.rand(2, 3, *size))
    assert scores.map is not None and scores.map.shape == (2, *size)


def test_paper_size() -> None:
    detector = OESDN()
    assert detector.student.head.out_channels == 32 and detector.auxiliary == "rotation"
    assert sum("down.weight" in name for name, _ in detector.student.named_parameters()) == 10


@pytest.mark.parametrize("weight", [-0.1, 1.0])
def test_the_weight_is_a_share(weight: float) -> None:
    with pytest.raises(OkngError, match="outlier_weight"):
        create("oe_sdn", outlier_weight=weight)
