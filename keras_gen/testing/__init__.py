"""Laws that every class of the library satisfies, as checks for authors of custom layers and models.

    check_layer(lambda: MyLayer(4), np.zeros((2, 5, 4), "float32"))

Each check raises `AssertionError` with the violated law, and runs on any backend of Keras.
"""

from keras_gen.testing.bijectors import check_bijector as check_bijector
from keras_gen.testing.bijectors import check_directions as check_directions
from keras_gen.testing.config import check_config as check_config
from keras_gen.testing.diffusion import check_prediction as check_prediction
from keras_gen.testing.diffusion import check_sampler as check_sampler
from keras_gen.testing.diffusion import check_schedule as check_schedule
from keras_gen.testing.diffusion import check_time_sampler as check_time_sampler
from keras_gen.testing.layers import check_layer as check_layer
from keras_gen.testing.models import check_model as check_model
