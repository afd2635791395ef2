"""Latent samplers: by k-occurrence, by norm, by truncation."""

import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from keras_gen.core.checks import check, check_choice, check_flag, check_integer, check_nonnegative
from keras_gen.core.compiled import progress_bar
from keras_gen.export import keras_gen_export
from keras_gen.hubness.k_occurrence import k_occurrence
from keras_gen.hubness.latent_sampler import LatentSampler, check_pool_fraction

TRIAL = 100_000  # draws after which an insufficient acceptance rate is an error


@keras_gen_export("keras_gen.samplers.HubnessSampler")
class HubnessSampler(LatentSampler):
    """Latent sampler that selects hubs: near neighbours of very many latents, hence in densely trained regions.

        keep w_i of a pool if N_k(w_i) > threshold,   N_k(w_i) = #{j != i: w_i is one of the k nearest of w_j}

    or keep the `top_fraction` of the pool with the largest counts; pools are drawn until there are enough latents. The
    counts are those of the generator's input latents, after the mapping.

    For z ~ N(0, I), hubs are nearly the latents of the smallest norm (`NormSampler`), and there are none below about 20
    dimensions or on a sphere. After a nonlinear mapping, neighbours are more informative than norms.

    Three definitions of the count are in use. That of https://kexue.fm/archives/9147, used here: the point itself
    excluded, k = 5, 10,000 latents, `threshold=50`. That of the paper's notebook: `include_self=True`, k = 5, counts of
    at least 50, so `threshold=49`. That of the later paper on precision and recall: the k + 1 = 8 nearest including the
    point itself, and the largest counts, so `k=8, include_self=True, top_fraction=...`. The number of latents above a
    threshold grows with k: scale the threshold with it.

    Args:
        latent_dim: int or shape of one prior draw, or `None`: the input shape of the mapping. Defaults to `None`.
        prior: `"normal"`, `"uniform"` on [-1, 1], `"sphere"` (normal, scaled to length 1), or a function of `n` and an
            int seed that returns `(n, *shape)`; to be saved, it must be registered with Keras. Defaults to `"normal"`.
        mapping: a Keras layer or model from z to the input latents w of the generator, or `None`. Defaults to `None`.
        k: int >= 1. Defaults to `5`.
        threshold: float >= 0. Latents with larger counts are kept. Give either this or `top_fraction`.
        top_fraction: float in (0, 1]. The fraction of each pool to keep. Give either this or `threshold`.
        pool_size: int > k. Number of latents per pool. Defaults to `10000`.
        max_rounds: int >= 1. Maximum number of pools per call of `sample`. Defaults to `100`.
        metric: `"euclidean"` or `"cosine"`. Defaults to `"euclidean"`.
        include_self: bool. Whether a point is one of its own k neighbours. Defaults to `False`.
        block_size: int >= 1. Number of latents processed at a time when counting. Defaults to `1024`.
        seed: int or `None`. Seeds all calls of `sample` without a seed of their own. Defaults to `None`, a seed from
            Keras's global generator.
        **kwargs: `name`, `dtype`, as for any Keras model.

    Raises:
        ValueError: if an argument is outside its range, both or neither of `threshold` and `top_fraction` are given, or
            the mapping changes the batch size.

    Example:

    >>> sampler = keras_gen.samplers.HubnessSampler(512, threshold=50, seed=0)
    >>> z = sampler.sample(64)                                       # float32 (64, 512)
    >>> sampler = keras_gen.samplers.HubnessSampler(mapping=gan.sampling_mapping, top_fraction=0.015)
    >>> images = gan.sample(latents=sampler.sample(64, seed=0))

    Reference: https://kexue.fm/archives/9147; Liang et al. 2022, "Exploring and Exploiting Hubness Priors for
    High-Quality GAN Latent Sampling", ICML.
    """

    def __init__(
        self,
        latent_dim: int | tuple[int, ...] | None = None,
        prior: str | Callable[[int, int], Any] = "normal",
        mapping: keras.Layer | None = None,
        k: int = 5,
        threshold: float | None = None,
        top_fraction: float | None = None,
        pool_size: int = 10_000,
        max_rounds: int = 100,
        metric: str = "euclidean",
        include_self: bool = False,
        block_size: int = 1024,
        seed: int | None = None,
        **kwargs: Any,
    ):
        is_one_given = (threshold is None) != (top_fraction is None)
        rule = "be given, or else `top_fraction`, but not both"
        check(is_one_given, "threshold", rule, f"{threshold}, {top_fraction=}")
        if threshold is not None:
            check_nonnegative("threshold", threshold)
        if top_fraction is not None:
            top_fraction = check_pool_fraction("top_fraction", top_fraction)
        check_choice("metric", metric, ("euclidean", "cosine"))
        super().__init__(latent_dim, prior, mapping, pool_size, seed, **kwargs)
        self.k = check_integer("k", k)
        check(k < pool_size, "pool_size", f"be more than k = {k}", pool_size)
        self.threshold = threshold
        self.top_fraction = top_fraction
        self.max_rounds = check_integer("max_rounds", max_rounds)
        self.metric = metric
        self.include_self = check_flag("include_self", include_self)
        self.block_size = check_integer("block_size", block_size)
        self.acceptance_rate: float | None = None

    def count(self, w: Any) -> np.ndarray:
        """Computes the k-occurrence of each latent.

        Args:
            w: `(n, ...)`, input latents of the generator; all axes but the first are flattened.

        Returns:
            int32 array `(n,)`.
        """
        w = np.reshape(w, (len(w), -1))
        return k_occurrence(w, self.k, self.include_self, self.block_size, self.metric)

    def sample(
        self,
        n: int,
        seed: int | None = None,
        return_prior: bool = False,
        return_counts: bool = False,
        verbose: str | int = "auto",
    ) -> np.ndarray | tuple[np.ndarray, ...]:
        """Draws hubs. Afterwards `acceptance_rate` is the fraction of the draws that were hubs.

        Args:
            n: int >= 1. Number of latents.
            seed: int or `None`. Latent k depends only on `seed` and k. Defaults to `None`, a seed from the sampler's
                own generator.
            return_prior: bool. Whether to return the prior draws as well. Defaults to `False`.
            return_counts: bool. Whether to return the counts as well. Defaults to `False`.
            verbose: `"auto"` (a bar in a terminal), 0 (silent), 1 (a bar) or 2 (a line). Defaults to `"auto"`.

        Returns:
            float32 array `(n, ...)`, input latents of the generator, in the order of the draws; or a tuple of these
            and, if requested, the prior draws `(n, *latent_dim)` and the int32 counts `(n,)`.

        Raises:
            ValueError: if an argument is outside its range, or there are too few hubs for `max_rounds`.
        """
        check_integer("n", n)
        check_flag("return_prior", return_prior)
        check_flag("return_counts", return_counts)
        seed = self.draw_seed(seed)
        bar = progress_bar(n, verbose)
        kept: list[tuple[np.ndarray, ...]] = []
        found = largest = 0
        for rounds in range(1, self.max_rounds + 1):
            z, w = self.pool(seed, rounds - 1)
            counts = self.count(w)
            hubs = self._hubs(counts)
            kept.append((w[hubs], z[hubs], counts[hubs]))
            found, largest = found + len(hubs), max(largest, int(counts.max()))
            bar.update(min(found, n))
            self.acceptance_rate = found / (rounds * self.pool_size)
            if found >= n:
                break
            # Even an acceptance rate 3 sigma above the estimate would not suffice, or no count is near the threshold.
            slow = found + 3 * math.sqrt(found + 1) < n * rounds / self.max_rounds
            hopeless = rounds * self.pool_size >= TRIAL and (slow or largest <= (self.threshold or 0) / 2)
            if hopeless or rounds == self.max_rounds:
                self._give_up(n, rounds, found, largest)
        w, z, counts = (np.concatenate(parts)[:n] for parts in zip(*kept, strict=True))
        asked = (w, *([z] if return_prior else []), *([counts] if return_counts else []))
        return asked if len(asked) > 1 else w

    def get_config(self) -> dict[str, Any]:
        names = ("k", "threshold", "top_fraction", "max_rounds", "metric", "include_self", "block_size")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}

    def _hubs(self, counts: np.ndarray) -> np.ndarray:
        if self.top_fraction is None:
            return np.flatnonzero(counts > self.threshold)
        return np.sort(np.argsort(-counts, kind="stable")[: self.share(self.top_fraction)])

    def _give_up(self, n: int, rounds: int, found: int, largest: int) -> None:
        dims = math.prod(self.noise_shape)
        raise ValueError(
            f"`threshold` must be exceeded by {n} latents within max_rounds={self.max_rounds} pools of "
            f"{self.pool_size}. Received: threshold={self.threshold}, exceeded by {found} latents of {rounds} pools, "
            f"an acceptance rate of {self.acceptance_rate:.2e}; the largest count was {largest}, in {dims} dimensions. "
            "In few dimensions, or on a sphere, there are no hubs: lower the threshold, or give `top_fraction` instead."
        )


