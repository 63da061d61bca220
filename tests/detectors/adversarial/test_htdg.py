"""What tells HTDG from a classifier of turns: every patch is asked at every scale, beside what a generator makes."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
import torch
from tests.detectors.scenes import SIDE, crosses, source, tensor
from torch import Tensor, nn

from okng.detectors.adversarial.htdg import BORDER, GREY, HTDG, MOVES, Moves
from okng.detectors.base import Batch
from okng.detectors.catalogue import create
from okng.errors import OkngError
from okng.metrics.ranking import auroc
from okng.training.loop.phases import run_phases


def built(**arguments: object) -> HTDG:
    torch.manual_seed(0)
    detector = create("htdg", **arguments)
    assert isinstance(detector, HTDG)
    return detector


def hooks(count: int, seed: int = 0) -> np.ndarray:
    """OK: a bright hook on black, which no flip or turn brings to itself. uint8 (count, SIDE, SIDE)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE]
    made = []
    for _ in range(count):
        down, right = y - rng.uniform(-0.7, 0.7), x - rng.uniform(-0.7, 0.7)
        stem = (np.abs(right - 5) < 1.2) & (np.abs(down - 7.5) < 5)
        foot = (np.abs(down - 12) < 1.2) & (np.abs(right - 8) < 4)
        made.append(230 * (stem | foot) + rng.uniform(0, 20, (SIDE, SIDE)))
    return np.stack(made).astype(np.uint8)


@pytest.mark.parametrize(("size", "channels"), [((16, 16), 1), ((28, 28), 1), ((64, 48), 3)])
def test_scales_go_from_the_coarsest_to_the_image(size: tuple[int, int], channels: int) -> None:
    detector = built(image_size=size, channels=channels, width=2, scales=3, coarsest=14).eval()
    shorter = [min(each) for each in detector.sizes]
    assert detector.sizes[-1] == size and shorter[0] == 14 and shorter == sorted(shorter)
    with torch.no_grad():
        scores = detector(torch.rand(2, channels, *size))
    assert scores.map is not None and scores.map.shape == (2, *size)
    assert float(scores.image.min()) > 0 and float(scores.image.max()) < 1


def test_the_papers_transformations() -> None:
    assert {name: len(moves) for name, moves in MOVES.items()} == {"all": 42, "flips": 8, "turns": 4}
    assert len(MOVES["all"] + GREY) == 54
    for moves, channels in ((MOVES["all"], 1), (MOVES["all"] + GREY, 3), (MOVES["flips"], 1), (MOVES["turns"], 1)):
        moved = Moves(moves, (20, 20))(torch.rand(1, channels, 20, 20))
        assert len({tuple(one.flatten().tolist()) for one in moved}) == len(moves)
    image = torch.rand(2, 3, 20, 20)
    first, *_, grey = Moves((MOVES["all"][0], (False, 1, 0, 0, 1), (False, 0, 1, 0, 0), GREY[0]), (20, 20))(image[:1])
    torch.testing.assert_close(first, image[0])
    torch.testing.assert_close(grey[0], grey[1])
    flipped, shifted = Moves(((False, 1, 0, 0, 1), (False, 0, 1, 0, 0)), (20, 20))(image[:1])
    torch.testing.assert_close(flipped, image[0].flip(2).rot90(1, (1, 2)))
    torch.testing.assert_close(shifted[:, :, 3:], image[0][:, :, :-3])  # 15 % of 20 px
    torch.testing.assert_close(shifted[:, :, :3], image[0][:, :, 1:4].flip(2))


@pytest.mark.parametrize("size", [(20, 20), (24, 18)])
def test_what_is_told_of_patches_comes_back_to_their_places(size: tuple[int, int]) -> None:
    """Each says how bright its middle is, whatever the transformation: the mean is the image inside its border."""
    moves = Moves(MOVES["flips"] if size[0] == size[1] else MOVES["all"][:1], size)
    shifts = Moves(((False, 0, 0, 0, 0), (False, 1, 1, 1, 0), (False, 0, -1, 0, 0)), size)
    image = torch.rand(2, 1, *size)
    inside = slice(BORDER, -BORDER)
    for some in (moves, shifts):
        told = some(image)[:, 0, inside, inside].unflatten(0, (2, -1))  # (2, M, h', w')
        torch.testing.assert_close(some.put_back(told), image[:, 0, inside, inside])


def test_each_network_learns_in_its_own_step() -> None:
    detector = built(image_size=(SIDE, SIDE), channels=1, width=4, scales=2, coarsest=13, transformations="flips")
    detector.images, detector.noise = tensor(hooks(3)), torch.zeros(2, 3)
    detector.eval()
    phase = detector.scale_phase(1)
    batch = Batch(torch.rand(1, 1, SIDE, SIDE), torch.arange(1))
    for module in phase.trains:
        module.train()
    for update, moving in zip(phase.updates, (detector.discriminators[1], detector.generators[1]), strict=True):
        detector.zero_grad()
        loss = update.loss(batch)
        assert isinstance(loss, dict)
        torch.stack([*loss.values()]).sum().backward()
        learning = {id(p) for p in moving.parameters()}
        for parameter in detector.parameters():
            assert parameter.requires_grad and (parameter.grad is not None) == (id(parameter) in learning)


