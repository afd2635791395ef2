import keras
import numpy as np

import keras_gen

quantizer = keras_gen.layers.VectorQuantizer(64, codebook_update="ema", seed=0)
print(quantizer.num_codes, quantizer.code_sizes, quantizer.decay, quantizer.name)
levels = [keras_gen.layers.VectorQuantizer(16), keras_gen.layers.FiniteScalarQuantizer([5, 3])]
residual = keras_gen.layers.ResidualVectorQuantizer(levels)

layers = keras.layers
encoder = keras.Sequential([keras.Input((8, 8, 1)), layers.Conv2D(16, 4, 2, "same", activation="relu")])
decoder = keras.Sequential([keras.Input((4, 4, 16)), layers.Conv2DTranspose(1, 4, 2, "same")])
model = keras_gen.models.VQVAE(encoder, decoder, quantizer)
model.compile("adam")
images = np.zeros((32, 8, 8, 1), "float32")
model.fit(images, epochs=2, callbacks=[keras.callbacks.EarlyStopping("loss")])
codes = model.encode(images)
decoded = model.decode(codes[:4])
quantized, indices, losses = quantizer.quantize_vectors(keras.ops.zeros((2, 4, 4, 16)))
print(codes.shape, float(decoded.mean()), np.asarray(quantizer.codebook).shape, indices.shape, losses["commitment"])

prior = keras_gen.models.CodeTransformer(quantizer.num_codes, max_length=16, depth=1, width=32)
prior.compile("adam")
model.fit_prior(prior, images, epochs=1)
new = model.sample(4, temperature=0.9, seed=0)
model.save("vqvae.keras")
again = keras.models.load_model("vqvae.keras")
