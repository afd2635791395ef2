from typing import Any

import keras
import numpy as np
from keras import ops

from keras_gen.core.checks import check, is_number
from keras_gen.core.gradient import gradient
from keras_gen.core.labels import as_labels
from keras_gen.diffusion.models.network_interface import inputs_of, takes_condition
from keras_gen.diffusion.samplers.guidance import Evaluate, Guidance
from keras_gen.export import keras_gen_export


@keras_gen_export("keras_gen.samplers.ClassifierGuidance")
class ClassifierGuidance(Guidance):
    """Guides a model by the gradient of a classifier of noisy images, towards the class that is the condition.

        eps = eps_hat - w sigma_t d/dx_t log p(y | x_t),   which is   x0 = x0_hat + w (sigma_t^2 / alpha_t) d/dx_t log p

    Args:
        classifier: a Keras model of logits `(batch, classes)`, called as `classifier([x_t, t])`, or `classifier(x_t)`
            if it has one input. It should have been trained on noised images, see `DiffusionModel.add_noise`.
        scale: float, `w`. Defaults to `1.0`.

    Raises:
        ValueError: if an argument is of the wrong kind, or the schedule ends at zero signal.

    Example:

    >>> model.sample(16, condition=3, guidance=keras_gen.samplers.ClassifierGuidance(classifier, 2.0))

    Reference: https://kexue.fm/archives/9257; Dhariwal and Nichol 2021, arXiv:2105.05233, algorithm 2.
    """

    def __init__(self, classifier: keras.Model, scale: float = 1.0):
        check(isinstance(classifier, keras.Layer), "classifier", "be a keras.Model", repr(classifier))
        check(is_number(scale), "scale", "be a number", repr(scale))
        self.classifier, self.scale = classifier, float(scale)
        self.layers = (classifier,)

    def check_model(self, model: Any) -> None:
        check(model.schedule.alpha(model.schedule.t_max) > 0, "schedule", "keep some signal", model.schedule)

    def condition(self, model: Any, condition: Any, n: int) -> np.ndarray:
        """Returns the labels of `n` images; the network need not take them."""
        if takes_condition(model.network):
            return super().condition(model, condition, n)
        check(condition is not None, "condition", "be given: the classifier's class", None)
        classes = self.classifier.output_shape[-1] if inputs_of(self.classifier) else None
        return as_labels("condition", condition, n, classes)

    def bind(self, model: Any) -> Evaluate:
        takes_time = len(inputs_of(self.classifier)) != 1
        conditional = takes_condition(model.network)

        def guided(x_t: Any, row: dict[str, Any], condition: Any) -> tuple[Any, Any]:
            time = model.times_like(x_t, row)

            def log_likelihood(x: Any) -> Any:
                logits = self.classifier([x, time] if takes_time else x, training=False)
                log_p = ops.log_softmax(ops.cast(logits, "float32"))
                return ops.sum(log_p * ops.one_hot(condition, log_p.shape[-1]), axis=-1)

            x0, share = model.denoise(x_t, row, condition if conditional else None)
            push = self.scale * row["sigma"] ** 2 / row["alpha"]
            return x0 + push * gradient(log_likelihood, x_t), share

        return guided

    def get_config(self) -> dict[str, Any]:
        return {"classifier": keras.saving.serialize_keras_object(self.classifier), "scale": self.scale}
