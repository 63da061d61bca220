"""Near copies are found among images of any set, and images that are only alike are not."""

from __future__ import annotations

import errno
import io
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter
from tests.contract.conftest import pictures

from okng.errors import OkngError
from okng.inspection.reading.files import find_images
from okng.inspection.reading.images import Preprocess
from okng.training.images import copies
from okng.training.images.copies import _prepared, joined, labelled, near_copies, near_pairs, numbered, thumbnail


def scenes(count: int, seed: int = 0, side: int = 160) -> list[np.ndarray]:
    """uint8 (side, side, 1): parts alike in shape and light, each with a surface of its own."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] / side
    part = 90.0 + 80 * ((x - 0.5) ** 2 + (y - 0.5) ** 2 < 0.12)
    made = []
    for _ in range(count):
        coarse = Image.fromarray(rng.normal(0, 12, (10, 10)).astype(np.float32)).resize((side, side))
        made.append(np.clip(part + np.asarray(coarse), 0, 255).astype(np.uint8)[..., None])
    return made


def again(image: np.ndarray, kind: str, rng: np.random.Generator) -> np.ndarray:
    """The same scene once more, uint8 (h, w, 1)."""
    grey = image[..., 0]
    if kind == "noise":
        grey = np.clip(grey + rng.normal(0, 3, grey.shape), 0, 255).astype(np.uint8)
    if kind == "light":
        grey = np.clip(grey * rng.choice([0.98, 1.02]), 0, 255).astype(np.uint8)
    if kind == "shift":
        grey = np.roll(grey, rng.choice([-1, 1], 2), (0, 1))
    if kind == "jpeg":
        file = io.BytesIO()
        Image.fromarray(grey).save(file, "JPEG", quality=80)
        grey = np.asarray(Image.open(file))
    if kind == "size":
        grey = np.asarray(Image.fromarray(grey).resize((80, 80)))
    return np.asarray(grey)[..., None]


def groups_of(images: list[np.ndarray] | np.ndarray) -> np.ndarray:
    return near_copies(np.stack([thumbnail(image) for image in images]))


@pytest.mark.parametrize("kind", ["noise", "light", "shift", "jpeg", "size", "same"])
@pytest.mark.parametrize("others", [0, 30])
def test_frames_of_one_scene_are_together_and_other_scenes_apart(kind: str, others: int) -> None:
    rng = np.random.default_rng(1)
    images = scenes(10 + others)
    frames = [again(image, kind, rng) if i else image for image in images[:10] for i in range(4)]
    groups = groups_of([*frames, *images[10:]])
    expected = [*np.repeat(np.arange(10), 4), *range(10, 10 + others)]
    assert groups.tolist() == expected


def test_colours_count_by_how_light_they_are() -> None:
    """All three, as luma weighs them: a scene in green is none in blue, nor black."""
    for channel, weight in enumerate((0.299, 0.587, 0.114)):
        pixels = np.zeros((40, 40, 3), np.uint8)
        pixels[..., channel] = 200
        np.testing.assert_allclose(thumbnail(pixels), np.full((32, 32), 200 * weight), atol=1)


def test_images_that_are_only_alike_are_no_copies() -> None:
    """A difference hash of 64 bits calls nearly all of these copies of each other."""
    for images in (pictures(40, seed=1), scenes(40), scenes(5), np.zeros((2, 20, 20, 1), np.uint8)):
        assert groups_of(images).tolist() == list(range(len(images)))


def test_beside_a_foreign_image_the_parts_are_no_copies_of_each_other() -> None:
    """Against a black image all the others are alike."""
    images = pictures(24, seed=1)
    images[3] = 0
    assert len(set(groups_of(images))) == 24


def test_of_many_images_those_that_may_be_close_are_found_without_missing_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Block by block, from a file too: the same pairs as of all at once, and most of the others are not looked at."""
    rng = np.random.default_rng(2)
    images = scenes(90, seed=3)
    kinds = ("noise", "light", "shift")
    frames = [*images, *(again(image, kind, rng) for image in images[:9] for kind in kinds), np.zeros((40, 40, 1))]
    thumbnails = np.stack([thumbnail(frame.astype(np.uint8)) for frame in frames])
    expected = near_pairs(thumbnails)
    monkeypatch.setattr(copies, "AT_ONCE", 32)
    monkeypatch.setattr(copies, "IN_MEMORY", 9 * 4096)
    kept, order = copies.Thumbnails(len(frames)), rng.permutation(len(frames))
    for place in order:
        kept.put(place, thumbnails[place])
    assert kept._file._rolled and np.array_equal(kept.get(order), thumbnails[order])
    looked_at = copies._perhaps_close(thumbnails)
    assert set(expected[0]) <= set(looked_at) and len(looked_at) < 60 < len(frames)
    found = near_pairs(copies.Chosen(kept, np.arange(len(frames))))
    assert len(expected[0]) > 90 and {*zip(*found, strict=True)} == {*zip(*expected, strict=True)}


