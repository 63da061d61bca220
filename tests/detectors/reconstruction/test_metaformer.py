"""What tells Metaformer from an autoencoder: what it begins with is learnt for being adapted, and it attends."""

from __future__ import annotations

import pytest
import torch
from tests.detectors.scenes import SIDE, crosses, rings, source, tensor
from torch import Tensor

from okng.detectors.base import Batch, Train
from okng.detectors.catalogue import create
from okng.detectors.reconstruction.metaformer import Metaformer, prior
from okng.errors import OkngError
from okng.inspection.reading.images import Preprocess
from okng.metrics.ranking import auroc
from okng.training.images.data import AuxiliaryImages
from okng.training.loop.phases import run_phases


def built(**arguments: object) -> Metaformer:
    torch.manual_seed(0)
    detector = create("metaformer", **arguments)
    assert isinstance(detector, Metaformer)
    return detector


@pytest.mark.parametrize(
    ("size", "channels", "grid"), [((28, 28), 1, (7, 7)), ((16, 31), 3, (8, 16)), ((64, 90), 3, (8, 12))]
)
def test_every_size_is_copied_and_attended_to_on_a_grid(
    size: tuple[int, int], channels: int, grid: tuple[int, int]
) -> None:
    detector = built(image_size=size, channels=channels, width=4, code=3)
    images = torch.rand(2, channels, *size)
    with torch.no_grad():
        copies, instance = detector.network(images)
        scores = detector(images)
    assert copies.shape == images.shape and instance.shape == (2, *grid)
    assert scores.map is not None and scores.map.shape == (2, *size)
    torch.testing.assert_close(scores.map.mean((1, 2)), scores.image)


def test_what_is_attended_to_is_weighed_by_where_the_object_is() -> None:
    attention = built(image_size=(16, 16), channels=1, width=8, code=3, heads=2).network.attention
    tokens, instance = torch.randn(3, 64, 8), torch.zeros(3, 64)
    with torch.no_grad():
        even, _ = attention.weights(tokens, instance)
        torch.testing.assert_close(even.sum(3), torch.ones(3, 2, 64))
        instance[:, :32] = -100.0
        weights, _ = attention.weights(tokens, instance)
    assert weights.shape == (3, 2, 64, 64) and float(weights[..., :32].max()) < 1e-6
    torch.testing.assert_close(weights[..., 32:], even[..., 32:] / even[..., 32:].sum(3, keepdim=True))


def test_salient_is_what_the_border_is_not() -> None:
    images = torch.full((2, 3, 32, 32), 0.2)
    images[0, :, 8:16, 16:24] = torch.tensor([0.9, 0.1, 0.5])[:, None, None]
    where = prior(images, (4, 4))
    assert float(where[0, 1, 2]) == pytest.approx(1) and float(where.sum()) == pytest.approx(1)  # nothing in the other


def test_the_outer_gradient_passes_through_the_inner_loop() -> None:
    """It is that of the query loss by what the inner loop begins with; the first order leaves a part of it out."""
    detector = built(image_size=(16, 16), channels=1, width=4, code=3, shots=2, inner_steps=2, inner_rate=0.5).double()
    images = tensor(rings(2)).double()
    generator = torch.Generator().manual_seed(0)
    views = zip(*(detector.augment(image, generator) for image in images), strict=True)
    batch = Batch(images, torch.arange(2), views=tuple(torch.stack(view).double() for view in views))
    parameters = list(detector.network.parameters())
    directions = [torch.randn_like(p) for p in parameters]

    def total() -> Tensor:
        return torch.stack([*detector.outer_loss(batch).values()]).sum()

    def moved(by: float) -> float:
        with torch.no_grad():
            for p, direction in zip(parameters, directions, strict=True):
                p += by * direction
        return float(total().detach())

    def along() -> float:
        slopes = torch.autograd.grad(total(), parameters)
        return sum(float((s * d).sum()) for s, d in zip(slopes, directions, strict=True))

    exact = along()
    detector.first_order = True
    left_out = along()
    step = 1e-6
    measured = (moved(step) - moved(-2 * step)) / (2 * step)
    assert exact == pytest.approx(measured, rel=1e-3)
    assert abs(left_out - measured) > 1e-2 * abs(measured)


