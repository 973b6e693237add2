"""The backbones that a model can have: what is known of each without loading it or its library."""

from typing import Final

from shared.model.bundle import Normalisation, Precision
from shared.settings import Backbone

# Features pooled from the last stage.
EMBEDDING_DIM: Final = {Backbone.RESNET50: 2048, Backbone.EFFICIENTNET_LITE0: 1280, Backbone.EFFICIENTNET_LITE2: 1280}

# Side of the photos that the published weights were trained on.
INPUT_PX: Final = {Backbone.RESNET50: 224, Backbone.EFFICIENTNET_LITE0: 224, Backbone.EFFICIENTNET_LITE2: 260}

_LITE = Normalisation(mean=(127 / 255,) * 3, std=(128 / 255,) * 3)  # (x - 127) / 128 on 0..255
NORMALISATION: Final = {
    # The statistics that the networks' authors trained with.
    Backbone.RESNET50: Normalisation(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
    Backbone.EFFICIENTNET_LITE0: _LITE,
    Backbone.EFFICIENTNET_LITE2: _LITE,
}

# Earlier stages whose feature maps are pooled too: they hold textures and shapes that the last stage no longer does.
TAPS: Final = {
    Backbone.RESNET50: (7, 13),  # the ends of layer2 and layer3
    Backbone.EFFICIENTNET_LITE0: (8, 11, 15),  # the last blocks of 80, of 112 and of 192 channels
    Backbone.EFFICIENTNET_LITE2: (11, 15, 20),  # the last blocks of 88, of 120 and of 208 channels
}

# Number of features pooled from the last stage, and from each tap.
LEVELS: Final = {
    Backbone.RESNET50: (2048, 512, 1024),
    Backbone.EFFICIENTNET_LITE0: (1280, 80, 112, 192),
    Backbone.EFFICIENTNET_LITE2: (1280, 88, 120, 208),
}

# Of what is served on a GPU. Older ones are fast in it too, and it is closer to float32 than bfloat16: Lite0's mean
# cosine of drawn photos is 0.99999, in bfloat16 0.997.
GPU_PRECISION: Final = Precision.FLOAT16
