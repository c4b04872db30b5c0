"""The few layers that Keras does not have. All are registered, so saved models load without `custom_objects`, and all use `keras.ops` only."""

import keras
import numpy as np
from keras import ops

register = keras.saving.register_keras_serializable("cnn_zoo")


@register
def lecun_tanh(x):
    """The squashing function `1.7159 tanh(2/3 x)`, with f(1) = 1 and f(-1) = -1 (LeCun et al. 1998, equation 6 and appendix A)."""
    return 1.7159 * ops.tanh(x * (2 / 3))


@register
class PartialConv2D(keras.layers.Layer):
    """Convolution in which each output map sees only some of the input maps ("valid" padding, stride 1).

    Only the connections that exist are variables: with the 60 connections of LeNet-5's C3, 5x5 kernels and 16 biases, 1,516 of them.

    Args:
        table: For each output map the tuple of input maps that it sees.
        kernel_size: Height and width of the kernels.
        kernel_initializer: Of the kernels. Variance scaling counts the average fan-in of the table.

    Input `(batch, height, width, channels)`, output `(batch, height - k + 1, width - k + 1, len(table))`.

    Source: LeCun et al. 1998, Table I.
    """

    def __init__(self, table, kernel_size, kernel_initializer="glorot_uniform", **kwargs):
        super().__init__(**kwargs)
        self.table = tuple(tuple(int(i) for i in inputs) for inputs in table)
        self.kernel_size = int(kernel_size)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)

    def build(self, input_shape):
        channels, k = input_shape[-1], self.kernel_size
        if max(max(inputs) for inputs in self.table) >= channels:
            raise ValueError(f"{self.name}: the table names more input maps than the {channels} there are")
        # Drawn as one dense kernel with the mean number of inputs, so that initialisers see a true fan-in.
        pairs = [(i, o) for o, inputs in enumerate(self.table) for i in inputs]
        fan = max(1, round(len(pairs) / len(self.table)))

        def initialise(shape, dtype):
            dense = self.kernel_initializer((k, k, fan, -(-shape[-1] // fan)), dtype)
            return ops.reshape(dense, (k, k, -1))[:, :, : shape[-1]]

        self.kernel = self.add_weight(name="kernel", shape=(k, k, len(pairs)), initializer=initialise)
        self.bias = self.add_weight(name="bias", shape=(len(self.table),), initializer="zeros")
        # The place of each connection in a dense kernel, as a one-hot matrix: a product with it scatters on every backend.
        self._scatter = np.zeros((len(pairs), channels * len(self.table)), "float32")
        for row, (i, o) in enumerate(pairs):
            self._scatter[row, i * len(self.table) + o] = 1

    def call(self, x):
        k, outputs = self.kernel_size, len(self.table)
        kernel = ops.matmul(ops.reshape(self.kernel, (k * k, -1)), ops.cast(self._scatter, self.compute_dtype))
        y = ops.conv(x, ops.reshape(kernel, (k, k, -1, outputs)), padding="valid", data_format="channels_last")
        return y + self.bias

    def compute_output_shape(self, input_shape):
        batch, height, width, _ = input_shape
        shrink = self.kernel_size - 1
        return batch, height and height - shrink, width and width - shrink, len(self.table)

    def get_config(self):
        return {
            **super().get_config(),
            "table": self.table,
            "kernel_size": self.kernel_size,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }


@register
class RBF(keras.layers.Layer):
    """Euclidean radial basis functions around fixed codes: `-sum_j (x_j - code_ij)^2`, as logits.

    The paper's penalty y_i is the squared distance, smaller being better; its negative is the logit of class i, and softmax turns it into the
    probability that the paper's criterion (equation 9) maximises. The codes are constants: no trainable variables.

    Args:
        codes: `(classes, features)` of -1 and +1.

    Input `(batch, features)`, output `(batch, classes)`, at most 0.

    Source: LeCun et al. 1998, equation 7.
    """

    def __init__(self, codes, **kwargs):
        super().__init__(**kwargs)
        self.codes = np.asarray(codes, "float32")

    def call(self, x):
        codes = ops.cast(self.codes, self.compute_dtype)
        return -ops.sum(ops.square(ops.expand_dims(x, 1) - codes), axis=-1)

    def compute_output_shape(self, input_shape):
        return input_shape[0], len(self.codes)

    def get_config(self):
        return {**super().get_config(), "codes": self.codes.astype(int).tolist()}
