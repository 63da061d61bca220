"""What tells PixelCNN: no value sees itself or a later one, the probabilities are exact, and its failure is there."""

from __future__ import annotations

import io
from itertools import product

import numpy as np
import pytest
import torch
from PIL import Image
from tests.detectors.scenes import SIDE, rings, source, tensor

from okng.detectors.base import Batch, Train
from okng.detectors.catalogue import create
from okng.detectors.reconstruction.pixelcnn import MaskedConv, PixelCNN, png_bits
from okng.errors import OkngError
from okng.training.loop.phases import run_phases


def built(**arguments: object) -> PixelCNN:
    torch.manual_seed(0)
    small = {"image_size": (SIDE, SIDE), "channels": 1, "width": 4, "blocks": 2, "head": 4, "levels": 4}
    detector = create("pixelcnn", **{**small, **arguments})
    assert isinstance(detector, PixelCNN)
    return detector


def seen_by(detector: PixelCNN, channels: int, at: tuple[int, int, int]) -> torch.Tensor:
    """(C, SIDE, SIDE) bool: which values the logits of the one `at` (channel, row, column) depend on."""
    channel, row, column = at
    values = torch.rand(1, channels, SIDE, SIDE, requires_grad=True)
    logits = detector.net(values).unflatten(1, (detector.levels, channels))  # (1, levels, C, SIDE, SIDE)
    weights = torch.randn(detector.levels)
    (gradient,) = torch.autograd.grad((logits[0, :, channel, row, column] * weights).sum(), values)
    return gradient[0] != 0


@pytest.mark.parametrize("channels", [1, 3])
def test_no_value_sees_itself_or_a_later_one(channels: int) -> None:
    """The whole stack, at corners and within, as built and after steps that would open masks set at the start only."""
    detector = built(channels=channels, width=24, head=24)  # so that not all rectifiers of a colour are shut
    optimizer = torch.optim.Adam(detector.parameters(), 1e-3, weight_decay=0.1)
    order = torch.arange(SIDE * SIDE * channels).view(SIDE, SIDE, channels).permute(2, 0, 1)  # (C, SIDE, SIDE)
    places = list(product(range(channels), (0, 7, SIDE - 1), (0, 8, SIDE - 1)))
    for _ in range(2):
        for at in places:
            seen = seen_by(detector, channels, at)
            assert not seen[order >= order[at]].any()
            channel, row, column = at
            if column:  # its neighbour to the left and, among colours, those before it at its place
                assert seen[:, row, column - 1].all()
            assert seen[:channel, row, column].all()
            assert row == 0 or seen[:, row - 1, column].all()
        for _ in range(3):
            optimizer.zero_grad()
            detector.loss(Batch(torch.rand(2, channels, SIDE, SIDE), torch.arange(2))).backward()
            optimizer.step()


def test_the_masks_are_the_papers() -> None:
    """By hand, for three colours: A sees only colours before it at the middle, B itself too."""
    first = MaskedConv(3, 3, 3, 3, sees_itself=False)
    later = MaskedConv(3, 3, 3, 3)
    for mask, diagonal in ((first.mask, -1), (later.mask, 0)):
        assert mask[:, :, 0].all() and mask[:, :, 1, 0].all() and not mask[:, :, 2].any() and not mask[:, :, 1, 2].any()
        assert torch.equal(mask[:, :, 1, 1], torch.ones(3, 3).tril(diagonal))