@keras_gen_export("keras_gen.samplers.NormSampler")
class NormSampler(LatentSampler):
    """Latent sampler that selects the latents nearest to their mean: a baseline for hubs, without neighbours.

        keep the `fraction` of a pool with the smallest |w_i - mean w|

    With the `seed`, pool size and fraction of a `HubnessSampler` it selects from the same draws.

    Args:
        latent_dim: int or shape of one prior draw, or `None`: the input shape of the mapping. Defaults to `None`.
        prior: `"normal"`, `"uniform"`, `"sphere"` or a function, as for `HubnessSampler`. Defaults to `"normal"`.
        mapping: a Keras layer or model from z to the input latents w of the generator, or `None`. Defaults to `None`.
        fraction: float in (0, 1]. The fraction of each pool to keep. Defaults to `0.015`.
        pool_size: int >= 1. Number of latents per pool. Defaults to `10000`.
        seed: int or `None`. Seeds all calls of `sample` without a seed of their own. Defaults to `None`, a seed from
            Keras's global generator.
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
        self.fraction = check_pool_fraction("fraction", fraction)

    def sample(
        self, n: int, seed: int | None = None, return_prior: bool = False, verbose: str | int = "auto"
    ) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        """Draws latents near the mean.

        Args:
            n: int >= 1. Number of latents.
            seed: int or `None`. Latent k depends only on `seed` and k. Defaults to `None`, a seed from the sampler's
                own generator.
            return_prior: bool. Whether to return the prior draws as well. Defaults to `False`.
            verbose: `"auto"` (a bar in a terminal), 0 (silent), 1 (a bar) or 2 (a line). Defaults to `"auto"`.

        Returns:
            float32 array `(n, ...)`, input latents of the generator, in the order of the draws; or a tuple of these
            and the prior draws `(n, *latent_dim)`.

        Raises:
            ValueError: if an argument is outside its range.
        """
        num_kept = self.share(self.fraction)

        def near_the_mean(z: np.ndarray, w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            near = np.sort(np.argsort(_distances_to_mean(w), kind="stable")[:num_kept])
            return z[near], w[near]

        return self._from_pools(n, num_kept, near_the_mean, seed, return_prior, verbose)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "fraction": self.fraction}


def _distances_to_mean(w: np.ndarray) -> np.ndarray:
    w = w.reshape(len(w), -1)
    return np.linalg.norm(w - w.mean(axis=0), axis=1)


CENTER_SEED = 0  # the center is a property of the mapping, not of a call


@keras_gen_export("keras_gen.samplers.TruncationSampler")
class TruncationSampler(LatentSampler):
    """Latent sampler with the truncation trick of StyleGAN: moves latents towards their mean.

        w' = center + psi (w - center),   center = mean of one pool, the same for all calls

    Args:
        latent_dim: int or shape of one prior draw, or `None`: the input shape of the mapping. Defaults to `None`.
        prior: `"normal"`, `"uniform"`, `"sphere"` or a function, as for `HubnessSampler`. Defaults to `"normal"`.
        mapping: a Keras layer or model from z to the input latents w of the generator, or `None`. Defaults to `None`.
        psi: float >= 0. 1 leaves the latents unchanged, 0 gives the center. Defaults to `0.7`.
        pool_size: int >= 1. Number of latents per pool. Defaults to `10000`.
        seed: int or `None`. Seeds all calls of `sample` without a seed of their own. Defaults to `None`, a seed from
            Keras's global generator.
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
        self.psi = check_nonnegative("psi", psi)

    def sample(
        self, n: int, seed: int | None = None, return_prior: bool = False, verbose: str | int = "auto"
    ) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        """Draws latents and moves them towards the center.

        Args:
            n: int >= 1. Number of latents.
            seed: int or `None`. Latent k depends only on `seed` and k. Defaults to `None`, a seed from the sampler's
                own generator.
            return_prior: bool. Whether to return the prior draws as well. Defaults to `False`.
            verbose: `"auto"` (a bar in a terminal), 0 (silent), 1 (a bar) or 2 (a line). Defaults to `"auto"`.

        Returns:
            float32 array `(n, ...)`, input latents of the generator; or a tuple of these and the prior draws
            `(n, *latent_dim)`.

        Raises:
            ValueError: if an argument is outside its range.
        """
        check_integer("n", n)
        center = self.pool(CENTER_SEED, 0)[1].mean(axis=0)

        def towards_the_center(z: np.ndarray, w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            return z, center + self.psi * (w - center)

        return self._from_pools(n, self.pool_size, towards_the_center, seed, return_prior, verbose)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "psi": self.psi}
