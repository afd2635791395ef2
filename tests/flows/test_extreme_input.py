import keras
import numpy as np
import pytest
from keras import ops

from keras_gen.core.fixtures import randomize_weights, to_numpy
from keras_gen.layers import (
    ActNorm,
    AdditiveCoupling,
    AffineCoupling,
    Chain,
    Invert,
    Invertible1x1Conv,
    LearnedNormalBase,
    LogitTransform,
    MaskedAutoregressive,
    Permutation,
    Scale,
    SplineCoupling,
)
from keras_gen.models import Flow
from keras_gen.ops import gradient

Dense = keras.layers.Dense


def trained_normal():
    base = LearnedNormalBase()
    base.build((None, 4))
    randomize_weights(base)
    return base


def twice(make):
    return lambda: Chain([make(flip=False), make(flip=True)])


EXTREME = {
    "additive": twice(lambda flip: AdditiveCoupling(units=[8], flip=flip)),
    **{
        name: twice(lambda flip, name=name: AffineCoupling(units=[8], flip=flip, scale_map=name))
        for name in ("tanh", "softclip", "sigmoid")
    },
    "spline": twice(lambda flip: SplineCoupling(units=[8], flip=flip, num_bins=4)),
    "maf": lambda: Chain([MaskedAutoregressive([8]), Permutation("reverse"), MaskedAutoregressive([8])]),
    "iaf": lambda: Invert(MaskedAutoregressive([8])),
    "logit": lambda: Chain([LogitTransform(), AffineCoupling(units=[8])]),
    "logit_without_margin": lambda: Chain([LogitTransform(0.0), AffineCoupling(units=[8])]),
    "linear": lambda: Chain([ActNorm(), Invertible1x1Conv(), Scale()]),
}
FAR = np.array(
    [[1e6] * 4, [-1e6] * 4, [1e6, -1e6, 1e6, -1e6], [1e6, 0, 0, 0], [0, 0, 0, -1e6], [0.5, 0.5, 1e6, 0.5], [0.5] * 4]
    + [[0, 1, 0, 1], [1e-30] * 4, [0] * 4],
    "float32",
)


@pytest.mark.parametrize("base", ["normal", "logistic", trained_normal])
@pytest.mark.parametrize("name", EXTREME)
def test_extreme_data_never_give_nan(name, base):
    model = Flow(EXTREME[name](), base if isinstance(base, str) else base())
    model.build((None, 4))
    randomize_weights(model.bijector)
    log_p = model.log_prob(FAR, verbose=0)
    assert not np.isnan(log_p).any()
    assert not (log_p == np.inf).any()
    assert np.isfinite(log_p[6])
    slopes = to_numpy(gradient(model.log_density, ops.convert_to_tensor(FAR)))
    assert np.isfinite(slopes[np.isfinite(log_p)]).all()


@pytest.mark.parametrize("name", ["additive", "tanh", "softclip", "spline", "linear"])
def test_extreme_latents_decode_to_finite_data(name):
    model = Flow(EXTREME[name]())
    model.build((None, 4))
    randomize_weights(model.bijector)
    assert np.isfinite(model.decode(FAR)).all()
