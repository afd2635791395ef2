"""The shapes of tests: each new one costs a compilation, so values are tested on these where they can be."""

import numpy as np

IMAGES = np.random.default_rng(0).uniform(-1, 1, (2, 4, 4, 8)).astype("float32")
GRAY = np.random.default_rng(1).uniform(-1, 1, (2, 4, 4, 1)).astype("float32")
TOKENS = np.random.default_rng(7).normal(size=(2, 6, 8)).astype("float32")
VECTOR = np.random.default_rng(2).normal(size=(2, 6)).astype("float32")
PAIRS = np.random.default_rng(3).normal(size=(2, 5, 2)).astype("float32")
NUMBERS = np.random.default_rng(4).uniform(0.01, 0.99, (2, 6)).astype("float32")
CONDITION = np.random.default_rng(6).normal(size=(2, 3)).astype("float32")
IDS = np.random.default_rng(9).integers(0, 11, (2, 6)).astype("int32")
TEXT = {"tokens": TOKENS, "pooled": VECTOR}
SIZED_TEXT = {**TEXT, "sizes": np.array([[64, 48, 0, 3, 64, 64], [100, 50, 1, 0, 96, 64]], "float32")}
LABELS = np.array([0, 2], "int32")
T = np.array([3, 700], "int32")
REAL_T = np.array([0.5, 700.25], "float32")
