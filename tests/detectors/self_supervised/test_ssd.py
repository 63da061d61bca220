"""What tells SSD from a toy: Gaussians of standardised features, blind to linear maps of them, and known NG images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.detectors.self_supervised.upright import learn, upright
from torch import Tensor

from okng.detectors.base import Batch, Collect, Train
from okng.detectors.catalogue import create
from okng.detectors.self_supervised.ssd import SSD, SSDk, pseudo_whitening
from okng.errors import OkngError
from okng.inspection.reading.images import Preprocess
from okng.nn.learning.contrastive import nt_xent
from okng.training.images.data import TrainingImages
from okng.training.loop.phases import run_phases

SMALL = {"image_size": (16, 16), "channels": 1, "blocks": (1, 1), "width": 8, "bottleneck": False}


def built(name: str = "ssd", **arguments: object) -> SSD:
    torch.manual_seed(0)
    detector = create(name, **{**SMALL, "batch_size": 16, "learning_rate": 0.1, **arguments})
    assert isinstance(detector, SSD)
    return detector


def vectors(count: int, seed: int = 0) -> Tensor:
    """(count, 16), correlated."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 16, generator=generator) @ torch.randn(16, 16, generator=generator) + 3


def scored(detector: SSD, features: Tensor) -> Tensor:
    """The scores of images that have these features."""
    detector.features = lambda images: features  # type: ignore[method-assign]
    try:
        with torch.no_grad():
            return detector(torch.zeros(len(features), 1, 16, 16)).image
    finally:
        del detector.features


def test_one_cluster_is_the_closed_form_gaussian_and_training_scores_have_the_mean_of_the_dimension() -> None:
    detector, learnt, new = built(), vectors(300), vectors(20, 1)
    detector.conclude(learnt, learnt[:0])
    inverse = np.linalg.inv(np.cov(learnt.double().numpy().T, bias=True))
    apart = (new - learnt.mean(0)).double().numpy()
    expected = np.einsum("ni,ij,nj->n", apart, inverse, apart)
    np.testing.assert_allclose(scored(detector, new), expected, rtol=1e-3)
    assert float(scored(detector, learnt).mean()) == pytest.approx(16, rel=1e-3)


def test_directions_in_which_ok_images_do_not_vary_are_left_out() -> None:
    detector = built()
    flat = torch.cat([vectors(300)[:, :10], torch.full((300, 2), 0.5), vectors(300)[:, :4]], dim=1)
    detector.conclude(flat, flat[:0])
    assert float(scored(detector, flat).mean()) == pytest.approx(10, rel=1e-3)  # the rank
    white = pseudo_whitening(flat)
    inverse = torch.from_numpy(np.linalg.pinv(np.cov(flat.double().numpy().T, bias=True), rcond=1e-6, hermitian=True))
    torch.testing.assert_close(white.T @ white, inverse, rtol=1e-3, atol=1e-3 * float(inverse.abs().max()))


def test_scores_are_blind_to_an_invertible_map_of_the_features() -> None:
    mixing = torch.randn(16, 16, generator=torch.Generator().manual_seed(7)).double()
    one, other = built(), built()
    learnt, new = vectors(300).double(), vectors(20, 1).double()
    one.double().conclude(learnt, learnt[:0])
    other.double().conclude(learnt @ mixing, learnt[:0])
    torch.testing.assert_close(scored(other, new @ mixing), scored(one, new), rtol=1e-4, atol=1e-4)


def test_of_two_clusters_the_nearer_one_counts() -> None:
    detector = built(clusters=2)
    learnt = torch.cat([vectors(200), vectors(200, 1) + 200])
    torch.manual_seed(0)
    detector.conclude(learnt, learnt[:0])
    middle = learnt.mean(0, keepdim=True)
    told = scored(detector, torch.cat([learnt[:200].mean(0, keepdim=True), learnt[200:].mean(0, keepdim=True), middle]))
    assert float(told[:2].max()) < 1 and float(told[2]) > 16
    assert len(detector.centres) == 2


