"""What tells GLASS from a toy: near anomalies that climb the loss within a shell, far ones of textures, hard cells."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tests.detectors.scenes import discs, in_colour
from torch import Tensor

from okng.detectors.base import Batch, Collect, Train
from okng.detectors.catalogue import create
from okng.detectors.synthetic_anomalies.glass import GLASS, hardest, is_sphere, within
from okng.errors import OkngError
from okng.inspection.reading.images import Preprocess
from okng.nn.learning.focal import focal_loss
from okng.training.images.data import TrainingImages
from okng.training.loop.phases import run_phases


def built(**arguments: object) -> GLASS:
    torch.manual_seed(0)
    small = {"image_size": (64, 64), "hidden": 32, "noise": 1.0, "ascent": 0.1, "shell": (10.5, 21.0), "batch_size": 4}
    rates = {"steps": 5, "epochs": 15, "learning_rate": 1e-3, "discriminator_rate": 2e-3}
    detector = create("glass", **{**small, **rates, **arguments})
    assert isinstance(detector, GLASS)
    return detector


@pytest.fixture(scope="module")
def fitted() -> GLASS:
    detector = built()
    run_phases(detector, TrainingImages(list(discs(12)), Preprocess("RGB", (64, 64), 16)), device="cpu")
    return detector


def batch_of(detector: GLASS, images: Tensor) -> Batch:
    collect, phase = detector.phases()
    assert isinstance(collect, Collect) and isinstance(phase, Train) and phase.prepare is not None
    with torch.no_grad():
        batch = Batch(images, torch.arange(len(images)), (phase.prepare(images),))  # type: ignore[arg-type]
        collect.visit(batch)
        collect.finish()
    drawn = [detector.augment(image, torch.Generator().manual_seed(i)) for i, image in enumerate(images)]
    batch.views = tuple(map(torch.stack, zip(*drawn, strict=True)))
    return batch


def test_it_finds_what_is_odd_and_where(fitted: GLASS) -> None:
    images = discs(4, seed=2)
    spoilt = images.copy()
    spoilt[:, 24:36, 24:36] = [20, 20, 230]
    with torch.no_grad():
        normal, odd = fitted(in_colour(images)), fitted(in_colour(spoilt))
    assert odd.image.min() > normal.image.max() and odd.map is not None
    for drawn in odd.map:
        y, x = divmod(int(drawn.argmax()), 8)
        assert 2 <= y <= 5 and 2 <= x <= 5


def test_climbing_raises_the_loss_of_what_has_to_be_found(fitted: GLASS) -> None:
    with torch.no_grad():
        ok = fitted.projection(fitted.patches(in_colour(discs(4, seed=1))).flatten(0, 2))
    found = []
    for steps in (0, 4):  # none brings them back into the shell
        torch.manual_seed(0)
        fitted.steps = steps
        near = fitted.climbed(ok, ok, *fitted.shell)
        with torch.no_grad():
            found.append(float(F.softplus(-fitted.discriminator(near)).mean()))
        if not steps:
            start = near
    fitted.steps = 5
    assert found[1] > 1.02 * found[0]
    assert float((near - start).norm(dim=1).max()) <= 4 * fitted.ascent * 1.001


def test_lengths_are_brought_into_the_shell_and_directions_kept() -> None:
    offsets = torch.tensor([[3.0, 4], [0.3, 0.4], [30, 40]])
    torch.testing.assert_close(within(offsets, 2, 10), torch.tensor([[3.0, 4], [1.2, 1.6], [6, 8]]))
    assert within(torch.zeros(1, 2), 2, 10).isfinite().all()


@pytest.mark.parametrize("hypothesis", ["manifold", "hypersphere"])
def test_near_anomalies_lie_in_the_shell_and_far_ones_beyond_it(hypothesis: str) -> None:
    detector = built(hypothesis=hypothesis, weights="none", noise=0.01, shell=(0.5, 1.0))
    batch = batch_of(detector, in_colour(discs(3)))
    shown: list[Tensor] = []
    detector.discriminator.register_forward_pre_hook(lambda _, given: shown.append(given[0].detach()))
    detector.loss(batch)
    ok, near = shown[-2].chunk(2)
    far = shown[-1]
    with torch.no_grad():
        centre = detector.projection(detector.centre.flatten(0, 1)).repeat(3, 1)
        plain = detector.projection(detector.patches(detector.spoilt(batch)).flatten(0, 2))
    odd = F.max_pool2d(batch.views[0].float(), 8).flatten() > 0
    if hypothesis == "manifold":
        lengths = (near - ok).norm(dim=1)
        assert float(lengths.min()) > 0.499 and float(lengths.max()) < 1.001
        torch.testing.assert_close(far, plain)
    else:
        r = float(torch.cat([(plain - centre)[~odd], ok - centre]).norm(dim=1).quantile(0.75))
        lengths, beyond = (near - centre).norm(dim=1), (far - centre).norm(dim=1)
        assert float(lengths.min()) > 0.999 * r and float(lengths.max()) < 2.001 * r
        assert float(beyond[odd].min()) > 1.999 * r and float(beyond[odd].max()) < 4.001 * r
        torch.testing.assert_close(far[~odd], plain[~odd])
    assert bool(detector.sphere) == (hypothesis == "hypersphere")
    assert all(parameter.grad is None for parameter in detector.backbone.parameters())


def test_the_centre_is_the_mean_projected_patch() -> None:
    detector, images = built(weights="none"), in_colour(discs(3))
    batch_of(detector, images)
    with torch.no_grad():
        wanted = detector.projection(detector.patches(images)).mean(0)
        torch.testing.assert_close(detector.projection(detector.centre), wanted, rtol=1e-4, atol=1e-5)


def test_textures_lie_in_blots_that_are_never_empty_and_the_image_shines_through() -> None:
    detector, image = built(weights="none"), in_colour(discs(1))[0]
    for seed in range(20):
        mask, _, through = detector.augment(image, torch.Generator().manual_seed(seed))
        assert mask.any() and 0.2 <= float(through) <= 0.8
    mask, texture, _ = detector.augment(image, torch.Generator().manual_seed(0))
    for share in (0.3, 1.0):
        views = (mask[None], texture[None], torch.full((1, 1, 1, 1), share))
        made = detector.spoilt(Batch(image[None], torch.arange(1), views=views))[0]
        wanted = torch.where(mask, share * image + (1 - share) * texture, image)
        torch.testing.assert_close(made, wanted)
    auxiliary = torch.full((1, 3, 64, 64), 0.5)
    batch = Batch(image[None], torch.arange(1), views=(mask[None], texture[None], torch.zeros(1, 1, 1, 1)))
    batch.auxiliary = auxiliary
    torch.manual_seed(0)
    made = detector.spoilt(batch)[0]
    assert torch.equal(made[:, ~mask[0]], image[:, ~mask[0]])
    assert not torch.equal(made[:, mask[0]], texture[:, mask[0]])


def test_the_harder_half_of_the_cells_counts() -> None:
    told, odd = torch.tensor([5.0, -1, 0.5, -4, 2]), torch.tensor([True, False, False, False, True])
    hard = torch.tensor([1, 2, 4])  # squared errors .07, .39, .01; the least are those of the first and the fourth
    torch.testing.assert_close(hardest(told, odd), focal_loss(told[hard], odd[hard], 2).mean())


def test_an_object_is_a_sphere_and_an_even_texture_is_none() -> None:
    y, x = np.mgrid[:200, :200]
    disc = torch.from_numpy((np.hypot(y - 100, x - 100) < 60).astype(np.float32)).expand(3, -1, -1)
    assert is_sphere(disc)
    for even in (torch.full((3, 200, 200), 0.6), torch.zeros(3, 200, 200)):
        assert not is_sphere(even)
    noise = 0.5 + 0.05 * torch.randn(3, 200, 200, generator=torch.Generator().manual_seed(0))
    assert not is_sphere(noise)


def test_the_papers_training() -> None:
    detector = GLASS(weights="none")
    _, phase = detector.phases()
    assert isinstance(phase, Train) and (phase.epochs, phase.batch_size, detector.steps) == (640, 8, 20)
    groups = phase.updates[0].optimizer.param_groups
    assert [(group["lr"], group["weight_decay"]) for group in groups] == [(1e-4, 1e-5), (2e-4, 1e-2)]


@pytest.mark.parametrize("arguments", [{"noise": 0.0}, {"shell": (2.0, 1.0)}, {"neighbourhood": 2}, {"steps": -1}])
def test_ranges(arguments: dict[str, object]) -> None:
    with pytest.raises(OkngError, match="glass: "):
        built(weights="none", **arguments)
