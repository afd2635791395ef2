"""Estimators of the gradient of an expectation over categorical variables."""

from keras_gen.latent.gumbel_rao import gumbel_rao as gumbel_rao
from keras_gen.latent.rebar import rebar as rebar
from keras_gen.latent.reinforce import reinforce as reinforce
from keras_gen.latent.relax import relax as relax
from keras_gen.latent.straight_through_gumbel import straight_through_gumbel as straight_through_gumbel
