"""Files of diffusers and transformers: their configurations, and the tensors in them."""
