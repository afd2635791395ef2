"""Diffusion models, assembled from four independent components:

    schedule    schedules/base.py: alpha and sigma of any time, discrete.py or continuous.py
    prediction  prediction.py: a linear form p x0 + q eps, common to all parametrizations
    training    schedules/time_samplers.py, loss_weight.py
    sampling    samplers/base.py: a table of coefficients, and a rule that applies one row;
                schedules/time_grid.py, samplers/guidance.py

`DiffusionModel` in models/diffusion_model.py combines them; models/editing.py and models/likelihood.py build on it.

Notation used in all files (t is the noisier of two times, s the cleaner):

    x_t = alpha_t x0 + sigma_t eps,   eps ~ N(0, I),   SNR_t = alpha_t^2 / sigma_t^2

| here             | kexue.fm/archives/9119 and on | Ho et al., arXiv:2006.11239 | diffusers                |
| ---------------- | ----------------------------- | --------------------------- | ------------------------ |
| alpha_t          | alpha-bar_t                   | sqrt(alpha-bar_t)           | sqrt(alphas_cumprod[t])  |
| sigma_t          | beta-bar_t                    | sqrt(1 - alpha-bar_t)       | sqrt(1 - alphas_cumprod) |
| betas[t]         | beta_t^2                      | beta_t                      | betas[t]                 |
| t = 0 .. T - 1   | t = 1 .. T                    | t = 1 .. T                  | t = 0 .. T - 1           |
| t = -1           | t = 0, data                   | t = 0, data                 | (no index)               |
"""
