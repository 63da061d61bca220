"""What tells GOAD from a toy: features gather around a centre of each transformation, and only distances count."""

from __future__ import annotations

import pytest
import torch
from tests.detectors.self_supervised.upright import learn, upright
from torch import Tensor

from okng.detectors.base import Batch, Collect, Train
from okng.detectors.catalogue import create
from okng.detectors.self_supervised.goad import GOAD, GOADTabular, by_distance, triplet_centre
from okng.errors import OkngError


def built(**arguments: object) -> GOAD:
    torch.manual_seed(0)
    small = {"image_size": (16, 16), "channels": 1, "width": 4, "shifts": False, "learning_rate": 1e-2}
    detector = create("goad", **{**small, **arguments})
    assert isinstance(detector, GOAD)
    return detector


def clusters(apart: float, spread: float) -> Tensor:
    """Features (5, 4, 6) of 5 images and 4 transformations, whose centres are `apart`."""
    noise = spread * torch.randn(5, 4, 6, generator=torch.Generator().manual_seed(0))
    return apart * torch.eye(4, 6) / 2**0.5 + noise - noise.mean(0)


def test_the_triplet_centre_loss_is_the_papers_and_0_beyond_the_margin() -> None:
    features, margin = clusters(1.0, 0.5), 0.3
    centres, expected = features.mean(0), 0.0
    for image in features:
        for m, feature in enumerate(image):
            squared = [float((feature - centre).square().sum()) for centre in centres]
            nearest = min(value for other, value in enumerate(squared) if other != m)
            expected += max(0.0, squared[m] + margin - nearest) / 20
    assert float(triplet_centre(features, margin)) == pytest.approx(expected, rel=1e-5)
    assert expected > 0 and float(triplet_centre(clusters(1.0, 0.0), 0.99)) == 0  # d² of 1 to the next centre
    assert float(triplet_centre(clusters(1.0, 0.0), 1.5)) == pytest.approx(0.5, rel=1e-5)


