"""What tells DSR from a toy: anomalies are other codes and never near ones, and what restores learns of no detector."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from tests.detectors.scenes import discs, in_colour
from torch import Tensor

from okng.detectors.base import Batch, Phase, Train
from okng.detectors.catalogue import create
from okng.detectors.synthetic_anomalies.dsr import DSR, Codebook
from okng.errors import OkngError
from okng.inspection.images import Preprocess
from okng.training.data import TrainingImages
from okng.training.phases import run_phases

SIDE = 64
SMALL = {"image_size": (SIDE, SIDE), "width": 4, "code": 6, "codes": 60, "detector_width": 2, "window": 7}


def built(**arguments: object) -> DSR:
    torch.manual_seed(0)
    detector = create("dsr", **{**SMALL, **arguments})
    assert isinstance(detector, DSR)
    return detector


def views(detector: DSR, augment: str, count: int, image: Tensor | None = None) -> Batch:
    image = in_colour(discs(1))[0] if image is None else image
    made = [getattr(detector, augment)(image, torch.Generator().manual_seed(seed)) for seed in range(count)]
    stacked = [torch.stack(parts) for parts in zip(*made, strict=True)]
    return Batch(image.expand(count, -1, -1, -1), torch.arange(count), views=tuple(stacked))


def which(book: Codebook, codes: Tensor) -> Tensor:
    """The rows (B, h, w) that `codes` (B, D, h, w) are, every one to the bit."""
    same = (codes.movedim(1, 3)[..., None, :] == book.rows).all(-1)  # (B, h, w, K)
    assert bool((same.sum(-1) == 1).all())
    return same.int().argmax(-1)


@pytest.mark.parametrize("strength", [0.2, 0.5, 1.0])
def test_a_swapped_code_is_a_row_that_is_never_near_nor_beyond_its_strength(strength: float) -> None:
    torch.manual_seed(0)
    book = Codebook(200, 5)
    features = torch.randn(4, 5, 20, 20)
    mask = torch.rand(4, 1, 20, 20) < 0.4
    swapped, nearest = book.swapped(features, mask, torch.full((4,), strength)), book.nearest(features)
    at = mask[:, 0]
    assert torch.equal(swapped.movedim(1, 3)[~at], nearest.movedim(1, 3)[~at])
    apart = torch.cdist(features.movedim(1, 3).flatten(0, 2), book.rows)  # (1600, 200)
    ranks = apart.argsort(1).argsort(1).gather(1, which(book, swapped).flatten()[:, None])[:, 0].view(4, 20, 20)
    assert bool((ranks[~at] == 0).all())
    assert int(ranks[at].min()) >= 10 and int(ranks[at].max()) < 200 * strength + 1
    middle = (10 + 200 * strength) / 2
    assert abs(float(ranks[at].float().mean()) - middle) < 0.15 * middle  # each as likely as any other


def test_each_image_has_its_own_strength() -> None:
    torch.manual_seed(0)
    book = Codebook(200, 5)
    features = torch.randn(2, 5, 20, 20)
    swapped = book.swapped(features, torch.ones(2, 1, 20, 20, dtype=torch.bool), torch.tensor([0.2, 1.0]))
    weak, strong = (features - swapped).square().sum(1).mean((1, 2)).tolist()
    assert weak < 0.7 * strong


@pytest.mark.parametrize(("level", "low", "high"), [(0.2, True, True), (0.6, True, False), (0.8, False, True)])
def test_the_levels_that_are_drawn_change_within_the_blot_alone(level: float, low: bool, high: bool) -> None:
    detector = built()
    images = in_colour(discs(3))
    mask = torch.zeros(3, 1, SIDE, SIDE, dtype=torch.bool)
    mask[:2, :, 9:19, 21:42] = True  # the third stays as it is
    drawn = torch.tensor([[0.5, 0.5, level]]).expand(3, -1)
    with torch.no_grad():
        odd, clean, told = detector.swapped(images, mask, drawn)
    cells = {}
    for side in (4, 8):
        cells[side] = torch.zeros(SIDE, SIDE, dtype=torch.bool)
        cells[side][9 // side * side : -(-19 // side) * side, 21 // side * side : -(-42 // side) * side] = True
    changed = [(o != c).any(1) for o, c in zip(odd, clean, strict=True)]  # (3, 16, 16), (3, 8, 8)
    within = cells[8][::8, ::8]
    assert not changed[1][:, ~within].any() and not changed[1][2].any() and not changed[0][2].any()
    assert bool(changed[1][:2, within].any()) == low and (low or not changed[1].any())
    within = cells[4][::4, ::4]
    assert (float(changed[0][:2, within].float().mean()) > 0.9) == high and (high or not changed[0].any())
    if not low:  # lower codes speak for the higher ones around them, too
        assert not changed[0][:, ~within].any()
    assert torch.equal(told[:2, 0], cells[8 if low else 4].expand(2, -1, -1)) and not told[2].any()
    for codes, book in zip(odd, (detector.general.high, detector.general.low), strict=True):
        which(book, codes)


def test_half_of_the_images_stay_ok_and_levels_and_strengths_are_as_the_authors_have_them() -> None:
    batch = views(built(turned=0.5), "with_swap", 200)
    clean, mask, drawn = batch.views
    assert 0.3 < float(mask.flatten(1).any(1).float().mean()) < 0.6  # some blots are empty
    assert 0.2 <= float(drawn[:, :2].min()) < 0.25 and 0.95 < float(drawn[:, :2].max()) < 1
    assert abs(float((drawn[:, 2] < 0.5).float().mean()) - 0.5) < 0.12
    assert 0.35 < float((clean != batch.images).flatten(1).any(1).float().mean()) < 0.65


def gradients(loss: Tensor, detector: DSR) -> set[str]:
    """The networks that a loss reaches."""
    detector.zero_grad()
    loss.backward(retain_graph=True)
    reached = {name for name, weights in detector.named_parameters() if weights.grad is not None and weights.grad.any()}
    return {name.partition(".")[0] for name in reached}


def test_what_restores_learns_nothing_of_the_detector_and_the_codes_nothing_of_either() -> None:
    detector = built()
    losses = detector.telling(views(detector, "with_swap", 8))
    assert gradients(losses["focal"], detector) == {"detector"}
    assert gradients(losses["high"], detector) == {"restrict_high"}
    assert gradients(losses["low"], detector) == {"restrict_low"}
    assert gradients(losses["image"], detector) == {"restrict_high", "restrict_low", "decoder"}  # through the codes
    assert gradients(detector.refining(views(detector, "with_smudge", 4)), detector) == {"refiner"}
    assert all(p.requires_grad for p in detector.parameters())


def test_copies_teach_the_encoder_straight_through_the_codes() -> None:
    detector = built()
    losses = detector.copying(views(detector, "with_texture", 4))
    for loss in losses.values():
        detector.zero_grad()
        loss.backward(retain_graph=True)
        assert all(p.grad is not None and p.grad.any() for p in detector.general.fine.parameters())


def test_codes_move_while_the_general_model_learns_and_never_after(monkeypatch: pytest.MonkeyPatch) -> None:
    detector = built(general_epochs=1, epochs=1)
    seen: list[dict[str, Tensor]] = []

    def watched() -> Iterator[Phase]:
        for phase in DSR.phases(detector):
            seen.append({name: tensor.clone() for name, tensor in detector.general.state_dict().items()})
            yield phase

    monkeypatch.setattr(detector, "phases", watched)
    run_phases(detector, TrainingImages(list(discs(16)), Preprocess("RGB", (SIDE, SIDE))), device="cpu")
    first, general, told = seen
    for book in ("high", "low"):
        assert not torch.equal(first[f"{book}.rows"], general[f"{book}.rows"])
    for name, tensor in general.items():
        assert torch.equal(tensor, told[name]), name
        assert torch.equal(tensor, detector.general.state_dict()[name]), name
    with torch.no_grad():
        detector.general.train()(in_colour(discs(1)))  # a call alone moves nothing
    assert torch.equal(general["high.rows"], detector.general.high.rows)


def test_a_code_becomes_the_mean_of_what_chooses_it_and_one_that_nothing_chooses_begins_anew() -> None:
    torch.manual_seed(0)
    book = Codebook(20, 2)
    places = torch.cartesian_prod(torch.arange(3.0), torch.arange(4.0))  # (12, 2)
    features = (places.repeat(100, 1) + 0.05 * torch.randn(1200, 2)).T[None, :, :, None]  # (1, 2, 1200, 1)
    for _ in range(200):
        book.follow(features)
    index = torch.cdist(features[0, :, :, 0].T, book.rows).argmin(1)  # (1200,)
    for row in index.unique():
        torch.testing.assert_close(book.rows[row], features[0, :, index == row, 0].mean(1), atol=0.02, rtol=0)
    assert float((book.nearest(features) - features).square().sum(1).mean()) <= 2 * 0.05**2
    assert float(torch.cdist(book.rows, places).min(1).values.max()) < 0.3  # none lies where no feature is


def test_auxiliary_images_are_all_that_the_general_model_learns() -> None:
    detector = built()
    batch = views(detector, "with_texture", 4)
    shown: list[Tensor] = []
    detector.general.register_forward_pre_hook(lambda module, given: shown.append(given[0]))
    detector.copying(batch)
    assert torch.equal(shown[0], torch.cat(batch.views))
    batch.auxiliary = torch.rand(4, 3, SIDE, SIDE)
    detector.copying(batch)
    assert torch.equal(shown[1], batch.auxiliary)


def test_a_smudge_has_one_colour_and_changes_nothing_outside_its_blot() -> None:
    clean, smudged, mask = views(built(turned=0.0), "with_smudge", 100).views
    everywhere = mask.expand_as(clean)
    assert torch.equal(smudged[~everywhere], clean[~everywhere])
    assert (smudged[everywhere] != clean[everywhere]).float().mean() > 0.95
    assert 0.3 < float(mask.flatten(1).any(1).float().mean()) < 0.6
    _, smudged, mask = views(built(), "with_smudge", 20, torch.full((3, SIDE, SIDE), 0.5)).views
    assert all(
        image[:, where].std(1).sum() < 1e-5 for image, where in zip(smudged, mask[:, 0], strict=True) if where.any()
    )


def test_the_score_is_the_highest_mean_of_a_window_of_the_detectors_map() -> None:
    detector = built().eval()
    images = in_colour(discs(2))
    with torch.no_grad():
        scores = detector(images)
        restored, shown = detector.both(images)
        odd = detector.told(restored, shown).softmax(1)
        finer = detector.refiner(torch.cat([restored, shown, odd], 1)).softmax(1)[:, 1]
    padded = torch.nn.functional.pad(odd[:, 1], (3, 3, 3, 3))
    torch.testing.assert_close(scores.image, padded.unfold(1, 7, 1).unfold(2, 7, 1).mean((3, 4)).amax((1, 2)))
    assert scores.map is not None
    torch.testing.assert_close(scores.map, finer)


def test_the_published_network_and_training() -> None:
    detector = built(image_size=(256, 256), width=128, code=128, codes=4096, detector_width=64, training_steps=100)
    assert detector.general.high.rows.shape == (4096, 128)
    general, told, finer = list(detector.phases())
    assert isinstance(general, Train) and isinstance(told, Train) and isinstance(finer, Train)
    assert (told.steps, finer.steps, told.batch_size) == (100, 50, 8)
    rates = [
        [update.schedule(share) for share in (0.0, 0.79, 0.8, 0.9)]
        for phase in (told, finer)
        for update in phase.updates
        if update.schedule
    ]
    assert rates == [[1, 1, 0.1, 0.1], [1, 1, 0.2, pytest.approx(0.04)]]
    assert told.updates[0].optimizer.param_groups[0]["lr"] == 2e-4


@pytest.mark.parametrize("size", [(64, 96), (96, 160)])
def test_every_size(size: tuple[int, int]) -> None:
    detector = built(image_size=size, channels=1).eval()
    with torch.no_grad():
        scores = detector(torch.rand(2, 1, *size))
    assert scores.map is not None and scores.map.shape == (2, *size)


@pytest.mark.parametrize("arguments", [{"window": 4}, {"window": 0}, {"turned": 1.5}, {"codes": 19}, {"width": 1}])
def test_ranges(arguments: dict[str, object]) -> None:
    with pytest.raises(OkngError, match=f"dsr: {next(iter(arguments))}"):
        create("dsr", **arguments)


def test_small_images_are_refused() -> None:
    with pytest.raises(OkngError, match="both sides of image_size are 64 or more"):
        create("dsr", image_size=(32, 64))
