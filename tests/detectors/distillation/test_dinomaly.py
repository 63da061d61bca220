"""What tells Dinomaly from a toy: attention that can't look at one token, two loose groups, gradients that ease off."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from okng.detectors.base import Batch, Train
from okng.detectors.catalogue import create
from okng.detectors.distillation.dinomaly import Dinomaly, LinearAttention
from okng.errors import OkngError
from okng.nn.features.token_levels import warmed_up

VIT = {"backbone": "vit_tiny_patch16_224", "blocks": (1, 2, 3, 4), "heads": 3}  # 192 numbers a token


def built(**arguments: object) -> Dinomaly:
    torch.manual_seed(0)
    detector = create("dinomaly", **{"weights": "none", "depth": 4, "heads": 2, **arguments})
    assert isinstance(detector, Dinomaly)
    return detector.eval()


def images(count: int = 2, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, 64, 96, generator=torch.Generator().manual_seed(seed))


def test_linear_attention_is_attention_by_positive_features() -> None:
    attention = LinearAttention(8, 2)
    tokens = torch.randn(3, 5, 8)
    with torch.no_grad():
        q, k, v = (part.unflatten(2, (2, 4)) for part in attention.project_in(tokens).chunk(3, 2))  # (B, N, heads, 4)
        weights = torch.einsum("bihe,bjhe->bhij", F.elu(q) + 1, F.elu(k) + 1)
        mixed = torch.einsum("bhij,bjhe->bihe", weights / weights.sum(3, keepdim=True), v).flatten(2)
        torch.testing.assert_close(attention(tokens), attention.project_out(mixed), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("network", [{}, VIT])
def test_the_first_levels_are_restored_by_the_last_blocks(network: dict[str, object]) -> None:
    detector = built(**network)
    with torch.no_grad():
        levels = detector.encoder(images())
        mean, wanted = detector.prepared(images())
        torch.testing.assert_close(mean, levels.mean(1))
        count = levels.shape[1] - levels.shape[1] // 2
        for half, part in enumerate((levels[:, :count], levels[:, count:])):
            torch.testing.assert_close(wanted[:, half], part.mean(1)[:, 1:])
        tokens, made = detector.bottleneck(mean), []
        for block in detector.decoder:
            tokens = block(tokens)
            made.append(tokens)
        restored = detector.restore(mean)
    for half, pair in enumerate((made[2:], made[:2])):
        torch.testing.assert_close(restored[:, half], (sum(pair) / 2)[:, 1:])  # type: ignore[operator]


def test_a_decoder_that_restores_both_groups_has_no_loss_and_finds_nothing() -> None:
    detector = built()
    with torch.no_grad():
        prepared = detector.prepared(images())
        detector.restore = lambda _: 3 * prepared[1]  # type: ignore[method-assign]
        losses = detector.loss(Batch(images(), torch.arange(2), prepared))
        scores = detector(images())
    assert sorted(losses) == ["first levels", "second levels"] and float(sum(losses.values())) < 1e-5
    assert scores.map is not None and scores.map.shape == (2, 32, 48) and float(scores.map.abs().max()) < 1e-5


def test_the_easy_positions_gradient_is_slowed_more_of_them_with_every_step() -> None:
    """By the tenth, and no loss changes its value."""
    detector = built()
    with torch.no_grad():
        prepared = detector.prepared(images())
    restored = torch.randn_like(prepared[1]).requires_grad_()
    detector.restore = lambda _: restored  # type: ignore[method-assign]
    slopes, values = [], []
    for steps in (0, 500, 5000):
        detector.steps_done.fill_(steps)
        losses = detector.loss(Batch(images(), torch.arange(2), prepared))
        values.append(losses["first levels"].item())
        slopes.append(torch.autograd.grad(losses["first levels"], restored)[0][:, 0].norm(dim=2).flatten())
    assert max(values) - min(values) < 1e-6
    both = (prepared[1][:, 0], restored[:, 0])
    assert values[0] == pytest.approx(
        float(1 - F.cosine_similarity(*(each.detach().flatten(1) for each in both)).mean()) / 2
    )
    odd = 1 - F.cosine_similarity(prepared[1][:, 0], restored[:, 0], dim=2).flatten()
    for slope, share in zip(slopes[1:], (0.45, 0.9), strict=True):
        slowed = slope / slopes[0]
        easy = slowed < 0.5
        torch.testing.assert_close(slowed, torch.where(easy, 0.1, 1.0), rtol=1e-3, atol=1e-3)
        assert abs(float(easy.float().mean()) - share) < 0.1 and odd[easy].max() <= odd[~easy].min()


def test_dropout_is_the_noise_and_only_while_learning() -> None:
    detector = built()
    with torch.no_grad():
        mean, _ = detector.prepared(images())
        assert torch.equal(detector.restore(mean), detector.restore(mean))
        detector.bottleneck.train()
        assert not torch.allclose(detector.restore(mean), detector.restore(mean))
    assert [layer.p for layer in detector.bottleneck if isinstance(layer, nn.Dropout)] == 3 * [0.2]


def test_what_is_restored_is_recentred_by_the_images_own_class_token() -> None:
    detector = built(recentred=True, **VIT)
    moved: list[Tensor] = []
    plain = detector.encoder.forward
    detector.encoder.forward = lambda shown: plain(shown) + moved[0]  # type: ignore[method-assign]
    with torch.no_grad():
        moved[:] = [torch.zeros(192)]
        mean, wanted = detector.prepared(images())
        moved[:] = [torch.randn(1, 4, 1, 192)]  # all tokens of a level alike
        other_mean, still = detector.prepared(images())
        moved[:] = [torch.cat([torch.randn(1, 4, 1, 192), torch.zeros(1, 4, 24, 192)], 2)]  # the class token alone
        _, changed = detector.prepared(images())
    torch.testing.assert_close(still, wanted, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(wanted.mean(3), torch.zeros(2, 2, 24), rtol=0, atol=1e-4)
    torch.testing.assert_close(wanted.var(3, correction=0), torch.ones(2, 2, 24), rtol=1e-3, atol=0)
    assert float((changed - wanted).abs().mean()) > 0.1 and not torch.allclose(mean, other_mean)


@pytest.mark.parametrize("recentred", [False, True])
def test_the_rates_are_those_of_the_authors(recentred: bool) -> None:
    detector = built(recentred=recentred, training_steps=1000)
    (phase,) = detector.phases()
    assert isinstance(phase, Train) and (phase.steps, phase.batch_size) == (1000, 16)
    (update,) = phase.updates
    rates = [group["lr"] for group in update.optimizer.param_groups]
    assert update.clip == 0.1 and rates == ([2e-4, 2e-3] if recentred else [2e-3])
    learnt = {id(p) for group in update.optimizer.param_groups for p in group["params"]}
    assert learnt == {id(p) for p in detector.parameters() if p.requires_grad}
    assert update.schedule is not None
    first, warm, last = (update.schedule(share) for share in (0.05, 0.1, 0.999))
    assert (first, warm) == (0.5, 1.0) and last == pytest.approx(1.0 if recentred else 0.1, abs=0.01)
    assert warmed_up(0.05, 50, 0.1) < 1  # a short fit warms up too


@pytest.mark.parametrize("arguments", [{"strides": (8,)}, {"dropout": 1.0}, {"depth": 1}, {**VIT, "heads": 5}])
def test_ranges(arguments: dict[str, object]) -> None:
    with pytest.raises(OkngError, match="dinomaly: "):
        built(**arguments)
