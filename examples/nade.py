"""FVSBN and NADE: binary images by the chain rule, each pixel given those before (https://kexue.fm/archives/9152).

    KERAS_BACKEND=jax python examples/nade.py
    KERAS_BACKEND=tensorflow python examples/nade.py --dataset mnist --epochs 16 --batch-size 100 --units 500

A fully visible sigmoid belief network has a logistic regression for each pixel, NADE a hidden layer, with shared
weights. Both have exact likelihoods. Pixels are binarized once, with their gray level as the probability. Writes
samples and the models to `--output`, and prints the log-likelihood of test images in nats.
"""

import keras
from datasets import load_split
from shared import as_count, binarized, mean_and_error, number_of_steps, parser, save_rows, train

from keras_gen.models import FVSBN, NADE


def main() -> None:
    arguments = parser(__doc__, "nade", epochs=120)
    arguments.add_argument("--units", type=as_count, default=128, help="size of NADE's hidden layers")
    arguments = arguments.parse_args()
    (images, _), (test, _) = load_split(arguments.dataset, arguments.size)
    train_x, test_x = (
        (binarized(x, [arguments.seed, part]) > 0).astype("int32") for part, x in enumerate((images, test))
    )
    steps = number_of_steps(arguments, len(images))
    rows = {"data": test_x[:12]}
    for name, model in {"FVSBN": FVSBN(seed=0), "NADE": NADE(arguments.units, seed=0)}.items():
        keras.utils.set_random_seed(arguments.seed)
        rate = keras.optimizers.schedules.CosineDecay(5e-3, steps)
        model.compile(keras.optimizers.AdamW(rate, weight_decay=0.02, use_ema=True, ema_momentum=0.99))
        train(model, train_x, None, arguments, folder=name.lower())
        log_prob = model.log_prob(test_x, verbose=0)
        print(f"{name}: test log-likelihood {mean_and_error(log_prob)} nats of {model.length} pixels")
        rows[name] = model.sample(12, seed=arguments.seed, verbose=0)
    save_rows(arguments.output / "samples.png", {name: 2.0 * row - 1 for name, row in rows.items()}, "binary images")


if __name__ == "__main__":
    main()
