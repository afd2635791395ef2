"""Figures, drawn by matplotlib."""

from keras_gen.evaluation.plots import image_rows as image_rows
from keras_gen.evaluation.plots import latents as latents
from keras_gen.evaluation.plots import log_snr_curves as log_snr_curves
from keras_gen.evaluation.plots import loss_curves as loss_curves
from keras_gen.evaluation.plots import save_gif as save_gif
from keras_gen.evaluation.plots import trajectories as trajectories
