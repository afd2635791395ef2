"""Autoregressive models, by the chain rule: of binary vectors, of pixels, of codes; sequences packed in rows."""
