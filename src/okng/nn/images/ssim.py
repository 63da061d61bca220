"""Structural similarity."""

from __future__ import annotations

import torch
from torch import Tensor

from okng.nn.images.blur import blur_matrix

RADIUS, SIGMA = 5, 1.5  # a window of 11 x 11
C1, C2 = 0.01**2, 0.03**2  # for values in [0, 1]


def ssim_map(a: Tensor, b: Tensor, radius: int = RADIUS) -> Tensor:
    """How alike the surroundings of each pixel are, in luminance, contrast and structure: (B, C, H, W) in [-1, 1].

    `a` and `b` (B, C, H, W) in [0, 1]; 1 where both are the same. Means, variances and covariance are of a Gaussian
    window of standard deviation 1.5, `radius` pixels to each side, mirrored at the border.

    Wang, Bovik, Sheikh, Simoncelli, "Image Quality Assessment: From Error Visibility to Structural Similarity", 2004,
    equation 13.
    """
    return 1 - 2 * dssim_map(a, b, radius)


def dssim_map(a: Tensor, b: Tensor, radius: int = RADIUS) -> Tensor:
    """Structural dissimilarity (1 - SSIM) / 2 of each pixel's surroundings: (B, C, H, W) in [0, 1], 0 where equal.

    With m the means, v the variances and c the covariance, SSIM is a product of two factors that are written here by
    how much is missing to 1, so that small dissimilarities keep their digits:
    (2 m_a m_b + C1) / (m_a² + m_b² + C1) = 1 - (m_a - m_b)² / (m_a² + m_b² + C1) and
    (2 c + C2) / (v_a + v_b + C2) = 1 - v_(a-b) / (v_a + v_b + C2).
    """
    with torch.autocast(a.device.type, enabled=False):  # with eight bits v_a + v_b + C2 comes out as 0 or below
        wide = torch.promote_types(a.dtype, torch.float32)
        return _dssim_map(a.to(wide), b.to(wide), radius)


def _dssim_map(a: Tensor, b: Tensor, radius: int) -> Tensor:
    rows, columns = (blur_matrix(size, SIGMA, radius).to(a) for size in a.shape[2:])

    def local_mean(values: Tensor) -> Tensor:
        return rows @ values @ columns.T

    # A variance is the mean square less the squared mean. Around the image's mean both are small and little is lost to
    # rounding.
    centre = a.mean((2, 3), keepdim=True)  # (B, C, 1, 1)
    around_a, around_b = a - centre, b - centre
    mean_a, mean_b = local_mean(around_a), local_mean(around_b)
    variances = local_mean(around_a.square() + around_b.square()) - mean_a.square() - mean_b.square()
    apart = local_mean(a - b).square()
    variance_apart = local_mean((a - b).square()) - apart
    luminance = apart / ((mean_a + centre).square() + (mean_b + centre).square() + C1)
    structure = variance_apart / (variances + C2)
    return (luminance + structure - luminance * structure) / 2
