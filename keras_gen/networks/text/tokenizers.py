"""Tokenizers: texts as arrays of token ids, padded and cut to one length.

The byte pairs of CLIP and the unigrams of T5 are computed by the library `tokenizers`, which is imported when it is
used. Since it also writes the files, any `tokenizer.json` means the same here, including Unicode normalization and
added tokens. It is compiled, and needs no backend. This file adds what the library leaves open: which files of a folder
are read, how texts are padded and cut, and how the vocabulary is stored in a model's `.keras` file.
"""

import json
import os
import pathlib
import warnings
from collections.abc import Sequence
from typing import Any, ClassVar, Self

import keras
import numpy as np

from keras_gen.core.checks import check, check_given, check_integer, is_integer
from keras_gen.core.files import DAMAGE, reading, replacing
from keras_gen.core.foreign.files import how_to_get, read_object
from keras_gen.export import keras_gen_export

DEFINITION = "tokenizer.json"
CONFIG = "tokenizer_config.json"
MOST_TOKENS = 10**6  # a larger `model_max_length` means that there is no limit
CLIP_WORDS = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


class Tokenizer(keras.layers.Layer):
    """Base class of tokenizers: layers without weights, so that models hold them, and `.keras` files with them.

    A file holds the vocabulary as an asset, not in its configuration: a copy made by `from_config` has none.

    To implement a tokenizer: set the attributes of the class, and define `read`. Define `further_config` or `write` if
    `save` is to write more than `tokenizer.json` and the common configuration.

    Args:
        definition: str or `None`. The text of a `tokenizer.json`.
        max_length: int. Length of the ids unless another one is asked for.
        pad_token: str. The token of padding.
        **kwargs: `name`, as for any Keras layer.
    """

    files: ClassVar[tuple[str, ...]]  # to read if `tokenizer.json` is missing
    classes: ClassVar[tuple[str, ...]]  # names in transformers, of which the first one is written
    tokens: ClassVar[dict[str, str]]  # the special tokens except for padding, by their keys in a configuration
    shortest: ClassVar[int]  # the number of tokens of an empty text

    def __init__(self, definition: str | None, max_length: int, pad_token: str, **kwargs: Any):
        super().__init__(**kwargs)
        self.max_length = check_integer("max_length", max_length, at_least=self.shortest)
        check(isinstance(pad_token, str), "pad_token", "be a string", repr(pad_token))
        self.pad_token = pad_token
        self._encoder: Any = None
        if definition is not None:
            self._define(definition)
        self.built = True

    def __call__(self, texts: str | Sequence[str], length: int | None = None) -> np.ndarray:
        """Returns the token ids of texts.

        Args:
            texts: a string, or a sequence of strings. A text that is too long is cut before its end token, and a
                warning says what is lost.
            length: int or `None`. Number of tokens of each text. Defaults to `None`, `max_length`.

        Returns:
            int32 NumPy array `(n, length)`.
        """
        length = self.max_length if length is None else check_integer("length", length, at_least=self.shortest)
        texts = _as_texts(texts)
        ids = np.full((len(texts), length), self.pad_id, "int32")
        lost = []
        for row, text, encoding in zip(ids, texts, self.encoder.encode_batch(texts), strict=True):
            own = encoding.ids
            if len(own) > length:
                lost.append(text[encoding.offsets[length - 1][0] :])
                own = [*own[: length - 1], self.end_id]
            row[: len(own)] = own
        if lost:
            shown = ", ".join(map(repr, lost[:3])) + (", ..." if len(lost) > 3 else "")
            message = f"{len(lost)} of {len(texts)} texts have more than {length} tokens: cut, without {shown}"
            warnings.warn(message, stacklevel=2)
        return ids

    @property
    def encoder(self) -> Any:
        """The `tokenizers.Tokenizer` that does the work."""
        rule = "be given, or be loaded with a file: a copy by `from_config` has no vocabulary"
        return check_given("definition", self._encoder, rule)

    @property
    def definition(self) -> str:
        """The text of a `tokenizer.json`."""
        return self.encoder.to_str()

    @property
    def vocabulary_size(self) -> int:
        return self.encoder.get_vocab_size()

    @property
    def pad_id(self) -> int:
        return self.encoder.token_to_id(self.pad_token)

    @property
    def end_id(self) -> int:
        return self.encoder.token_to_id(self.tokens["eos_token"])

    def _define(self, definition: Any) -> None:
        check(isinstance(definition, str), "definition", "be a string", type(definition).__name__)
        with reading("definition", f"{definition[:40]!r}...", f"be the text of a {DEFINITION}", Exception):
            encoder = _library().Tokenizer.from_str(definition)
        encoder.no_padding()
        encoder.no_truncation()
        special = {**self.tokens, "pad_token": self.pad_token}
        for name, token in special.items():
            check(encoder.token_to_id(token) is not None, name, "be a token of the vocabulary", repr(token))
        encoder.add_special_tokens(list(special.values()))  # so that they are not split into pieces
        self._encoder = encoder

    @classmethod
    def from_folder(cls, folder: Any) -> Self:
        """Reads the tokenizer of a folder of transformers.

        Args:
            folder: path of a folder with `tokenizer.json`, or with the older files that it replaces; and optionally
                `tokenizer_config.json`, `special_tokens_map.json` and `added_tokens.json`, for the length, the padding
                token and added tokens.

        Returns:
            The tokenizer.

        Raises:
            ValueError: if the folder has no such files, or they are damaged or of another kind of tokenizer.
            ImportError: if the library `tokenizers` is not installed.
        """
        rule = f"be a folder with {DEFINITION} or {' and '.join(cls.files)}"
        check(isinstance(folder, str | os.PathLike), "folder", rule, type(folder).__name__)
        folder = pathlib.Path(folder)
        config = {**_object_in(folder / "special_tokens_map.json"), **_object_in(folder / CONFIG)}
        with reading("folder", folder / CONFIG, f"have a configuration of a {cls.__name__}", ValueError):
            arguments = cls._arguments(config)
        if (folder / DEFINITION).is_file():
            definition = _text_of(folder / DEFINITION)
        else:
            is_whole = all((folder / file).is_file() for file in cls.files)
            check(is_whole, "folder", f"{rule}{how_to_get(folder)}", folder)
            with reading("folder", folder, f"have a vocabulary in {' and '.join(cls.files)}", Exception):
                encoder = cls.read(folder, config)
                _add_tokens(encoder, {**config, "added_tokens": _object_in(folder / "added_tokens.json")})
                definition = encoder.to_str()
        with reading("folder", folder, "have a whole vocabulary", ValueError):
            return cls(definition, **arguments)

    @classmethod
    def _arguments(cls, config: dict[str, Any]) -> dict[str, Any]:
        """Returns those of the constructor's arguments that a configuration determines."""
        kind = config.get("tokenizer_class", cls.classes[0])
        check(kind in cls.classes, "tokenizer_class", f"be {' or '.join(map(repr, cls.classes))}", repr(kind))
        for key, token in cls.tokens.items():
            own = _content(config.get(key) or token)
            check(own == token, key, f"be {token!r} for a {cls.__name__}", repr(own))
        arguments = {}
        if config.get("pad_token") is not None:
            arguments["pad_token"] = _content(config["pad_token"])
        length = config.get("model_max_length")
        if not (length is None or (is_integer(length) and length > MOST_TOKENS)):
            arguments["max_length"] = check_integer("model_max_length", length, at_least=cls.shortest)
        return arguments

    @classmethod
    def read(cls, folder: pathlib.Path, config: dict[str, Any]) -> Any:
        """Returns the `tokenizers.Tokenizer` of `files`."""
        raise NotImplementedError

    def save(self, folder: Any) -> None:
        """Writes the tokenizer to a folder that transformers and `from_folder` can read.

        Args:
            folder: path of the folder. If it does not exist, it is created.

        Raises:
            ValueError: if the tokenizer has no vocabulary, or `folder` is not the path of a folder.
        """
        check(isinstance(folder, str | os.PathLike), "folder", "be a path", type(folder).__name__)
        folder = pathlib.Path(folder)
        check(not folder.is_file(), "folder", "be the path of a folder", folder)
        config = {
            "tokenizer_class": self.classes[0],
            "model_max_length": self.max_length,
            **self.tokens,
            "pad_token": self.pad_token,
        }
        texts = {DEFINITION: self.definition, CONFIG: json.dumps({**config, **self.further_config()}, indent=2)}
        for name, text in {**texts, **self.write()}.items():
            with replacing(folder / name) as file:
                file.write(text.encode("utf-8"))

    def further_config(self) -> dict[str, Any]:
        """Returns what `save` adds to the configuration."""
        return {}

    def write(self) -> dict[str, str]:
        """Returns the texts of further files that `save` writes, by name."""
        return {}

    def save_assets(self, folder: str) -> None:
        """Writes the vocabulary into a `.keras` file."""
        if self._encoder is not None:
            (pathlib.Path(folder) / DEFINITION).write_text(self.definition, encoding="utf-8")

    def load_assets(self, folder: str) -> None:
        """Reads the vocabulary of a `.keras` file."""
        if (pathlib.Path(folder) / DEFINITION).is_file():
            self._define(_text_of(pathlib.Path(folder) / DEFINITION))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "definition": None, "max_length": self.max_length, "pad_token": self.pad_token}


