"""Weights trained by this project: `NAME.safetensors`, each with its card `NAME.json`. Installed as `cnn_zoo_weights`."""
