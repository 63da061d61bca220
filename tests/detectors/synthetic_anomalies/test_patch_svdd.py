"""What tells Patch SVDD from a toy: patches of two sizes, codes that know where a neighbour lies, exact neighbours."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from okng.detectors.base import Batch, Collect, Train
from okng.detectors.catalogue import create
from okng.detectors.synthetic_anomalies.patch_svdd import DIRECTIONS, PatchSVDD, cut, near_pairs, position_pairs
from okng.errors import OkngError
from okng.inspection.reading.images import Preprocess
from okng.training.images.data import TrainingImages
from okng.training.loop.phases import run_phases

SIDE = 64
SMALL = {"image_size": (SIDE, SIDE), "patch": 32, "code": 16, "svdd_weight": 0.1, "learning_rate": 2e-3}


def built(**arguments: object) -> PatchSVDD:
    torch.manual_seed(0)
    detector = create("patch_svdd", **{**SMALL, **arguments})
    assert isinstance(detector, PatchSVDD)
    return detector


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def slopes(count: int, seed: int) -> np.ndarray:
    """uint8 (count, SIDE, SIDE, 3): red grows to the right, green downwards, and a little differs each time."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    ground = np.stack([x, y, 0.5 + 0 * x], axis=2)  # (SIDE, SIDE, 3)
    made = 30 + 180 * ground + rng.uniform(-10, 10, (count, 1, 1, 3)) + rng.normal(0, 3, (count, SIDE, SIDE, 3))
    return np.clip(made, 0, 255).astype(np.uint8)


def noise(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (count, SIDE, SIDE, 3), np.uint8)


def as_tensor(images: np.ndarray) -> Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255


def fitted(images: np.ndarray, **arguments: object) -> PatchSVDD:
    detector = built(**arguments)
    detector.phases = lambda: without_mean(detector)  # type: ignore[method-assign]
    run_phases(detector, TrainingImages(list(images), Preprocess("RGB", (SIDE, SIDE))), device="cpu")
    return detector


def without_mean(detector: PatchSVDD):  # type: ignore[no-untyped-def]
    """Phases but for the mean image: the slopes that it takes away are what tells the directions."""
    return (phase for phase in PatchSVDD.phases(detector) if phase.name != "mean image")


@pytest.fixture(scope="module")
def trained() -> PatchSVDD:
    return fitted(slopes(16, seed=1), epochs=20, samples=4, learning_rate=4e-3)


def accuracies(detector: PatchSVDD, images: np.ndarray) -> list[float]:
    """The share of right directions, of coarse pairs and of fine ones."""
    detector.samples = 40
    views = [detector.augment(image, seeded(i)) for i, image in enumerate(as_tensor(images))]
    found = []
    for at, encode, position in (
        (0, detector.coarse_codes, detector.coarse_position),
        (3, detector.fine_codes, detector.fine_position),
    ):
        pairs = torch.cat([view[at] for view in views], dim=1)  # (2, N, C, K, K)
        directions = torch.cat([view[at + 1] for view in views])  # (N,)
        with torch.no_grad():
            said = position(encode(pairs[0]), encode(pairs[1])).argmax(1)
        found.append(float((said == directions).float().mean()))
    return found


def test_codes_tell_where_a_neighbour_lies_if_there_is_anything_to_tell_by(trained: PatchSVDD) -> None:
    assert min(accuracies(trained, slopes(8, seed=2))) > 0.5
    assert max(accuracies(fitted(noise(8, seed=1), epochs=3, samples=20), noise(8, seed=2))) < 0.25  # chance: 1 in 8


def test_a_direction_is_that_of_the_second_patch() -> None:
    places, directions = position_pairs((200, 300), 32, 500, seeded())
    first, second = places
    assert places.shape == (2, 500, 2) and set(directions.tolist()) == set(range(8))
    assert (places >= 0).all() and (second <= torch.tensor([168, 268])).all()
    free = ((second > 0) & (second < torch.tensor([168, 268]))).all(1)
    assert free.float().mean() > 0.6
    moved = (second - first)[free]
    assert torch.equal(moved.sign(), DIRECTIONS[directions[free]])
    far = moved.abs()[moved != 0]
    assert int(far.min()) == 24 and int(far.max()) == 31


@pytest.mark.parametrize(("side", "most"), [(64, 2), (32, 1), (8, 1)])
def test_a_near_patch_is_moved_but_hardly(side: int, most: int) -> None:
    first, second = near_pairs((200, 300), side, 500, seeded())
    moved = (second - first).abs()
    assert int(moved.max()) == most and (moved.sum(1) > 0).float().mean() > 0.95  # 0 only at the border


def test_patches_are_cut_where_they_begin() -> None:
    image = torch.arange(3.0 * 20 * 30).view(3, 20, 30)
    patches = cut(image, torch.tensor([[[0, 0], [5, 7]], [[12, 22], [1, 2]]]), 8)
    assert patches.shape == (2, 2, 3, 8, 8)
    assert torch.equal(patches[0, 1], image[:, 5:13, 7:15]) and torch.equal(patches[1, 0], image[:, 12:, 22:])


@pytest.mark.parametrize("patch", [16, 32, 64])
def test_one_pass_codes_every_patch_as_if_it_were_alone(patch: int) -> None:
    detector = built(patch=patch, image_size=(80, 96))
    image = torch.rand(1, 3, 80, 96)
    with torch.no_grad():
        maps = detector.codes(image)
        for codes, side, stride, encode in (
            (maps[0], detector.coarse, detector.coarse_stride, detector.coarse_codes),
            (maps[1], detector.fine, detector.fine_stride, detector.fine_codes),
        ):
            rows, columns = codes.shape[2:]
            assert ((rows - 1) * stride + side, (columns - 1) * stride + side) == (80, 96)
            for y, x in ((0, 0), (1, 2), (rows - 1, columns - 1)):
                alone = encode(image[:, :, y * stride : y * stride + side, x * stride : x * stride + side])
                torch.testing.assert_close(codes[0, :, y, x], alone[0], rtol=1e-4, atol=1e-5)


