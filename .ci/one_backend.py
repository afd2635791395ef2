"""Trains, saves, loads and samples with the installed wheel, and checks that no other backend is there."""

import importlib.util
import pathlib
import tempfile

import keras
import numpy as np

import keras_gen

backend = keras.backend.backend()
present = [name for name in ("tensorflow", "jax", "torch") if importlib.util.find_spec(name)]
if present != [backend]:
    raise SystemExit(f"expected {backend} alone, found {present}")
if "site-packages" not in keras_gen.__file__:
    raise SystemExit(f"expected the wheel, found {keras_gen.__file__}")

model = keras_gen.models.DDPM(keras_gen.models.UNet((8, 8, 1), (8, 8), 1), keras_gen.schedules.LinearSchedule(10))
model.compile(keras.optimizers.Adam(use_ema=True))
model.fit(np.zeros((8, 8, 8, 1), "float32"), verbose=0)
with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder) / "model.keras"
    model.save(path)
    samples = keras.models.load_model(path).sample(2, seed=0, verbose=0)
np.testing.assert_allclose(samples, model.sample(2, seed=0, verbose=0), atol=1e-5)
print(f"keras_gen {keras_gen.__version__} works with {backend} alone")
