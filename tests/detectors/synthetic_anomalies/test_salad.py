"""What tells SALAD from a toy: parts that are right each by itself and wrong together, which a local method misses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.covariance import LedoitWolf
from sklearn.metrics import roc_auc_score
from tests.detectors.scenes import boards, in_colour
from torch import Tensor, nn

from okng.detectors.base import Batch, Detector, Phase, Train
from okng.detectors.catalogue import create
from okng.detectors.synthetic_anomalies.salad import SALAD
from okng.errors import OkngError
from okng.inspection.reading.images import Preprocess
from okng.nn.networks.compositions import CompositionNet
from okng.training.images.data import TrainingImages
from okng.training.loop.phases import run_phases

FAULTS = ("missing", "doubled", "swapped")
OK = 40


def built(**arguments: object) -> SALAD:
    torch.manual_seed(0)
    small = {"parts": 3, "scale": 4, "composition_width": 8, "network": "S", "width": 4, "descriptor": 8, "code": 4}
    detector = create("salad", **{**small, "image_size": (64, 64), "strides": (8,), **arguments})
    assert isinstance(detector, SALAD)
    return detector.eval()


def learnt(detector: Detector) -> Detector:
    run_phases(detector, TrainingImages(list(boards(OK)), Preprocess("RGB", (64, 64), detector.multiple)), device="cpu")
    return detector


@pytest.fixture(scope="module")
def fitted() -> SALAD:
    rates = {"composition_rate": 3e-3, "learning_rate": 2e-3, "teacher_learning_rate": 2e-3}
    counts = {"segmentation_epochs": 8, "teacher_epochs": 1, "training_steps": 240, "batch_size": 8}
    detector = built(**rates, **counts)
    phases = detector.phases

    def sparing() -> Iterator[Phase]:
        """EfficientAD learns at every eighth batch alone, for time."""
        for phase in phases():
            if isinstance(phase, Train) and len(phase.updates) == 2:
                phase = replace(phase, updates=[replace(phase.updates[0], every=8), phase.updates[1]])
            yield phase

    detector.phases = sparing  # type: ignore[method-assign]
    learnt(detector)
    return detector


@pytest.mark.slow  # the fit is half a minute
def test_it_finds_what_is_wrong_only_together_and_a_local_method_does_not(fitted: SALAD) -> None:
    local = learnt(create("patchcore", strides=(4,), neighbourhood=1, coreset=0.1))
    images = [in_colour(boards(24, fault, seed)) for seed, fault in enumerate(("", *FAULTS), 1)]
    with torch.no_grad():
        composition = [fitted.terms(*fitted.seen(shown))[:, 1] for shown in images]
        whole, patches = ([detector(shown).image for shown in images] for detector in (fitted, local))
    for found, least, most in ((composition, 0.8, 1), (whole, 0.85, 1), (patches, 0, 0.65)):
        for fault in found[1:]:
            assert least <= roc_auc_score([0] * 24 + [1] * 24, torch.cat([found[0], fault])) <= most


@pytest.mark.slow  # the fit is half a minute
def test_parts_are_told_apart_and_the_border_is_background(fitted: SALAD) -> None:
    images = boards(12, seed=5)
    with torch.no_grad():
        kinds = fitted.kind(in_colour(images))  # (12, 16, 16)
    assert kinds.dtype == torch.uint8 and int(kinds.max()) <= 3
    assert float((kinds[:, [0, 0, -1, -1], [0, -1, 0, -1]] == 0).float().mean()) > 0.9
    middles = kinds[:, 3::8, 3::8].flatten(1), kinds[:, 4::8, 4::8].flatten(1)  # of the quarters
    free = torch.from_numpy(images[:, 16::32, 16::32].std(3).reshape(12, 4) < 15)  # grey
    for middle in middles:
        usual = int(middle[free].mode().values)
        assert (
            float((middle[~free] != usual).float().mean()) > 0.8 and float((middle[free] == usual).float().mean()) > 0.8
        )


@pytest.mark.slow  # the fit is half a minute
def test_terms_are_in_deviations_on_what_was_held_back(fitted: SALAD) -> None:
    images = in_colour(boards(OK))
    with torch.no_grad():
        appearance, composition, described = fitted.seen(images)
        terms = fitted.terms(appearance, composition, described)
        scores = fitted(images)
        torch.testing.assert_close(appearance, fitted.appearance(images).map, rtol=1e-4, atol=1e-4)
    odd = (terms - fitted.usual[:, 0]) / fitted.usual[:, 1]
    torch.testing.assert_close(
        scores.image, odd[:, 0] + odd[:, 1] + odd[:, 2] + odd[:, 3:].mean(1), rtol=1e-3, atol=1e-3
    )
    assert scores.map is not None and scores.map.shape == (OK, 16, 16)
    assert float((scores.map.amax((1, 2)) - odd[:, 0] - odd[:, 1]).max()) < 1e-3
    assert float(fitted.usual[:2, 1].min()) > 0.0099 and float(fitted.usual[2:, 1].min()) > 0.099


def test_gaussians_are_of_what_was_learnt_and_terms_of_what_was_not() -> None:
    detector = built(weights="none", epochs=1, teacher_epochs=1, segmentation_epochs=1)
    kept: dict[str, list[int]] = {}
    for phase in (phases := list(detector.phases())):
        kept[phase.name] = []
        if isinstance(phase, Train):
            for update in phase.updates:
                loss, name = update.loss, phase.name
                update.loss = lambda b, loss=loss, name=name: (kept[name].extend(b.index.tolist()), loss(b))[1]  # type: ignore[misc]
        else:
            visit, name = phase.visit, phase.name
            phase.visit = lambda b, visit=visit, name=name: (kept[name].extend(b.index.tolist()), visit(b))[1]  # type: ignore[misc]
    detector.phases = lambda: iter(phases)  # type: ignore[method-assign]
    images = boards(10)
    run_phases(detector, TrainingImages(list(images), Preprocess("RGB", (64, 64), 32)), device="cpu")
    inside = {*kept["student, autoencoder and compositions"]}
    assert len(inside) == 8 and {*kept["descriptions of parts"]} == inside
    assert {*kept["terms"]} == {*kept["maps"]} == {*range(10)} - inside
    with torch.no_grad():
        described = detector.seen(in_colour(images))[2]
        distances = detector.terms(*detector.seen(in_colour(images)))[:, 2:]
    vectors = described[sorted(inside), 0].double().numpy()
    gaussian = LedoitWolf().fit(vectors)
    wanted = np.sqrt(gaussian.mahalanobis(described[:, 0].double().numpy()))
    np.testing.assert_allclose(distances[:, 0], wanted, rtol=0.01)


def test_a_part_that_is_not_there_has_a_description_of_zeros() -> None:
    detector = built(weights="none")
    logits = torch.zeros(1, 4, 16, 16)
    logits[:, 0] = 1
    logits[:, 2, :8] = 2  # the upper half
    detector.kind_logits = lambda images: logits  # type: ignore[method-assign]
    images = in_colour(boards(1))
    with torch.no_grad():
        _, _, described = detector.seen(images)
        student = detector.appearance.student(detector.appearance.normalised(images))[0, :8]  # (d, 8, 8)
    assert described.shape == (1, 5, 8) and float(described[0, [2, 4]].abs().max()) < 1e-6
    torch.testing.assert_close(described[0, 0], student.mean((1, 2)))
    torch.testing.assert_close(described[0, 3], student[:, :4].mean((1, 2)))
    torch.testing.assert_close(described[0, 1], student[:, 4:].mean((1, 2)))


def scene() -> np.ndarray:
    """A composition of two pieces on a ground."""
    kinds = np.zeros((32, 32), np.uint8)
    kinds[4:12, 4:12], kinds[18:28, 18:28] = 1, 2
    return kinds


def test_the_losses_are_0_for_a_perfect_repair_and_count_only_what_was_changed() -> None:
    detector = built(weights="none")
    kinds = torch.from_numpy(np.stack([scene(), scene().T]))
    detector.pool = kinds
    batch = Batch(torch.rand(2, 3, 64, 64), torch.arange(2), (kinds,))
    shown: list[Tensor] = []
    truth = 100 * F.one_hot(torch.cat([kinds, kinds]).long(), 4).movedim(3, 1).float()

    def repaired(given: Tensor) -> tuple[Tensor, Tensor]:
        shown.append(given)
        changed = given.argmax(1) != torch.cat([kinds, kinds])
        return truth, 200.0 * changed - 100

    detector.repaired = repaired  # type: ignore[method-assign]
    torch.manual_seed(3)
    losses = detector.composing(batch)
    assert all(abs(float(loss)) < 1e-4 for loss in losses.values())
    given = shown[0]
    assert bool((given.sum(1) == 1).all()) and torch.equal(given[2:].argmax(1), kinds.long())
    assert not torch.equal(given[:2], given[2:])
    detector.repaired = lambda given: (0 * truth, torch.zeros(4, 32, 32))  # type: ignore[method-assign]
    losses = detector.composing(batch)
    torch.testing.assert_close(losses["focal"], torch.tensor(0.75**2 * np.log(4)).float())
    assert float(losses["distance"]) == 0.5


def test_the_papers_networks_and_rates() -> None:
    net = CompositionNet(6, 6, 128, joined=False)
    widths = [block.layers[2].out_channels for block in net.down]  # type: ignore[union-attr, index]
    assert widths == [128, 256, 512, 1024]
    shown = torch.rand(1, 6, 16, 24)
    assert net(shown).shape == (1, 6, 16, 24)
    detector = built(weights="none", composition_rate=1e-5, training_steps=7)
    _, segmentation, student = [phase for phase in detector.phases() if isinstance(phase, Train)]
    assert [type(u.optimizer).__name__ for u in segmentation.updates] == ["AdamW"]
    assert (segmentation.batch_size, segmentation.epochs, segmentation.updates[0].optimizer.defaults["lr"]) == (
        8,
        10,
        5e-4,
    )
    assert student.steps == 7 and student.batch_size == 1 and student.holds_back
    rates = [(u.optimizer.defaults["lr"], u.optimizer.defaults["weight_decay"]) for u in student.updates]
    assert rates == [(1e-4, 1e-5), (1e-5, 1e-5)]
    assert all(u.schedule is not None and u.schedule(0.96) == 0.1 for u in student.updates)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in detector.finder.modules())


@pytest.mark.parametrize("arguments", [{"scale": 3}, {"parts": 0}, {"composition_width": 12}, {"image_size": (32, 64)}])
def test_ranges(arguments: dict[str, object]) -> None:
    with pytest.raises(OkngError, match="salad: "):
        built(**arguments)
