"""Sequence packing: a model of names with rotary positions per sequence (https://kexue.fm/archives/8265).

    KERAS_BACKEND=jax python examples/packing.py
    KERAS_BACKEND=torch python examples/packing.py --corpus my_words.txt --row-length 128

By default the sequences are the public names of Python's own modules, such as `combinations_with_replacement`; a corpus
is a text file with one name per line. They are packed in rows, anew in each epoch, attention is limited to each
sequence, and padding is ignored, so that an epoch takes half the time of padding every name to the longest one: the
script times both, in codes per second, and compares the gradients of a step on the same names. Writes generated names
and the model to `--output`, and prints nats per held-out name, packed and unpacked.
"""

import importlib
import pathlib
import time

import keras
import numpy as np
from shared import as_count, base_parser, train

from keras_gen.data import PackedSequences
from keras_gen.models import CodeTransformer
from keras_gen.ops import pack_sequences

MODULES = (
    *("argparse", "ast", "asyncio", "collections", "concurrent.futures", "configparser", "contextlib", "csv"),
    *("dataclasses", "datetime", "decimal", "difflib", "email.message", "fractions", "functools", "http.client"),
    *("inspect", "itertools", "json", "logging", "math", "os", "pathlib", "pickle", "random", "re", "shutil"),
    *("socket", "sqlite3", "ssl", "statistics", "string", "subprocess", "tarfile", "tempfile", "threading"),
    *("tokenize", "traceback", "typing", "unittest", "unittest.mock", "urllib.parse", "urllib.request", "uuid"),
    *("weakref", "xml.dom.minidom", "xml.etree.ElementTree", "zipfile"),
)


def python_names() -> list[str]:
    """Returns the public lower-case names of Python's own modules and classes."""
    names = set()
    for module in map(importlib.import_module, MODULES):
        for name, value in vars(module).items():
            names.update([name, *(dir(value) if isinstance(value, type) else [])])
    return sorted(name for name in names if name.islower() and not name.startswith("_") and 3 <= len(name) <= 28)


def as_codes(names: list[str], characters: str) -> list[list[int]]:
    """Returns names as character codes, each followed by the end token, 0."""
    return [[*(characters.index(character) + 1 for character in name), 0] for name in names]


def as_names(codes: np.ndarray, characters: str) -> list[str]:
    """Returns rows of codes as names, up to the end token."""
    ends = [row.index(0) if 0 in row else len(row) for row in codes.tolist()]
    return ["".join(characters[code - 1] for code in row[:end]) for row, end in zip(codes, ends, strict=True)]


def padded(sequences: list[list[int]], length: int) -> dict[str, np.ndarray]:
    """Returns packed rows with one sequence each."""
    parts = [pack_sequences([sequence], length) for sequence in sequences]
    return {name: np.concatenate([part[name] for part in parts]) for name in ("codes", "segments")}


def epoch_seconds(model: CodeTransformer, rows: dict[str, np.ndarray], batch_size: int) -> float:
    """Returns the time of the second epoch: the first includes compilation."""
    for _ in range(2):
        start = time.time()
        model.fit(rows, batch_size=batch_size, verbose=0)
    return time.time() - start


def one_step(model: CodeTransformer, rows: dict[str, np.ndarray]) -> tuple[float, np.ndarray]:
    """Returns the loss of rows, and all weights after a step of training from the same start."""
    keras.utils.set_random_seed(0)
    loss = model.fit(rows, batch_size=len(rows["codes"]), verbose=0).history["loss"][0]
    return loss, np.concatenate([keras.ops.convert_to_numpy(weight).ravel() for weight in model.trainable_weights])


def main() -> None:
    parser = base_parser(__doc__, "packing")
    parser.add_argument("--corpus", type=pathlib.Path, help="default: names of Python's own modules")
    parser.add_argument("--row-length", type=as_count, default=128)
    parser.add_argument("--epochs", type=as_count, default=60)
    parser.add_argument("--batch-size", type=as_count, default=8, help="rows")
    arguments = parser.parse_args()
    keras.utils.set_random_seed(arguments.seed)
    if arguments.corpus is None:
        names = python_names()
    else:
        names = sorted({line.strip() for line in arguments.corpus.read_text(encoding="utf-8").splitlines()} - {""})
    characters = "".join(sorted(set("".join(names))))
    names = [names[i] for i in np.random.default_rng(arguments.seed).permutation(len(names))]
    sequences = as_codes(names, characters)
    held_out, sequences = sequences[: len(names) // 10], sequences[len(names) // 10 :]
    longest = max(map(len, [*sequences, *held_out]))
    packed, one_each = pack_sequences(sequences, arguments.row_length), padded(sequences, longest)

    def build_model(dropout: float = 0.2, optimizer: keras.Optimizer | None = None) -> CodeTransformer:
        model = CodeTransformer(len(characters) + 1, longest, 96, 3, 4, "rotary", dropout=dropout, seed=arguments.seed)
        model.compile(optimizer or keras.optimizers.AdamW(2e-3, weight_decay=0.05, use_ema=True, ema_momentum=0.99))
        return model

    slots = arguments.batch_size * arguments.row_length
    for title, rows in {"packed": packed, "padded": one_each}.items():
        seconds = epoch_seconds(build_model(), rows, slots // rows["codes"].shape[1])
        filled = rows["segments"] > 0
        print(
            f"{title}: {len(sequences)} sequences in rows {rows['codes'].shape}, {1 - filled.mean():.0%} padding, "
            f"{seconds:.2f} s an epoch, {filled.sum() / seconds:,.0f} codes per second"
        )
    rows = pack_sequences(sequences[:64], arguments.row_length), padded(sequences[:64], longest)
    (loss, weights), (other_loss, others) = (
        one_step(build_model(0.0, keras.optimizers.SGD(1.0)), each) for each in rows
    )
    print(f"a step on 64 sequences: losses differ by {abs(loss - other_loss):.1e}, ", end="")
    print(f"gradients by at most {np.abs(weights - others).max():.1e}")
    model = build_model()
    data = PackedSequences(sequences, arguments.row_length, arguments.batch_size, arguments.seed)
    train(model, data, None, arguments)

    together = model.log_prob(pack_sequences(held_out, arguments.row_length), verbose=0)
    alone = model.log_prob(padded(held_out, longest), verbose=0)
    difference = np.abs(together - alone).max()
    print(f"held out: {-together.mean():.3f} nats for each name packed, {-alone.mean():.3f} one by one")
    even = np.mean([len(row) for row in held_out]) * np.log(len(characters) + 1)
    print(f"the largest difference of a name is {difference:.1e}; even draws have {even:.3f} nats")
    drawn = as_names(model.sample(200, seed=arguments.seed, verbose=0), characters)
    new = [name for name in drawn if name not in names]
    text = "\n".join(sorted(set(new)))
    (arguments.output / "names.txt").write_text(text + "\n", encoding="utf-8")
    print(f"wrote {arguments.output / 'names.txt'}: {', '.join(new[:20])}")


if __name__ == "__main__":
    main()
