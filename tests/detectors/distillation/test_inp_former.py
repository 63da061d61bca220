"""What tells INP-Former from a toy: prototypes of the image itself, and a decoder that can build of nothing else."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from okng.detectors.base import Batch, Train
from okng.detectors.catalogue import create
from okng.detectors.distillation.inp_former import INPFormer, incoherence
from okng.errors import OkngError


def built(**arguments: object) -> INPFormer:
    torch.manual_seed(0)
    detector = create("inp_former", **{"weights": "none", "depth": 4, "heads": 2, **arguments})
    assert isinstance(detector, INPFormer)
    for parameter in (detector.extractor.key_value.weight, detector.extractor.project_out.weight):
        parameter.data.normal_(std=0.1)  # as after some training: they begin small
    return detector.eval()


def images(count: int = 2, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, 64, 96, generator=torch.Generator().manual_seed(seed))


def test_the_decoders_attention_lies_in_the_span_of_the_prototypes() -> None:
    """Of each head: 24 tokens, and no more than 3 directions; and nothing of a token leads around it."""
    detector = built(prototypes=3)
    with torch.no_grad():
        mean, _ = detector.prepared(images())
        prototypes, _ = detector.restore(mean)
        assert prototypes.shape == (2, 3, mean.shape[2])
        block = detector.decoder[0]
        built_of = block.attention(mean, prototypes)  # type: ignore[operator]
        assert built_of.shape == (2, 2, 24, mean.shape[2] // 2)
        assert int(torch.linalg.matrix_rank(built_of, rtol=1e-4).max()) <= 3
        nothing = torch.zeros_like(prototypes)
        block.project_out.bias.zero_()  # type: ignore[union-attr,operator]
        block.key_value.bias.zero_()  # type: ignore[union-attr,operator]
        assert not block.attention(mean, nothing).any()  # type: ignore[operator]
        alike = block(mean, nothing)
        torch.testing.assert_close(alike, alike[:1, :1].expand_as(alike))  # whatever the tokens are


def test_the_weights_are_rectified_cosines_and_no_softmax() -> None:
    block = built().decoder[0]
    tokens, prototypes = torch.randn(1, 5, 112), torch.randn(1, 6, 112)
    with torch.no_grad():
        q = block.query(block.norm(tokens)).unflatten(2, (2, 56))  # type: ignore[operator]
        k, v = (p.unflatten(2, (2, 56)) for p in block.key_value(block.norm(prototypes)).chunk(2, 2))  # type: ignore[operator]
        cosines = F.cosine_similarity(q[:, :, None], k[:, None], dim=4)  # (1, 5, 6, heads)
        expected = torch.einsum("bnmh,bmhe->bhne", cosines.relu(), v)
        torch.testing.assert_close(block.attention(tokens, prototypes), expected, rtol=1e-4, atol=1e-5)  # type: ignore[operator]


def test_prototypes_are_the_images_own_and_do_not_ask_where_tokens_lie() -> None:
    detector = built()
    with torch.no_grad():
        mean, _ = detector.prepared(images())
        prototypes, _ = detector.restore(mean)
        again, _ = detector.restore(mean[[0, 0]])
        shuffled, _ = detector.restore(mean[:, torch.randperm(24)])
    torch.testing.assert_close(again[0], again[1])
    torch.testing.assert_close(shuffled, prototypes, rtol=1e-3, atol=1e-5)
    assert float((prototypes[0] - prototypes[1]).abs().max()) > 1e-3


def test_tokens_that_are_the_prototypes_are_coherent() -> None:
    prototypes = torch.randn(2, 3, 8)
    tokens = 2 * prototypes[:, torch.tensor([0, 2, 2, 1])]
    assert float(incoherence(tokens, prototypes).abs().max()) < 1e-6
    nearest = torch.stack([1 - F.cosine_similarity(-tokens, p[:, None], dim=2) for p in prototypes.unbind(1)]).amin(0)
    torch.testing.assert_close(incoherence(-tokens, prototypes), nearest)


def test_harder_positions_count_by_the_third_power_in_the_gradient_alone() -> None:
    detector = built()
    with torch.no_grad():
        mean, wanted = detector.prepared(images())
        prototypes, _ = detector.restore(mean)
    made = torch.randn_like(wanted).requires_grad_()
    detector.restore = lambda _: (prototypes, made)  # type: ignore[method-assign]
    losses = detector.loss(Batch(images(), torch.arange(2), (mean, wanted)))
    plain = (1 - F.cosine_similarity(wanted[:, 1].flatten(1), made[:, 1].flatten(1))).mean() / 2  # of two halves
    torch.testing.assert_close(losses["second levels"], plain)
    torch.testing.assert_close(losses["coherence"], 0.2 * incoherence(mean, prototypes).mean())
    slopes = [torch.autograd.grad(loss, made)[0][:, 1].norm(dim=2) for loss in (losses["second levels"], plain)]
    odd = 1 - F.cosine_similarity(wanted[:, 1], made[:, 1], dim=2).detach()
    torch.testing.assert_close(slopes[0] / slopes[1], (odd / odd.mean()) ** 3, rtol=1e-3, atol=1e-4)


def test_all_that_learns_is_in_the_optimiser_at_the_authors_rate() -> None:
    detector = built(training_steps=1000)
    (phase,) = detector.phases()
    assert isinstance(phase, Train) and (phase.steps, phase.batch_size) == (1000, 16)
    (update,) = phase.updates
    learnt = {id(p) for group in update.optimizer.param_groups for p in group["params"]}
    assert learnt == {id(p) for p in detector.parameters() if p.requires_grad} and id(detector.queries) in learnt
    assert update.clip == 0.1 and update.optimizer.defaults["lr"] == 1e-3 and update.schedule is not None
    assert [round(update.schedule(share), 2) for share in (0.05, 0.1, 1.0)] == [0.5, 1.0, 0.1]


def test_the_map_is_the_mean_of_both_halves_enlarged() -> None:
    detector = built()
    with torch.no_grad():
        scores = detector(images())
        mean, wanted = detector.prepared(images())
        odd = (1 - F.cosine_similarity(wanted, detector.restore(mean)[1], dim=3)).mean(1)
    assert scores.map is not None and scores.map.shape == (2, 32, 48)
    torch.testing.assert_close(scores.map.mean((1, 2)), odd.mean(1), rtol=0.05, atol=0)
    torch.testing.assert_close(scores.image, scores.map.flatten(1).topk(15).values.mean(1))


@pytest.mark.parametrize("arguments", [{"strides": (8,)}, {"prototypes": 0}, {"depth": 1}])
def test_ranges(arguments: dict[str, object]) -> None:
    with pytest.raises(OkngError, match="inp_former: "):
        built(**arguments)
