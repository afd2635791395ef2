"""How the encodings of prompts become the condition of a network: one class for each family of pipelines.

The family follows from the parts of the condition that a network takes:

    tokens                 StableDiffusion    one encoder's last state
    tokens, pooled, sizes  StableDiffusionXL  two encoders' states before the last block, side by side; the second one's
                                              pooled vector; heights and widths
    tokens, pooled         StableDiffusion3   the same states, filled with zeros to the channels of a third encoder's
                                              tokens, which follow; both pooled vectors, side by side
"""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_gen.core.checks import check
from keras_gen.core.conditions import map_parts, parts_of
from keras_gen.networks.backbones.image_network import condition_of

TEXTS = "be a string or a sequence of strings"
T5_LENGTH = 256  # of Stable Diffusion 3's third encoder, or of the zeros in its place

Encoding = Mapping[str, np.ndarray]  # what an encoder returns: "tokens" and, of CLIP, "penultimate" and "pooled"


class StableDiffusion:
    """The last state of one encoder. Also that of any network whose condition is a single array of tokens.

    Args:
        network: the network.
    """

    encoders: tuple[int, ...] = (1,)  # the possible numbers of encoders
    takes_size = False  # whether the condition contains the size of the image

    def __init__(self, network: keras.Layer):
        self.taken = condition_of(network)

    def ids(self, tokenizers: Sequence[Any], prompts: Sequence[str]) -> list[np.ndarray]:
        """Returns the token ids that each encoder takes."""
        return [tokenizer(prompts) for tokenizer in tokenizers]

    def condition(self, encodings: Sequence[Encoding], size: Any) -> Any:
        """Returns the condition of images, given the encodings of their prompts, and height and width if taken."""
        return encodings[0]["tokens"]


class StableDiffusionXL(StableDiffusion):
    """The states before the last block of two encoders, the second one's pooled vector, and sizes.

    The sizes are those of an image that was neither scaled nor cropped: height, width, 0, 0, height, width.
    """

    encoders = (2,)
    takes_size = True

    def zeros(self, length: int) -> dict[str, np.ndarray | None]:
        """Returns the null condition for prompts of `length` tokens, zeros; the sizes stay as they are."""
        tokens, pooled = (self.taken[part].shape[-1] for part in ("tokens", "pooled"))
        return {"tokens": np.zeros((length, tokens), "float32"), "pooled": np.zeros(pooled, "float32"), "sizes": None}

    def condition(self, encodings: Sequence[Encoding], size: Any) -> dict[str, np.ndarray]:
        pooled = encodings[1]["pooled"]
        sizes = np.array([*size, 0, 0, *size], "float32")
        return {"tokens": side_by_side(encodings), "pooled": pooled, "sizes": np.tile(sizes, (len(pooled), 1))}


class StableDiffusion3(StableDiffusion):
    """The states before the last block of two encoders, then the tokens of a third one, or zeros; pooled vectors."""

    encoders = (2, 3)

    def ids(self, tokenizers: Sequence[Any], prompts: Sequence[str]) -> list[np.ndarray]:
        first, third = tokenizers[:2], tokenizers[2:]
        return [*super().ids(first, prompts), *(tokenizer(prompts, T5_LENGTH) for tokenizer in third)]

    def condition(self, encodings: Sequence[Encoding], size: Any) -> dict[str, np.ndarray]:
        tokens = side_by_side(encodings[:2])
        channels = self.taken["tokens"].shape[-1]
        missing = channels - tokens.shape[-1]
        rule = f"have together at most the {channels} channels of the network's tokens"
        check(missing >= 0, "text_encoders", rule, tokens.shape[-1])
        tokens = np.pad(tokens, ((0, 0), (0, 0), (0, missing)))
        no_text = {"tokens": np.zeros((len(tokens), T5_LENGTH, channels), "float32")}
        third = encodings[2] if len(encodings) == 3 else no_text
        pooled = np.concatenate([encoding["pooled"] for encoding in encodings[:2]], axis=-1)
        return {"tokens": np.concatenate([tokens, third["tokens"]], axis=1), "pooled": pooled}


def side_by_side(encodings: Sequence[Encoding]) -> np.ndarray:
    """Returns the states before the last block of two encoders, joined along the channels."""
    return np.concatenate([encoding["penultimate"] for encoding in encodings], axis=-1)


FAMILIES = {
    ("pooled", "tokens"): StableDiffusion3,
    ("pooled", "sizes", "tokens"): StableDiffusionXL,
}


def family_of(network: keras.Layer) -> StableDiffusion:
    """Returns how prompts become the condition of a network."""
    taken = condition_of(network)
    parts = tuple(sorted(taken)) if isinstance(taken, Mapping) else ()
    known = "tokens, or a dict of tokens and pooled, or of tokens, pooled and sizes"
    is_known = parts in FAMILIES if parts else len(getattr(taken, "shape", ())) == 3
    check(is_known, "network", f"take a condition of {known}", parts or taken)
    return FAMILIES.get(parts, StableDiffusion)(network)


def as_texts(name: str, texts: Any, n: int | None = None, rule: str = TEXTS) -> list[str]:
    """Returns texts as a list; of a single one, `n` copies."""
    if isinstance(texts, str):
        return [texts] * (1 if n is None else n)
    is_sequence = isinstance(texts, list | tuple | np.ndarray) and len(texts) > 0
    check(is_sequence and all(isinstance(text, str) for text in texts), name, rule, repr(texts)[:80])
    check(n is None or len(texts) == n, name, f"be one string, or one for each of {n} images", len(texts))
    return [str(text) for text in texts]


def as_prompts(name: str, prompts: Any, n: int | None = None) -> Any:
    """Returns prompts as a list of texts, or encoded ones as a condition; of a single one, `n` copies."""
    if not isinstance(prompts, Mapping) and not (isinstance(prompts, np.ndarray) and prompts.dtype.kind == "f"):
        return as_texts(name, prompts, n, f"{TEXTS}, or as `encode_prompts` returns them")
    parts = parts_of(prompts)
    are_arrays = len(parts) > 0 and all(isinstance(part, np.ndarray) and part.ndim > 1 for part in parts)
    lengths = sorted({len(part) for part in parts}) if are_arrays else []
    check(len(lengths) == 1 and lengths[0] > 0, name, "be as `encode_prompts` returns them", repr(prompts)[:80])
    if n is None or lengths[0] == n:
        return prompts
    check(lengths[0] == 1, name, f"be one encoded prompt, or one for each of {n} images", lengths[0])
    return repeated(prompts, n)


def number_of(prompts: Any) -> int:
    """Returns the number of prompts, as `as_prompts` returns them."""
    return len(prompts) if isinstance(prompts, list) else len(parts_of(prompts)[0])


def repeated(prompts: Any, times: int) -> Any:
    """Returns each of some prompts several times in a row."""
    if isinstance(prompts, list):
        return [text for text in prompts for _ in range(times)]
    return map_parts(lambda part: np.repeat(part, times, axis=0), prompts)
