"""Files of weights: models, pretrained backbones, and what is taken over from them."""
