"""Samplers."""

from keras_gen.diffusion.analytic_dpm_sampler import AnalyticDPMSampler as AnalyticDPMSampler
from keras_gen.diffusion.classifier_free_guidance import ClassifierFreeGuidance as ClassifierFreeGuidance
from keras_gen.diffusion.classifier_guidance import ClassifierGuidance as ClassifierGuidance
from keras_gen.diffusion.ddim_sampler import DDIMSampler as DDIMSampler
from keras_gen.diffusion.ddpm_sampler import DDPMSampler as DDPMSampler
from keras_gen.diffusion.diffusion_sampler import DiffusionSampler as DiffusionSampler
from keras_gen.diffusion.dpm_solver_pp_sampler import DPMSolverPPSampler as DPMSolverPPSampler
from keras_gen.diffusion.euler_sampler import EulerSampler as EulerSampler
from keras_gen.diffusion.guidance import Guidance as Guidance
from keras_gen.diffusion.heun_sampler import HeunSampler as HeunSampler
from keras_gen.diffusion.probability_flow_sampler import ProbabilityFlowSampler as ProbabilityFlowSampler
from keras_gen.diffusion.reverse_sde_sampler import ReverseSDESampler as ReverseSDESampler
from keras_gen.hubness.hubness_sampler import HubnessSampler as HubnessSampler
from keras_gen.hubness.norm_sampler import NormSampler as NormSampler
from keras_gen.hubness.truncation_sampler import TruncationSampler as TruncationSampler
