"""Gated PixelCNN: autoregressive gray images by masked convolutions (https://kexue.fm/archives/9152).

    KERAS_BACKEND=jax python examples/pixel_cnn.py
    KERAS_BACKEND=tensorflow python examples/pixel_cnn.py --dataset mnist --levels 4 --epochs 10

Gray levels are categorical, without an order; the class label is the condition. Writes samples of each class at three
temperatures and the model to `--output`, and prints the bits per pixel of test images.
"""

import keras
import numpy as np
from datasets import count_classes, load_split
from shared import as_count, number_of_steps, parser, save_row_panels, train

from keras_gen.models import PixelCNN


def main() -> None:
    arguments = parser(__doc__, "pixel_cnn", epochs=40)
    arguments.add_argument("--levels", type=as_count, default=17, help="levels of gray; the digits have 17")
    arguments.add_argument("--filters", type=as_count, default=32)
    arguments.add_argument("--blocks", type=as_count, default=5)
    arguments = arguments.parse_args()
    keras.utils.set_random_seed(arguments.seed)
    (images, labels), (test, test_labels) = load_split(arguments.dataset, arguments.size)
    top = arguments.levels - 1
    codes, test_codes = (np.round((x + 1) / 2 * top).astype("int32") for x in (images, test))
    classes = count_classes(labels)
    model = PixelCNN(arguments.levels, arguments.filters, arguments.blocks, num_classes=classes, seed=arguments.seed)
    rate = keras.optimizers.schedules.CosineDecay(3e-3, number_of_steps(arguments, len(images)))
    model.compile(keras.optimizers.AdamW(rate, weight_decay=0.02, use_ema=True, ema_momentum=0.99))
    train(model, codes, labels, arguments)

    bits = model.bits_per_dim(test_codes, test_labels)
    print(f"test: {bits.mean():.3f} bits for each pixel; {np.log2(arguments.levels):.3f} for even draws")
    shown = None if classes is None else np.repeat(np.arange(min(classes, 10)), 2)
    n = 20 if shown is None else len(shown)
    panels = {}
    for temperature in (1.0, 0.8, 0.6):
        drawn = model.sample(n, shown, temperature=temperature, seed=arguments.seed) / top * 2.0 - 1
        panels[f"temperature {temperature}"] = {"": drawn.astype("float32")}
    save_row_panels(arguments.output / "samples.png", panels)


if __name__ == "__main__":
    main()
