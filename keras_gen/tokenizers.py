"""Tokenizers, which turn texts into arrays of token ids."""

from keras_gen.networks.text.tokenizers import CLIPTokenizer as CLIPTokenizer
from keras_gen.networks.text.tokenizers import T5Tokenizer as T5Tokenizer
