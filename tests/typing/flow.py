import keras
import numpy as np

import keras_gen

points = np.random.default_rng(0).normal(size=(256, 2)).astype("float32")
couplings = [keras_gen.layers.AffineCoupling(units=[64, 64], flip=i % 2 == 1) for i in range(4)]
bijector = keras_gen.layers.Chain([keras_gen.layers.ActNorm(), *couplings])
model = keras_gen.models.Flow(bijector, keras_gen.layers.LogisticBase(), seed=0)
model.compile(keras.optimizers.Adam(1e-3))
history = model.fit(points, batch_size=64, epochs=2, verbose=0)
log_p = model.log_prob(points)
print(log_p.mean(), model.bits_per_dim(points)[:4], min(history.history["loss"]))
latents = model.encode(points)
error = np.abs(model.decode(latents) - points).max()
new = model.sample(16, temperature=0.7, seed=1)
z, log_det = bijector(points)
x, minus_log_det = bijector(z, inverse=True)
print(float(error), new.shape, couplings[0].params_per_dim, couplings[1].flip, bijector.bijectors[0].name)

glow = keras_gen.models.Glow(scales=2, steps=2, units=(32,), levels=None)
glow.compile("adam")
masked = keras_gen.layers.MaskedDense(np.arange(1, 4), np.array([1, 2, 2]))
glow.fit(np.zeros((8, 8, 8, 1), "float32"))
glow.save("glow.keras")
again = keras.models.load_model("glow.keras")
