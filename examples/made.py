"""MADE: one masked network for all conditionals of the chain rule (https://kexue.fm/archives/9152), several orderings.

    KERAS_BACKEND=jax python examples/made.py
    KERAS_BACKEND=jax python examples/made.py --dataset mnist --epochs 40 --batch-size 100 --units 2000 --masks 1 8

A model with several masks and orderings is a mixture: probabilities are averaged. Averaged logits, which seem to score
higher, do not define a distribution: here their "probabilities" of test images are compared with the true ones.
Writes samples and the models to `--output`, and prints the log-likelihood of test images in nats.
"""

import keras
import numpy as np
from datasets import load_split
from keras import ops
from shared import as_count, binarized, mean_and_error, number_of_steps, parser, save_rows, train

from keras_gen.models import MADE


def mean_logits_score(model: MADE, x: np.ndarray) -> float:
    """Returns the mean "log-likelihood" of averaged logits, which is not a true one."""
    flat = ops.convert_to_tensor(x.reshape(len(x), -1).astype("float32"))
    logits = np.mean([ops.convert_to_numpy(model.masked_logits(flat, mask)) for mask in range(model.num_masks)], axis=0)
    return float((x.reshape(len(x), -1) * logits - np.logaddexp(0, logits)).sum(axis=1).mean())


def main() -> None:
    arguments = parser(__doc__, "made", epochs=150)
    arguments.add_argument("--units", type=as_count, nargs="+", default=[256], help="sizes of the hidden layers")
    arguments.add_argument("--masks", type=as_count, nargs="+", default=[1, 8], help="numbers of masks to compare")
    arguments = arguments.parse_args()
    (images, _), (test, _) = load_split(arguments.dataset, arguments.size)
    train_x, test_x = (
        (binarized(x, [arguments.seed, part]) > 0).astype("int32") for part, x in enumerate((images, test))
    )
    steps = number_of_steps(arguments, len(images))
    rows = {"data": test_x[:12]}
    for masks in arguments.masks:
        keras.utils.set_random_seed(arguments.seed)
        model = MADE(arguments.units, masks, "natural" if masks == 1 else "random", seed=arguments.seed)
        rate = keras.optimizers.schedules.CosineDecay(2e-3, steps)
        model.compile(keras.optimizers.AdamW(rate, weight_decay=0.02, use_ema=True, ema_momentum=0.99))
        train(model, train_x, None, arguments, folder=f"masks_{masks}")
        log_prob = model.log_prob(test_x, verbose=0)
        print(f"{masks} masks: test log-likelihood {mean_and_error(log_prob)} nats of {model.length} pixels")
        if masks > 1:
            print(f"averaged logits would claim {mean_logits_score(model, test_x):.2f}, but do not sum to 1")
        rows[f"{masks} masks"] = model.sample(12, seed=arguments.seed, verbose=0)
    save_rows(arguments.output / "samples.png", {name: 2.0 * row - 1 for name, row in rows.items()}, "binary images")


if __name__ == "__main__":
    main()
