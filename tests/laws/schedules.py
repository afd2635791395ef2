from keras_gen import predictions, schedules

# name -> constructor
SCHEDULES = {
    "cosine_schedule": lambda: schedules.CosineSchedule(50, offset=0.01),
    "discrete_schedule": lambda: schedules.DiscreteSchedule([0.1, 0.2, 0.5]),
    "edm_schedule": lambda: schedules.EDMSchedule(0.01, 20.0),
    "kexue_schedule": lambda: schedules.KexueSchedule(50),
    "linear_schedule": lambda: schedules.LinearSchedule(50, beta_end=0.2),
    "rectified_flow_schedule": schedules.RectifiedFlowSchedule,
    "scaled_linear_schedule": lambda: schedules.ScaledLinearSchedule(50),
    "shifted": lambda: schedules.Shifted(schedules.RectifiedFlowSchedule(), 2.0),
    "sigmoid_schedule": lambda: schedules.SigmoidSchedule(50, -2.0, 3.5, tau=0.9),
    "sub_vp_schedule": lambda: schedules.SubVPSchedule(0.2, 15.0),
    "ve_schedule": lambda: schedules.VESchedule(0.02, 30.0),
    "vp_schedule": lambda: schedules.VPSchedule(0.2, 15.0),
    "zero_terminal_snr": lambda: schedules.ZeroTerminalSNR(schedules.LinearSchedule(50)),
}
TIME_SAMPLERS = {
    "cos_map_time": schedules.CosMapTime,
    "log_normal_sigma": lambda: schedules.LogNormalSigma(-1.0, 0.9),
    "logit_normal_time": lambda: schedules.LogitNormalTime(0.5, 0.9),
    "mode_time": lambda: schedules.ModeTime(0.5),
    "uniform_time": schedules.UniformTime,
}
PREDICTIONS = {
    "epsilon": predictions.Epsilon,
    "preconditioned": lambda: predictions.Preconditioned(0.7),
    "score": predictions.Score,
    "v": predictions.V,
    "velocity": predictions.Velocity,
    "x0": predictions.X0,
}