@keras_gen_export("keras_gen.tokenizers.CLIPTokenizer")
class CLIPTokenizer(Tokenizer):
    """Tokenizer of CLIP: byte pair encoding of texts in lower case, between a start and an end token.

    Read one with `from_folder`. The library `tokenizers` is needed: `pip install tokenizers`.

    A text is split into words, and these into bytes. Then the adjacent pair that comes first in the list of merges is
    joined, until there are no such pairs. The padding token is the end token for CLIP ViT-L/14, and "!", whose id is 0,
    for OpenCLIP's ViT-bigG/14.

    Args:
        definition: str or `None`. The text of a `tokenizer.json`. Defaults to `None`, for a file that will be loaded.
        max_length: int >= 2. Length of the ids unless another one is asked for. Defaults to `77`.
        pad_token: str. Defaults to `"<|endoftext|>"`.
        **kwargs: `name`, as for any Keras layer.

    Call arguments:
        texts: a string, or a sequence of strings. A text that is too long is cut before its end token, and a warning
            says what is lost.
        length: int or `None`. Number of tokens of each text. Defaults to `None`, `max_length`.

    Returns:
        int32 NumPy array `(n, length)`.

    Raises:
        ValueError: if an argument is of the wrong type, `definition` is damaged or lacks the special tokens, or
            anything but strings is given.
        ImportError: if the library `tokenizers` is not installed.

    Example:

    >>> tokenizer = keras_gen.tokenizers.CLIPTokenizer.from_folder("stable-diffusion/tokenizer")
    >>> tokenizer("a photo of a cat")[0, :8]    # 49406, 320, 1125, 539, 320, 2368, 49407, 49407

    Reference: Radford et al. 2021, arXiv:2103.00020; Sennrich et al. 2015, arXiv:1508.07909.
    """

    files = ("vocab.json", "merges.txt")
    classes = ("CLIPTokenizer", "CLIPTokenizerFast")
    tokens: ClassVar[dict[str, str]] = {
        "bos_token": "<|startoftext|>",
        "eos_token": "<|endoftext|>",
        "unk_token": "<|endoftext|>",
    }
    shortest = 2

    def __init__(
        self,
        definition: str | None = None,
        max_length: int = 77,
        pad_token: str = "<|endoftext|>",
        **kwargs: Any,
    ):
        super().__init__(definition, max_length, pad_token, **kwargs)

    @classmethod
    def read(cls, folder: pathlib.Path, config: dict[str, Any]) -> Any:
        library = _library()
        vocabulary = _object_in(folder / "vocab.json")
        lines = _text_of(folder / "merges.txt").split("\n")
        merges = [tuple(line.split()) for line in lines if line.strip() and not line.startswith("#version")]
        model = library.models.BPE(vocabulary, merges, unk_token=cls.tokens["unk_token"], end_of_word_suffix="</w>")
        encoder = library.Tokenizer(model)
        normalizers, splits = library.normalizers, library.pre_tokenizers
        spaces = normalizers.Replace(library.Regex(r"\s+"), " ")
        encoder.normalizer = normalizers.Sequence([normalizers.NFC(), spaces, normalizers.Lowercase()])
        words = splits.Split(library.Regex(CLIP_WORDS), behavior="removed", invert=True)
        encoder.pre_tokenizer = splits.Sequence([words, splits.ByteLevel(add_prefix_space=False)])
        encoder.decoder = library.decoders.ByteLevel()
        start, end = ((token, vocabulary[token]) for token in (cls.tokens["bos_token"], cls.tokens["eos_token"]))
        encoder.post_processor = library.processors.RobertaProcessing(
            end, start, trim_offsets=False, add_prefix_space=False
        )
        return encoder

    def write(self) -> dict[str, str]:
        # For versions of transformers before 5, which read only these.
        model = json.loads(self.definition)["model"]
        lines = ["#version: 0.2", *(" ".join(pair) for pair in model["merges"])]
        return {"vocab.json": json.dumps(model["vocab"]), "merges.txt": "\n".join(lines) + "\n"}


