import abc
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_gen.export import keras_gen_export


@keras_gen_export("keras_gen.layers.Base")
class Base(keras.layers.Layer):
    """Base class of the distributions that a flow maps data to.

    To write another: define `log_density` for what `call` gives, `draw_noise` in NumPy, and `place`, from noise to
    latents; all weights in `build`.

    Args:
        **kwargs: `name`, `dtype`, `trainable`, as for any Keras layer.

    Call arguments:
        z: `(batch, ...)`.

    Returns:
        log p(z), `(batch,)`, float32 (or float64, if z is), every constant in.

    Raises:
        ValueError: if a weight cannot be made for the shape of z.

    Example:

    >>> log_p = keras_gen.layers.NormalBase()(z)

    Reference: Dinh et al. 2014, arXiv:1410.8516, section 3.4.
    """

    def __init__(self, **kwargs: Any):
        super().__init__(autocast=False, **kwargs)

    @abc.abstractmethod
    def log_density(self, z: Any) -> Any:
        """Returns log p(z), `(batch,)`."""

    @abc.abstractmethod
    def draw_noise(self, n: int, shape: tuple[int, ...], seed: int) -> np.ndarray:
        """Draws float32 noise `(n, *shape)`; draw k depends on `seed` and k alone."""

    def place(self, noise: Any, temperature: float) -> Any:
        """Turns noise into latents, drawn closer around their center by a `temperature` less than 1."""
        return temperature * noise

    def build(self, z_shape: Any) -> None:
        """Creates weights. Nothing to do by default."""

    def call(self, z: Any) -> Any:
        return self.log_density(z if keras.backend.standardize_dtype(z.dtype) == "float64" else ops.cast(z, "float32"))

    def get_config(self) -> dict[str, Any]:
        # Also for subclasses without arguments of their own: Keras would refuse them once `dtype` is a policy object.
        return super().get_config()
