import pytest
from laws import CONFIGURED, LAYERS, MODELS, SAMPLING

from keras_gen.testing import check_config, check_layer, check_model


@pytest.mark.parametrize("name", LAYERS)
def test_layer(name):
    make, arrays = LAYERS[name]
    check_layer(make, *arrays, random=name in SAMPLING)


@pytest.mark.parametrize("name", CONFIGURED)
def test_configuration(name):
    check_config(CONFIGURED[name])


@pytest.mark.parametrize("name", MODELS)
def test_model(name, digits):
    make, takes_labels = MODELS[name]
    images, labels = digits
    check_model(make, images[:128], labels[:128] if takes_labels else None)
