import keras

from keras_gen import samplers


def classifier() -> keras.Model:
    x, t = keras.Input((8, 8, 1)), keras.Input(())
    h = keras.layers.Concatenate()([keras.layers.Flatten()(x), keras.layers.Reshape((1,))(t)])
    return keras.Model([x, t], keras.layers.Dense(10)(h))


# name -> (constructor, order of convergence to the probability-flow ODE where it is deterministic)
DIFFUSION_SAMPLERS = {
    "analytic_dpm_sampler": (lambda: samplers.AnalyticDPMSampler(7, 0.5, "trailing", 1.0), None),
    "clipped_ddim_sampler": (lambda: samplers.ClippedDDIMSampler(7, 0.5, "trailing", 2.0), None),
    "ddim_sampler": (lambda: samplers.DDIMSampler(7, eta=0.5, spacing="trailing", clip_x0=1.0), None),
    "ddim_sampler_deterministic": (lambda: samplers.DDIMSampler(7), 1),
    "ddpm_sampler": (lambda: samplers.DDPMSampler(7, spacing="linspace"), None),
    "dpm_solver_pp_sampler": (
        lambda: samplers.DPMSolverPPSampler(7, 1, sde=True, spacing="log_snr", clip_x0=1.0),
        None,
    ),
    "dpm_solver_pp_sampler_ode": (lambda: samplers.DPMSolverPPSampler(7), 2),
    "euler_sampler": (lambda: samplers.EulerSampler(7, "linspace", 1.0), 1),
    "unscaled_euler_sampler": (lambda: samplers.UnscaledEulerSampler(7, "trailing"), None),
    "heun_sampler": (lambda: samplers.HeunSampler(7, 3.0, (0.1, 5.0), 1.003, "karras", 1.0), None),
    "heun_sampler_deterministic": (lambda: samplers.HeunSampler(7), 2),
    "plms_sampler": (lambda: samplers.PLMSSampler(7, "trailing"), 2),
    "probability_flow_sampler": (lambda: samplers.ProbabilityFlowSampler(1e-4, 1.0), None),
    "reverse_sde_sampler": (lambda: samplers.ReverseSDESampler(7, 2, 0.1, "linspace", 1.0), None),
}
# name -> constructor
SAMPLERS = {
    "classifier_free_guidance": lambda: samplers.ClassifierFreeGuidance(2.0, 0.7, (0.1, 5.0), batched=False),
    "classifier_guidance": lambda: samplers.ClassifierGuidance(classifier(), 2.0),
    "dynamic_threshold": lambda: samplers.DynamicThreshold(0.9),
    "hubness_sampler": lambda: samplers.HubnessSampler(
        (2, 3), "uniform", keras.layers.Flatten(), 4, top_fraction=0.1, pool_size=50, metric="cosine", include_self=True
    ),
    "norm_sampler": lambda: samplers.NormSampler(3, "sphere", fraction=0.5, pool_size=50, seed=1),
    "truncation_sampler": lambda: samplers.TruncationSampler(3, psi=0.5, pool_size=50),
}
