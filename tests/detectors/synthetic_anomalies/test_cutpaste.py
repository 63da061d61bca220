"""What tells CutPaste from a toy: what is pasted is a piece of the image, it is told in unseen ones, and a density."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from okng.detectors.base import Batch, Collect, Train
from okng.detectors.catalogue import create
from okng.detectors.synthetic_anomalies.cutpaste import CutPaste, cut_paste, jittered, pasted, scar
from okng.errors import OkngError
from okng.inspection.reading.images import Preprocess
from okng.training.images.data import TrainingImages
from okng.training.loop.phases import run_phases

SIDE = 64


def built(**arguments: object) -> CutPaste:
    torch.manual_seed(0)
    detector = create("cutpaste", **{"backbone": "test_resnet", **arguments})
    assert isinstance(detector, CutPaste)
    return detector


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def scenes(count: int, seed: int) -> np.ndarray:
    """uint8 (count, SIDE, SIDE, 3): a disc on a slope, a little different each time."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE]
    made = []
    for _ in range(count):
        disc = (x - 32 + rng.uniform(-3, 3)) ** 2 + (y - 32 + rng.uniform(-3, 3)) ** 2 < 18**2
        image = np.where(disc, 190, 60 + 1.5 * x)[..., None] * np.array([1, 0.9, 0.7])
        made.append(image + rng.normal(0, 3, image.shape))
    return np.clip(made, 0, 255).astype(np.uint8)


def as_tensor(images: np.ndarray) -> Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255


def box(changed: Tensor) -> tuple[int, int]:
    """Height and width of the smallest box around what is true in (H, W)."""
    rows, columns = changed.any(1).nonzero(), changed.any(0).nonzero()
    return int(rows.max() - rows.min()) + 1, int(columns.max() - columns.min()) + 1


def test_a_rectangle_covers_two_to_fifteen_percent_and_nothing_else_changes() -> None:
    generator = seeded()
    image = torch.rand(3, 100, 140, generator=generator)
    shares, ratios = [], []
    for _ in range(300):
        changed = (cut_paste(image, generator) != image).any(0)  # (H, W)
        h, w = box(changed)
        assert changed.float().sum() > 0.98 * h * w  # a rectangle: noise seldom meets its like
        shares.append(h * w / (100 * 140))
        ratios.append((h / 100) / (w / 140))
    assert 0.018 < min(shares) < 0.03 and 0.13 < max(shares) < 0.155
    assert 0.27 < min(ratios) < 0.4 and 2.5 < max(ratios) < 3.7
    assert 0.4 < np.mean(np.array(ratios) < 1) < 0.6  # as many upright as lying


@pytest.mark.parametrize("side", [256, 64])
def test_a_scar_is_thin_turned_and_within_the_image(side: int) -> None:
    generator, scale = seeded(), side / 256
    image = torch.rand(3, side, side, generator=generator)
    areas, filled = [], []
    for _ in range(200):
        made = scar(image, generator)
        changed = (made != image).any(0)
        h, w = box(changed)
        assert made.shape == image.shape and max(h, w) <= 30 * scale + 2
        areas.append(float(changed.sum()) / scale**2)
        filled.append(float(changed.sum()) / (h * w))
    assert min(areas) > 10 and max(areas) < 1.3 * 16 * 25 and np.mean(np.array(filled) < 0.8) > 0.3


def test_what_is_pasted_is_a_piece_of_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("okng.detectors.synthetic_anomalies.cutpaste.jittered", lambda image, generator: image)
    image = torch.arange(40.0 * 50).view(1, 40, 50)  # no value twice
    for seed in range(20):
        for paste in (cut_paste, scar):
            made = paste(image, seeded(seed))
            assert (made[0] != image[0]).any()
            values = made.unique()
            assert torch.isin(values, image).all() and len(values) < image.numel()


def test_a_piece_may_lie_at_every_edge() -> None:
    image = torch.zeros(1, 6, 5)
    places = [pasted(image, torch.ones(1, 2, 4), seeded(seed))[0] for seed in range(200)]
    assert all(float(made.sum()) == 8 for made in places)
    assert (torch.stack(places).sum(0) > 0).all() and len({tuple(made.flatten().tolist()) for made in places}) == 10