@pytest.mark.parametrize("channels", [1, 3])
def test_the_probabilities_of_all_images_sum_to_one(channels: int) -> None:
    """All 2ⁿ images that differ in four places, two beside each other and two below, given the rest of zeros.

    What comes after them changes with them, so they are the last four places that there are: of colours the last two.
    """
    detector = built(channels=channels, levels=2)
    places = [(c, SIDE - 1, w) for w in (SIDE - 2, SIDE - 1) for c in range(channels)][-4:]
    if channels == 1:
        places = [(0, SIDE - 1, w) for w in range(SIDE - 4, SIDE)]
    images = torch.zeros(16, channels, SIDE, SIDE)
    for image, states in zip(images, product((0.0, 1.0), repeat=4), strict=True):
        for place, state in zip(places, states, strict=True):
            image[place] = state
    with torch.no_grad():
        bits = detector.bits(images)  # (16, C, SIDE, SIDE)
    last = torch.stack([bits[:, c, h, w] for c, h, w in places]).sum(0)
    assert float((-last).exp2().sum()) == pytest.approx(1, abs=1e-5)
    earlier = bits.sum((1, 2, 3)) - last
    torch.testing.assert_close(earlier, earlier[:1].expand(16))  # what comes before is as likely as it was


def test_levels_part_the_256_evenly() -> None:
    images = (torch.arange(256) / 255).view(1, 1, 16, 16)
    for levels in (2, 5, 256):
        counts = built(levels=levels).cut(images).flatten().bincount()
        assert len(counts) == levels and counts.max() - counts.min() <= 1


def test_training_lowers_the_bits_of_unseen_images_and_flat_ones_are_likelier_still() -> None:
    """The known failure: what was never seen and is simple has fewer bits than what was learnt.

    Less its size as a PNG file it has not: that is what the correction is for.
    """
    detector = built(width=8, head=8, levels=16, epochs=6, batch_size=16, learning_rate=5e-3)
    unseen, flat = tensor(rings(64, seed=1)), torch.zeros(1, 1, SIDE, SIDE)
    with torch.no_grad():
        before = detector(unseen).image
    run_phases(detector, source(rings(192)), device="cpu")
    with torch.no_grad():
        scores, simple = detector(unseen), detector(flat).image
        detector.complexity = "png"
        corrected, simple_corrected = detector(unseen).image, detector(flat).image
    assert float(before.mean()) > 3.5 and float(scores.image.mean()) < 2
    assert float(simple) < float(scores.image.min())
    assert float(simple_corrected - simple) > float((corrected - scores.image).max())  # a smaller file helps it less
    assert scores.map is not None
    torch.testing.assert_close(scores.map.mean((1, 2)), scores.image)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_bits_of_a_file(channels: int) -> None:
    """That of a Pillow image of the same values, which can be read back; noise costs more than nothing at all."""
    torch.manual_seed(0)
    levels = torch.stack([torch.zeros(channels, 20, 24), torch.randint(0, 256, (channels, 20, 24))]).byte()
    file = io.BytesIO()
    noise = levels[1].permute(1, 2, 0).numpy()
    Image.fromarray(noise if channels == 3 else noise[..., 0]).save(file, "PNG", optimize=True)
    bits = png_bits(levels)
    assert float(bits[1]) == pytest.approx(8 * len(file.getvalue()) / noise.size)
    assert float(bits[0]) < 2.5 < 8 < float(bits[1])
    assert np.array_equal(np.asarray(Image.open(file)).reshape(noise.shape), noise)


def test_only_without_the_files_size_is_it_one_graph() -> None:
    assert built().exportable and not built(complexity="png").exportable


def test_the_papers_network() -> None:
    detector = create("pixelcnn", width=3, blocks=2, head=4)
    (phase,) = detector.phases()
    assert isinstance(phase, Train) and isinstance(detector, PixelCNN)
    sides = [
        (m.in_channels, m.out_channels, m.kernel_size[0]) for m in detector.net.modules() if isinstance(m, MaskedConv)
    ]
    block = [(6, 3, 1), (3, 3, 3), (3, 6, 1)]
    assert sides == [(3, 6, 7), *block, *block, (6, 4, 1), (4, 4, 1), (4, 768, 1)]


@pytest.mark.parametrize("arguments", [{"levels": 1}, {"levels": 257}, {"width": 2, "channels": 3}, {"head": 1}])
def test_ranges(arguments: dict[str, object]) -> None:
    with pytest.raises(OkngError, match="pixelcnn: "):
        create("pixelcnn", **arguments)
