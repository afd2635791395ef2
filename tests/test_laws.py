import pytest
from laws import BIJECTORS, CONFIGURED, DISCRETE, LAYERS, MODELS, SAMPLING
from precision import double_precision

from keras_gen.export import exported
from keras_gen.layers import Bijector
from keras_gen.testing import check_bijector, check_config, check_layer, check_model


@pytest.mark.parametrize("name", LAYERS)
def test_layer(name):
    make, arrays = LAYERS[name]
    check_layer(make, *arrays, random=name in SAMPLING)


@pytest.mark.parametrize("name", BIJECTORS)
def test_bijector(name):
    make, *arrays = BIJECTORS[name]
    check_bijector(make, *arrays, jacobian=name not in DISCRETE)


@pytest.mark.parametrize("name", BIJECTORS)
def test_bijector_in_double_precision(name):
    make, *arrays = BIJECTORS[name]
    # A solver's error is what its steps make it, in any precision.
    tolerance = 1e-5 if name.startswith("continuous_flow") else 1e-12
    arrays = [array.astype("float64") for array in arrays]
    with double_precision():
        check_bijector(lambda: make(dtype="float64"), *arrays, tolerance=tolerance, jacobian=name not in DISCRETE)


def test_table_has_all_bijectors():
    public = {symbol for symbol in exported().values() if isinstance(symbol, type) and issubclass(symbol, Bijector)}
    assert public - {Bijector} == {type(make()) for make, *_ in BIJECTORS.values()}


@pytest.mark.parametrize("name", CONFIGURED)
def test_configuration(name):
    check_config(CONFIGURED[name])


@pytest.mark.parametrize("name", MODELS)
def test_model(name, digits):
    make, takes_labels, *prepare = MODELS[name]
    images, labels = digits
    check_model(make, prepare[0](images[:128]) if prepare else images[:128], labels[:128] if takes_labels else None)