def test_views_are_of_one_image_whose_colours_are_jittered() -> None:
    image = as_tensor(scenes(1, 0))[0]
    for variant, count in (("cutpaste", 2), ("scar", 2), ("3-way", 3)):
        views = built(variant=variant).augment(image, seeded())
        assert len(views) == count and all(view.shape == image.shape for view in views)
        assert not torch.equal(views[0], image) and float((views[0] - image).abs().mean()) < 0.15
        assert torch.equal(views[0], jittered(image, seeded()))
        for view in views[1:]:
            assert 0 < float((view != views[0]).any(0).float().mean()) < 0.16


@pytest.fixture(scope="module")
def trained() -> CutPaste:
    detector = built(variant="cutpaste", epochs=12, batch_size=8)
    images = TrainingImages(list(scenes(48, seed=1)), Preprocess("RGB", (SIDE, SIDE), detector.multiple))
    run_phases(detector, images, device="cpu")
    return detector


def test_it_tells_pasted_images_that_it_never_saw(trained: CutPaste) -> None:
    generator = seeded(5)
    clean = as_tensor(scenes(40, seed=2))
    odd = torch.stack([cut_paste(image, generator) for image in clean])
    images = torch.cat([clean, odd])
    with torch.no_grad():
        said = trained.head(trained.embed(images)).argmax(1)  # (80,)
        scores = trained(images).image
    assert (said == torch.arange(2).repeat_interleave(40)).float().mean() > 0.8
    assert scores[40:].median() > 2 * scores[:40].median()


def test_the_score_is_the_distance_in_the_covariance_of_ok_images(trained: CutPaste) -> None:
    from sklearn.covariance import LedoitWolf

    learnt = as_tensor(scenes(48, seed=1))
    with torch.no_grad():
        vectors, scores = trained.embed(learnt).double().numpy(), trained(learnt).image.numpy()
    expected = np.sqrt(LedoitWolf().fit(vectors).mahalanobis(vectors))
    np.testing.assert_allclose(scores, expected, rtol=1e-2)


def test_the_loss_is_the_cross_entropy_of_each_views_own_class() -> None:
    detector = built()
    views = tuple(torch.full((2, 3, SIDE, SIDE), float(value)) for value in range(3))
    detector.embed = lambda images: images.mean((1, 2, 3))[:, None]  # type: ignore[method-assign]
    detector.head = torch.nn.Sequential()
    detector.head.forward = lambda told: 50 * torch.nn.functional.one_hot(told[:, 0].long(), 3).float()  # type: ignore
    assert float(detector.loss(Batch(torch.zeros(2, 3, SIDE, SIDE), torch.arange(2), views=views))) < 1e-6
    wrong = Batch(torch.zeros(2, 3, SIDE, SIDE), torch.arange(2), views=views[::-1])
    assert float(detector.loss(wrong)) > 30


def test_a_backbone_that_begins_trained_may_wait_for_its_head() -> None:
    detector = built(head_first=2, epochs=1, batch_size=4)
    before = {name: value.clone() for name, value in detector.backbone.state_dict().items()}
    images = TrainingImages(list(scenes(8, seed=1)), Preprocess("RGB", (SIDE, SIDE), detector.multiple))

    def only_the_first() -> list[Train | Collect]:
        return [next(iter(CutPaste.phases(detector)))]  # type: ignore[list-item]

    detector.phases = only_the_first  # type: ignore[method-assign,assignment]
    head = detector.head[-1].weight.clone()
    run_phases(detector, images, device="cpu")
    assert all(torch.equal(value, before[name]) for name, value in detector.backbone.state_dict().items())
    assert not torch.equal(detector.head[-1].weight, head)


PATCHES = {"patch": 32, "patch_step": 8, "variant": "cutpaste"}


def test_patches_say_where(trained_on_patches: CutPaste) -> None:
    """A piece of the disc that was pasted onto the slope, in images it never saw: there the map is highest."""
    clean, odd = as_tensor(scenes(20, seed=2)), as_tensor(scenes(20, seed=2))
    odd[:, :, 4:16, 44:56] = odd[:, :, 26:38, 26:38]
    with torch.no_grad():
        found, usual = trained_on_patches(odd), trained_on_patches(clean)
    assert found.map is not None and found.map.shape == (20, SIDE, SIDE) and usual.map is not None
    torch.testing.assert_close(found.image, found.map.amax((1, 2)))
    risen = (found.map - usual.map).mean(0)
    row, column = divmod(int(risen.argmax()), SIDE)
    assert row < 24 and column > 36 and float(risen[40:, :24].abs().max()) < 0.2 * float(risen.max())
    assert (found.image > usual.image).float().mean() > 0.8


