"""On PyTorch a step of ancestral sampling is traced, as are the logits of codes: all numbers are the same."""

import keras
import numpy as np
import pytest

from keras_gen import config
from keras_gen.core.fixtures import randomize_weights
from keras_gen.core.torch.trace import Trace
from keras_gen.models import CodeTransformer, PixelCNN

pytestmark = pytest.mark.skipif(keras.backend.backend() != "torch", reason="only PyTorch traces")

LABELS = np.array([0, 1], "int32")
MODELS = {
    "learned": (lambda: CodeTransformer(5, 12, 8, 1, 2, seed=0), (12,), {}),
    "rotary_bfloat16": (
        lambda: CodeTransformer(
            5, 12, 8, 1, 2, positions="rotary", num_classes=3, condition_dropout=0.1, seed=0, dtype="mixed_bfloat16"
        ),
        (12,),
        {"condition": LABELS, "guidance": 2.0, "top_k": 3, "top_p": 0.9},
    ),
    "pixel_cnn": (lambda: PixelCNN(3, 4, 2, num_classes=3, seed=0), (3, 4), {"condition": LABELS, "temperature": 0.7}),
}


@pytest.fixture
def traced(monkeypatch):
    keys = []
    keep = Trace._keep_graph
    monkeypatch.setattr(Trace, "_keep_graph", lambda self, key, *rest: (keys.append(key), keep(self, key, *rest)))
    yield keys
    config.enable_torch_fast_paths()


@pytest.mark.parametrize("name", MODELS)
def test_samples_are_the_same(name, traced):
    make, shape, options = MODELS[name]
    model = make()
    model.build((None, *shape))
    randomize_weights(model)

    def sample():
        return model.sample(2, **options, seed=1, verbose=0)

    weights = model.get_weights()
    fast, again = sample(), sample()
    model.set_weights([-weight for weight in weights])
    swapped = sample()
    assert len(traced) == 1
    config.disable_torch_fast_paths()
    np.testing.assert_array_equal(swapped, sample())
    model.set_weights(weights)
    plain = sample()
    np.testing.assert_array_equal(fast, plain)
    np.testing.assert_array_equal(again, plain)
    assert np.any(swapped != plain)
    assert len(traced) == 1


def test_training_is_the_same(traced):
    def losses():
        keras.utils.set_random_seed(0)
        model = CodeTransformer(5, 6, 8, 1, 2, num_classes=3, seed=0)
        model.compile(keras.optimizers.SGD(0.1))
        codes = np.arange(48).reshape(8, 6) % 5
        return model.fit(codes, np.arange(8) % 3, batch_size=4, epochs=5, verbose=0).history["loss"]

    fast = losses()
    assert len(traced) == 1
    config.disable_torch_fast_paths()
    np.testing.assert_allclose(fast, losses(), rtol=1e-6)
    assert len(traced) == 1
