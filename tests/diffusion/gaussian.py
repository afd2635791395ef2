"""Gaussian images in discrete time."""

from mixture import exact_model, gaussian, slope_of_x0  # noqa: F401


def gaussian_ddpm(schedule, mean=0.3, std=0.5, shape=(4, 4, 1), prediction="epsilon", share=None, **options):
    return exact_model(schedule, gaussian(mean, std), prediction, shape, share, **options)