def test_a_pixel_has_the_mean_of_the_patches_that_cover_it() -> None:
    distances = torch.rand(2, 3, 4)
    spread = PatchSVDD.spread(distances, 8, 4)
    assert spread.shape == (2, 16, 20)
    total, count = torch.zeros(2, 16, 20), torch.zeros(16, 20)
    for y in range(3):
        for x in range(4):
            total[:, 4 * y : 4 * y + 8, 4 * x : 4 * x + 8] += distances[:, y, x, None, None]
            count[4 * y : 4 * y + 8, 4 * x : 4 * x + 8] += 1
    torch.testing.assert_close(spread, total / count)


def test_a_learnt_image_is_not_odd_and_a_spoilt_one_is_where_it_is(trained: PatchSVDD) -> None:
    learnt, spoilt = as_tensor(slopes(16, seed=1))[:2], as_tensor(slopes(4, seed=3))
    spoilt[:, :, 28:44, 20:36] = spoilt[:, :, 4:20, 44:60]  # a piece of elsewhere
    with torch.no_grad():
        known, odd = trained(learnt), trained(spoilt)
        unseen = trained(as_tensor(slopes(4, seed=4))).image
    assert known.map is not None and odd.map is not None and float(known.map.max()) < 0.01 * float(unseen.min())
    assert float(odd.image.mean()) > float(unseen.max())
    inside, below = odd.map[:, 28:44, 20:36].mean((1, 2)), odd.map[:, :, 56:].mean((1, 2))
    assert (inside > odd.map.mean((1, 2))).all() and (inside > 1.5 * below).all()


def test_a_coreset_keeps_a_share() -> None:
    images = TrainingImages(list(slopes(4, seed=1)), Preprocess("RGB", (SIDE, SIDE)))
    for share in (1.0, 0.1):
        detector = built(epochs=1, samples=4, coreset=share)
        run_phases(detector, images, device="cpu")
        assert len(detector.fine_bank) == round(share * 4 * 25 * 25) and len(detector.coarse_bank) == round(share * 100)
    expected = torch.stack([images[i] for i in range(4)]).float().mean(0) / 255
    torch.testing.assert_close(detector.average, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("size", [(33, 47), (64, 40), (32, 32)])
def test_every_size(size: tuple[int, int]) -> None:
    detector = built(image_size=size, epochs=1, samples=4, batch_size=2)
    images = np.random.default_rng(0).integers(0, 255, (3, *size, 3), np.uint8)
    run_phases(detector, TrainingImages(list(images), Preprocess("RGB", size)), device="cpu")
    with torch.no_grad():
        scores = detector(as_tensor(images))
    assert scores.map is not None and scores.map.shape == (3, *size) and scores.map.isfinite().all()


def test_the_losses() -> None:
    detector = built(svdd_weight=0.5)
    views = [
        torch.stack(parts)
        for parts in zip(*(detector.augment(torch.rand(3, SIDE, SIDE), seeded(i)) for i in (0, 1)), strict=True)
    ]
    losses = detector.loss(Batch(torch.zeros(2, 3, SIDE, SIDE), torch.arange(2), views=tuple(views)))
    near = views[5].transpose(0, 1).flatten(1, 2)  # (2, B*R, C, K, K)
    distance = (detector.fine_codes(near[0]) - detector.fine_codes(near[1])).norm(dim=1).mean()
    torch.testing.assert_close(losses["fine svdd"], 0.5 * distance)
    apart = views[0].transpose(0, 1).flatten(1, 2)
    logits = detector.coarse_position(detector.coarse_codes(apart[0]), detector.coarse_codes(apart[1]))
    told = -logits.log_softmax(1).gather(1, views[1].flatten()[:, None]).mean()
    torch.testing.assert_close(losses["coarse position"], told)
    assert set(losses) == {"coarse position", "coarse svdd", "fine position", "fine svdd"}


def test_paper_size() -> None:
    """Patches of 64 and 32 px, eight layers, 64 numbers; Adam at 1e-4; 13 × 13 and 57 × 57 patches of 256 px."""
    detector = PatchSVDD()
    layers = [layer for layer in detector.encoder if isinstance(layer, torch.nn.Conv2d)]
    assert [layer.out_channels for layer in layers] == [32, 64, 128, 128, 64, 32, 32, 64]
    with torch.no_grad():
        coarse, fine = detector.codes(torch.rand(1, 3, 256, 256))
    assert coarse.shape == (1, 64, 13, 13) and fine.shape == (1, 64, 57, 57)
    mean, codes, memory = detector.phases()
    assert isinstance(mean, Collect) and isinstance(memory, Collect) and isinstance(codes, Train)
    assert codes.epochs * detector.samples == 300 * 100 and codes.batch_size * detector.samples == 64
    assert codes.updates[0].optimizer.param_groups[0]["lr"] == 1e-4


@pytest.mark.parametrize("arguments", [{"patch": 48}, {"coreset": 0.0}, {"coreset": 1.5}, {"image_size": (31, 64)}])
def test_ranges(arguments: dict[str, object]) -> None:
    with pytest.raises(OkngError, match=f"patch_svdd: .*{next(iter(arguments))}"):
        create("patch_svdd", **{**SMALL, **arguments})