def test_a_disk_that_is_full_when_thumbnails_are_read_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last of them are only then written."""
    monkeypatch.setattr(copies, "IN_MEMORY", 0)
    kept = copies.Thumbnails(3)
    kept.put(0, np.zeros((32, 32), np.float32))
    full = patch.object(kept._file, "seek", side_effect=OSError(errno.ENOSPC, "No space left on device"))
    with full, pytest.raises(OkngError, match=r"no room for .* GB of thumbnails \(No space left.*set TMPDIR"):
        kept.get(np.array([0]))


def test_points_are_smoothed_thumbnails_and_tangents_lie_across_them() -> None:
    thumbnails = np.random.default_rng(0).uniform(0, 255, (3, 32, 32)).astype(np.float32)
    thumbnails[2] = 7
    points, tangents = _prepared(thumbnails)  # (3, 784), (2, 3, 784)
    smooth = gaussian_filter(thumbnails, (0, 1, 1), mode="nearest", truncate=4)[:, 2:-2, 2:-2].reshape(3, -1)
    centred = smooth - smooth.mean(1, keepdims=True)
    expected = centred[:2] / np.linalg.norm(centred[:2], axis=1, keepdims=True)
    np.testing.assert_allclose(points[:2], expected, atol=1e-5)
    assert not points[2].any() and not tangents[:, 2].any()  # flat
    across = np.stack([np.ones_like(points) / 28, points, *tangents])[:, :2]  # (4, 2, 784)
    np.testing.assert_allclose(np.einsum("anp,bnp->nab", across, across), np.stack([np.eye(4)] * 2), atol=1e-4)


def test_labels_are_numbered_as_they_come() -> None:
    assert numbered(["b", "a", "b", None]).tolist() == [0, 1, 0, 2]


def test_group_by() -> None:
    paths = [Path("a/lot1/x.png"), Path("b/lot1/y.png"), Path("a/lot2/x.png"), Path("a/new.png"), Path("b/new.png")]

    def found(group_by: object) -> list[int]:
        label = labelled(paths, group_by)  # type: ignore[arg-type]
        return numbered([label(path) for path in paths]).tolist()

    assert found(r"lot\d+") == found(r"/lot(\d+)/") == [0, 0, 1, 2, 3]
    assert found(r"^([ab])/.*(lot\d)") == [0, 1, 2, 3, 4]
    assert found(lambda path: path.name) == [0, 1, 0, 2, 2]
    assert found(["A", "A", "B", "B", "B"]) == [0, 0, 1, 1, 1]
    for group_by, words in [("shift", "matches no path"), ("lot(", "no regular expression"), (["A"], "1 labels")]:
        with pytest.raises(OkngError, match=words):
            labelled(paths, group_by)
    with pytest.raises(OkngError, match="pattern on paths"):
        labelled([np.zeros((8, 8), np.uint8)], "lot")


@pytest.mark.real_data
def test_real_parts_of_one_kind_are_no_copies(okng_data: Path) -> None:
    files = find_images(okng_data / "mvtec_ad/transistor/train/good")
    assert len(set(groups_of([Preprocess("L", 256).load(file)[0] for file in files]))) == len(files)


@pytest.mark.real_data
def test_the_same_tile_under_several_exposures_is_found(okng_data: Path) -> None:
    """exp1_num_824, exp2_num_834 and exp4_num_889 are one tile."""
    files = find_images(okng_data / "magnetic_tile/train/good")
    groups = groups_of([Preprocess("L", 256).load(file)[0] for file in files])
    of = {file.stem: group for file, group in zip(files, groups, strict=True)}
    assert len({of[f"exp{name}"] for name in ("1_num_824", "2_num_834", "4_num_889")}) == 1
    sizes = np.bincount(groups)
    assert sizes[sizes > 1].sum() > 300 and sizes.max() < 20  # of 761, in no more than a few exposures each


def test_links_are_of_the_numbers_that_every_scipy_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """SciPy 1.11 printed a line about longer ones, and made one group of all images."""
    taken: list[np.dtype] = []
    connected = copies.connected_components

    def noted(links: Any, directed: bool) -> Any:
        taken.extend((links.row.dtype, links.col.dtype))
        return connected(links, directed=directed)

    monkeypatch.setattr(copies, "connected_components", noted)
    assert joined(5, np.array([3, 1]), np.array([1, 4])).tolist() == [0, 1, 2, 1, 1]
    assert set(taken) == {np.dtype(np.int32)}
