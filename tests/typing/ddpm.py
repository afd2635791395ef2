import keras
import numpy as np

import keras_gen

network = keras_gen.models.UNet((8, 8, 1), widths=(16, 32), blocks_per_level=1, num_classes=10)
schedule = keras_gen.schedules.CosineSchedule(100)
model = keras_gen.models.DDPM(network, schedule, prediction=keras_gen.predictions.V(), condition_dropout=0.1)
model.compile(keras.optimizers.Adam(1e-3, use_ema=True))
images, labels = np.zeros((32, 8, 8, 1), "float32"), np.zeros(32, "int32")
history = model.fit(images, labels, batch_size=16, epochs=2, validation_data=(images, labels))
losses: list[float] = history.history["loss"]

sampler = keras_gen.samplers.DDIMSampler(10, eta=0.5, clip_x0=keras_gen.samplers.DynamicThreshold(0.99))
times = sampler.times(model.schedule)
guidance = keras_gen.samplers.ClassifierFreeGuidance(2.0, interval=(0.1, 10.0))
new = model.sample(16, sampler, condition=3, guidance=guidance, seed=0)
path = model.denoising_path(4, 8, keras_gen.samplers.EulerSampler(10, "trailing"), condition=labels[:4])
bits = model.elbo(images, labels).mean()
print(new.shape, path[0].max(), times[:3], model.schedule.num_steps, schedule.betas[0], len(losses), float(bits))
values = keras_gen.ops.convert_prediction(images, "epsilon", keras_gen.predictions.X0(), images, 0.6, 0.8)

model.save("ddpm.keras")
again = keras.models.load_model("ddpm.keras")
same = again.sample(1, condition=3, seed=0) if isinstance(again, keras_gen.models.DDPM) else None
