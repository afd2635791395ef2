"""Samplers of latents: by k-occurrence, by norm, by truncation."""

import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from keras_gen.core.checks import check, check_choice, check_integer, is_number
from keras_gen.core.compiled import progress_bar
from keras_gen.export import keras_gen_export
from keras_gen.hubness.k_occurrence import k_occurrence
from keras_gen.hubness.latent_sampler import LatentSampler, check_share

TRIAL = 100_000  # draws after which a pace that cannot do is given up


@keras_gen_export("keras_gen.samplers.HubnessSampler")
class HubnessSampler(LatentSampler):
    """Draws latents that are hubs: near neighbours of very many others, hence trained on by many, and well.

        keep w_i of a pool if N_k(w_i) > threshold,   N_k(w_i) = #{j != i: w_i is one of the k nearest of w_j}

    or keep the `top_fraction` of the pool with the largest counts; draw pools until there are enough. The counts are
    taken where the generator sees the latents, behind the mapping.

    For z ~ N(0, I), hubs are nearly the latents of the smallest norm (`NormSampler`), and there are none below about 20
    dimensions or on a sphere. Behind a mapping that is not linear, neighbours tell more than norms.

    Three definitions of the count are in use. That of https://kexue.fm/archives/9147, used here: the point itself left
    out, k = 5, 10,000 latents, `threshold=50`. That of the paper's notebook: `include_self=True`, k = 5, counts of at
    least 50, so `threshold=49`. That of the later paper on precision and recall: the k + 1 = 8 nearest with the point
    itself, and the largest counts, so `k=8, include_self=True, top_fraction=...`. The number above a threshold grows
    with k: scale the threshold with it.

    Args:
        latent_dim: int, or shape of one draw from the prior, or `None`: as the mapping has it. Defaults to `None`.
        prior: `"normal"`, `"uniform"` on [-1, 1], `"sphere"` (normal, scaled to length 1), or a function of `n` and an
            int seed that returns `(n, *shape)`; to be saved, it must be registered with Keras. Defaults to `"normal"`.
        mapping: a Keras layer or model from z to the latents w that the generator sees, or `None`. Defaults to `None`.
        k: int >= 1. Defaults to `5`.
        threshold: float >= 0. Latents with more neighbours than this are kept. Give this or `top_fraction`.
        top_fraction: float in (0, 1]. This share of each pool is kept. Give this or `threshold`.
        pool_size: int > k. How many latents are drawn and counted together. Defaults to `10000`.
        max_rounds: int >= 1. How many pools may be drawn for one `sample`. Defaults to `100`.
        metric: `"euclidean"` or `"cosine"`. Defaults to `"euclidean"`.
        include_self: bool. Whether a point is one of its own k neighbours. Defaults to `False`.
        block_size: int >= 1. How many latents are worked on together when counting. Defaults to `1024`.
        seed: int or `None`. Seeds all calls of `sample` without a seed of their own. Defaults to `None`, a seed from
            Keras's global one.
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
        one = (threshold is None) != (top_fraction is None)
        check(one, "threshold", "be given, or else `top_fraction`, and not both", f"{threshold}, {top_fraction=}")
        valid = threshold is None or (is_number(threshold) and threshold >= 0)
        check(valid, "threshold", "be a number >= 0", repr(threshold))
        if top_fraction is not None:
            top_fraction = check_share("top_fraction", top_fraction)
        check_choice("metric", metric, ("euclidean", "cosine"))
        super().__init__(latent_dim, prior, mapping, pool_size, seed, **kwargs)
        self.k = check_integer("k", k)
        check(k < pool_size, "pool_size", f"be more than k = {k}", pool_size)
        self.threshold = threshold
        self.top_fraction = top_fraction
        self.max_rounds = check_integer("max_rounds", max_rounds)
        self.metric = metric
        self.include_self = bool(include_self)
        self.block_size = check_integer("block_size", block_size)
        self.acceptance_rate: float | None = None

    def count(self, w: Any) -> np.ndarray:
        """Counts for each latent of how many others it is a near neighbour.

        Args:
            w: `(n, ...)`, latents as the generator sees them; what follows the first axis is flattened.

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
        """Draws hubs. Afterwards `acceptance_rate` is the share of the draws that were hubs.

        Args:
            n: int >= 1. How many.
            seed: int or `None`. Latent k depends on `seed` and k alone. Defaults to `None`, a draw from the sampler's
                own generator.
            return_prior: bool. Whether to return the draws from the prior, too. Defaults to `False`.
            return_counts: bool. Whether to return the counts, too. Defaults to `False`.
            verbose: `"auto"`, 0 or 1: whether to show progress. Defaults to `"auto"`, which is 1.

        Returns:
            float32 array `(n, ...)`, latents as the generator sees them, in the order of the draws; or a tuple of it
            and, as asked, the draws `(n, *latent_dim)` and the int32 counts `(n,)`.

        Raises:
            ValueError: if an argument is outside its range, or there are too few hubs for `max_rounds`.
        """
        check_integer("n", n)
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
            # Three standard deviations above the pace so far would not do either; or nothing is anywhere near.
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
            f"`threshold` must be passed by {n} latents within max_rounds={self.max_rounds} pools of {self.pool_size}. "
            f"Received: threshold={self.threshold}, passed by {found} latents of {rounds} pools, an acceptance of "
            f"{self.acceptance_rate:.2e}; the largest count was {largest}, in {dims} dimensions. In few dimensions, or "
            "on a sphere, there are no hubs: lower the threshold, or give `top_fraction` instead."
        )


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
