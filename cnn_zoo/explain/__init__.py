"""Understanding a model from its graph: what it costs, how deep it is, what part of the image it sees.

Works on any Functional or Sequential `keras.Model`, with Keras alone.
"""

from cnn_zoo.explain.cost import Cost, LayerCost, depth, macs
from cnn_zoo.explain.receptive import Field, receptive_field

__all__ = ["Cost", "Field", "LayerCost", "depth", "macs", "receptive_field"]
