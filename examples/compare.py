"""Three answers to one question: a flow, a VAE and a diffusion model (https://kexue.fm/archives/5776, /5253 and /9119).

    KERAS_BACKEND=jax python examples/compare.py
    KERAS_BACKEND=torch python examples/compare.py --dataset mnist --epochs 10 --seeds 0

Each is trained on the same binary images with every seed, and measured on the same test images. Bits per pixel are code
lengths, and upper bounds for all three: for NICE because of its noise, for the VAE and the DDPM because of their
latents. Without a model, a binary pixel takes one bit. The model with the shortest code need not have the best samples,
which is why the table has both. Writes the table as `runs.csv`, the measures and samples of all models as pictures to
`--output`, and prints the table.
"""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from datasets import load_split
from shared import as_seed, binarized, full_or_smoke, number_of_steps, parser, save_rows, write

from keras_gen.metrics import compare
from keras_gen.models import DDPM, NICE, VAE, UNet
from keras_gen.samplers import DDPMSampler
from keras_gen.schedules import CosineSchedule

LATENTS, STEPS = 16, full_or_smoke(100, 4)


class BinaryVAE(VAE):
    """Draws pixels, too, where a VAE returns their means."""

    def sample(self, n: int, seed: int | None = None, **options: Any) -> np.ndarray:
        return binarized(super().sample(n, seed=seed, **options), [seed or 0, 2])


class BinaryDDPM(DDPM):
    """Counts the bits of a pixel of two levels, where a DDPM counts those of 256."""

    def bits_per_dim(self, x: Any, **options: Any) -> np.ndarray:
        return super().bits_per_dim(x, levels=2, **options)


def make_flow(shape: tuple[int, ...], seed: int) -> NICE:
    return NICE(4, [128, 128, 128], levels=2, seed=seed)


def make_vae(shape: tuple[int, ...], seed: int) -> BinaryVAE:
    x, z = keras.Input(shape), keras.Input((LATENTS,))
    h = keras.layers.Dense(256, "relu")(keras.layers.Flatten()(x))
    encoder = keras.Model(x, [keras.layers.Dense(LATENTS)(h) for _ in range(2)])
    h = keras.layers.Dense(int(np.prod(shape)))(keras.layers.Dense(256, "relu")(z))
    return BinaryVAE(encoder, keras.Model(z, keras.layers.Reshape(shape)(h)), seed=seed)


def make_diffusion(shape: tuple[int, ...], seed: int) -> BinaryDDPM:
    return BinaryDDPM(UNet(shape, (16, 32), 1), CosineSchedule(STEPS), prediction="v", seed=seed)


MODELS = {"NICE": (make_flow, 1e-3), "VAE": (make_vae, 2e-3), "DDPM": (make_diffusion, 3e-3)}


def main() -> None:
    arguments = parser(__doc__, "compare", epochs=30)
    arguments.add_argument("--seeds", type=as_seed, nargs="+", default=[0, 1], help="each trains all models anew")
    arguments = arguments.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    (images, _), (test, _) = load_split(arguments.dataset, arguments.size)
    images, test = (binarized(x, [arguments.seed, part]) for part, x in enumerate((images, test)))
    steps = number_of_steps(arguments, len(images))
    trained = {}

    def maker(name: str) -> Callable[[int], keras.Model]:
        def make(seed: int) -> keras.Model:
            function, rate = MODELS[name]
            trained[name] = function(images.shape[1:], seed)
            decay = keras.optimizers.schedules.CosineDecay(rate, steps)
            trained[name].compile(keras.optimizers.AdamW(decay, weight_decay=0.01, use_ema=True, ema_momentum=0.99))
            return trained[name]

        return make

    own = {"DDPM": {"sampler": DDPMSampler(clip_x0=1.0)}}
    result = compare(
        {name: maker(name) for name in MODELS},
        images,
        test,
        seeds=arguments.seeds,
        n=min(len(test), 1000),
        fit={"epochs": arguments.epochs, "batch_size": arguments.batch_size, "verbose": 0},
        sample=own,
    )
    print(result)
    result.save_csv(arguments.output / "runs.csv")
    write(result.figure(), arguments.output / "measures.png")
    samples = {k: m.sample(16, seed=arguments.seed, verbose=0, **own.get(k, {})) for k, m in trained.items()}
    save_rows(arguments.output / "samples.png", {"data": test[:16], **samples}, "binary digits")


if __name__ == "__main__":
    main()