def test_a_stray_image_is_no_cluster_to_which_all_are_near() -> None:
    """Alone, or copied, it has no covariance, and all images would score 0."""
    learnt = vectors(200)
    for copies in (1, 3):
        detector = built(clusters=2)
        torch.manual_seed(0)
        strays = (learnt[:1] + 500).repeat(copies, 1)
        detector.conclude(torch.cat([learnt, strays]), learnt[:0])
        told = scored(detector, torch.cat([learnt, strays[:1]]))
        assert len(detector.centres) == 1
        assert float(told[:-1].mean()) == pytest.approx(16, rel=0.05) and float(told[-1]) > 100


@pytest.fixture(scope="module")
def trained() -> SSD:
    return learn(built(epochs=25), upright(48, seed=1))


def test_other_things_are_odd(trained: SSD) -> None:
    with torch.no_grad():
        ok, odd = (trained(upright(20, seed=3, turned=turned)).image for turned in (False, True))
        lengths = trained.features(upright(3, seed=4)).norm(dim=1)
    assert (odd[:, None] > ok).float().mean() > 0.85
    torch.testing.assert_close(lengths, torch.ones(3))


def test_the_loss_is_nt_xent_of_two_views_of_each_ok_image() -> None:
    detector, images = built("ssdk"), torch.rand(4, 1, 16, 16)
    drawn = torch.stack([detector.augment(image, torch.Generator().manual_seed(i)) for i, image in enumerate(images)])
    views, labels = (drawn,), torch.tensor([0, 1, 0, 1])
    with torch.no_grad():
        loss = detector.loss(Batch(images, torch.arange(4), labels=labels, views=views))
        alone = detector.loss(Batch(images[::2], torch.arange(2), views=(drawn[::2],)))
        odd = detector.loss(Batch(images[1::2], torch.arange(2), labels=labels[1::2], views=(drawn[1::2],)))
    torch.testing.assert_close(loss, alone)
    assert float(odd) == 0 and float(alone) > 0 and drawn.shape[:2] == (4, 2)
    assert not torch.equal(drawn[:, 0], drawn[:, 1])
    z = detector.projection(detector.network(torch.cat([images, images]) * 2 - 1)).chunk(2)
    assert float(nt_xent(z[0], z[1], 0.5).detach()) > 0


def test_known_ng_images_like_ok_ones_tell_nothing() -> None:
    detector = built("ssdk")
    learnt = vectors(400)
    detector.conclude(learnt, learnt)
    new = vectors(20, 1)
    torch.testing.assert_close(scored(detector, new), torch.zeros(20), atol=1e-2, rtol=0)
    shifted = learnt + 5
    detector.conclude(learnt, shifted)
    assert float(scored(detector, shifted[:20]).min()) > float(scored(detector, learnt[:20]).max())


def test_few_known_ng_images_make_their_kind_odder() -> None:
    detector = built("ssdk", epochs=15)
    assert isinstance(detector, SSDk)
    ok, ng = upright(48, seed=1), upright(4, seed=8, turned=True)
    pixels = [np.asarray(image[0] * 255).round().astype(np.uint8) for image in torch.cat([ok, ng])]
    run_phases(detector, TrainingImages(pixels, Preprocess("L", (16, 16)), labels=[0] * 48 + [1] * 4), device="cpu")
    with torch.no_grad():
        usual, odd = (detector(upright(20, seed=3, turned=turned)).image for turned in (False, True))
    assert (odd[:, None] > usual).float().mean() > 0.95 and len(detector.centres) == 2


def test_paper_size() -> None:
    """ResNet-50; SGD at 0.5 after ten epochs, half a cosine over 500, batches of 512."""
    with torch.device("meta"):
        detector = SSD()
    assert detector.network.features == 2048 and detector.clusters == 1
    contrasting, collect = detector.phases()
    assert isinstance(contrasting, Train) and isinstance(collect, Collect)
    assert (contrasting.epochs, contrasting.batch_size) == (500, 512)
    (update,) = contrasting.updates
    (group,) = update.optimizer.param_groups
    assert (group["lr"], group["momentum"], group["weight_decay"]) == (0.5, 0.9, 1e-4) and update.schedule is not None
    assert [0.5 * update.schedule(share) for share in (0, 0.02, 1)] == pytest.approx([0.01, 0.5, 1e-4])


@pytest.mark.parametrize("arguments", [{"clusters": 0}, {"width": 0}])
def test_ranges(arguments: dict[str, object]) -> None:
    with pytest.raises(OkngError, match=f"ssd: {next(iter(arguments))}"):
        create("ssd", **arguments)
