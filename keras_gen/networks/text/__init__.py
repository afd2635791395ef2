"""Encoders of text, and the tokenizers that turn it into token ids."""