def after_adapting(detector: Metaformer, steps: int) -> float:
    """The copies' mean loss on unseen rings after so many steps on five others."""
    own = dict(detector.network.named_parameters())
    detector.inner_steps, found = steps, []
    for seed in range(4):
        images = tensor(rings(25, seed=seed))
        adapted = detector.adapted(own, images[:5])
        with torch.no_grad():
            found.append(float(detector.losses(adapted, images[5:])["copies"]))
    return sum(found) / len(found)


@pytest.mark.slow
def test_what_it_begins_with_is_learnt_for_being_adapted() -> None:
    """After a few steps on five rings, what learnt on crosses by MAML copies rings better than what has just learnt to
    copy crosses as often, though before these steps it is no better; and both than what has learnt nothing."""
    auxiliary = AuxiliaryImages(list(crosses(256)), Preprocess("L", (SIDE, SIDE)))
    small = {"image_size": (SIDE, SIDE), "channels": 1, "width": 8, "code": 8, "tasks": 2, "meta_epochs": 1}
    found = {}
    for inner_steps in (3, 0):
        detector = built(**small, inner_steps=inner_steps, inner_rate=1.0, first_order=True)
        meta, _ = detector.phases()
        detector.phases = lambda meta=meta: iter([meta])  # type: ignore[assignment, misc]
        run_phases(detector, source(rings(90)), device="cpu", auxiliary=auxiliary)
        found[inner_steps] = after_adapting(detector, 0), after_adapting(detector, 3)
    assert found[3][1] < 0.98 * found[0][1] and found[3][0] > found[3][1] + 0.05
    assert found[0][1] < 0.9 * after_adapting(built(**small, inner_rate=1.0), 3)


def test_tasks_are_views_of_other_pictures() -> None:
    detector = built(image_size=(16, 16), channels=1, width=4, code=3, shots=3)
    meta, adaptation = detector.phases()
    assert isinstance(meta, Train) and isinstance(adaptation, Train) and meta.augment is not None
    image, generator = tensor(rings(1))[0], torch.Generator().manual_seed(0)
    picture, drawn = meta.augment(image, generator)
    batch = Batch(image[None], torch.zeros(1, dtype=torch.int64), views=(picture[None], drawn[None]))
    support, query = detector.tasks_of(batch)
    assert support.shape == query.shape == (1, 3, 1, 16, 16) and not torch.equal(support, query)
    batch.images = torch.rand_like(batch.images)
    assert torch.equal(detector.tasks_of(batch)[0], support), "an OK image is in no task"
    batch.auxiliary = tensor(crosses(1))
    assert not torch.allclose(detector.tasks_of(batch)[0], support)


def test_adapted_to_rings_it_looks_at_them_and_finds_crosses() -> None:
    unseen, odd = tensor(rings(60, seed=1)), tensor(crosses(60))
    images, labels = torch.cat([unseen, odd]), [0] * 60 + [1] * 60
    detector = built(
        image_size=(SIDE, SIDE), channels=1, width=8, code=8, shots=2, inner_steps=1, first_order=True,
        prior_weight=1.0, meta_epochs=1, tasks=8, epochs=10, batch_size=8, learning_rate=4e-3,
    )  # fmt: skip
    with torch.no_grad():
        before = auroc(labels, detector(images).image.numpy())
    run_phases(detector, source(rings(96)), device="cpu")
    network = detector.network
    with torch.no_grad():
        after = auroc(labels, detector(images).image.numpy())
        features = network.down(unseen)  # (60, 8, 8, 8)
        instance = network.attention.instance(features).flatten(1)  # (60, 64)
        tokens = features.flatten(2).transpose(1, 2) + network.attention.places
        weights, _ = network.attention.weights(tokens, instance)  # (60, heads, 64, 64)
    bright = torch.nn.functional.avg_pool2d(unseen, 2).flatten(1)  # (60, 64)
    ring, ground = bright > 0.4, bright < 0.02
    where, mass = instance.sigmoid(), weights.mean((1, 2))  # (60, 64) each
    assert float(where[ring].mean()) > float(where[ground].mean()) + 0.2
    assert float(mass[ring].mean()) > 1.5 * float(mass[ground].mean())
    assert after > max(0.85, before + 0.05)


@pytest.mark.parametrize("arguments", [{"heads": 3}, {"shots": 0}, {"inner_steps": -1}, {"prior_weight": -1.0}])
def test_ranges(arguments: dict[str, object]) -> None:
    with pytest.raises(OkngError, match=f"metaformer: .*{next(iter(arguments))}"):
        create("metaformer", **arguments)