@keras_gen_export("keras_gen.tokenizers.T5Tokenizer")
class T5Tokenizer(Tokenizer):
    """Tokenizer of T5: the likeliest pieces of a text under a unigram model, then an end token.

    Read one with `from_folder`. The library `tokenizers` is needed: `pip install tokenizers`; for a `spiece.model`
    without a `tokenizer.json` also `sentencepiece` and `protobuf`.

        pieces = argmax sum_i log p(piece_i),   the pieces joined are the text, with spaces as "▁"

    Args:
        definition: str or `None`. The text of a `tokenizer.json`. Defaults to `None`, for a file that will be loaded.
        max_length: int >= 1. Length of the ids unless another one is asked for. Defaults to `512`.
        pad_token: str. Defaults to `"<pad>"`.
        **kwargs: `name`, as for any Keras layer.

    Call arguments:
        texts: a string, or a sequence of strings. A text that is too long is cut before its end token, and a warning
            says what is lost.
        length: int or `None`. Number of tokens of each text. Defaults to `None`, `max_length`.

    Returns:
        int32 NumPy array `(n, length)`.

    Raises:
        ValueError: if an argument is of the wrong type, `definition` is damaged or lacks the special tokens, or
            anything but strings is given.
        ImportError: if the library `tokenizers` is not installed.

    Example:

    >>> tokenizer = keras_gen.tokenizers.T5Tokenizer.from_folder("stable-diffusion-3/tokenizer_3")
    >>> ids = tokenizer(["a photo of a cat"], length=256)     # int32 (1, 256)

    Reference: Kudo 2018, arXiv:1804.10959; Raffel et al. 2019, arXiv:1910.10683.
    """

    files = ("spiece.model",)
    classes = ("T5Tokenizer", "T5TokenizerFast")
    tokens: ClassVar[dict[str, str]] = {"eos_token": "</s>", "unk_token": "<unk>"}
    shortest = 1

    def __init__(
        self,
        definition: str | None = None,
        max_length: int = 512,
        pad_token: str = "<pad>",
        **kwargs: Any,
    ):
        super().__init__(definition, max_length, pad_token, **kwargs)

    @classmethod
    def read(cls, folder: pathlib.Path, config: dict[str, Any]) -> Any:
        library, proto = _library(), _sentencepiece().ModelProto.FromString((folder / cls.files[0]).read_bytes())
        sentinels = check_integer("extra_ids", config.get("extra_ids", 100), at_least=0)
        extra = [f"<extra_id_{i}>" for i in reversed(range(sentinels))]
        pieces = [(piece.piece, piece.score) for piece in proto.pieces] + [(token, 0.0) for token in extra]
        encoder = library.Tokenizer(library.models.Unigram(pieces, unk_id=proto.trainer_spec.unk_id))
        characters = proto.normalizer_spec.precompiled_charsmap
        if characters:
            encoder.normalizer = library.normalizers.Precompiled(characters)
        splits = library.pre_tokenizers
        encoder.pre_tokenizer = splits.Sequence([splits.WhitespaceSplit(), splits.Metaspace()])
        encoder.decoder = library.decoders.Metaspace()
        end = cls.tokens["eos_token"]
        encoder.post_processor = library.processors.TemplateProcessing(
            single=f"$A {end}", special_tokens=[(end, encoder.token_to_id(end))]
        )
        encoder.add_special_tokens(extra)
        return encoder

    def further_config(self) -> dict[str, Any]:
        return {"extra_ids": sum(token.startswith("<extra_id_") for token in self.encoder.get_vocab())}


