# ruff: noqa: RUF001 (letters of other alphabets)
"""Text encoders and tokenizers against those of transformers, with random weights."""

import json

import keras
import numpy as np
import pytest
from keras import ops
from offenders import not_refused

from keras_gen.core.fixtures import save_and_load, to_numpy
from keras_gen.models import CLIPTextEncoder, T5Encoder
from keras_gen.tokenizers import CLIPTokenizer, T5Tokenizer

pytest.importorskip("transformers")
import torch
import transformers
from foreign import wrong_gradients
from safetensors.numpy import load_file, save_file

WEIGHTS = "model.safetensors"
CLIP = {
    "vocab_size": 23,
    "hidden_size": 16,
    "intermediate_size": 21,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 9,
    "projection_dim": 12,
    "bos_token_id": 21,
    "eos_token_id": 20,
    "pad_token_id": 20,
}
T5 = {
    "vocab_size": 23,
    "d_model": 16,
    "d_kv": 6,
    "d_ff": 20,
    "num_layers": 2,
    "num_heads": 3,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 7,
    "feed_forward_proj": "gated-gelu",
}
# name -> (class here, class there, its configuration); as of CLIP-L, of bigG and of SD2's OpenCLIP-H
CASES = {
    "clip_l": (CLIPTextEncoder, "CLIPTextModel", "CLIPTextConfig", CLIP),
    "clip_g": (CLIPTextEncoder, "CLIPTextModelWithProjection", "CLIPTextConfig", {**CLIP, "hidden_act": "gelu"}),
    "clip_h": (CLIPTextEncoder, "CLIPTextModel", "CLIPTextConfig", {**CLIP, "hidden_act": "gelu", "eos_token_id": 2}),
    "t5": (T5Encoder, "T5EncoderModel", "T5Config", T5),
}
# Of two lengths, with ids above and after the one that ends the text.
IDS = np.array([[21, 5, 9, 20, 20, 20, 20, 20, 20], [21, 3, 7, 22, 4, 11, 20, 0, 0]], "int32")


