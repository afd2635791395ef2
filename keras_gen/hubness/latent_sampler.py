from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_gen.core.checks import check, check_flag, check_integer, is_number
from keras_gen.core.compiled import progress_bar
from keras_gen.core.generative_model import GenerativeModel


def _sphere(generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    z = generator.standard_normal(shape, dtype="float32")
    return z / np.linalg.norm(z.reshape(len(z), -1), axis=1).reshape(-1, *(1 for _ in shape[1:]))


PRIORS: dict[str, Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]] = {
    "normal": lambda generator, shape: generator.standard_normal(shape, dtype="float32"),
    "uniform": lambda generator, shape: generator.random(shape, dtype="float32") * 2 - 1,
    "sphere": _sphere,
}


class LatentSampler(GenerativeModel):
    """Base class of latent samplers, which draw pools of latents for a generator and select from them.

    It is a Keras model without training, so that it is saved and loaded together with its mapping and its random state.
    Subclasses define `sample` in terms of `pool`, and `get_config` for their own arguments.

    Args:
        latent_dim: int or shape of one prior draw, or `None`: the input shape of the mapping. Defaults to `None`.
        prior: `"normal"`, `"uniform"` on [-1, 1], `"sphere"` (normal, scaled to length 1), or a function of `n` and an
            int seed that returns `(n, *shape)`. Defaults to `"normal"`.
        mapping: a Keras layer or model from z to the input latents w of the generator, or `None`. Defaults to `None`.
        pool_size: int >= 1. Number of latents per pool. Defaults to `10000`.
        seed: int or `None`. Seeds all calls of `sample` without a seed of their own. Defaults to `None`.
        **kwargs: `name`, `dtype`, as for any Keras model.
    """

    def __init__(
        self,
        latent_dim: int | tuple[int, ...] | None = None,
        prior: str | Callable[[int, int], Any] = "normal",
        mapping: keras.Layer | None = None,
        pool_size: int = 10_000,
        seed: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(seed=seed, **kwargs)
        is_prior = callable(prior) or (isinstance(prior, str) and prior in PRIORS)
        rule = f"be a function of n and a seed, or one of {', '.join(map(repr, PRIORS))}"
        check(is_prior, "prior", rule, repr(prior))
        check(mapping is None or isinstance(mapping, keras.Layer), "mapping", "be None, a layer or a model", mapping)
        self.latent_dim = latent_dim
        self.prior = prior
        self.mapping = mapping
        self.pool_size = check_integer("pool_size", pool_size)
        self.noise_shape = _shape_of(latent_dim, mapping)
        if mapping is not None:
            # Two rows, to check that two come out: a symbolic call would not reveal it.
            rows = mapping(ops.zeros((2, *self.noise_shape)), training=False).shape[0]
            check(rows == 2, "mapping", "keep the batch size", f"a mapping that returns {rows} rows for 2")
        self.built = True

    def pool(self, seed: int, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Draws a pool: z from the prior, and the input latents w of the generator.

        Args:
            seed: int >= 0.
            number: int >= 0. Index of the pool; pools are independent.

        Returns:
            float32 arrays `(pool_size, *noise_shape)` and `(pool_size, ...)`; without a mapping, the same array twice.

        Raises:
            ValueError: if a prior function returns draws of the wrong shape.
        """
        sequence = np.random.SeedSequence([seed, number])
        shape = (self.pool_size, *self.noise_shape)
        if callable(self.prior):
            z = np.asarray(ops.convert_to_numpy(self.prior(self.pool_size, int(sequence.generate_state(1)[0] // 2))))
            check(z.shape == shape, "prior", f"return draws of shape {shape}", f"shape {z.shape}")
            z = z.astype("float32", copy=False)
        else:
            z = PRIORS[self.prior](np.random.default_rng(sequence), shape)
        if self.mapping is None:
            return z, z
        return z, self.in_batches("map", lambda z: ops.cast(self.call(z), "float32"), z)

    def _from_pools(
        self,
        n: int,
        per_pool: int,
        select: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]],
        seed: int | None,
        return_prior: bool,
        verbose: str | int,
    ) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        """Returns the first n latents that `select` takes from pools, with their prior draws if these are asked for.

        Args:
            n: int >= 1. Number of latents.
            per_pool: int >= 1. Number of latents that `select` takes from a pool.
            select: function of the arrays z and w of a pool, that returns those of the latents to keep.
            seed: as for `sample`.
            return_prior: as for `sample`.
            verbose: as for `sample`.
        """
        check_integer("n", n)
        check_flag("return_prior", return_prior)
        seed = self.draw_seed(seed)
        pools = -(-n // per_pool)
        bar = progress_bar(pools, verbose)
        kept = []
        for number in range(pools):
            kept.append(select(*self.pool(seed, number)))
            bar.add(1)
        z, w = (np.concatenate(parts)[:n] for parts in zip(*kept, strict=True))
        return (w, z) if return_prior else w

    def share(self, fraction: float) -> int:
        """Returns the number of latents in a fraction of a pool, at least 1."""
        return max(1, round(fraction * self.pool_size))

    def call(self, x: Any) -> Any:
        return x if self.mapping is None else self.mapping(x, training=False)

    def check_data(self, x: Any, y: Any) -> None:
        check(False, "model", "be trainable; a latent sampler is not", type(self).__name__)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "latent_dim": self.latent_dim,
            "prior": self.prior if isinstance(self.prior, str) else keras.saving.serialize_keras_object(self.prior),
            "mapping": keras.saving.serialize_keras_object(self.mapping),
            "pool_size": self.pool_size,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "LatentSampler":
        return cls(**keras.saving.deserialize_keras_object(config, custom_objects=custom_objects))


def _shape_of(latent_dim: Any, mapping: keras.Layer | None) -> tuple[int, ...]:
    inputs: Any = getattr(mapping, "inputs", None)
    if latent_dim is None:
        is_known = inputs and None not in inputs[0].shape[1:]
        check(bool(is_known), "latent_dim", "be given, unless the mapping is a model of known input shape", None)
        return tuple(inputs[0].shape[1:])
    sizes = latent_dim if isinstance(latent_dim, list | tuple) else (latent_dim,)
    return tuple(check_integer("latent_dim", size) for size in sizes)


def check_pool_fraction(name: str, value: Any) -> float:
    """Checks that `value` is in (0, 1] and returns it as a Python float."""
    check(is_number(value) and 0 < value <= 1, name, "be in (0, 1]", repr(value))
    return float(value)
