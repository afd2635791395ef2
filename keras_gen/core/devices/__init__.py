"""What depends on the device: whether it rounds the factors of products, and how much it computes at a time."""