def _library() -> Any:
    try:
        import tokenizers
    except ImportError as error:
        raise ImportError("Tokenizers need `pip install tokenizers`") from error
    return tokenizers


def _sentencepiece() -> Any:
    try:
        from sentencepiece import sentencepiece_model_pb2
    except ImportError as error:
        raise ImportError("Reading spiece.model needs `pip install sentencepiece protobuf`") from error
    return sentencepiece_model_pb2


def _as_texts(texts: Any) -> list[str]:
    rule = "be a string or a sequence of strings"
    if isinstance(texts, str):
        texts = [texts]
    check(isinstance(texts, list | tuple | np.ndarray), "texts", rule, type(texts).__name__)
    others = [text for text in texts if not isinstance(text, str)]
    check(not others, "texts", rule, f"a sequence with {type(others[0]).__name__ if others else ''}")
    broken = [text for text in texts if any("\ud800" <= character <= "\udfff" for character in text)]
    check(not broken, "texts", "be valid Unicode", ascii(broken[:1]))
    return [str(text) for text in texts]


def _text_of(file: pathlib.Path) -> str:
    with reading("folder", file, "have a text in UTF-8", *DAMAGE):
        return file.read_text(encoding="utf-8")


def _object_in(file: pathlib.Path) -> dict[str, Any]:
    """Returns the object in a JSON file, or an empty one if there is no such file."""
    return read_object(file, "folder") if file.is_file() else {}


def _content(token: Any) -> Any:
    """Returns the text of a token, which in a configuration is a string or an object."""
    return token["content"] if isinstance(token, dict) and "content" in token else token


def _add_tokens(encoder: Any, config: dict[str, Any]) -> None:
    """Adds the tokens that a configuration has in addition to the vocabulary, such as those of textual inversion."""
    added = {int(number): token for number, token in config.get("added_tokens_decoder", {}).items()}
    added |= {number: {"content": token} for token, number in config["added_tokens"].items()}
    for number, token in sorted(added.items()):
        own = _library().AddedToken(
            token["content"],
            **{key: token[key] for key in ("single_word", "lstrip", "rstrip", "normalized", "special") if key in token},
        )
        (encoder.add_special_tokens if own.special else encoder.add_tokens)([own])
        found = encoder.token_to_id(token["content"])
        check(found == number, "added_tokens", f"follow the vocabulary: {number} for {token['content']!r}", found)
