"""Estimators of the gradient of an expectation over categorical variables."""

from keras_gen.latent.estimators.gumbel_rao import gumbel_rao as gumbel_rao
from keras_gen.latent.estimators.rebar import rebar as rebar
from keras_gen.latent.estimators.reinforce import reinforce as reinforce
from keras_gen.latent.estimators.relax import relax as relax
from keras_gen.latent.estimators.straight_through_gumbel import straight_through_gumbel as straight_through_gumbel
