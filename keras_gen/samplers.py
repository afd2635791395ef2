"""Samplers of diffusion models and of latent priors."""

from keras_gen.diffusion.samplers.analytic_dpm import AnalyticDPMSampler as AnalyticDPMSampler
from keras_gen.diffusion.samplers.base import DiffusionSampler as DiffusionSampler
from keras_gen.diffusion.samplers.codebook import CodebookDiffusion as CodebookDiffusion
from keras_gen.diffusion.samplers.ddim import ClippedDDIMSampler as ClippedDDIMSampler
from keras_gen.diffusion.samplers.ddim import DDIMSampler as DDIMSampler
from keras_gen.diffusion.samplers.ddpm import DDPMSampler as DDPMSampler
from keras_gen.diffusion.samplers.dpm_solver_pp import DPMSolverPPSampler as DPMSolverPPSampler
from keras_gen.diffusion.samplers.euler import EulerSampler as EulerSampler
from keras_gen.diffusion.samplers.euler import UnscaledEulerSampler as UnscaledEulerSampler
from keras_gen.diffusion.samplers.guidance import ClassifierFreeGuidance as ClassifierFreeGuidance
from keras_gen.diffusion.samplers.guidance import ClassifierGuidance as ClassifierGuidance
from keras_gen.diffusion.samplers.guidance import Guidance as Guidance
from keras_gen.diffusion.samplers.heun import HeunSampler as HeunSampler
from keras_gen.diffusion.samplers.pndm import PLMSSampler as PLMSSampler
from keras_gen.diffusion.samplers.probability_flow import ProbabilityFlowSampler as ProbabilityFlowSampler
from keras_gen.diffusion.samplers.reverse_sde import ReverseSDESampler as ReverseSDESampler
from keras_gen.diffusion.samplers.threshold import DynamicThreshold as DynamicThreshold
from keras_gen.hubness.samplers import HubnessSampler as HubnessSampler
from keras_gen.hubness.samplers import NormSampler as NormSampler
from keras_gen.hubness.samplers import TruncationSampler as TruncationSampler
from keras_gen.pretrained.samplers import from_diffusers as from_diffusers
