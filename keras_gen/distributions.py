"""Base distributions of flows, also available in `keras_gen.layers`."""

from keras_gen.flows.distributions import Base as Base
from keras_gen.flows.distributions import LaplaceBase as LaplaceBase
from keras_gen.flows.distributions import LearnedNormalBase as LearnedNormalBase
from keras_gen.flows.distributions import LogisticBase as LogisticBase
from keras_gen.flows.distributions import NormalBase as NormalBase
from keras_gen.flows.distributions import UniformBase as UniformBase
