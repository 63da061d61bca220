"""What tells DSR from a toy: anomalies are other codes and never near ones, and what restores learns of no detector."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from tests.detectors.scenes import discs, in_colour
from torch import Tensor, nn

from okng.detectors.base import Batch, Phase, Train
from okng.detectors.catalogue import create
from okng.detectors.synthetic_anomalies import dsr
from okng.detectors.synthetic_anomalies.dsr import DSR, Codebook
from okng.errors import OkngError
from okng.inspection.reading.images import Preprocess
from okng.nn.learning.processes import Processes, sharing
from okng.training.images.data import TrainingImages
from okng.training.images.input import build
from okng.training.loop.phases import run_phases

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


def codes_of(high: float, low: float) -> tuple[Tensor, Tensor]:
    """Of two images, or features of them: the higher and the lower ones, the same number everywhere."""
    return torch.full((2, 6, 16, 16), high), torch.full((2, 6, 8, 8), low)


class Answering(nn.Module):
    """Says everywhere that the logit of odd is that of OK and `more`, and keeps what it was shown."""

    def __init__(self, more: float):
        super().__init__()
        self.more = more
        self.seen: list[Tensor] = []

    def forward(self, shown: Tensor) -> Tensor:
        self.seen.append(shown)
        logits = torch.tensor([0.3, 0.3 + self.more]).view(1, 2, 1, 1)
        return logits.expand(len(shown), 2, *shown.shape[2:])


def focal(odd: float, share: float) -> float:
    """The focal loss where `odd` is the likelihood that is given to odd, everywhere, and a `share` is odd."""
    return share * (1 - odd) ** 2 * -math.log(odd) + (1 - share) * odd**2 * -math.log(1 - odd)


def test_the_losses_of_restoring_and_telling_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Swapped codes are shown and restored, clean ones wanted; what is odd is an eighth of the places."""
    detector = built()
    swapped, wanted = codes_of(1.0, 2.0), codes_of(4.0, 8.0)
    clean, mask, drawn = torch.full((2, 3, SIDE, SIDE), 0.5), torch.ones(2, 1, SIDE, SIDE), torch.rand(2, 3)
    odd = torch.zeros(2, 1, SIDE, SIDE, dtype=torch.bool)
    odd[0, :, : SIDE // 4] = True
    given: list[object] = []

    def swap(*parts: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor], Tensor]:
        given.append(parts)
        return swapped, wanted, odd

    def restore(high: Tensor, low: Tensor) -> tuple[tuple[Tensor, Tensor], Tensor]:
        restored = torch.full_like(clean, 0.1 * (float(high.mean()) + 3 * float(low.mean())), requires_grad=True)
        return (high + 0.5, low + 0.25), restored

    def shows(high: Tensor, low: Tensor) -> Tensor:
        return torch.full_like(clean, float(high.mean()) + 10 * float(low.mean()))

    monkeypatch.setattr(detector, "swapped", swap)
    monkeypatch.setattr(detector, "restore", restore)
    monkeypatch.setattr(detector.general, "decode", shows)
    detector.detector = Answering(2.0)
    losses = detector.telling(Batch(clean, torch.arange(2), views=(clean, mask, drawn)))
    assert {name: float(loss.detach()) for name, loss in losses.items()} == pytest.approx(
        {
            "high": (1 + 0.5 - 4) ** 2,
            "low": (2 + 0.25 - 8) ** 2,
            "image": 10 * (0.1 * (1 + 3 * 2) - 0.5) ** 2,
            "focal": focal(1 / (1 + math.exp(-2)), 1 / 8),
        },
        rel=1e-5,
    )
    assert given == [(clean, mask, drawn)]
    (seen,) = detector.detector.seen
    assert not seen.requires_grad
    torch.testing.assert_close(seen, torch.tensor([0.7] * 3 + [21.0] * 3).view(1, 6, 1, 1).expand_as(seen))