def test_probabilities_are_a_softmax_over_squared_distances_and_blind_to_a_common_shift() -> None:
    features, centres = clusters(2.0, 0.5), torch.randn(4, 6, generator=torch.Generator().manual_seed(1))
    told = by_distance(features, centres)
    squared = (features[:, :, None] - centres).square().sum(3)
    torch.testing.assert_close(told, (-squared).log_softmax(2), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(told.exp().sum(2), torch.ones(5, 4))
    torch.testing.assert_close(by_distance(features + 3, centres + 3), told, rtol=1e-4, atol=1e-4)


@pytest.fixture(scope="module")
def trained() -> GOAD:
    return learn(built(epochs=30), upright(24, seed=1))


def test_features_of_images_that_it_never_saw_lie_at_their_centres_and_other_things_elsewhere(trained: GOAD) -> None:
    with torch.no_grad():
        told = by_distance(trained.features(upright(20, seed=2)), trained.centres)  # (20, 8, 8)
        ok, odd = (trained(upright(20, seed=3, turned=turned)).image for turned in (False, True))
    assert (told.argmax(2) == torch.arange(8)).float().mean() > 0.6  # one in 8 by chance
    assert (odd[:, None] > ok).float().mean() > 0.9


def test_the_score_is_the_sum_of_the_right_transformations(trained: GOAD) -> None:
    images = upright(3, seed=4)
    with torch.no_grad():
        scores, features = trained(images).image, trained.features(images)
        learnt = trained.features(upright(24, seed=1))
    torch.testing.assert_close(trained.centres, learnt.mean(0), rtol=1e-3, atol=1e-4)
    for score, image in zip(scores, features, strict=True):
        squared = torch.cdist(image.double(), trained.centres.double()).square()  # (8, 8)
        expected = -(-squared).softmax(1).diagonal().log().sum()
        assert float(score) == pytest.approx(float(expected), rel=1e-3, abs=1e-3)


def test_the_loss_has_three_parts_of_all_transformations_of_each_image() -> None:
    detector, images = built(triplet_weight=0.5, margin=2.0), torch.rand(3, 1, 16, 16)
    with torch.no_grad():
        losses, features = detector.loss(Batch(images, torch.arange(3))), detector.features(images)
        logits = detector.head(features)  # (3, 8, 8)
    assert features.shape == (3, 8, 16)
    expected = -logits.log_softmax(2).diagonal(dim1=1, dim2=2).mean()
    assert float(losses["cross-entropy"]) == pytest.approx(float(expected), rel=1e-4)
    assert float(losses["triplet-centre"]) == pytest.approx(float(triplet_centre(features, 2.0)) / 2, rel=1e-4)
    assert float(losses["norm"]) == pytest.approx(10 * float(features.square().mean()), rel=1e-4)


def table(count: int, seed: int, odd: bool = False) -> Tensor:
    """(count, 1, 8, 8) in [0, 1]: 64 columns that 3 hidden numbers decide; in odd rows each goes its own way."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(3, 64, generator=torch.Generator().manual_seed(99))
    rows = torch.randn(count, 64, generator=generator) * mixing.square().sum(0).sqrt()
    if not odd:
        rows = torch.randn(count, 3, generator=generator) @ mixing + 0.1 * torch.randn(count, 64, generator=generator)
    return ((0.5 + rows / 12).clamp(0, 1) * 255).round().view(-1, 1, 8, 8) / 255


def test_of_a_table_it_finds_rows_whose_columns_do_not_go_together() -> None:
    torch.manual_seed(0)
    small = {"channels": 1, "maps": 16, "mapped": 16, "layers": 3, "epochs": 30, "learning_rate": 5e-3}
    detector = create("goad_tabular", **small)
    assert isinstance(detector, GOADTabular)
    before = detector.matrices.clone()
    learn(detector, table(200, seed=1))
    assert torch.equal(detector.matrices, before)  # drawn once, for training and scores alike
    with torch.no_grad():
        ok, odd = detector(table(100, seed=2)).image, detector(table(100, seed=3, odd=True)).image
        features = detector.features(table(200, seed=1))  # (200, 16, 32)
        order = torch.randperm(64, generator=torch.Generator().manual_seed(0))
        shuffled = table(5, seed=2).flatten(1)[:, order].view(-1, 1, 8, 8)
        expected = detector(table(5, seed=2)).image
        for name in ("mean", "deviation"):
            setattr(detector, name, getattr(detector, name)[order])
        detector.matrices = detector.matrices[:, order]
        torch.testing.assert_close(detector(shuffled).image, expected, rtol=1e-3, atol=1e-3)  # places play no part
    torch.testing.assert_close(detector.centres, features.mean(0), rtol=1e-4, atol=1e-4)
    assert (odd[:, None] > ok).float().mean() > 0.9


def test_weights_for_tables_begin_so_that_features_are_as_large_as_what_is_mapped() -> None:
    """Xavier's with a gain of √2: from PyTorch's, which are smaller, 25 epochs learn next to nothing."""
    torch.manual_seed(0)
    detector = GOADTabular()
    layers = [layer for layer in (*detector.network, *detector.head) if isinstance(layer, torch.nn.Linear)]
    assert len(layers) == 6
    for layer in layers:
        expected = 2 / (layer.in_features + layer.out_features) ** 0.5
        assert float(layer.weight.detach().std()) == pytest.approx(expected, rel=0.1)
    rows = torch.randn(50, 3, 8, 8)
    with torch.no_grad():
        mapped = rows.flatten(1) @ detector.matrices  # (M, 50, r)
        assert 0.2 < float(detector.features(rows).square().mean() / mapped.square().mean()) < 5


def test_tables_are_standardised_by_what_is_ok_and_the_loss_has_two_parts() -> None:
    detector = create("goad_tabular", channels=1, maps=4, mapped=8, epochs=1)
    assert isinstance(detector, GOADTabular)
    rows = table(50, seed=1)
    rows[:, 0, 0, 0] = 0.3  # a column that does not vary
    columns, gathering, _ = detector.phases()
    assert isinstance(columns, Collect) and isinstance(gathering, Train)
    columns.visit(Batch(rows, torch.arange(50)))
    columns.finish()
    standard = (rows.flatten(1) - detector.mean) / detector.deviation
    torch.testing.assert_close(standard.mean(0), torch.zeros(64), atol=1e-4, rtol=0)
    torch.testing.assert_close(standard[:, 1:].std(0, correction=0), torch.ones(63))
    with torch.no_grad():
        losses, features = detector.loss(Batch(rows, torch.arange(50))), detector.features(rows)
    mapped = torch.einsum("nd,mdr->nmr", standard, detector.matrices)
    torch.testing.assert_close(features, detector.network(mapped).detach(), rtol=1e-3, atol=1e-3)
    expected = -detector.head(features).log_softmax(2).diagonal(dim1=1, dim2=2).mean()
    assert float(losses["cross-entropy"]) == pytest.approx(float(expected.detach()), rel=1e-3)
    assert float(losses["triplet-centre"]) == pytest.approx(0.1 * float(triplet_centre(features, 1.0)), rel=1e-3)
    assert {*losses} == {"cross-entropy", "triplet-centre"}
    (group,) = gathering.updates[0].optimizer.param_groups
    assert (group["lr"], group["betas"], gathering.batch_size) == (1e-3, (0.5, 0.999), 64)


def test_paper_size() -> None:
    """WRN-10-4 and 72 transformations; Adam at 0.001 for 16 epochs of 4 images a batch."""
    detector = GOAD()
    assert detector.centres.shape == (72, 256)
    gathering, centres = detector.phases()
    assert isinstance(gathering, Train) and isinstance(centres, Collect)
    assert (gathering.epochs, gathering.batch_size, detector.margin, detector.triplet_weight) == (16, 4, 0.1, 0.1)
    (group,) = gathering.updates[0].optimizer.param_groups
    assert (group["lr"], group["betas"], group["weight_decay"]) == (1e-3, (0.9, 0.999), 0)


@pytest.mark.parametrize("arguments", [{"margin": -0.1}, {"triplet_weight": -1.0}])
def test_ranges(arguments: dict[str, object]) -> None:
    with pytest.raises(OkngError, match=f"goad: {next(iter(arguments))}"):
        create("goad", **arguments)
