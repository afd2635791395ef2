"""Tokenizers beside those of transformers, with which tests/peers compares them."""

import gzip
import importlib.util
import json
import pathlib
import sys
import warnings

import keras
import numpy as np
import pytest
from offenders import not_refused

from keras_gen.tokenizers import CLIPTokenizer, T5Tokenizer

tokenizers = pytest.importorskip("tokenizers")

pytestmark = pytest.mark.one_backend

START, END = "<|startoftext|>", "<|endoftext|>"


def characters():
    """The 256 characters that stand for bytes: those that can be printed, then others."""
    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return [*map(chr, kept), *(chr(256 + i) for i in range(256 - len(kept)))]


def write_clip(folder, merges, **config):
    tokens = [
        *characters(),
        *(f"{c}</w>" for c in characters()),
        *("".join(pair.split()) for pair in merges),
        START,
        END,
    ]
    folder.mkdir(exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n")
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture
def clip(tmp_path):
    return CLIPTokenizer.from_folder(write_clip(tmp_path / "clip", ["c a", "ca t</w>"], model_max_length=6))


def t5_definition():
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), ("▁a", -2.5), ("▁cat", -3.0)]
    pieces += [(chr(i), -4.0) for i in range(97, 123)]
    encoder = tokenizers.Tokenizer(tokenizers.models.Unigram(pieces, unk_id=2))
    splits = tokenizers.pre_tokenizers
    encoder.pre_tokenizer = splits.Sequence([splits.WhitespaceSplit(), splits.Metaspace()])
    encoder.post_processor = tokenizers.processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return encoder.to_str()


def test_ids_are_padded_and_cut(clip):
    end = clip.end_id
    assert (clip.vocabulary_size, clip.max_length, clip.pad_id, end) == (516, 6, 515, 515)
    ids = clip(["cat", "CAT  cat"])
    assert ids.dtype == "int32"
    assert ids.tolist() == [[514, 513, end, end, end, end], [514, 513, 513, end, end, end]]
    assert clip("cat", length=3).tolist() == [[514, 513, end]]
    assert clip([]).shape == (0, 6)
    np.testing.assert_array_equal(clip(np.array(["cat"])), clip(("cat",)))
    with pytest.warns(UserWarning, match=r"1 of 2 texts have more than 4 tokens: cut, without 'Dog and cat'$"):
        cut = clip(["cat cat Dog and cat", "cat"], length=4)
    assert cut.tolist() == [[514, 513, 513, end], [514, 513, end, end]]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        clip("cat cat cat cat")  # with start and end all of the six tokens
    t5 = T5Tokenizer(t5_definition(), max_length=5)
    assert t5(["a cat", ""]).tolist() == [[4, 5, 1, 0, 0], [1, 0, 0, 0, 0]]


# As transformers has them.
KNOWN = {
    "a photo of a cat": [320, 1125, 539, 320, 2368],
    "一只猫": [19759, 222, 34517, 103, 163, 234, 360],
    "😀 a cat": [7334, 320, 2368],
    "İstanbul'da ÇAĞRI": [328, 16384, 11231, 1896, 320, 10067, 64, 26540, 2574],
    "I'll 123 don't": [328, 1342, 272, 273, 274, 847, 713],
}


@pytest.mark.skipif(importlib.util.find_spec("open_clip") is None, reason="the vocabulary of CLIP is open_clip's")
def test_known_ids(tmp_path):
    # Beside its modules, none of which is imported: they need more than is installed here.
    [folder] = importlib.util.find_spec("open_clip").submodule_search_locations
    packed = (pathlib.Path(folder) / "bpe_simple_vocab_16e6.txt.gz").read_bytes()
    merges = gzip.decompress(packed).decode().split("\n")[1:48895]
    for pad, number in ((END, 49407), ("!", 0)):
        tokenizer = CLIPTokenizer.from_folder(write_clip(tmp_path / str(number), merges, pad_token=pad))
        assert tokenizer.vocabulary_size == 49408
        ids = tokenizer(list(KNOWN))
        expected = [[49406, *own, 49407] for own in KNOWN.values()]
        assert ids.tolist() == [[*own, *[number] * (77 - len(own))] for own in expected]


@keras.saving.register_keras_serializable("tests")
class Holder(keras.Model):
    def __init__(self, tokenizers, **kwargs):
        super().__init__(**kwargs)
        self.tokenizers = tokenizers
        self.dense = keras.layers.Dense(2)

    def build(self, input_shape):
        self.dense.build(input_shape)

    def call(self, x):
        return self.dense(x)

    def get_config(self):
        return {"tokenizers": [keras.saving.serialize_keras_object(tokenizer) for tokenizer in self.tokenizers]}

    @classmethod
    def from_config(cls, config):
        return cls([keras.saving.deserialize_keras_object(each) for each in config["tokenizers"]])


