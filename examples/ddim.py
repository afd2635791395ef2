"""DDIM, https://kexue.fm/archives/9181: one trained model, fewer steps, no noise, and inversion from image to noise.

    KERAS_BACKEND=jax python examples/ddim.py
    KERAS_BACKEND=jax python examples/ddim.py --model runs/ddpm/model.keras

Samples the model of `examples/ddpm.py`: that of `--model`, or the one next to `--output`, which is trained first if
it is missing. Writes to `--output`: the same initial noise in 5 to 1000 steps, leading and trailing time spacing,
increasing noise (eta), spherical and linear interpolation of noise, inversion and reconstruction of real images, and
DDIM compared with DPM-Solver++, whose distances from the result of 1000 steps are printed, too.
"""

import argparse

import numpy as np
from datasets import load_images
from ddpm import load_or_train, sampling_parser
from shared import full_or_smoke, save_row_panels, save_rows

from keras_gen.models import DDPM
from keras_gen.ops import slerp
from keras_gen.samplers import DDIMSampler, DiffusionSampler, DPMSolverPPSampler

COUNT = 16  # images in a row


def ddim(steps: int, eta: float = 0.0, spacing: str = "trailing") -> DDIMSampler:
    return DDIMSampler(steps, eta, spacing, clip_x0=1.0)


class Experiments:
    """Pictures of one model, all from the same initial noise and for the same labels."""

    def __init__(self, model: DDPM, images: np.ndarray, labels: np.ndarray | None, arguments: argparse.Namespace):
        self.model, self.images, self.output, self.seed = model, images, arguments.output, arguments.seed
        self.image_labels = labels
        self.labels = None if labels is None else np.arange(COUNT) % (labels.max() + 1)
        self.noise = np.random.default_rng(self.seed).standard_normal((2, COUNT, *images.shape[1:]), "float32")

    def sample(
        self, sampler: DiffusionSampler, noise: np.ndarray | None = None, labels: np.ndarray | None = None
    ) -> np.ndarray:
        noise = self.noise[0] if noise is None else noise
        labels = self.labels if labels is None else labels
        return self.model.sample(len(noise), sampler, labels, noise=noise, seed=self.seed, verbose=0)

    def step_counts(self) -> None:
        counts = full_or_smoke((5, 10, 20, 50, 1000), (2,))
        rows = {f"{steps} steps": self.sample(ddim(steps)) for steps in counts}
        save_rows(self.output / "steps.png", rows, "DDIM: the same noise, more steps")

    def spacings(self) -> None:
        counts = full_or_smoke((5, 10, 20), (2,))
        names = "leading", "trailing"
        rows = {f"{name}, {steps}": self.sample(ddim(steps, spacing=name)) for steps in counts for name in names}
        save_rows(self.output / "spacings.png", rows, "where the steps are: leading ones never see pure noise")

    def etas(self) -> None:
        values = full_or_smoke((0, 0.25, 0.5, 0.75, 1), (1,))
        rows = {f"eta = {eta}": self.sample(ddim(full_or_smoke(20, 2), eta)) for eta in values}
        save_rows(self.output / "eta.png", rows, "20 steps with fresh noise, from none (DDIM) to all (DDPM)")

    def interpolations(self) -> None:
        weights = np.linspace(0, 1, COUNT, dtype="float32")
        column = weights.reshape(-1, *[1] * (self.images.ndim - 1))
        panels = {"on the arc (slerp)": {}, "on the line": {}}
        for row in range(full_or_smoke(4, 1)):
            label = None if self.labels is None else np.full(COUNT, self.labels[row])
            name = f"noise {row}" if label is None else f"label {label[0]}"
            a, b = (np.repeat(noise[row : row + 1], COUNT, axis=0) for noise in self.noise)
            for panel, noise in zip(
                panels.values(), (slerp(a, b, weights), (1 - column) * a + column * b), strict=True
            ):
                panel[name] = self.sample(ddim(full_or_smoke(50, 2)), noise, label)
        save_row_panels(self.output / "slerp.png", panels)

    def inversion(self) -> None:
        x = self.images[:COUNT]
        labels, other = None, None
        if self.image_labels is not None:
            labels = self.image_labels[:COUNT]
            other = (labels + 1) % (self.image_labels.max() + 1)
        # A step from pure noise, the first with trailing spacing, cannot be inverted: it amplifies every error.
        # And clipping would remove the noise of pixels at the bounds of their range.
        sampler = DDIMSampler(full_or_smoke(50, 2), spacing="leading")
        rows = {"image": x}
        for iterations in full_or_smoke((1, 3), (1,)):
            noise = self.model.invert(x, sampler, iterations, condition=labels, verbose=0)
            again = self.sample(sampler, noise, labels)
            error = np.sqrt(np.mean((again - x) ** 2))
            print(f"inverted by {iterations} iterations: noise of deviation {noise.std():.3f}, error {error:.4f}")
        rows |= {"its noise": noise / 2, "again": again}
        if other is not None:
            rows["label + 1"] = self.sample(sampler, noise, other)
        save_rows(self.output / "inversion.png", rows, "from an image to its noise, and back")

    def solvers(self) -> None:
        kinds = {
            "DDIM": ddim,
            "DPM++ order 2": lambda steps: DPMSolverPPSampler(steps, 2, spacing="trailing", clip_x0=1.0),
            "DPM++ order 3": lambda steps: DPMSolverPPSampler(steps, 3, spacing="trailing", clip_x0=1.0),
        }
        best, rows = self.sample(ddim(full_or_smoke(1000, 2))), {}
        for name, make in kinds.items():
            for steps in full_or_smoke((5, 10, 20, 50), (2,)):
                images = self.sample(make(steps))
                if steps <= 10:
                    rows[f"{name}, {steps}"] = images
                print(f"{name}, {steps} steps: {np.sqrt(np.mean((images - best) ** 2)):.3f} from the result of 1000")
        save_rows(
            self.output / "solvers.png", {**rows, "DDIM, 1000": best}, "few steps of three solvers, and their goal"
        )


def main() -> None:
    arguments = sampling_parser(__doc__, "ddim").parse_args()
    images, labels = load_images(arguments.dataset, arguments.size)
    model, labels = load_or_train(images, labels, arguments)
    experiments = Experiments(model, images, labels, arguments)
    experiments.step_counts()
    experiments.spacings()
    experiments.etas()
    experiments.interpolations()
    experiments.inversion()
    experiments.solvers()


if __name__ == "__main__":
    main()
