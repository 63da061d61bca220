"""What tells LSA: a number of a code is predicted from those before it alone, and both parts of the score count."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from tests.detectors.scenes import SIDE, crosses, rings, source, tensor

from okng.detectors.base import Batch, Train
from okng.detectors.catalogue import create
from okng.detectors.reconstruction.lsa import LSA, Block, Estimator
from okng.errors import OkngError
from okng.metrics.ranking import auroc
from okng.training.loop.phases import run_phases

TINY = {"code": 4, "bins": 5, "width": 4, "hidden": 8, "estimator_width": 2, "batch_size": 2}


def built(**arguments: object) -> LSA:
    torch.manual_seed(0)
    detector = create("lsa", **{"image_size": (SIDE, SIDE), **TINY, **arguments})
    assert isinstance(detector, LSA)
    return detector


def reach(estimator: Estimator, code: int) -> torch.Tensor:
    """(code, code) bool: whether the logits of a number, a row, depend on another, a column, at any of some codes."""
    found = torch.zeros(code, code, dtype=torch.bool)
    for _ in range(4):  # a rectifier may be almost shut at one code
        jacobian = torch.autograd.functional.jacobian(lambda z: estimator(z)[0], torch.rand(1, code))
        found |= (jacobian[:, :, 0] != 0).any(1)  # of (code, bins, 1, code)
    return found


def test_no_number_sees_itself_or_a_later_one_and_all_see_what_is_before() -> None:
    """Before and after steps of an optimiser with momentum, which would open a mask that is only set at the start."""
    torch.manual_seed(0)
    estimator = Estimator(code=6, width=3, bins=4)
    optimizer = torch.optim.Adam(estimator.parameters(), 0.05, weight_decay=0.1)
    for _ in range(2):
        assert torch.equal(reach(estimator, 6), torch.ones(6, 6).tril(-1) > 0)
        for _ in range(5):
            optimizer.zero_grad()
            estimator.surprise(torch.rand(16, 6)).mean().backward()
            optimizer.step()


def test_the_probabilities_of_all_codes_sum_to_one() -> None:
    torch.manual_seed(0)
    estimator = Estimator(code=3, width=4, bins=4)
    codes = (torch.tensor(list(product(range(4), repeat=3))) + 0.5) / 4  # (64, 3), the middles of all bins
    with torch.no_grad():
        assert float((-estimator.surprise(codes)).exp().sum()) == pytest.approx(1, abs=1e-5)


def test_the_density_learns_what_goes_with_what() -> None:
    """The second number is the first: that costs its own bits alone, and codes of shuffled numbers cost more."""
    torch.manual_seed(0)
    estimator = Estimator(code=2, width=16, bins=8)
    optimizer = torch.optim.Adam(estimator.parameters(), 0.02)
    for _ in range(400):
        codes = torch.rand(64, 1).expand(64, 2)
        optimizer.zero_grad()
        estimator.surprise(codes).mean().backward()
        optimizer.step()
    with torch.no_grad():
        first, second = torch.rand(500, 1), torch.rand(500, 1)
        true = float(estimator.surprise(first.expand(500, 2)).mean())
        shuffled = float(estimator.surprise(torch.cat([first, second], 1)).mean())
    assert true < torch.tensor(8.0).log() + 0.5 < shuffled - 1


def test_codes_at_both_ends_have_bins_and_are_no_target_of_a_gradient() -> None:
    """1.0 falls into the last bin; the first number is met and never seen by any earlier one: its gradient comes
    through what later ones see alone.
    """
    torch.manual_seed(0)
    estimator = Estimator(code=3, width=4, bins=10)
    codes = torch.tensor([[0.0, 1.0, 0.999]], requires_grad=True)
    estimator.surprise(codes).sum().backward()
    assert codes.grad is not None and codes.grad[0, :2].all() and codes.grad[0, 2] == 0  # nobody sees the last
    with torch.no_grad():
        inside = codes.detach().clone()
        inside[0, 1] = 0.95
        likely = estimator(codes).log_softmax(2)[0]
        assert float(estimator.surprise(codes)) == pytest.approx(-float(likely[[0, 1, 2], [0, 9, 9]].sum()), rel=1e-5)


def test_the_density_teaches_the_encoder_too() -> None:
    detector = built()
    losses = detector.loss(Batch(torch.rand(4, 1, SIDE, SIDE), torch.arange(4)))
    losses["surprise"].backward()
    taught = {name.split(".")[0] for name, p in detector.named_parameters() if p.grad is not None and p.grad.any()}
    assert taught == {"encoder", "estimator"}


def test_the_score_is_both_parts_in_units_of_their_ranges() -> None:
    """Over what was learnt each part ranges over 1, whatever else is scored beside an image."""
    detector = built(epochs=3, width=8, estimator_width=8, bins=20, learning_rate=1e-2)
    ok = rings(8)
    run_phases(detector, source(ok), device="cpu")
    with torch.no_grad():
        (surprise, error), scores = detector.parts(tensor(ok))[0].T, detector(tensor(ok))
        expected = sum(part / (part.max() - part.min()) for part in (surprise, error))
        assert scores.map is not None
        torch.testing.assert_close(scores.image, expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(scores.map.sum((1, 2)), error)


def test_the_first_layer_of_colour_images_is_rectified() -> None:
    """Or it and the first layer of the block behind it were one linear map."""
    detector, images, met = built(channels=3).eval(), torch.rand(2, 3, SIDE, SIDE), []
    block = next(layer for layer in detector.encoder if isinstance(layer, Block))
    block.register_forward_hook(lambda _, given, __: met.append(given[0]))
    with torch.no_grad():
        detector.encode(images)
        expected = torch.nn.functional.leaky_relu(detector.encoder[0](images), 0.01)
    torch.testing.assert_close(met, [expected])


@pytest.mark.parametrize(("size", "channels"), [((28, 28), 1), ((32, 32), 3), ((19, 44), 1)])
def test_every_size_is_recovered(size: tuple[int, int], channels: int) -> None:
    detector = built(image_size=size, channels=channels).eval()
    images = torch.rand(2, channels, *size)
    with torch.no_grad():
        codes = detector.encode(100 * images)
        assert detector.decode(codes, images.shape[2:]).shape == images.shape
    assert codes.shape == (2, 4) and codes.min() >= 0 and codes.max() <= 1


def test_the_papers_networks() -> None:
    detector = create("lsa")
    assert isinstance(detector, LSA)
    linear = [tuple(m.weight.shape) for m in detector.encoder if isinstance(m, torch.nn.Linear)]
    assert linear == [(64, 3136), (64, 64)]
    assert [tuple(layer.weight.shape) for layer in detector.estimator.layers[::2]] == [  # type: ignore[union-attr]
        (64, 32, 64, 1), (64, 32, 64, 32), (64, 32, 64, 32), (64, 32, 64, 32), (64, 100, 64, 32)
    ]  # fmt: skip
    coloured = create("lsa", image_size=(32, 32), channels=3, hidden=256, estimator_width=1)
    assert isinstance(coloured, LSA)
    linear = [tuple(m.weight.shape) for m in coloured.encoder if isinstance(m, torch.nn.Linear)]
    assert linear == [(256, 4096), (64, 256)]
    (phase, _) = detector.phases()
    assert isinstance(phase, Train) and (phase.epochs, phase.batch_size) == (200, 256)


def test_on_rings() -> None:
    """Crosses are found, codes do not collapse, and what is sampled number by number decodes to rings."""
    unseen, odd = tensor(rings(100, seed=1)), tensor(crosses(100))
    detector = built(
        code=8, bins=20, width=8, hidden=32, estimator_width=4, epochs=12, batch_size=16, learning_rate=3e-3
    )
    run_phases(detector, source(rings(192)), device="cpu")
    torch.manual_seed(1)
    drawn = torch.zeros(100, 8)
    with torch.no_grad():
        for i in range(8):
            bins = torch.distributions.Categorical(logits=detector.estimator(drawn)[:, i]).sample()
            drawn[:, i] = (bins + 0.5) / 20
        made = detector.decode(drawn, unseen.shape[2:]).clamp(0, 1)
        ok, ng, sampled = (detector(images).image for images in (unseen, odd, made))
        spread = detector.encode(unseen).std(0)
    assert auroc([0] * 100 + [1] * 100, torch.cat([ok, ng]).numpy()) > 0.9
    assert float(spread.mean()) > 0.02
    assert sampled.median() < ng.median()


@pytest.mark.parametrize("arguments", [{"bins": 1}, {"batch_size": 1}, {"surprise_weight": -1.0}])
def test_ranges(arguments: dict[str, object]) -> None:
    with pytest.raises(OkngError, match="lsa: "):
        create("lsa", **arguments)
