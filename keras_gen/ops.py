"""Functions of tensors and arrays."""

from keras_gen.core.gradient import gradient as gradient
from keras_gen.diffusion.convert_prediction import convert_prediction as convert_prediction
from keras_gen.diffusion.optimal_pairing import optimal_pairing as optimal_pairing
from keras_gen.diffusion.slerp import slerp as slerp
from keras_gen.evaluation.image_grid import image_grid as image_grid
from keras_gen.flows.rational_quadratic_spline import rational_quadratic_spline as rational_quadratic_spline
from keras_gen.hubness.antihub_rate import antihub_rate as antihub_rate
from keras_gen.hubness.csls import csls as csls
from keras_gen.hubness.dis_sim_local import dis_sim_local as dis_sim_local
from keras_gen.hubness.gini_index import gini_index as gini_index
from keras_gen.hubness.hub_occurrence import hub_occurrence as hub_occurrence
from keras_gen.hubness.hubness_skewness import hubness_skewness as hubness_skewness
from keras_gen.hubness.k_occurrence import k_occurrence as k_occurrence
from keras_gen.hubness.local_scaling import local_scaling as local_scaling
from keras_gen.hubness.mutual_proximity import mutual_proximity as mutual_proximity
from keras_gen.hubness.nearest_neighbors import nearest_neighbors as nearest_neighbors
from keras_gen.hubness.nicdm import nicdm as nicdm
from keras_gen.hubness.pairwise_distances import pairwise_distances as pairwise_distances
from keras_gen.hubness.robin_hood_index import robin_hood_index as robin_hood_index
from keras_gen.latent.concrete_log_prob import concrete_log_prob as concrete_log_prob
from keras_gen.latent.gumbel_softmax import gumbel_softmax as gumbel_softmax
from keras_gen.latent.straight_through import straight_through as straight_through
from keras_gen.quantization.nearest_code import nearest_code as nearest_code
from keras_gen.quantization.rotation_trick import rotation_trick as rotation_trick
