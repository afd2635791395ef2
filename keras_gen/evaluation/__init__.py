"""Looking at samples and measuring them."""
