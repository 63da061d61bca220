"""What tells CS-Flow from a toy: one exact flow of three scales that see each other."""

from __future__ import annotations

import pytest
import torch
from tests.detectors.scenes import in_colour, textures
from tests.nn.flows.exactness import assert_flow, disturbed
from torch import Tensor

from okng.detectors.base import Batch, Train
from okng.detectors.catalogue import create
from okng.detectors.normalizing_flow.csflow import CrossScaleBlock, CSFlow, together
from okng.errors import OkngError
from okng.inspection.reading.images import Preprocess
from okng.nn.flows.coupling import Flow
from okng.training.images.data import TrainingImages
from okng.training.loop.phases import run_phases


def built(**arguments: object) -> CSFlow:
    torch.manual_seed(0)
    small = {"stride": 8, "kernels": (3, 3), "hidden": 16, "batch_size": 8, "epochs": 15, "learning_rate": 2e-3}
    detector = create("csflow", **{**small, **arguments})
    assert isinstance(detector, CSFlow)
    return detector


@pytest.fixture(scope="module")
def fitted() -> CSFlow:
    detector = built()
    run_phases(detector, TrainingImages(list(textures(32)), Preprocess("RGB", (64, 64), 32)), device="cpu")
    return detector


class Flat(Flow):
    """Blocks as a flow of vectors: the three scales, of sides 4, 2 and 1, one after the other."""

    def __init__(self, channels: int, blocks: list[CrossScaleBlock]):
        super().__init__()
        self.channels, self.blocks = channels, torch.nn.ModuleList(blocks)

    def maps(self, flat: Tensor) -> list[Tensor]:
        parts = flat.split([self.channels * side**2 for side in (4, 2, 1)], 1)
        return [part.view(-1, self.channels, side, side) for part, side in zip(parts, (4, 2, 1), strict=True)]

    def forward(self, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        maps, total = self.maps(x), torch.zeros(len(x), dtype=x.dtype)
        for block in self.blocks:
            maps, more = block(maps)
            total = total + more
        return together(maps), total

    def inverse(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        maps = self.maps(z)
        for block in reversed(self.blocks):
            maps = block.inverse(maps)  # type: ignore[operator]
        return together(maps)


@pytest.mark.parametrize("channels", [4, 3])
def test_blocks_are_exact(channels: int) -> None:
    torch.manual_seed(0)
    blocks = [CrossScaleBlock(channels, 5, side, 3.0) for side in (3, 5)]
    assert_flow(disturbed(Flat(channels, blocks), by=0.1), (channels * 21,))


def test_the_whole_flow_leads_back() -> None:
    detector = disturbed(built(), by=0.02).double()
    with torch.no_grad():
        maps = detector.pyramid(in_colour(textures(2)).double())
        z, _ = detector.flow(maps)
        for found, known, moved in zip(detector.inverse(z), maps, z, strict=True):
            torch.testing.assert_close(found, known, rtol=0, atol=1e-9)
            assert (moved - known).abs().max() > 0.1


def test_it_starts_as_a_permutation() -> None:
    detector = built()
    with torch.no_grad():
        maps = detector.pyramid(in_colour(textures(2)))
        z, volume = detector.flow(maps)
    assert torch.equal(volume, torch.zeros(2))
    for before, after in zip(maps, z, strict=True):
        assert torch.equal(before.sort(1).values, after.sort(1).values) and not torch.equal(before, after)


def test_scales_see_each_other_nearby() -> None:
    """Where one place of a scale changes, the others' z change around it, and not on the other side."""
    torch.manual_seed(0)
    block = disturbed(CrossScaleBlock(4, 6, 3, 3.0), by=0.2)
    maps = [torch.randn(1, 4, side, side) for side in (32, 16, 8)]
    for changed, place in ((1, 4), (2, 2), (0, 8)):
        others = [x.clone() for x in maps]
        others[changed][:, :, place, place] += 1
        with torch.no_grad():
            moved = [(a - b).abs().sum(1)[0] for a, b in zip(block(maps)[0], block(others)[0], strict=True)]
        for scale, side in enumerate((32, 16, 8)):
            if abs(scale - changed) <= 1:
                assert moved[scale][side // 4, side // 4] > 1e-4
                assert not moved[scale][side * 7 // 8 :, side * 7 // 8 :].any()


def test_the_pyramid_is_of_the_image_its_half_and_its_quarter() -> None:
    detector, images = built(), in_colour(textures(2))
    with torch.no_grad():
        maps = detector.pyramid(images)
        for found, side in zip(maps, (64, 32, 16), strict=True):
            (expected,) = detector.backbone(torch.nn.functional.interpolate(images, (side, side), mode="nearest"))
            assert torch.equal(found, expected)
    assert [x.shape[2] for x in maps] == [8, 4, 2] and detector.multiple == 32


def test_the_loss_is_per_dimension() -> None:
    """Before training, when the flow moves nothing: the normal surprise of the features themselves."""
    detector, images = built(), in_colour(textures(2))
    with torch.no_grad():
        prepared = tuple(detector.pyramid(images))
        loss = detector.loss(Batch(images, torch.arange(2), prepared))
    expected = -torch.distributions.Normal(0, 1).log_prob(together(prepared)).mean()
    torch.testing.assert_close(loss, expected)


def test_scores_are_squares(fitted: CSFlow) -> None:
    images = in_colour(textures(2, seed=2))
    with torch.no_grad():
        scores = fitted(images)
        z, _ = fitted.flow(fitted.pyramid(images))
    total = sum(x.square().sum((1, 2, 3)) for x in z) / sum(x[0].numel() for x in z)
    torch.testing.assert_close(scores.image, total / 2)
    assert scores.map is not None and scores.map.shape == (2, 8, 8)
    torch.testing.assert_close(scores.map, z[0].square().mean(1))


def test_it_finds_what_is_odd_and_where(fitted: CSFlow) -> None:
    images = textures(4, seed=3)
    spoilt = images.copy()
    spoilt[:, 24:40, 32:48] = spoilt[:, 24:40, 32:48].transpose(0, 2, 1, 3)  # stripes that lie
    with torch.no_grad():
        normal, odd = fitted(in_colour(images)), fitted(in_colour(spoilt))
    assert odd.image.min() > normal.image.max() and 0.3 < float(normal.image.mean()) < 1
    for drawn in odd.map:
        y, x = divmod(int(drawn.argmax()), 8)
        assert 2 <= y <= 5 and 3 <= x <= 6


def test_paper_size() -> None:
    """The authors' flow and optimiser, on 320 channels in place of 304; the contract runs it."""
    detector = CSFlow()
    (phase,) = detector.phases()
    assert isinstance(phase, Train) and (phase.epochs, phase.batch_size) == (240, 16)
    (update,) = phase.updates
    defaults = update.optimizer.defaults
    assert (defaults["lr"], defaults["eps"], defaults["weight_decay"], update.clip) == (2e-4, 1e-4, 1e-5, 1.0)
    assert [block.for_first.enter[0].kernel_size[0] for block in detector.blocks] == [3, 3, 3, 5]  # type: ignore[union-attr,index]


@pytest.mark.parametrize("arguments", [{"kernels": (2,)}, {"kernels": ()}, {"clamp": 0.0}, {"hidden": 0}])
def test_ranges(arguments: dict[str, object]) -> None:
    with pytest.raises(OkngError, match="csflow: "):
        create("csflow", weights="none", **arguments)
