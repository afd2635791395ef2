"""Networks and their parts: nothing generative."""
