"""VQGAN, and the adaptive weight of its adversarial loss."""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from keras_gen.adversarial.losses import HingeLoss
from keras_gen.adversarial.optimizers import PlayerOptimizers
from keras_gen.core.calculus.gradient import gradient
from keras_gen.core.checks import check, check_integer, check_layer, check_nonnegative
from keras_gen.core.logits import warn_of_activation
from keras_gen.core.replicas import whole_batch
from keras_gen.core.scheduled import Scheduled
from keras_gen.core.stateless import in_state, stateless
from keras_gen.export import keras_gen_export
from keras_gen.quantization.feature_distance import feature_distance
from keras_gen.quantization.quantizer import Quantizer
from keras_gen.quantization.vqvae import VQVAE, squared_error

HIGHEST = 1e4


class LastKernel:
    """Gradients of losses on a layer's output with respect to the layer's last kernel.

    Created before the layer is called, it copies the layer's weights and states, so that it can repeat the call, with
    the same random draws, as a function of the kernel. (On JAX the computation recorded by the outer gradient is not
    accessible.) The results have no gradient.

    Args:
        layer: a built layer or model.
    """

    def __init__(self, layer: keras.Layer):
        self.layer = layer
        self.kernel = last_kernel(layer)
        # Copies: on torch and TensorFlow, the tensors are the weights themselves, and would change with them.
        self.state = [(variable, ops.stop_gradient(ops.copy(variable.value))) for variable in layer.variables]

    def gradient_norm(self, loss: Callable[[Any], Any], inputs: Any, output: Any, training: bool) -> Any:
        """Returns the norm of the gradient of `loss(output)` with respect to the kernel, over the rows of all replicas.

        Args:
            loss: function from a float32 tensor like `output` to a scalar, a mean over its rows.
            inputs: the inputs of the call.
            output: the output of the call.
            training: bool, as in the call.
        """
        inputs = ops.stop_gradient(inputs)
        cotangent = ops.stop_gradient(gradient(loss, ops.stop_gradient(ops.cast(output, "float32"))))

        def weighted_output(kernel: Any) -> Any:
            state = [(variable, kernel if variable is self.kernel else value) for variable, value in self.state]
            with in_state(self.layer, state):
                return ops.cast(self.layer(inputs, training=training), "float32") * cotangent

        (value,) = (value for variable, value in self.state if variable is self.kernel)
        of_kernel = ops.cast(ops.stop_gradient(gradient(weighted_output, value)), "float32")
        of_kernel = whole_batch.mean_of_parts(of_kernel, ops.shape(output)[0])
        return ops.sqrt(ops.sum(ops.square(of_kernel)))


def last_kernel(layer: keras.Layer) -> keras.Variable:
    """Returns the last trainable weight of rank 2 or more: biases and scales of normalization have rank 1.

    The last of all weights if the layer is frozen.
    """
    kernels = [weight for weight in layer.trainable_weights or layer.weights if len(weight.shape) >= 2]
    check(len(kernels) > 0, "decoder", "have a kernel, a weight of rank 2 or more", layer)
    return kernels[-1]


def balance(norm: Any, adversarial_norm: Any) -> Any:
    """Returns the adaptive weight, `norm / (adversarial_norm + 1e-4)` clipped to [0, 1e4]: it equalizes the norms."""
    return ops.clip(norm / (adversarial_norm + 1e-4), 0.0, HIGHEST)


