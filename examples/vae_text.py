"""VAE on text, https://kexue.fm/archives/5332: couplets of five characters decoded in parallel from a latent vector.

    KERAS_BACKEND=jax python examples/vae_text.py
    KERAS_BACKEND=torch python examples/vae_text.py --corpus my_couplets.txt --epochs 50

A corpus is a text file with a couplet of equal halves per line; the one next to this script contains some 300 from
poems of the Tang dynasty and earlier. Writes couplets drawn from the prior, interpolations between couplets, and the
model to `--output`, and prints the ELBO of the corpus in nats per couplet.
"""

import pathlib

import keras
import numpy as np
from shared import train, training_parser

from keras_gen.losses import CategoricalLikelihood
from keras_gen.models import VAE

CORPUS = pathlib.Path(__file__).parent / "couplets.txt"
LATENT_DIM, WIDTH = 64, 128
COMMA = "\N{FULLWIDTH COMMA}"


def load_corpus(path: pathlib.Path) -> tuple[np.ndarray, str]:
    """Returns tokens `(couplets, 2 * length)`, and the characters of the vocabulary."""
    lines = [line.strip().replace(COMMA, "") for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    lengths = {len(line) for line in lines}
    if len(lengths) != 1 or lengths.pop() % 2:
        raise ValueError(f"`--corpus` must hold lines of one even length. Received: {path}")
    characters = "".join(sorted(set("".join(lines))))
    return np.array([[characters.index(c) for c in line] for line in lines], "int32"), characters


def gated_block(x: keras.KerasTensor) -> keras.KerasTensor:
    """A residual gated convolution: `x (1 - g) + h g`."""
    h = keras.layers.Conv1D(WIDTH, 3, padding="same")(x)
    g = keras.layers.Conv1D(WIDTH, 3, padding="same", activation="sigmoid")(x)
    multiply, one_minus = keras.layers.Multiply(), keras.layers.Rescaling(-1.0, 1.0)
    return keras.layers.Add()([multiply([x, one_minus(g)]), multiply([h, g])])


def build_model(length: int, num_characters: int, seed: int) -> VAE:
    dense = keras.layers.Dense
    x, z = keras.Input((length,), dtype="int32"), keras.Input((LATENT_DIM,))
    h = keras.layers.Embedding(num_characters, WIDTH)(x)
    h = keras.layers.Flatten()(gated_block(gated_block(h)))
    encoder = keras.Model(x, [dense(LATENT_DIM)(h), dense(LATENT_DIM)(h)])
    h = keras.layers.Reshape((length, WIDTH))(dense(length * WIDTH)(z))
    decoder = keras.Model(z, dense(num_characters)(gated_block(gated_block(h))))
    return VAE(encoder, decoder, CategoricalLikelihood(num_characters), seed=seed)


def as_text(tokens: np.ndarray, characters: str) -> str:
    """Returns tokens `(..., length)` as lines of text."""
    half = tokens.shape[-1] // 2
    lines = ["".join(characters[i] for i in row) for row in tokens.reshape(-1, tokens.shape[-1])]
    return "\n".join(f"{line[:half]}{COMMA}{line[half:]}" for line in lines)


def write(path: pathlib.Path, text: str) -> None:
    path.write_text(text + "\n", encoding="utf-8")
    print(f"wrote {path}:\n{text}")


def main() -> None:
    parser = training_parser(__doc__, "vae_text", epochs=150, batch_size=32)
    parser.add_argument("--corpus", type=pathlib.Path, default=CORPUS)
    arguments = parser.parse_args()
    keras.utils.set_random_seed(arguments.seed)
    tokens, characters = load_corpus(arguments.corpus)
    model = build_model(tokens.shape[1], len(characters), arguments.seed)
    model.compile(keras.optimizers.Adam(1e-3))
    train(model, tokens, None, arguments)

    write(arguments.output / "samples.txt", as_text(model.sample(12, seed=arguments.seed, verbose=0), characters))
    between = model.interpolate(tokens[:2], tokens[8:10], points=6)
    write(arguments.output / "interpolation.txt", as_text(between, characters))
    bound = model.elbo(tokens, num_samples=10, seed=0, verbose=0)
    print(f"bound on -log p(x) of the corpus: {-bound.mean():.2f} nats for {tokens.shape[1]} characters")


if __name__ == "__main__":
    main()
