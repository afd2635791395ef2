from keras_gen import layers, losses, models

# name -> constructor
LOSSES = {
    "bernoulli_likelihood": losses.BernoulliLikelihood,
    "categorical_likelihood": lambda: losses.CategoricalLikelihood(3),
    "expected_error": lambda: losses.ExpectedError(0.3),
    "gaussian_likelihood": lambda: losses.GaussianLikelihood(0.3),
    "laplace_likelihood": lambda: losses.LaplaceLikelihood(0.3),
    "gradient_penalty": lambda: losses.GradientPenalty(3.0),
    "hinge_loss": losses.HingeLoss,
    "info_nce": lambda: losses.InfoNCE(0.5, chunk_size=4),
    "non_saturating_loss": losses.NonSaturatingLoss,
    "r1_penalty": lambda: losses.R1Penalty(3.0),
    "relativistic_loss": losses.RelativisticLoss,
    "residual_log_likelihood": lambda: losses.ResidualLogLikelihood(
        models.Flow(layers.AffineCoupling(units=[4]), "laplace", seed=0)
    ),
    "wasserstein_loss": losses.WassersteinLoss,
}