@keras_gen_export("keras_gen.models.VQGAN")
class VQGAN(VQVAE):
    """VQ-VAE trained with a patch discriminator and, optionally, a perceptual loss.

        x' = decoder(quantizer(encoder(x)))
        r = mean |x - x'|^2 + perceptual_weight * distance(features(x), features(x'))
        g = -mean D(x'),   w = adversarial_weight * |dr / dW| / (|dg / dW| + 1e-4),   W the last kernel of the decoder
        loss = r + w g + the quantizer's losses              for encoder, decoder and codebook
             + max(0, 1 - D(x)) + max(0, 1 + D(stop(x')))    for the discriminator, mean over patches

    The squared error alone leads to blurry reconstructions; the adversarial loss favors realistic details. The ratio of
    gradient norms, clipped to [0, 1e4] and treated as a constant, equalizes the two gradients at the decoder's last
    layer. Each player's loss has no gradient in the weights of the other, so that one `fit` trains both, one step each.

    Training and evaluation log the metrics of `VQVAE`, `perceptual` if there are features, `discriminator_loss`,
    `generator_loss` (g) and `adaptive_weight` (w). `loss` is r plus the quantizer's losses: the adversarial losses,
    which do not measure image quality, only contribute gradients.

    Args:
        encoder: a Keras layer or model from data to vectors `(batch, ..., channels)`.
        decoder: a Keras layer or model from such vectors to data.
        quantizer: a quantizer layer, such as `VectorQuantizer(512)`.
        discriminator: a Keras layer or model from data to logits, `(batch,)` or `(batch, h, w, 1)` for patches.
        feature_model: a Keras layer or model from data to features `(batch, ..., channels)`, or to a list of such maps;
            or `None`. Its weights are frozen. Defaults to `None`.
        perceptual_weight: float >= 0. Weight of the feature distance. Defaults to `1.0`.
        adversarial_weight: float >= 0. Defaults to `0.8`.
        start: int >= 0. Number of training steps before the adversarial loss is switched on: w is 0 until then, while
            the discriminator is already trained. Defaults to `0`.
        prior: a trained prior over the codes, or `None`; see `fit_prior`. Defaults to `None`.
        seed: int or `None`. Seeds `sample`. Defaults to `None`, a seed from Keras's global one.
        **kwargs: `name`, `dtype`, `trainable`, as for any Keras model.

    Call arguments:
        x: float data `(batch, ...)`; images are scaled to [-1, 1].

    Returns:
        The data unchanged; use `fit`, `fit_prior`, `encode`, `decode`, `reconstruct`, `interpolate` and `sample`.

    Raises:
        ValueError: if an argument is of the wrong type or out of range, or shapes of networks and data do not match.

    Example:

    >>> conv, up = keras.layers.Conv2D, keras.layers.Conv2DTranspose
    >>> encoder = keras.Sequential([keras.Input((28, 28, 1)), conv(32, 4, 2, "same", activation="relu"), conv(16, 1)])
    >>> decoder = keras.Sequential([keras.Input((14, 14, 16)), up(32, 4, 2, "same", activation="relu"), conv(1, 1)])
    >>> patches = keras.Sequential([keras.Input((28, 28, 1)), conv(32, 4, 2, activation="leaky_relu"), conv(1, 3)])
    >>> model = keras_gen.models.VQGAN(encoder, decoder, keras_gen.layers.VectorQuantizer(128), patches, start=1000)
    >>> model.compile(keras.optimizers.Adam(1e-3, beta_1=0.5), keras.optimizers.Adam(1e-3, beta_1=0.5))
    >>> model.fit(images, epochs=20)          # float32 (n, 28, 28, 1) in [-1, 1]
    >>> codes = model.encode(images)          # int32 (n, 14, 14)

    Reference: Esser et al. 2020, arXiv:2012.09841; https://kexue.fm/archives/6760 (VQ-VAE).
    """

    takes_sample_weight = False  # the discriminator weights all data equally

    def __init__(
        self,
        encoder: keras.Layer,
        decoder: keras.Layer,
        quantizer: Quantizer,
        discriminator: keras.Layer,
        feature_model: keras.Layer | None = None,
        perceptual_weight: float = 1.0,
        adversarial_weight: float = 0.8,
        start: int = 0,
        prior: keras.Model | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(encoder, decoder, quantizer, prior, seed, **kwargs)
        check_layer("discriminator", discriminator)
        warn_of_activation("discriminator", discriminator)
        is_layer = feature_model is None or isinstance(feature_model, keras.Layer)
        check(is_layer, "feature_model", "be None, a layer or a model", feature_model)
        self.perceptual_weight = check_nonnegative("perceptual_weight", perceptual_weight)
        self.adversarial_weight = check_nonnegative("adversarial_weight", adversarial_weight)
        self.start = check_integer("start", start, at_least=0)
        self.scheduled_weight = Scheduled("scheduled_weight", _switched_on(self.adversarial_weight, self.start))
        self.feature_model = feature_model
        names = ["discriminator_loss", "generator_loss", "adaptive_weight"]
        if feature_model is not None:
            feature_model.trainable = False
            names = ["perceptual", *names]
        self.loss_trackers.extend(keras.metrics.Mean(name=name) for name in names)
        self.adversarial_loss = HingeLoss()
        self.players = PlayerOptimizers()
        self.discriminator = discriminator
        self.build_from(encoder)

    def compile(  # type: ignore[override]  # Keras's second argument is the loss
        self, optimizer: Any = "adam", discriminator_optimizer: Any = None, **kwargs: Any
    ) -> None:
        """Configures training.

        Args:
            optimizer: Keras optimizer of encoder, decoder and codebook, and of the discriminator if
                `discriminator_optimizer` is `None`. Defaults to `"adam"`.
            discriminator_optimizer: Keras optimizer or `None`. Callbacks that set a learning rate set that of both
                optimizers: use schedules where they differ. Defaults to `None`.
            **kwargs: as for `keras.Model.compile`.
        """
        self.players = PlayerOptimizers.get(optimizer, discriminator_optimizer, None)
        self.compile_options = kwargs
        super().compile(optimizer=self.players.joined(self.discriminator, None), **kwargs)

    def get_compile_config(self) -> dict[str, Any] | None:
        if not self.compiled:
            return None
        players = self.players.serialized()
        del players["mapping_optimizer"]
        return {**self.compile_options, **players, "jit_compile": self.jit_choice}

    def build_from(self, network: keras.Layer) -> None:
        # The constructor of `VQVAE` would build the model before it has all its layers.
        if hasattr(self, "discriminator"):
            super().build_from(network)

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)
        last_kernel(self.decoder)
        self.discriminator(keras.Input(self.data_shape))
        if self.feature_model is not None:
            features = self.feature_model(keras.Input(self.data_shape))
            feature_distance(features, features)

    def decoding_loss(self, x: Any, quantized: Any, training: bool) -> Any:
        x = ops.cast(x, "float32")
        last = LastKernel(self.decoder)
        decoded = ops.cast(self.decoder(quantized, training=training), "float32")
        discriminator_loss = self._discriminator_loss(x, ops.stop_gradient(decoded), training)
        distances, adversarial = self._distances_from(x), self._generator_loss(training)

        def distance(decoded: Any) -> Any:
            return ops.mean(self._weighted(distances(decoded)))

        parts, generator_loss = distances(decoded), adversarial(decoded)
        norms = (last.gradient_norm(loss, quantized, decoded, training) for loss in (distance, adversarial))
        weight = ops.stop_gradient(self.scheduled_weight(training=training) * balance(*norms))
        players = weight * generator_loss + ops.mean(discriminator_loss)
        own = {"discriminator_loss": discriminator_loss, "generator_loss": generator_loss, "adaptive_weight": weight}
        for name, value in {**parts, **own}.items():
            self.trackers[name].update_state(ops.broadcast_to(value, ops.shape(x)[:1]))
        self.add_loss(players - ops.stop_gradient(players))  # contributes to the gradient only
        return self._weighted(parts)

    def get_config(self) -> dict[str, Any]:
        parts = {"discriminator": self.discriminator, "feature_model": self.feature_model}
        return {
            **super().get_config(),
            **{name: keras.saving.serialize_keras_object(part) for name, part in parts.items()},
            **{"perceptual_weight": self.perceptual_weight, "adversarial_weight": self.adversarial_weight},
            "start": self.start,
        }

    def _distances_from(self, x: Any) -> Callable[[Any], dict[str, Any]]:
        features = self._features(x)

        def distances(decoded: Any) -> dict[str, Any]:
            error = {"reconstruction": squared_error(x, decoded)}
            if self.feature_model is None:
                return error
            return {**error, "perceptual": feature_distance(features, self._features(decoded))}

        return distances

    def _weighted(self, distances: dict[str, Any]) -> Any:
        if "perceptual" not in distances:
            return distances["reconstruction"]
        return distances["reconstruction"] + self.perceptual_weight * distances["perceptual"]

    def _features(self, x: Any) -> Any:
        if self.feature_model is None:
            return None
        with stateless(self.feature_model, frozen=True):
            return self.feature_model(x, training=False)

    def _discriminator_loss(self, x: Any, decoded: Any, training: bool) -> Any:
        real = self._logits(x, training)
        # The discriminator's state is updated once, in the call before: see `GAN`.
        with stateless(self.discriminator):
            fake = self._logits(decoded, training)
        return ops.mean(self.adversarial_loss.discriminator(real, fake), axis=1)

    def _generator_loss(self, training: bool) -> Callable[[Any], Any]:
        def loss(decoded: Any) -> Any:
            with stateless(self.discriminator, frozen=True):
                logits = self._logits(decoded, training)
            return ops.mean(self.adversarial_loss.generator(None, logits))

        return loss

    def _logits(self, x: Any, training: bool) -> Any:
        # One axis of all patches: the hinge margin applies to each patch.
        logits = ops.cast(self.discriminator(x, training=training), "float32")
        return ops.reshape(logits, (ops.shape(logits)[0], -1))


def _switched_on(weight: float, start: int) -> Any:
    if start == 0:
        return weight
    return keras.optimizers.schedules.PiecewiseConstantDecay([start - 1], [0.0, weight])
