"""Stochastic approximation, https://kexue.fm/archives/5655: where steps along noisy values lead.

    KERAS_BACKEND=jax python examples/stochastic_approximation.py

A mean, a root and a minimum are found by one rule, `m <- m + a_n (noisy direction)`. Steps a_n with an infinite sum and
a finite sum of squares, such as 1/n, converge; constant steps keep the share a / (2 - a) of the variance. In Adam,
weight decay is not the same as an L2 penalty, whose gradient is divided by the size of the gradients: weights with
large gradients hardly decay.

Prints each figure next to its closed form, and writes a picture to `--output`.
"""

from typing import Any

import keras
import numpy as np
from keras import ops
from scipy.stats import norm
from shared import base_parser, full_or_smoke, save_panels

from keras_gen.layers import MovingAverage

ROOT, DENSITY = norm.ppf(0.9), norm.pdf(norm.ppf(0.9))
SIZES = (0.3, 1.0, 3.0)  # of gradients


def averages(values: Any, decay: float | None) -> np.ndarray:
    """Returns the moving average before each value, and after the last."""
    layer = MovingAverage(decay)
    before = [layer(ops.full((1,), value), training=True) for value in values]
    return np.array([float(ops.convert_to_numpy(average)[0]) for average in (*before, layer(ops.zeros((1,))))])


def variance_of_constant_steps(step: float, runs: int, rng: np.random.Generator) -> float:
    """Returns the variance, over runs, of m <- m + a (x - m) for x ~ N(0, 1), when it is constant."""
    m = np.zeros(runs)
    for _ in range(round(8 / step)):
        m += step * (rng.normal(size=runs) - m)
    return m.var()


def find_quantile(steps: np.ndarray, runs: int, rng: np.random.Generator) -> np.ndarray:
    """Returns the path of `t <- t + a_n (0.9 - [x < t])` for x ~ N(0, 1), whose root is the quantile: `(n, runs)`."""
    t = [np.zeros(runs)]
    for step in steps:
        t.append(t[-1] + step * (0.9 - (rng.normal(size=runs) < t[-1])))
    return np.array(t)


def optimizers(rate: float, decay: float) -> dict[str, tuple[Any, float]]:
    """name -> (optimizer, factor of the weights in the gradient)"""
    adamw, adam = keras.optimizers.AdamW(rate, weight_decay=decay), keras.optimizers.Adam(rate)
    return {"AdamW": (adamw, 0.0), "Adam with an L2 penalty": (adam, decay)}


def descend(optimizer: Any, penalty: float, weights: Any, gradients: Any) -> np.ndarray:
    """Returns the weights after each step, averaged over rows: `(n, weights)`."""
    variable, path = keras.Variable(np.array(weights, "float32")), []
    for gradient in np.asarray(gradients, "float32"):
        optimizer.apply([ops.convert_to_tensor(gradient) + penalty * variable], [variable])
        path.append(ops.convert_to_numpy(variable).mean(axis=0))
    return np.array(path)


def main() -> None:
    arguments = base_parser(__doc__, "stochastic_approximation").parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    rng, runs, n = np.random.default_rng(arguments.seed), full_or_smoke(20_000, 200), full_or_smoke(400, 10)
    print("mean of 2, 4, 9 by steps 1/n:", *averages([2, 4, 9], None)[1:], "(2, 3, 5)")
    means = {"steps 1/n": averages(x := rng.normal(size=n), None), "steps 0.1": averages(x, 0.9)}
    steps = np.array([0.02, 0.05, 0.1, 0.2, 0.5, 1])
    variances = [variance_of_constant_steps(step, runs, rng) for step in steps]
    for step, variance in zip(steps, variances, strict=True):
        print(f"constant steps {step:4}: variance {variance:.4f}, a / (2 - a) = {step / (2 - step):.4f}")
    count = np.arange(1, 10 * n + 1)
    # The steps that end nearest are 1/n over the slope at the root; the first ones are kept small.
    decreasing, constant = find_quantile(1 / DENSITY / (count + 20), 500, rng), find_quantile(0 * count + 0.3, 1, rng)
    print(f"root: {decreasing[-1].mean():.4f} on average, the quantile is {ROOT:.4f}")
    spread = decreasing[-1].std() * len(count) ** 0.5
    print(f"its deviation times sqrt(n): {spread:.3f}, sqrt(p (1 - p)) / density = {0.3 / DENSITY:.3f}")
    for (name, pair), expected in zip(optimizers(0.1, 0.1).items(), ("(0.89, 2.08)", "(0.9, 2.1)"), strict=True):
        [first] = descend(*pair, [[1, 2]], [[[0.5, -0.5]]])
        print(f"first step of {name} from (1, 2): ({first[0]:.6f}, {first[1]:.6f}), expected {expected}")
    gradients = rng.normal(size=(n, 500, 3)) * SIZES
    decayed, penalized = (descend(*pair, np.ones((500, 3)), gradients) for pair in optimizers(0.01, 1.0).values())

    def draw_means(axes: Any) -> None:
        deviations = {r"$1 / \sqrt{n}$": count[:n] ** -0.5, r"$\sqrt{a / (2 - a)}$": np.full(n, (0.1 / 1.9) ** 0.5)}
        for k, ((name, mean), (label, deviation)) in enumerate(zip(means.items(), deviations.items(), strict=True)):
            axes.plot(count[:n], mean[1:], f"C{k}", label=name)
            axes.fill_between(count[:n], -deviation, deviation, color=f"C{k}", alpha=0.2, label=label)
        axes.set(title="mean of N(0, 1): only steps 1/n converge", xlabel="n", ylabel="m", ylim=(-1, 1))

    def draw_variances(axes: Any) -> None:
        axes.plot(steps, steps / (2 - steps), "k-", label="a / (2 - a)")
        axes.plot(steps, variances, "C1o", label="measured")
        axes.set(title="variance that constant steps keep", xlabel="a", ylabel="of m", xscale="log", yscale="log")

    def draw_roots(axes: Any) -> None:
        axes.plot(constant, "C1", lw=0.5, label="steps 0.3")
        axes.plot(decreasing[:, :5], "C0", lw=0.8, label=["steps 5.7 / (n + 20), five runs", *[None] * 4])
        axes.axhline(ROOT, color="k", lw=1, label=f"root, the 0.9 quantile {ROOT:.3f}")
        axes.set(title="root of 0.9 - P(x < t), from draws of x", xlabel="n", ylabel="t", ylim=(0, 2.5))

    def draw_decay(axes: Any) -> None:
        axes.plot(penalized, "--", label=[f"Adam, L2 penalty, gradients of {size:g}" for size in SIZES])
        axes.plot(decayed, "k", lw=0.8, label=["AdamW, gradients of all three sizes", None, None])
        axes.set(title="AdamW decays all weights alike, a penalty does not", xlabel="step", ylabel="mean weight")

    panels = (draw_means, draw_variances, draw_roots, draw_decay)
    draws = [lambda axes, draw=draw: (draw(axes), axes.legend(fontsize=8)) for draw in panels]
    save_panels(arguments.output / "stochastic_approximation.png", draws)


if __name__ == "__main__":
    main()
