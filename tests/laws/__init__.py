"""The law tables. A new class enters with one line in the file of its kind; the tests of laws and files do the rest."""

from laws.bijectors import BIJECTORS, DISCRETE
from laws.layers import DECAY, LAYERS, SAMPLING
from laws.losses import LOSSES
from laws.metrics import METRICS
from laws.models import MODELS, autoencoder, compiled, ddpm, gumbel_vae, tiny_network, vqgan, vqvae
from laws.networks import CONVENTIONS
from laws.samplers import SAMPLERS
from laws.schedules import SCHEDULES

# Objects of configuration alone: name -> constructor
CONFIGURED = SCHEDULES | SAMPLERS | LOSSES | METRICS | {"unet_conventions": lambda: CONVENTIONS}

__all__ = [
    "BIJECTORS",
    "CONFIGURED",
    "DECAY",
    "DISCRETE",
    "LAYERS",
    "MODELS",
    "SAMPLING",
    "autoencoder",
    "compiled",
    "ddpm",
    "gumbel_vae",
    "tiny_network",
    "vqgan",
    "vqvae",
]
