"""Library-wide settings."""

from keras_gen.core.torch.switch import disable_torch_fast_paths as disable_torch_fast_paths
from keras_gen.core.torch.switch import enable_torch_fast_paths as enable_torch_fast_paths
from keras_gen.core.torch.switch import is_torch_fast_paths_enabled as is_torch_fast_paths_enabled