def peer(name):
    """Returns the encoder of transformers with all weights jittered: norms of 1 and 0 would hide exchanges."""
    _, kind, config, arguments = CASES[name]
    torch.manual_seed(0)
    model = getattr(transformers, kind)(getattr(transformers, config)(**arguments)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def expected(theirs, mask=None):
    """Returns the outputs by our names."""
    mask = {} if mask is None else {"attention_mask": torch.from_numpy(mask)}
    found = theirs(torch.from_numpy(IDS), output_hidden_states=True, **mask)
    outputs = {"tokens": found.last_hidden_state}
    if "CLIP" in type(theirs).__name__:
        pooled = found.text_embeds if hasattr(found, "text_embeds") else found.pooler_output
        outputs |= {"penultimate": found.hidden_states[-2], "pooled": pooled}
    return outputs


def same_outputs(ours, theirs, mask=None):
    outputs = ours(IDS) if mask is None else ours(IDS, attention_mask=ops.convert_to_tensor(mask))
    with torch.no_grad():
        peers = expected(theirs, mask)
    assert outputs.keys() == peers.keys()
    for key, value in peers.items():
        scale = float(value.abs().max())
        np.testing.assert_allclose(to_numpy(outputs[key]), value.numpy(), rtol=0, atol=1e-5 * scale, err_msg=key)


def factors(outputs):
    """Returns the factors of the outputs' sum that is differentiated."""
    generator = np.random.default_rng(1)
    return {key: generator.normal(size=(2, *outputs[key].shape[1:])).astype("float32") for key in sorted(outputs)}


def scalar_model(encoder):
    ids = keras.Input(IDS.shape[1:], batch_size=2, dtype="int32")
    outputs = encoder(ids)
    sums = [ops.sum(ops.reshape(outputs[key] * value, (2, -1)), axis=1) for key, value in factors(outputs).items()]
    model = keras.Model(ids, sum(sums))
    model.compile(keras.optimizers.SGD(1.0), loss=lambda _, sums: sums)
    return model


@pytest.mark.parametrize("name", ["clip_l", "clip_g", "t5"])
def test_read_trained_written(name, tmp_path):
    theirs = peer(name)
    theirs.save_pretrained(tmp_path / "theirs")
    ours = CASES[name][0].from_diffusers(tmp_path / "theirs")
    same_outputs(ours, theirs)
    same_outputs(save_and_load(ours), theirs)
    assert ours.count_params() == theirs.num_parameters()

    ours.to_diffusers(tmp_path / "ours")
    source, written = (load_file(tmp_path / who / WEIGHTS) for who in ("theirs", "ours"))
    prefix = "" if name == "t5" else "text_model."  # which version 5 writes only with a projection
    source = {key if "text_" in key else prefix + key: tensor for key, tensor in source.items()}
    assert source.keys() == written.keys()
    assert all(np.array_equal(tensor, written[key]) for key, tensor in source.items())
    same_outputs(ours, type(theirs).from_pretrained(tmp_path / "ours").eval())

    model = scalar_model(ours)
    compare_gradients(model, ours, theirs)
    model.optimizer.learning_rate = 1e-3
    for _ in range(10):
        model.train_on_batch(IDS, np.zeros(2))
    ours.to_diffusers(tmp_path / "ours")
    trained = type(theirs).from_pretrained(tmp_path / "ours").eval()
    same_outputs(ours, trained)
    assert (expected(trained)["tokens"] - expected(theirs)["tokens"]).abs().max() > 1e-2


def compare_gradients(model, ours, theirs):
    """Compares the gradients of all weights."""
    outputs = expected(theirs)
    sum((outputs[key] * torch.from_numpy(value)).sum() / 2 for key, value in factors(outputs).items()).backward()
    gradients = {}
    for key, value in theirs.named_parameters():
        name = key.removeprefix("text_model.")  # with the prefix or without, as the table has it
        gradients |= dict.fromkeys((name, f"text_model.{name}"), value.grad.numpy())
    offenders = wrong_gradients(ours.foreign_table(), gradients, lambda: model.train_on_batch(IDS, np.zeros(2)))
    assert not offenders, "\n".join(offenders)


def test_the_encoder_of_stable_diffusion_2():
    theirs = peer("clip_h")
    same_outputs(CLIPTextEncoder.from_diffusers(theirs), theirs)


def test_masks_of_t5():
    theirs = peer("t5")
    same_outputs(T5Encoder.from_diffusers(theirs), theirs, mask=IDS != 20)


def test_names_of_other_versions(tmp_path):
    """Published files have a prefix, and buffers; those of T5 have a twin, or that alone."""
    for name, change in {
        "clip_l": lambda tensors: {
            **{f"text_model.{key}": tensor for key, tensor in tensors.items()},
            "text_model.embeddings.position_ids": np.arange(9)[None],
        },
        "clip_g": lambda tensors: {key.removeprefix("text_model."): tensor for key, tensor in tensors.items()},
        "t5": lambda tensors: {**tensors, "encoder.embed_tokens.weight": tensors["shared.weight"]},
    }.items():
        theirs = peer(name)
        theirs.save_pretrained(tmp_path / name)
        save_file(change(load_file(tmp_path / name / WEIGHTS)), tmp_path / name / WEIGHTS)
        same_outputs(CASES[name][0].from_diffusers(tmp_path / name), theirs)
    tensors = load_file(tmp_path / "t5" / WEIGHTS)
    del tensors["shared.weight"]
    save_file(tensors, tmp_path / "t5" / WEIGHTS)
    same_outputs(T5Encoder.from_diffusers(tmp_path / "t5"), theirs)


def test_refused_configurations(tmp_path):
    wrong = {
        "clip_g": {
            "architectures": (["CLIPModel"], ["BertModel"]),
            "hidden_act": ("relu", None, 3),
            "eos_token_id": ([20], 23, -1, "20", None),
            "num_attention_heads": (3, 0, "2"),
            "vocab_size": (10**12, None),
            "hidden_size": (10**12, 0),
            "intermediate_size": (10**12,),
            "max_position_embeddings": (10**12, 2.5),
            "projection_dim": (10**12, 0),
            "num_hidden_layers": (10**9, 0),
            "layer_norm_eps": (0, "x"),
        },
        "t5": {
            "feed_forward_proj": ("relu", "gated-silu", None),
            "d_kv": (10**12, 0),
            "d_model": (10**12,),
            "d_ff": (10**12,),
            "num_layers": (10**9,),
            "num_heads": (10**12, 2),
            "relative_attention_num_buckets": (10**12, 7),
            "relative_attention_max_distance": (10**12, 1),
            "vocab_size": (24,),
        },
    }
    cases = []
    for name, values in wrong.items():
        theirs = tmp_path / name
        peer(name).save_pretrained(theirs)
        saved = json.loads((theirs / "config.json").read_text())
        for key, value in ((key, value) for key, each in values.items() for value in each):
            folder = tmp_path / f"{name}_{len(cases)}"
            folder.mkdir()
            (folder / WEIGHTS).symlink_to(theirs / WEIGHTS)
            (folder / "config.json").write_text(json.dumps({**saved, key: value}))
            match = rf"`source` must .*Received: source={folder}"
            cases.append((f"{key}={value}", lambda f=folder, c=CASES[name][0]: c.from_diffusers(f), match))
    assert not not_refused(cases)


TEXTS = (
    *("a photo of a cat", "hi! you!!", "一只猫坐着", "😀 a cat", "İstanbul'da ÇAĞRI ışık", "I'll say 123 don't"),
    *("<|endoftext|> x  y\n z", "<|startoftext|>cafe\u0301", "ﬁne ½ ´", "", "\t  \n", "<extra_id_1> dog</s>"),
)


def characters():
    """The 256 characters that stand for bytes: those that can be printed, then others."""
    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return [*map(chr, kept), *(chr(256 + i) for i in range(256 - len(kept)))]


def clip_peer():
    merges = [("t", "h"), ("c", "a"), ("ca", "t</w>"), ("a", "l"), ("p", "h"), ("o", "t"), ("ph", "ot"), ("o", "f</w>")]
    tokens = [*characters(), *(f"{c}</w>" for c in characters()), *map("".join, merges)]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    return vocabulary, merges


def same_ids(ours, theirs):
    ids = ours(TEXTS, length=80)
    peers = theirs(list(TEXTS), padding="max_length", max_length=80)["input_ids"]
    offenders = [text for text, a, b in zip(TEXTS, ids.tolist(), peers, strict=True) if a != b]
    assert not offenders, offenders
    assert (ours.max_length, ours.pad_token) == (theirs.model_max_length, theirs.pad_token)


@pytest.mark.parametrize("pad", ["<|endoftext|>", "!"])
def test_clip_tokenizer(pad, tmp_path):
    vocabulary, merges = clip_peer()
    theirs = transformers.CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=9, pad_token=pad)
    theirs.add_tokens(["<my-cat>"])
    theirs.save_pretrained(tmp_path / "theirs")
    ours = CLIPTokenizer.from_folder(tmp_path / "theirs")
    same_ids(ours, theirs)
    assert ours("<my-cat>")[0, 1] == ours.vocabulary_size - 1 == len(vocabulary)
    ours.save(tmp_path / "ours")
    same_ids(CLIPTokenizer.from_folder(tmp_path / "ours"), theirs)
    same_ids(ours, transformers.CLIPTokenizer.from_pretrained(tmp_path / "ours"))


