"""NAS-RL's layer-wise convolutional networks with skip connections."""

from nas_cluster.spaces.layerwise_cnn.space import LayerwiseCNN

__all__ = ["LayerwiseCNN"]