@pytest.fixture(scope="module")
def trained_on_patches() -> CutPaste:
    detector = built(**PATCHES, epochs=8, batch_size=16)
    images = TrainingImages(list(scenes(48, seed=1)), Preprocess("RGB", (SIDE, SIDE), detector.multiple))
    run_phases(detector, images, device="cpu")
    return detector


def test_a_patch_is_judged_as_it_is_alone_and_its_distance_spread_around_its_middle() -> None:
    detector, image = built(**PATCHES), as_tensor(scenes(1, seed=3))
    seen: list[Tensor] = []
    detector.spread = lambda distances: seen.append(distances) or distances  # type: ignore[method-assign,func-returns-value]
    with torch.no_grad():
        detector(image)
        alone = detector.distances(image[:, :, 8:40, 24:56])
    assert seen[0].shape == (1, 5, 5)
    torch.testing.assert_close(seen[0][0, 1, 3], alone[0], rtol=1e-4, atol=1e-5)
    detector = built(**PATCHES)
    torch.testing.assert_close(detector.spread(torch.full((1, 5, 5), 3.0)), torch.full((1, SIDE, SIDE), 3.0))
    one = torch.zeros(1, 5, 5)
    one[0, 2, 2] = 1.0
    spot = detector.spread(one)[0]
    assert (spot > 0).nonzero().amin(0).tolist() == [16, 16] and (spot > 0).nonzero().amax(0).tolist() == [47, 47]
    assert float(spot[31, 31]) > 0.9 * float(spot.max()) > 2 * float(spot[17, 31])


def test_few_patches_pass_through_the_network_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """For the density, and where images are judged."""
    detector, images, counts = built(**PATCHES), as_tensor(scenes(5, seed=3)), []
    embed = CutPaste.embed

    def counted(detector: CutPaste, patches: Tensor) -> Tensor:
        counts.append(len(patches))
        return embed(detector, patches)

    monkeypatch.setattr(CutPaste, "embed", counted)
    *_, density = detector.phases()
    assert isinstance(density, Collect)
    with torch.no_grad():
        density.visit(Batch(images, torch.arange(5)))
        detector(images)
    assert counts == [64, 64, 32, 64, 61]  # 32 of each image, then 25


def test_views_of_patches_are_patches_of_the_image() -> None:
    image = torch.rand(3, 64, 96, generator=seeded())
    views = built(patch=32).augment(image, seeded())
    assert [view.shape for view in views] == 3 * [(3, 32, 32)]
    with pytest.raises(OkngError, match="patch is at most the images' shorter side, 64 px, not 96"):
        built(patch=96).augment(image, seeded())


def test_paper_size() -> None:
    """ResNet-18 with random weights, 512 and 128 units before three classes; SGD at 0.03 and half a cosine."""
    detector = CutPaste()
    assert detector.backbone.channels == [512]
    assert [layer.out_features for layer in detector.head if isinstance(layer, torch.nn.Linear)] == [512, 128, 3]
    telling, density = detector.phases()
    assert isinstance(telling, Train) and isinstance(density, Collect)
    assert (telling.epochs, telling.batch_size) == (256, 32)
    (update,) = telling.updates
    (group,) = update.optimizer.param_groups
    assert (group["lr"], group["momentum"], group["weight_decay"]) == (0.03, 0.9, 3e-5) and update.schedule is not None
    assert [round(update.schedule(share), 3) for share in (0.0, 0.5, 0.999)] == [1, 0.5, 0]


@pytest.mark.parametrize(
    "arguments", [{"head": (0,)}, {"variant": "paste"}, {"head_first": -1}, {"patch": 48}, {"patch_step": 3}]
)
def test_ranges(arguments: dict[str, object]) -> None:
    with pytest.raises(OkngError, match=f"cutpaste: {next(iter(arguments))}"):
        create("cutpaste", **arguments)
