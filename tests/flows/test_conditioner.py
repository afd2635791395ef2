import keras
import numpy as np
import pytest
from bijecting import vectors

from keras_gen.core.fixtures import randomize_weights, save_and_load
from keras_gen.layers import AffineCoupling, Chain, ContinuousFlow, MaskedAutoregressive
from keras_gen.models import Flow

X, CONDITION = vectors(8, 4), vectors(8, 3, seed=1)


def conditional_flow():
    bijectors = [AffineCoupling(units=[8]), MaskedAutoregressive([8]), ContinuousFlow(units=[8], steps=2)]
    model = Flow(Chain(bijectors), seed=0)
    model.build((None, 4), (None, 3))
    randomize_weights(model)
    return model


@pytest.mark.filterwarnings("ignore")  # Keras warns of each layer that cannot be quantized
def test_a_quantized_flow_rounds_its_weights_alone():
    """Rounded activations would make jumps, which have no inverse and no derivative."""
    model = conditional_flow()
    before = model.encode(X, CONDITION)
    model.quantize("int8")
    dtypes = {weight.dtype for weight in model.bijector.bijectors[0].weights if weight.name == "kernel"}
    assert dtypes == {"int8"}
    z = model.encode(X, CONDITION)
    assert 1e-5 < np.abs(z - before).max() < 0.1
    np.testing.assert_allclose(model.decode(z, CONDITION), X, atol=1e-3)
    assert np.isfinite(model.log_prob(X, CONDITION, verbose=0)).all()
    np.testing.assert_allclose(save_and_load(model).encode(X, CONDITION), z, rtol=1e-5, atol=1e-5)


def test_other_quantizations_of_flows_are_refused_with_the_reason():
    model = conditional_flow()
    with pytest.warns(UserWarning, match="The dense layers of flows can be quantized to 'int8' only, not to 'int4'"):
        model.quantize("int4")
    assert all(weight.dtype == "float32" for weight in model.weights if weight.name == "kernel")


@pytest.mark.filterwarnings("ignore")
def test_what_is_quantized_does_not_train():
    model = conditional_flow()
    model.quantize("int8")
    assert not any(weight.name == "kernel" for weight in model.bijector.bijectors[0].trainable_weights)
    model.compile(keras.optimizers.SGD(0.0))
    assert np.isfinite(model.fit(X, CONDITION, verbose=0).history["loss"]).all()
