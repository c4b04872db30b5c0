"""Understanding a model from its graph: what it costs, how deep it is, what part of the image it sees; and what its first filters look for.

Works on any Functional or Sequential `keras.Model`, with Keras alone; pictures of motifs need the extra `sequences`.
"""

from cnn_zoo.explain.cost import Cost, LayerCost, depth, macs
from cnn_zoo.explain.logos import Motif, motif_logos, motifs
from cnn_zoo.explain.receptive import Field, receptive_field

__all__ = ["Cost", "Field", "LayerCost", "Motif", "depth", "macs", "motif_logos", "motifs", "receptive_field"]
