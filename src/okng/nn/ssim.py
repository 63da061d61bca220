"""Structural similarity."""

from __future__ import annotations

from torch import Tensor

from okng.nn.blur import gaussian_blur

RADIUS, SIGMA = 5, 1.5  # a window of 11 x 11
C1, C2 = 0.01**2, 0.03**2  # for values in [0, 1]


def ssim_map(a: Tensor, b: Tensor, radius: int = RADIUS) -> Tensor:
    """How alike the surroundings of each pixel are, in luminance, contrast and structure: (B, C, H, W) in [-1, 1].

    `a` and `b` (B, C, H, W) in [0, 1]; 1 where both are the same. Means, variances and covariance are of a Gaussian
    window of standard deviation 1.5, `radius` pixels to each side, mirrored at the border.

    Wang, Bovik, Sheikh, Simoncelli, "Image Quality Assessment: From Error Visibility to Structural Similarity", 2004,
    equation 13.
    """

    def local_mean(values: Tensor) -> Tensor:
        return gaussian_blur(values.flatten(0, 1), SIGMA, radius).view_as(a)

    # Variances do not change with a shift, but what rounding leaves of them where both images are bright and flat does.
    shift_a, shift_b = (image.mean((2, 3), keepdim=True) for image in (a, b))  # (B, C, 1, 1)
    a, b = a - shift_a, b - shift_b
    mean_a, mean_b = local_mean(a), local_mean(b)
    variance_a = local_mean(a * a) - mean_a**2
    variance_b = local_mean(b * b) - mean_b**2
    covariance = local_mean(a * b) - mean_a * mean_b
    mean_a, mean_b = mean_a + shift_a, mean_b + shift_b
    luminance = (2 * mean_a * mean_b + C1) / (mean_a**2 + mean_b**2 + C1)
    return luminance * (2 * covariance + C2) / (variance_a + variance_b + C2)


def dssim_map(a: Tensor, b: Tensor, radius: int = RADIUS) -> Tensor:
    """Structural dissimilarity (1 - SSIM) / 2 of each pixel's surroundings: (B, C, H, W) in [0, 1], 0 where equal."""
    return (1 - ssim_map(a, b, radius)) / 2