def test_clip_tokenizer_of_the_older_files(tmp_path):
    vocabulary, merges = clip_peer()
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary))
    (tmp_path / "merges.txt").write_text("\n".join(["#version: 0.2", *map(" ".join, merges)]) + "\n")
    config = {"model_max_length": 9, "added_tokens_decoder": {"0": {"content": "!", "special": True}}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    (tmp_path / "special_tokens_map.json").write_text(json.dumps({"pad_token": {"content": "!", "lstrip": False}}))
    ours = CLIPTokenizer.from_folder(tmp_path)
    same_ids(ours, transformers.CLIPTokenizer.from_pretrained(tmp_path, pad_token="!"))
    assert ours.pad_id == 0
    ours.save(tmp_path / "ours")
    (tmp_path / "ours" / "tokenizer.json").unlink()
    same_ids(
        CLIPTokenizer.from_folder(tmp_path / "ours"), transformers.CLIPTokenizer.from_pretrained(tmp_path / "ours")
    )


def test_t5_tokenizer(tmp_path):
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), ("▁a", -2.5), ("cat", -3.0)]
    pieces += [(chr(i), -4.0) for i in range(33, 127)]
    theirs = transformers.T5TokenizerFast(vocab=pieces, extra_ids=0, model_max_length=30)
    theirs.save_pretrained(tmp_path / "theirs")
    ours = T5Tokenizer.from_folder(tmp_path / "theirs")
    same_ids(ours, theirs)
    ours.save(tmp_path / "ours")
    again = transformers.T5TokenizerFast.from_pretrained(tmp_path / "ours")
    same_ids(ours, again)
    assert len(again) == ours.vocabulary_size == len(pieces)


def test_t5_tokenizer_of_sentencepiece(tmp_path):
    sentencepiece = pytest.importorskip("sentencepiece")
    lines = [*["a photo of a cat", "hi ½ ﬁne İstanbul ışık", "don't say 123"] * 20, *map(chr, range(97, 123))]
    special = {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1, "pad_piece": "<pad>"}
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_prefix=str(tmp_path / "spiece"),
        vocab_size=44,
        normalization_rule_name="nmt_nfkc",
        minloglevel=2,
        **special,
    )
    config = {"model_max_length": 30, "extra_ids": 10}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    ours = T5Tokenizer.from_folder(tmp_path)
    same_ids(ours, transformers.T5Tokenizer.from_pretrained(tmp_path))
    assert ours.vocabulary_size == 54
    model = sentencepiece.SentencePieceProcessor(str(tmp_path / "spiece.model"))
    for text in TEXTS[:6]:
        assert ours(text, length=80)[0].tolist()[: len(model.encode(text)) + 1] == [*model.encode(text), 1]
