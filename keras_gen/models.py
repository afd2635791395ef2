"""Models: networks, and generative models that are trained by `fit` and sampled by `sample`."""

from keras_gen.diffusion.ddpm import DDPM as DDPM
from keras_gen.diffusion.light_unet import LightUNet as LightUNet
from keras_gen.diffusion.unet import UNet as UNet
