"""Models: networks, and generative models that are trained by `fit` and sampled by `sample`."""

from keras_gen.adversarial.gan import GAN as GAN
from keras_gen.diffusion.ddpm import DDPM as DDPM
from keras_gen.diffusion.dit import DiT as DiT
from keras_gen.diffusion.edm import EDM as EDM
from keras_gen.diffusion.light_unet import LightUNet as LightUNet
from keras_gen.diffusion.pixel_transformer import PixelTransformer as PixelTransformer
from keras_gen.diffusion.rectified_flow import RectifiedFlow as RectifiedFlow
from keras_gen.diffusion.score_sde import ScoreSDE as ScoreSDE
from keras_gen.diffusion.unet import UNet as UNet
from keras_gen.diffusion.unet_conventions import UNetConventions as UNetConventions
from keras_gen.flows.flow import Flow as Flow
from keras_gen.flows.glow import Glow as Glow
from keras_gen.flows.nice import NICE as NICE
from keras_gen.flows.real_nvp import RealNVP as RealNVP
from keras_gen.latent.cluster_vae import ClusterVAE as ClusterVAE
from keras_gen.latent.cvae import CVAE as CVAE
from keras_gen.latent.gumbel_vae import GumbelVAE as GumbelVAE
from keras_gen.latent.vae import VAE as VAE
from keras_gen.latent.von_mises_fisher_vae import VonMisesFisherVAE as VonMisesFisherVAE
from keras_gen.quantization.vqvae import VQVAE as VQVAE
