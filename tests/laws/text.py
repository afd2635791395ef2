from keras_gen import models
from laws.arrays import IDS

# name -> (constructor, inputs)
TEXT_ENCODERS = {
    "clip_text_encoder": (lambda: models.CLIPTextEncoder(11, 6, 8, 2, 2, 12, 3, end_id=10, remat=True), (IDS,)),
    "t5_encoder": (lambda: models.T5Encoder(11, 8, 2, 2, 4, 12, 8, 4, remat=True), (IDS,)),
}