def test_with_one_transformation_there_is_nothing_to_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MOVES, "turns", MOVES["turns"][:1])
    detector = built(image_size=(SIDE, SIDE), channels=1, width=2, scales=1).eval()
    with torch.no_grad():
        assert float(detector(torch.rand(3, 1, SIDE, SIDE)).image.abs().max()) == 0


class Remembering(nn.Module):
    """A generator that adds nothing, and what it was told."""

    def forward(self, told: Tensor) -> Tensor:
        self.told = told
        return torch.zeros_like(told[:, :1, BORDER:-BORDER, BORDER:-BORDER])


def test_the_generator_is_told_everywhere_which_image_it_makes() -> None:
    """At the border, too, around which there is nothing of the image."""
    detector = built(image_size=(SIDE, SIDE), channels=1, width=2, scales=1)
    generator = detector.generators[0] = Remembering()
    detector.noise = torch.ones(1, 4)
    detector.generated(0, torch.ones(4, 1, SIDE, SIDE))
    noisy, which = generator.told.unbind(1)
    assert which.shape == (4, SIDE + 2 * BORDER, SIDE + 2 * BORDER)
    torch.testing.assert_close(which, (torch.arange(4) / 4)[:, None, None].expand_as(which))
    assert not noisy[:, :BORDER].any() and not noisy[:, :, -BORDER:].any() and noisy[:, BORDER:-BORDER].any()


class Bright(nn.Module):
    """Sure of the first of two transformations where a patch's middle is bright, of the second where it is dark."""

    def forward(self, images: Tensor) -> Tensor:
        middle = images[:, :1, BORDER:-BORDER, BORDER:-BORDER]
        return torch.cat([9 * middle, -9 * middle, middle], 1)


def test_the_probability_is_among_ok_transformations_and_the_least_sure_patches_can_count_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(MOVES, "turns", MOVES["turns"][:2])
    image = torch.ones(1, 1, SIDE, SIDE)
    image[0, 0, 8, 8] = 0
    for lowest in (1.0, 1 / 36):
        detector = built(image_size=(SIDE, SIDE), channels=1, width=2, scales=1, lowest=lowest)
        detector.discriminators[0] = Bright()
        with torch.no_grad():
            score = float(detector(image).image)
        sure, unsure = 1.0, 0.0  # of the first: of a bright and of the dark patch; of the second the other way round
        expected = 1 - ((35 * sure + unsure) / 36 + (35 * unsure + sure) / 36) / 2 if lowest == 1 else 1.0
        assert score == pytest.approx(expected, abs=1e-4)


def test_from_five_images() -> None:
    """The right transformation is told of images it learnt, less of others of the kind, least of another kind; the
    generators make the images again; and after fitting the model has none of them."""
    detector = built(
        image_size=(SIDE, SIDE), channels=1, shots=5, scales=2, coarsest=14, transformations="turns", width=8,
        epochs=50, learning_rate=2e-3,
    )  # fmt: skip
    phases = detector.phases()
    detector.phases = lambda: islice(phases, 3)  # type: ignore[assignment, method-assign]
    run_phases(detector, source(hooks(40)), device="cpu")
    learnt, ok, odd = detector.images, tensor(hooks(60, seed=1)), tensor(crosses(60))
    assert len(learnt) == 5 and not any(module.training for module in detector.modules())
    with torch.no_grad():
        right = [1 - detector(images).image for images in (learnt, ok, odd)]
        copies = detector.generated(1, detector.below(1, again=True), again=True)
        others = detector.generated(1, detector.below(1))
    assert float(right[0].mean()) > 0.55 and float(right[0].mean()) > float(right[2].mean()) + 0.2
    assert auroc([0] * 60 + [1] * 60, -torch.cat(right[1:]).numpy()) > 0.9
    assert float((copies - (learnt * 2 - 1)).square().mean()) < 0.3 * float(4 * learnt.var())
    assert not torch.allclose(copies, others, atol=1e-3)
    assert next(phases, None) is None and len(detector.images) == 0 and detector.noise.numel() == 0


def test_one_image_is_enough() -> None:
    detector = built(image_size=(SIDE, SIDE), channels=1, scales=1, width=2, epochs=2)
    run_phases(detector, source(hooks(1)), device="cpu")
    with torch.no_grad():
        assert torch.isfinite(detector(tensor(hooks(2))).image).all()


@pytest.mark.parametrize("arguments", [{"coarsest": 11}, {"lowest": 0.0}, {"lowest": 1.5}, {"shots": 0}])
def test_ranges(arguments: dict[str, object]) -> None:
    with pytest.raises(OkngError, match=f"htdg: {next(iter(arguments))}"):
        create("htdg", **arguments)
