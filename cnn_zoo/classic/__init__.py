"""What came before, and underneath: k-means colour segmentation."""

from cnn_zoo.classic.kmeans import Clusters, kmeans_segment

__all__ = ["Clusters", "kmeans_segment"]
