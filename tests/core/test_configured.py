"""What a constructor was given must be told by the configuration: files, and programs that are kept, depend on it."""

import keras
import numpy as np
import pytest
from laws.models import autoencoder, tiny_network
from offenders import not_refused

from keras_gen import layers, losses, models, predictions, samplers, schedules
from keras_gen.core.configured import key_of

pytestmark = pytest.mark.one_backend

POINTS = np.random.default_rng(0).normal(size=(40, 50))


def forgetful(base):
    """A subclass whose argument `k` is in no configuration."""

    def init(self, k=1.0, *args, **options):
        base.__init__(self, *args, **options)
        self.k = k

    return type("Forgetful", (base,), {"__init__": init})


def flow(bijector, base="normal"):
    return models.Flow(bijector, base)


def gan(**options):
    generator = keras.Sequential([keras.Input((2,)), keras.layers.Dense(4)])
    return models.GAN(generator, keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)]), **options)


def saved(path):
    model = forgetful(models.RealNVP)(0.5, 2, [4])
    model.build((None, 2))
    model.save(path)


def test_what_a_file_would_lose_is_refused(tmp_path):
    scale, cosine = forgetful(layers.Scale), schedules.CosineSchedule(10)
    encoder, decoder = autoencoder(3, 2)
    ddpm = models.DDPM(tiny_network(), cosine)
    cases = {
        "schedule": lambda: models.ScoreSDE(tiny_network(real_times=True), forgetful(schedules.VPSchedule)()),
        "prediction": lambda: models.DDPM(tiny_network(), cosine, forgetful(predictions.V)()),
        "time_sampler": lambda: models.EDM(
            tiny_network(real_times=True), time_sampler=forgetful(schedules.LogNormalSigma)()
        ),
        "sampler": lambda: ddpm.sample(2, forgetful(samplers.DDIMSampler)(2.0, 3)),
        "bijector": lambda: flow(scale()),
        "bijectors": lambda: layers.Chain([layers.Scale(), scale()]),
        "levels": lambda: layers.MultiScale([scale()]),
        "bijector of another": lambda: layers.Invert(scale()),
        "bijector of noise": lambda: layers.Dequantize(4, scale()),
        "base": lambda: flow(layers.Scale(), forgetful(layers.NormalBase)()),
        "likelihood": lambda: models.VAE(encoder, decoder, forgetful(losses.GaussianLikelihood)()),
        "loss": lambda: gan(loss=forgetful(losses.HingeLoss)()),
        "penalty": lambda: gan(penalty=forgetful(losses.R1Penalty)()),
        "quantizer": lambda: models.VQVAE(encoder, decoder, forgetful(layers.FiniteScalarQuantizer)(1.0, (3, 3))),
        "model": lambda: saved(tmp_path / "model.keras"),
    }
    rule = "must return all arguments of its constructor from `get_config`.*=Forgetful without k"
    offenders = not_refused((name, call, f"`{name.split()[0]}` {rule}") for name, call in cases.items())
    assert not offenders, "\n".join(offenders)
    assert not (tmp_path / "model.keras").exists()


def test_keys_tell_settings_apart():
    other = POINTS.copy()
    other[20, 20] += 1e-12  # within what NumPy leaves out when it prints an array
    dense = keras.layers.Dense(2)
    different = [
        *(1, 1.0, True, "1", None, (1, 2), [1, 2, 3], {"a": 1}, {"b": 1}, {"a": [1]}),
        *(POINTS, other, POINTS.astype("float32"), POINTS.T, [POINTS], {"a": POINTS}, {"a": other}),
        *(dense, keras.layers.Dense(2), samplers.DDIMSampler(3), samplers.DDIMSampler(4)),
        *(keras.ops.ones(2), keras.ops.zeros(2)),
    ]
    assert len(set(map(key_of, different))) == len(different)
    alike = [
        *((POINTS, POINTS.copy()), ({"a": [POINTS]}, {"a": [POINTS.copy()]}), ((1, 2), [1, 2]), (dense, dense)),
        *((keras.ops.ones(2), keras.ops.ones(2)), (samplers.DDIMSampler(3), samplers.DDIMSampler(3))),
    ]
    assert all(key_of(a) == key_of(b) for a, b in alike)
