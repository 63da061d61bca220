"""What tells SubspaceAD from a toy: what lies in the subspace is OK however far, and nothing grows with the images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from okng.detectors.base import Batch, Collect
from okng.detectors.catalogue import create
from okng.detectors.feature_matching.subspace_ad import SubspaceAD
from okng.errors import OkngError
from okng.nn.vectors.principal_subspace import principal_subspace

D = 40  # channels at strides 2 and 4


def images(count: int, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, 32, 48, generator=torch.Generator().manual_seed(seed))


def built(**arguments: object) -> SubspaceAD:
    torch.manual_seed(0)
    detector = create("subspace_ad", **{"weights": "none", "strides": (2, 4), **arguments})
    assert isinstance(detector, SubspaceAD)
    return detector.double()


def learn(detector: SubspaceAD, batches: Sequence[Tensor], update: bool = False) -> SubspaceAD:
    (phase,) = detector.update_phases() if update else detector.phases()
    assert isinstance(phase, Collect) and phase.prepare is not None
    with torch.no_grad():
        for batch in batches:
            prepared = tuple(phase.prepare(batch.to(detector.mean.dtype)))
            phase.visit(Batch(batch, torch.arange(len(batch)), prepared))
        phase.finish()
    return detector


def flat_patches(count: int, r: int, seed: int = 1) -> tuple[Tensor, Tensor]:
    """Patches (1, 1, count, D) of an affine space of r dimensions, and the directions (D, D), its own first."""
    generator = torch.Generator().manual_seed(seed)
    directions = torch.linalg.qr(torch.randn(D, D, generator=generator, dtype=torch.float64)).Q
    places = torch.randn(count, r, generator=generator, dtype=torch.float64)
    return (places @ directions[:, :r].T + 3)[None, None], directions


def of_subspace(patches: Tensor, explained: float = 0.999999) -> SubspaceAD:
    """The detector after the patches (1, 1, n, D)."""
    detector, flat = built(), patches.flatten(0, 2)
    detector.mean = flat.mean(0)
    centred = flat - detector.mean
    detector.basis = principal_subspace(centred.T @ centred, explained)
    return detector


def test_only_what_leaves_the_subspace_counts_and_by_its_squared_length() -> None:
    patches, directions = flat_patches(200, 5)
    detector = of_subspace(patches)
    assert detector.basis.shape == (D, 5)
    assert float(detector.residuals(patches).max()) < 1e-9
    away = 2.5 * directions[:, 7]
    torch.testing.assert_close(detector.residuals(patches + away), torch.full((1, 1, 200), 6.25, dtype=torch.float64))
    along = 1e3 * directions[:, 2]  # where the nearest OK patch is a thousand away
    assert float(detector.residuals(patches + along).max()) < 1e-9


def test_scores_do_not_depend_on_the_axes_of_the_features() -> None:
    generator = torch.Generator().manual_seed(3)
    mix = torch.randn(D, D, generator=generator, dtype=torch.float64)
    known = torch.randn(1, 1, 300, D, generator=generator, dtype=torch.float64) @ mix
    new = torch.randn(1, 1, 20, D, generator=generator, dtype=torch.float64) @ mix
    turn = flat_patches(1, 1, seed=9)[1]
    plain, turned = of_subspace(known, 0.9), of_subspace(known @ turn, 0.9)
    torch.testing.assert_close(turned.residuals(new @ turn), plain.residuals(new))


def test_the_basis_is_the_smallest_that_explains_the_share() -> None:
    scatter = torch.diag(torch.tensor([1.0, 60.0, 9.0, 30.0], dtype=torch.float64))
    for explained, r in ((0.5, 1), (0.6, 1), (0.61, 2), (0.95, 3), (0.995, 4)):
        assert principal_subspace(scatter, explained).shape == (4, r)
    torch.testing.assert_close(principal_subspace(scatter, 0.8).abs(), torch.eye(4, dtype=torch.float64)[:, [1, 3]])


def test_a_stream_gives_the_covariance_of_all_patches_at_once() -> None:
    detector = learn(built(), images(7).split([1, 4, 2]))
    with torch.no_grad():
        patches = detector.patches(detector.backbone(images(7).double())).flatten(0, 2)  # (7 * 16 * 24, D)
    assert int(detector.count) == 7 * 16 * 24
    torch.testing.assert_close(detector.mean, patches.mean(0), rtol=0, atol=1e-8)
    torch.testing.assert_close(detector.scatter / (len(patches) - 1), torch.cov(patches.T), rtol=0, atol=1e-8)
    variances = torch.linalg.svdvals(patches - patches.mean(0)).square()
    shares = variances.cumsum(0) / variances.sum()
    r = detector.basis.shape[1]
    assert shares[r - 1] >= 0.99 and (r == 1 or shares[r - 2] < 0.99)


def test_an_update_is_a_fit_on_all_and_no_model_grows_with_its_images() -> None:
    whole, few = learn(built(), [images(12)]), learn(built(), [images(5)])
    assert {name: t.shape for name, t in whole.state_dict().items() if name != "basis"} == {
        name: t.shape for name, t in few.state_dict().items() if name != "basis"
    }
    updated = learn(few, [images(12)[5:6], images(12)[6:]], update=True)
    with torch.no_grad():
        new = images(2, seed=1).double()
        torch.testing.assert_close(updated(new).map, whole(new).map, rtol=1e-6, atol=1e-8)


def test_turned_copies_are_learnt_too() -> None:
    """As a fit on the turned images; a quarter turn of a square image loses nothing."""
    square = images(3)[..., :32]
    turned = torch.cat([square.rot90(k, (2, 3)) for k in range(4)])
    detector, expected = learn(built(rotations=3), [square]), learn(built(), [turned])
    assert int(detector.count) == 4 * 3 * 16 * 16
    torch.testing.assert_close(detector.mean, expected.mean, rtol=0, atol=1e-6)
    torch.testing.assert_close(detector.scatter, expected.scatter, rtol=1e-4, atol=1e-4)


def test_the_image_is_the_mean_of_its_highest_hundredth() -> None:
    detector = learn(built(), [images(4)])
    with torch.no_grad():
        scores = detector(images(3, seed=1).double())
    assert scores.map is not None and scores.map.shape == (3, 16, 24)
    np.testing.assert_allclose(scores.image, np.sort(scores.map.flatten(1).numpy())[:, -4:].mean(1))  # of 384


def test_the_stored_state_scores_the_same() -> None:
    fitted, other = learn(built(), [images(4)]), built()
    other.load_tensors(fitted.state_dict())
    with torch.no_grad():
        new = images(2, seed=1).double()
        assert torch.equal(other(new).map, fitted(new).map)


def test_resnet18_at_the_strides_of_its_second_and_third_layer() -> None:
    detector = SubspaceAD(backbone="resnet18", weights="none").eval()
    learn(detector, [torch.rand(1, 3, 64, 64)])
    assert len(detector.mean) == 384 and 1 <= detector.basis.shape[1] < 384


@pytest.mark.parametrize("arguments", [{"explained": 0.0}, {"explained": 1.0}, {"rotations": -1}])
def test_ranges(arguments: dict[str, object]) -> None:
    with pytest.raises(OkngError, match="subspace_ad: "):
        built(**arguments)
