from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_gen.core.checks import check, check_integer, is_number
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
    """Base class: draws latents for a generator, in pools, and hands on some of them.

    It is a Keras model without anything to learn, so that it saves and loads together with its mapping, and counts its
    own seeds. To write another: define `sample` on top of `pool`, and `get_config` for the arguments of its own.

    Args:
        latent_dim: int, or shape of one draw from the prior, or `None`: as the mapping has it. Defaults to `None`.
        prior: `"normal"`, `"uniform"` on [-1, 1], `"sphere"` (normal, scaled to length 1), or a function of `n` and an
            int seed that returns `(n, *shape)`. Defaults to `"normal"`.
        mapping: a Keras layer or model from z to the latents w that the generator sees, or `None`. Defaults to `None`.
        pool_size: int >= 1. How many are drawn together. Defaults to `10000`.
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
        known = callable(prior) or (isinstance(prior, str) and prior in PRIORS)
        check(known, "prior", f"be a function of n and a seed, or one of {', '.join(map(repr, PRIORS))}", repr(prior))
        check(mapping is None or isinstance(mapping, keras.Layer), "mapping", "be None, a layer or a model", mapping)
        self.latent_dim = latent_dim
        self.prior = prior
        self.mapping = mapping
        self.pool_size = check_integer("pool_size", pool_size)
        self.noise_shape = _shape_of(latent_dim, mapping)
        if mapping is not None:
            # Two rows, to see that two come out: a symbolic call does not tell.
            rows = mapping(ops.zeros((2, *self.noise_shape)), training=False).shape[0]
            check(rows == 2, "mapping", "keep the batch size", f"a mapping that makes {rows} rows of 2")
        self.built = True

    def pool(self, seed: int, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Draws the pool of a number: z from the prior, and the latents w that the generator sees.

        Args:
            seed: int >= 0.
            number: int >= 0. Each number has draws of its own.

        Returns:
            float32 arrays `(pool_size, *noise_shape)` and `(pool_size, ...)`; without a mapping, the same one twice.

        Raises:
            ValueError: if a prior that is a function gives draws of another shape.
        """
        sequence = np.random.SeedSequence([seed, number])
        shape = (self.pool_size, *self.noise_shape)
        if callable(self.prior):
            z = np.asarray(ops.convert_to_numpy(self.prior(self.pool_size, int(sequence.generate_state(1)[0] // 2))))
            check(z.shape == shape, "prior", f"give draws of shape {shape}", f"shape {z.shape}")
            z = z.astype("float32", copy=False)
        else:
            z = PRIORS[self.prior](np.random.default_rng(sequence), shape)
        if self.mapping is None:
            return z, z
        return z, self.in_batches("map", lambda z: ops.cast(self.mapping(z, training=False), "float32"), z)

    def share(self, fraction: float) -> int:
        """Returns how many latents of a pool a fraction of it is, at least one."""
        return max(1, round(fraction * self.pool_size))

    def call(self, x: Any) -> Any:
        return x if self.mapping is None else self.mapping(x, training=False)

    def check_data(self, x: Any, y: Any) -> None:
        check(False, "model", "be one that learns; a sampler of latents does not", type(self).__name__)

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
    inputs = getattr(mapping, "inputs", None)
    if latent_dim is None:
        known = inputs and None not in inputs[0].shape[1:]
        check(bool(known), "latent_dim", "be given, unless the mapping is a model that tells its input's shape", None)
        return tuple(inputs[0].shape[1:])
    sizes = latent_dim if isinstance(latent_dim, list | tuple) else (latent_dim,)
    return tuple(check_integer("latent_dim", size) for size in sizes)


def check_share(name: str, value: Any) -> float:
    """Refuses a `value` outside (0, 1]; returns it as a Python float."""
    check(is_number(value) and 0 < value <= 1, name, "be in (0, 1]", repr(value))
    return float(value)