def test_the_loss_of_the_finer_map_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """It sees what both decoders show of the smudged image, and what the detector says of that; a quarter is odd."""
    detector = built()
    clean, smudged = torch.full((2, 3, SIDE, SIDE), 0.5), torch.full((2, 3, SIDE, SIDE), 0.25)
    mask = torch.zeros(2, 1, SIDE, SIDE, dtype=torch.bool)
    mask[1, ..., : SIDE // 2] = True
    monkeypatch.setattr(detector, "both", lambda images: (images + 1, images + 2))
    detector.detector, detector.refiner = Answering(1.0), Answering(-1.5)
    loss = detector.refining(Batch(clean, torch.arange(2), views=(clean, smudged, mask)))
    assert float(loss) == pytest.approx(focal(1 / (1 + math.exp(1.5)), 1 / 4), rel=1e-5)
    odd = 1 / (1 + math.exp(-1))
    (seen,), (refined,) = detector.detector.seen, detector.refiner.seen
    wanted = torch.tensor([1.25] * 3 + [2.25] * 3 + [1 - odd, odd]).view(1, 8, 1, 1).expand(2, -1, SIDE, SIDE)
    torch.testing.assert_close(seen, wanted[:, :6])
    torch.testing.assert_close(refined, wanted)


def test_the_losses_of_copies_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten times the squared error; a quarter of how far features are from codes, which only the features feel."""
    detector = built()
    features = [part.requires_grad_() for part in codes_of(1.0, 2.0)]
    codes = [part.requires_grad_() for part in codes_of(1.5, 5.0)]
    monkeypatch.setattr(detector.general, "forward", lambda images: (images + 0.2, features, codes))
    losses = detector.copying(views(detector, "with_texture", 2))
    assert float(losses["copies"]) == pytest.approx(10 * 0.2**2, rel=1e-5)
    assert float(losses["commitment"].detach()) == pytest.approx(0.25 * (0.5**2 + 3**2), rel=1e-5)
    losses["commitment"].backward()
    assert all(part.grad is not None and part.grad.lt(0).all() for part in features)
    assert all(part.grad is None for part in codes)


@pytest.mark.parametrize("seed", [0])
def test_after_a_short_fit_swapped_codes_are_told_from_clean_ones(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Margins are half of what the worst of the seeds 0 to 3 has."""
    monkeypatch.setattr(dsr, "SPOILT", 1.0)
    torch.manual_seed(seed)
    detector = create(
        "dsr", image_size=(SIDE, SIDE), width=16, code=16, codes=32, detector_width=8, turned=0.0,
        general_steps=20, training_steps=40, batch_size=4, learning_rate=5e-3,
    )  # fmt: skip
    assert isinstance(detector, DSR)
    first_two = list(detector.phases())[:2]
    monkeypatch.setattr(detector, "phases", lambda: first_two)
    run_phases(detector, TrainingImages(list(discs(16)), Preprocess("RGB", (SIDE, SIDE))), seed=seed, device="cpu")
    images = in_colour(discs(8, seed=5))
    mask = torch.zeros(8, 1, SIDE, SIDE, dtype=torch.bool)
    mask[..., 16:40, 24:48] = True
    with torch.no_grad():
        torch.manual_seed(1)
        swapped, clean, odd = detector.swapped(images, mask, torch.tensor([[1.0, 1.0, 0.2]]).expand(8, -1))
        told = [
            detector.told(detector.restore(*codes)[1], detector.general.decode(*codes)).softmax(1)[:, 1:]
            for codes in (swapped, clean)
        ]
    inside, outside, before = (float(part.mean()) for part in (told[0][odd], told[0][~odd], told[1][odd]))
    assert inside > outside + 0.1
    assert inside > before + 0.06


def test_both_decoders_show_an_image_one_its_codes_and_one_those_nearest_to_what_is_restored() -> None:
    detector = built().eval()
    general = detector.general
    images = in_colour(discs(2))
    with torch.no_grad():
        restored, shown = detector.both(images)
        fine = general.fine(images)
        low = general.low.nearest(general.to_low(general.coarse(fine)))
        high = general.high.nearest(general.to_high(torch.cat([fine, general.enlarge(low)], 1)))
        torch.testing.assert_close(shown, general.decoder(torch.cat([general.enlarge(low), high], 1)))
        high, low = general.high.nearest(detector.restrict_high(high)), general.low.nearest(detector.restrict_low(low))
        torch.testing.assert_close(restored, detector.decoder(torch.cat([general.enlarge(low), high], 1)))
    assert float((restored - shown).abs().mean()) > 0.01


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


def test_codes_are_chosen_at_full_precision_whatever_the_fit_has() -> None:
    torch.manual_seed(0)
    book = Codebook(200, 16)
    features = 3 + torch.randn(2, 16, 30, 30)  # what all have in common is what half precision spends its digits on
    mask, strength = torch.ones(2, 1, 30, 30, dtype=torch.bool), torch.ones(2)
    torch.manual_seed(1)
    nearest, swapped = book.nearest(features), book.swapped(features, mask, strength)
    with torch.autocast("cpu", torch.bfloat16):
        torch.manual_seed(1)
        assert torch.equal(which(book, book.nearest(features)), which(book, nearest))
        assert torch.equal(book.swapped(features, mask, strength), swapped)


def in_two_processes(book: Codebook, halves: list[Tensor]) -> list[Codebook]:
    """What two copies of `book` become that follow half of the features each and add up what the other has."""
    meeting, added = threading.Barrier(2, timeout=60), [torch.zeros(0)] * 2

    def followed(number: int) -> Codebook:
        def add(values: Tensor) -> Tensor:
            added[number] = values.clone()
            meeting.wait()
            values.copy_(added[0] + added[1])
            meeting.wait()
            return values

        copy = Codebook(*book.rows.shape)
        copy.load_state_dict(book.state_dict())
        with sharing(Processes(number, 2, add)):
            copy.follow(halves[number])
        return copy

    with ThreadPoolExecutor(2) as threads:
        return list(threads.map(followed, range(2)))


def test_codes_follow_the_features_of_all_processes_as_those_of_one() -> None:
    torch.manual_seed(0)
    book = Codebook(20, 4)
    book.chosen.fill_(1.0)
    book.sums.copy_(book.rows)
    features = torch.randn(6, 4, 5, 5)
    before = book.rows.clone()
    both = in_two_processes(book, [features[:4], features[4:]])
    book.follow(features)
    assert float((book.rows - before).abs().amax(1).median()) > 0.01
    for copy in both:
        for name, tensor in book.state_dict().items():
            torch.testing.assert_close(copy.state_dict()[name], tensor, rtol=1e-6, atol=1e-6)


def test_codes_that_begin_anew_are_features_of_either_process_and_the_same_in_both() -> None:
    torch.manual_seed(0)
    halves = [torch.randn(2, 4, 5, 5), 100 + torch.randn(1, 4, 5, 5)]
    one, other = in_two_processes(Codebook(30, 4), halves)
    for name, tensor in one.state_dict().items():
        assert torch.equal(other.state_dict()[name], tensor), name
    far = one.rows.mean(1) > 50
    assert int(far.sum()) == 15
    for rows, features in ((one.rows[~far], halves[0]), (one.rows[far], halves[1])):
        assert float(torch.cdist(rows, features.movedim(1, 3).flatten(0, 2)).amin(1).max()) < 1e-3


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


def test_the_published_network_is_as_large_as_the_authors_one() -> None:
    """The defaults: the numbers are those of their networks' weights at the sizes that their train_dsr.py sets.

    Counted in VitjanZ/DSR_anomaly_detection, commit 672bfb8, and by the formulas here; codes are no weights.
    """

    def conv(side: int, inner: int, outer: int) -> int:
        return side**2 * inner * outer + outer

    def double(inner: int, middle: int, outer: int) -> int:
        return conv(3, inner, middle) + conv(3, middle, outer)

    residuals = 2 * (3**2 * 128 * 64 + 64 * 128)
    to_image = conv(4, 128, 64) + conv(4, 64, 3)
    fine = conv(4, 3, 64) + conv(4, 64, 128) + conv(3, 128, 128) + residuals
    coarse = conv(4, 128, 128) + conv(3, 128, 128) + residuals
    joining = conv(1, 256, 128) + conv(1, 128, 128) + conv(4, 128, 128)
    general = fine + coarse + joining + conv(3, 256, 128) + residuals + to_image
    restriction = (
        double(128, 128, 128) + double(128, 256, 256) + double(256, 512, 512)
        + conv(3, 512, 256) + double(256, 256, 256) + conv(3, 256, 128) + double(128, 128, 128) + conv(3, 128, 128)
    )  # fmt: skip
    decoder = (
        double(256, 256, 512) + double(512, 512, 1024) + conv(1, 1024, 64) + 2 * conv(4, 64, 64)
        + conv(3, 64, 128) + residuals + to_image
    )  # fmt: skip
    levels = (
        double(64, 128, 128) + double(128, 256, 256) + double(256, 256, 256)
        + conv(3, 256, 256) + double(512, 256, 256) + conv(3, 256, 128) + double(256, 128, 128)
        + conv(3, 128, 64) + double(128, 64, 64) + conv(3, 64, 2)
    )  # fmt: skip
    told = double(6, 64, 64) + levels
    detector = create("dsr")
    assert isinstance(detector, DSR)
    found = {
        name: sum(weights.numel() for weights in network.parameters()) for name, network in detector.named_children()
    }
    assert found == {
        "general": general, "restrict_high": restriction, "restrict_low": restriction, "decoder": decoder,
        "detector": told, "refiner": told + 9 * 2 * 64,
    }  # fmt: skip
    assert found == {
        "general": 1_924_227, "restrict_high": 7_818_240, "restrict_low": 7_818_240, "decoder": 9_418_371,
        "detector": 5_610_690, "refiner": 5_611_842,
    }  # fmt: skip
    assert detector.general.high.rows.shape == detector.general.low.rows.shape == (4096, 128)
    assert (detector.window, detector.batch_size, detector.learning_rate) == (21, 8, 2e-4)


def kinds(network: nn.Module) -> list[type[nn.Module]]:
    """Of its layers, in order."""
    return [type(layer) for layer in network.modules() if not list(layer.children())]


def test_nothing_leads_around_what_restricts_and_it_ends_unbounded() -> None:
    detector = built()
    layer = [nn.Conv2d, nn.InstanceNorm2d, nn.ReLU]
    up = [nn.Upsample, *layer, *layer, *layer]
    assert kinds(detector.restrict_high) == [
        *layer, *layer, nn.MaxPool2d, *layer, *layer, nn.MaxPool2d, *layer, *layer, *up, *up, nn.Conv2d
    ]  # fmt: skip
    residual = [nn.Conv2d, nn.ReLU, nn.Conv2d]
    to_image = [nn.Conv2d, *residual, *residual, nn.ReLU, nn.ConvTranspose2d, nn.ReLU, nn.ConvTranspose2d]
    assert kinds(detector.general.decoder) == to_image
    wider = [nn.Conv2d, *[nn.ConvTranspose2d, nn.ReLU] * 2]
    assert kinds(detector.decoder) == [*([*layer, *layer, nn.MaxPool2d] * 2), *wider, *to_image]


def test_the_published_training() -> None:
    detector = built(training_steps=100)
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


@pytest.mark.parametrize("size", [(100, 128), (128, 100)])
def test_sides_that_cannot_be_halved_so_often_are_refused_and_a_fit_rounds_them(size: tuple[int, int]) -> None:
    with pytest.raises(OkngError, match=r"^dsr: both sides of image_size are multiples of 32 such as 256, not \(1"):
        create("dsr", image_size=size)
    images = [np.zeros((*size, 3), np.uint8)]
    built, preprocess, _ = build("dsr", images, None, {key: SMALL[key] for key in SMALL if key != "image_size"})
    assert preprocess.size == built.arguments["image_size"] == tuple(96 if side == 100 else side for side in size)


def test_small_images_are_refused() -> None:
    with pytest.raises(OkngError, match="both sides of image_size are 64 or more"):
        create("dsr", image_size=(32, 64))
