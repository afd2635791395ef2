from typing import Any

import keras
from keras import ops

from keras_gen.core.arrays import clip
from keras_gen.core.checks import check, same_shape
from keras_gen.export import keras_gen_export
from keras_gen.flows.flow import Flow

LARGEST_LOG_SIGMA = 20.0  # of either sign: beyond it, residuals and their gradients overflow


@keras_gen_export("keras_gen.losses.ResidualLogLikelihood")
class ResidualLogLikelihood(keras.losses.Loss):
    """Residual log-likelihood: regression with a learned density of the errors, the same for all inputs up to scale.

        (mu, log sigma) = y_pred,   r = (y_true - mu) / sigma,   -log p(y_true) = sum log sigma - log p_flow(r)

    With the base distribution Q and the bijector f of the flow,

        log p_flow(r) = log Q(r) + log G(r),   log G(r) = log Q(f(r)) + log |det df/dr| - log Q(r)

    Q is a guess, and the residual G what is left to learn. Q G is normalized whatever the weights, so p is a density.
    In the paper G is a density itself, and Q G is yet to be divided by its integral s, which its code leaves out. A
    flow of couplings starts as the identity, G = 1: the loss starts as an L1 loss with the base `"laplace"`, as an L2
    loss with `"normal"`, both with a learned scale.

    A loss of Keras has no weights: the flow is trained as a layer of the model, which calls it on mu, as in the
    example. This call builds the flow and returns mu unchanged. An unbuilt flow is refused; one that was built
    elsewhere keeps its weights. A loaded model has its own flow, and must be compiled again, with
    `ResidualLogLikelihood(model.get_layer("flow"))`. Within the loss the flow runs with `training=False`.

    `predict` returns mu and log sigma, without evaluating the flow. mu is where r = 0; the mean of p is mu + sigma
    E[r], estimated by `flow.sample`, and its mode is mu + sigma r with r the maximum of `flow.log_prob`.

    Args:
        flow: an unconditional `keras_gen.models.Flow` on vectors of D numbers.
        **kwargs: `name`, `reduction`, `dtype`, as for any Keras loss.

    Call arguments:
        y_true: `(batch, ..., D)`.
        y_pred: `(batch, ..., 2 D)`: mu, then log sigma, which is clipped to [-20, 20].

    Returns:
        -log p(y_true) in nats, `(batch, ...)`, reduced to its mean unless `reduction` says otherwise. It may be
        negative.

    Raises:
        ValueError: if `flow` is not a flow, not built, conditional or of another dimension, or the shapes do not fit.

    Example:

    >>> coupling = keras_gen.layers.AffineCoupling
    >>> bijector = keras_gen.layers.Chain([coupling(units=[64, 64], flip=i % 2 == 1) for i in range(6)])
    >>> flow = keras_gen.models.Flow(bijector, "laplace")
    >>> mu, log_sigma = keras.layers.Dense(2)(features), keras.layers.Dense(2)(features)
    >>> outputs = keras.layers.Concatenate()([flow(mu), log_sigma])
    >>> model = keras.Model(images, outputs)
    >>> model.compile("adam", loss=keras_gen.losses.ResidualLogLikelihood(flow))

    Reference: Li et al. 2021, arXiv:2107.11291; flows in https://kexue.fm/archives/5807.
    """

    def __init__(self, flow: Flow, **kwargs: Any):
        super().__init__(**kwargs)
        check(isinstance(flow, Flow), "flow", "be a keras_gen.models.Flow", repr(flow))
        self.flow = flow

    def call(self, y_true: Any, y_pred: Any) -> Any:
        self._check(y_true.shape, y_pred.shape)
        mu, log_sigma = ops.split(y_pred, 2, axis=-1)
        log_sigma = clip(log_sigma, -LARGEST_LOG_SIGMA, LARGEST_LOG_SIGMA)
        r = (y_true - mu) * ops.exp(-log_sigma)
        log_p = self.flow.log_density(ops.reshape(r, (-1, r.shape[-1])))
        return ops.sum(log_sigma, axis=-1) - ops.cast(ops.reshape(log_p, ops.shape(r)[:-1]), r.dtype)

    def _check(self, true_shape: Any, predicted_shape: Any) -> None:
        is_pair = len(predicted_shape) > 1 and predicted_shape[-1] > 0 and predicted_shape[-1] % 2 == 0
        check(is_pair, "y_pred", "have shape (batch, ..., 2 D): mu and log sigma", f"shape {tuple(predicted_shape)}")
        expected = (*predicted_shape[:-1], predicted_shape[-1] // 2)
        rule = f"have shape {expected}, as y_pred holds mu and log sigma"
        check(same_shape(true_shape, expected), "y_true", rule, f"shape {tuple(true_shape)}")
        rule = "be a layer of the model, `flow(mu)`, to be trained with it; compile a loaded model anew with its own"
        check(self.flow.built, "flow", rule, "an unbuilt flow")
        received = f"a flow of {self.flow.data_shape} with condition {self.flow.condition_shape}"
        fits = self.flow.data_shape == expected[-1:] and self.flow.condition_shape is None
        check(fits, "flow", f"be an unconditional density of shape {expected[-1:]}", received)

    def __dir__(self) -> list[str]:
        # What `dir` names of a loss, Keras saves as a part of it; the flow is saved as a layer of the model.
        return [name for name in super().__dir__() if name != "flow"]

    def get_config(self) -> dict[str, Any]:
        # As if it were not built: the flow that a loaded model trains is its own, and this copy is to be refused.
        flow = {**keras.saving.serialize_keras_object(self.flow), "build_config": None}
        return {**super().get_config(), "flow": flow}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "ResidualLogLikelihood":
        return cls(**keras.saving.deserialize_keras_object(config))