def test_a_models_file_holds_them(clip, tmp_path):
    model = Holder([clip, T5Tokenizer(t5_definition(), max_length=5)])
    model.build((None, 3))
    assert [weight.path for weight in model.weights] == ["holder/dense/kernel", "holder/dense/bias"]
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    for old, new in zip(model.tokenizers, again.tokenizers, strict=True):
        assert (new.definition, new.max_length, new.pad_id) == (old.definition, old.max_length, old.pad_id)
        np.testing.assert_array_equal(old(["a cat", "😀"]), new(["a cat", "😀"]))


def test_without_a_vocabulary(tmp_path):
    copy = CLIPTokenizer.from_config(CLIPTokenizer(max_length=9, pad_token="!").get_config())
    assert (copy.max_length, copy.pad_token) == (9, "!")
    model = Holder([copy])
    model.build((None, 3))
    model.save(tmp_path / "model.keras")  # as it is
    [again] = keras.models.load_model(tmp_path / "model.keras").tokenizers
    with pytest.raises(ValueError, match="`definition` must be given, or be loaded with a file"):
        again("a cat")


def test_bad_input(clip, tmp_path):
    rule = "`texts` must be a string or a sequence of strings. Received: texts="
    broken = json.dumps({**json.loads(clip.definition), "model": 3})
    cases = [
        *((repr(x), lambda x=x: clip(x), rule) for x in (3, None, b"a", [b"a"], ["a", 3], {"a"}, np.zeros(3))),
        ("symbolic", lambda: clip(keras.Input((3,))), rule),
        ("surrogate", lambda: clip("a\ud800"), "`texts` must be valid Unicode"),
        ("length", lambda: clip("a", length=1), "`length` must be an integer >= 2"),
        ("max_length", lambda: CLIPTokenizer(max_length=0), "`max_length` must be an integer >= 2"),
        ("pad_token", lambda: CLIPTokenizer(pad_token=0), "`pad_token` must be a string"),
        (
            "no such pad",
            lambda: CLIPTokenizer(clip.definition, pad_token="é!"),
            "`pad_token` must be a token of the voc",
        ),
        ("no text", lambda: CLIPTokenizer({}), "`definition` must be a string. Received: definition=dict"),
        ("damaged", lambda: CLIPTokenizer(broken), "`definition` must be the text of a tokenizer.json. Received: "),
        ("another", lambda: CLIPTokenizer(t5_definition()), "`bos_token` must be a token of the vocabulary"),
        (
            "no folder",
            lambda: CLIPTokenizer.from_folder(3),
            "`folder` must be a folder with tokenizer.json or vocab.json",
        ),
        (
            "empty",
            lambda: T5Tokenizer.from_folder(tmp_path),
            "`folder` must be a folder with tokenizer.json or spiece.m",
        ),
        ("a repository", lambda: CLIPTokenizer.from_folder("a/b"), "`hf download a/b --local-dir b` downloads a repo"),
        ("a file", lambda: clip.save(tmp_path / "clip" / "vocab.json"), "`folder` must be the path of a folder"),
    ]
    files = {
        "vocab.json": ("[]", "{", "3", '{"a": "b"}', '{"a": -1}', "{}", "\ud83d"),
        "merges.txt": ("a", "a b c", "x y z\n", "\ufffe \ufffe"),
        "tokenizer.json": ("{}", "", "[" * 100_000, broken, t5_definition()),
        "special_tokens_map.json": ("[]", '{"eos_token": "</s>"}', '{"pad_token": "<none>"}', '{"pad_token": 3}'),
        "added_tokens.json": ('{"<new>": 7}', '{"<new>": "x"}', "[]"),
        "tokenizer_config.json": (
            *("null", '{"tokenizer_class": "BertTokenizer"}', '{"model_max_length": 1}', '{"model_max_length": "7"}'),
            *('{"added_tokens_decoder": {"x": {}}}', '{"added_tokens_decoder": {"9": {"content": "<new>"}}}'),
            '{"pad_token": {"content": []}}',
        ),
    }
    for name, texts in files.items():
        for i, text in enumerate(texts):
            folder = write_clip(tmp_path / f"{name}_{i}", ["c a"])
            (folder / name).write_bytes(text.encode("utf-8", "surrogatepass"))
            match = rf"`folder` must .*Received: folder={folder}"
            cases.append((f"{name}: {text[:20]}", lambda folder=folder: CLIPTokenizer.from_folder(folder), match))
    for i, content in enumerate((b"", b"\xff" * 40, b"\n\x03abc")):
        folder = tmp_path / f"spiece_{i}"
        folder.mkdir()
        (folder / "spiece.model").write_bytes(content)
        match = rf"`folder` must .*Received: folder={folder}"
        cases.append((f"spiece.model {i}", lambda folder=folder: T5Tokenizer.from_folder(folder), match))
    assert not not_refused(cases)


def test_a_length_that_means_none(tmp_path):
    assert CLIPTokenizer.from_folder(write_clip(tmp_path, [], model_max_length=10**30)).max_length == 77


def test_missing_libraries(clip, tmp_path, monkeypatch):
    (tmp_path / "spiece.model").write_bytes(b"")
    for module, message in (("sentencepiece", "sentencepiece protobuf"), ("tokenizers", "tokenizers")):
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(ImportError, match=f"`pip install {message}`"):
            T5Tokenizer.from_folder(tmp_path)
