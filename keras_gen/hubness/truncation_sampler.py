from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from keras_gen.core.checks import check, check_integer, is_number
from keras_gen.core.loop import progress_bar
from keras_gen.export import keras_gen_export
from keras_gen.hubness.latent_sampler import LatentSampler

CENTER_SEED = 0  # the center is a property of the mapping, not of a call


@keras_gen_export("keras_gen.samplers.TruncationSampler")
class TruncationSampler(LatentSampler):
    """Draws latents and moves them towards their mean: the truncation trick of StyleGAN.

        w' = center + psi (w - center),   center = mean of one pool, the same for all calls

    Args:
        latent_dim: int, or shape of one draw from the prior, or `None`: as the mapping has it. Defaults to `None`.
        prior: `"normal"`, `"uniform"`, `"sphere"` or a function, as for `HubnessSampler`. Defaults to `"normal"`.
        mapping: a Keras layer or model from z to the latents w that the generator sees, or `None`. Defaults to `None`.
        psi: float >= 0. 1 leaves the latents as they are, 0 gives the center. Defaults to `0.7`.
        pool_size: int >= 1. How many latents are drawn together. Defaults to `10000`.
        seed: int or `None`. Seeds all calls of `sample` without a seed of their own. Defaults to `None`, a seed from
            Keras's global one.
        **kwargs: `name`, `dtype`, as for any Keras model.

    Raises:
        ValueError: if an argument is outside its range, or the mapping changes the batch size.

    Example:

    >>> w = keras_gen.samplers.TruncationSampler(512, psi=0.7).sample(64, seed=0)  # float32 (64, 512)

    Reference: https://kexue.fm/archives/9147; Karras et al. 2018, arXiv:1812.04948, appendix B.
    """

    def __init__(
        self,
        latent_dim: int | tuple[int, ...] | None = None,
        prior: str | Callable[[int, int], Any] = "normal",
        mapping: keras.Layer | None = None,
        psi: float = 0.7,
        pool_size: int = 10_000,
        seed: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(latent_dim, prior, mapping, pool_size, seed, **kwargs)
        check(is_number(psi) and psi >= 0, "psi", "be a number >= 0", repr(psi))
        self.psi = float(psi)

    def sample(
        self, n: int, seed: int | None = None, return_prior: bool = False, verbose: str | int = "auto"
    ) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        """Draws latents, moved towards the center.

        Args:
            n: int >= 1. How many.
            seed: int or `None`. Latent k depends on `seed` and k alone. Defaults to `None`, a draw from the sampler's
                own generator.
            return_prior: bool. Whether to return the draws from the prior, too. Defaults to `False`.
            verbose: `"auto"`, 0 or 1: whether to show progress. Defaults to `"auto"`, which is 1.

        Returns:
            float32 array `(n, ...)`, latents as the generator sees them; or a tuple of it and the draws
            `(n, *latent_dim)`.

        Raises:
            ValueError: if an argument is outside its range.
        """
        check_integer("n", n)
        seed = self.draw_seed(seed)
        rounds = -(-n // self.pool_size)
        bar = progress_bar(rounds, verbose)
        center = self.pool(CENTER_SEED, 0)[1].mean(axis=0)
        kept = []
        for number in range(rounds):
            z, w = self.pool(seed, number)
            kept.append((center + self.psi * (w - center), z))
            bar.add(1)
        w, z = (np.concatenate(parts)[:n] for parts in zip(*kept, strict=True))
        return (w, z) if return_prior else w

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "psi": self.psi}
