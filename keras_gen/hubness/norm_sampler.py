from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from keras_gen.core.checks import check_integer
from keras_gen.core.loop import progress_bar
from keras_gen.export import keras_gen_export
from keras_gen.hubness.latent_sampler import LatentSampler, check_share


@keras_gen_export("keras_gen.samplers.NormSampler")
class NormSampler(LatentSampler):
    """Draws the latents nearest to their mean: what hubs are compared with, for it needs no neighbours.

        keep the `fraction` of a pool with the smallest |w_i - mean w|

    With the `seed`, pool and share of a `HubnessSampler` it chooses from the same draws.

    Args:
        latent_dim: int, or shape of one draw from the prior, or `None`: as the mapping has it. Defaults to `None`.
        prior: `"normal"`, `"uniform"`, `"sphere"` or a function, as for `HubnessSampler`. Defaults to `"normal"`.
        mapping: a Keras layer or model from z to the latents w that the generator sees, or `None`. Defaults to `None`.
        fraction: float in (0, 1]. This share of each pool is kept. Defaults to `0.015`.
        pool_size: int >= 1. How many latents are drawn together. Defaults to `10000`.
        seed: int or `None`. Seeds all calls of `sample` without a seed of their own. Defaults to `None`, a seed from
            Keras's global one.
        **kwargs: `name`, `dtype`, as for any Keras model.

    Raises:
        ValueError: if an argument is outside its range, or the mapping changes the batch size.

    Example:

    >>> z = keras_gen.samplers.NormSampler(512, fraction=0.015).sample(64, seed=0)  # float32 (64, 512)

    Reference: https://kexue.fm/archives/9147.
    """

    def __init__(
        self,
        latent_dim: int | tuple[int, ...] | None = None,
        prior: str | Callable[[int, int], Any] = "normal",
        mapping: keras.Layer | None = None,
        fraction: float = 0.015,
        pool_size: int = 10_000,
        seed: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(latent_dim, prior, mapping, pool_size, seed, **kwargs)
        self.fraction = check_share("fraction", fraction)

    def sample(
        self, n: int, seed: int | None = None, return_prior: bool = False, verbose: str | int = "auto"
    ) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        """Draws latents near the mean.

        Args:
            n: int >= 1. How many.
            seed: int or `None`. Latent k depends on `seed` and k alone. Defaults to `None`, a draw from the sampler's
                own generator.
            return_prior: bool. Whether to return the draws from the prior, too. Defaults to `False`.
            verbose: `"auto"`, 0 or 1: whether to show progress. Defaults to `"auto"`, which is 1.

        Returns:
            float32 array `(n, ...)`, latents as the generator sees them, in the order of the draws; or a tuple of it
            and the draws `(n, *latent_dim)`.

        Raises:
            ValueError: if an argument is outside its range.
        """
        check_integer("n", n)
        seed = self.draw_seed(seed)
        share = self.share(self.fraction)
        rounds = -(-n // share)
        bar = progress_bar(rounds, verbose)
        kept = []
        for number in range(rounds):
            z, w = self.pool(seed, number)
            near = np.sort(np.argsort(_distances_to_mean(w), kind="stable")[:share])
            kept.append((w[near], z[near]))
            bar.add(1)
        w, z = (np.concatenate(parts)[:n] for parts in zip(*kept, strict=True))
        return (w, z) if return_prior else w

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "fraction": self.fraction}


def _distances_to_mean(w: np.ndarray) -> np.ndarray:
    w = w.reshape(len(w), -1)
    return np.linalg.norm(w - w.mean(axis=0), axis=1)
