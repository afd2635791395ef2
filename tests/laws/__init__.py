"""The law tables. A new class enters with one line in the file of its kind; the tests of laws and files do the rest."""

from keras_gen.initializers import ICNR
from laws.bijectors import BIJECTORS, DISCRETE
from laws.islands import ISLANDS
from laws.layers import DECAY, LAYERS, SAMPLING
from laws.losses import LOSSES
from laws.metrics import METRICS
from laws.models import MODELS, autoencoder, compiled, ddpm, gumbel_vae, tiny_network, vqgan, vqvae
from laws.networks import CONVENTIONS, DIT_CONVENTIONS
from laws.samplers import DIFFUSION_SAMPLERS, SAMPLERS
from laws.schedules import PREDICTIONS, SCHEDULES, TIME_SAMPLERS

# Objects of configuration alone: name -> constructor
CONVENTION = {"dit_conventions": lambda: DIT_CONVENTIONS, "unet_conventions": lambda: CONVENTIONS}
CONFIGURED = SAMPLERS | LOSSES | METRICS | CONVENTION | {"icnr": lambda: ICNR("he_normal", 3, "dcr")}
# Those of diffusion models, with laws of their own: name -> constructor
OF_DIFFUSION = PREDICTIONS | SCHEDULES | TIME_SAMPLERS | {name: make for name, (make, _) in DIFFUSION_SAMPLERS.items()}

__all__ = [
    "BIJECTORS",
    "CONFIGURED",
    "DECAY",
    "DIFFUSION_SAMPLERS",
    "DISCRETE",
    "ISLANDS",
    "LAYERS",
    "MODELS",
    "OF_DIFFUSION",
    "PREDICTIONS",
    "SAMPLING",
    "SCHEDULES",
    "TIME_SAMPLERS",
    "autoencoder",
    "compiled",
    "ddpm",
    "gumbel_vae",
    "tiny_network",
    "vqgan",
    "vqvae",
]
