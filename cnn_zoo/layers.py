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
class GroupedConv2D(keras.layers.Conv2D):
    """`Conv2D` with `groups`: the same arguments, variables and results.

    On TensorFlow without a GPU it computes one convolution a group, since the gradient of a grouped one takes it some twenty times as long.
    """

    def convolution_op(self, inputs, kernel):
        convolve = super().convolution_op
        if self.groups == 1 or keras.backend.backend() != "tensorflow" or keras.distribution.list_devices("gpu"):
            return convolve(inputs, kernel)
        axis = -1 if self.data_format == "channels_last" else 1
        parts = zip(ops.split(inputs, self.groups, axis), ops.split(kernel, self.groups, -1))
        return ops.concatenate([convolve(*part) for part in parts], axis)


def kind(layer) -> str:
    """The class of a layer as Keras, and the files of others, know it: a `GroupedConv2D` is a `Conv2D`."""
    return "Conv2D" if isinstance(layer, GroupedConv2D) else type(layer).__name__


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


@register
class ChannelShuffle(keras.layers.Layer):
    """Channels dealt out again, so that each group of the next convolution sees all groups: channel `i * (c / groups) + j` goes to `j * groups + i`.

    Args:
        groups: A divisor of the number of channels.

    Input and output `(..., channels)`.

    Raises:
        ValueError: The channels cannot be divided into so many groups.

    Source: Zhang et al. 2018, section 3.1 and figure 1.
    """

    def __init__(self, groups, **kwargs):
        super().__init__(**kwargs)
        self.groups = int(groups)

    def build(self, input_shape):
        if input_shape[-1] % self.groups:
            raise ValueError(f"{self.name}: {input_shape[-1]} channels cannot be divided into {self.groups} groups")

    def call(self, x):
        grouped = ops.reshape(x, (-1, self.groups, x.shape[-1] // self.groups))
        return ops.reshape(ops.transpose(grouped, (0, 2, 1)), ops.shape(x))

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "groups": self.groups}


@register
class ChannelSlice(keras.layers.Layer):
    """The channels `start` to `stop - 1`.

    Args:
        start: First channel.
        stop: One more than the last channel, at most the number of channels.

    Input `(..., channels)`, output `(..., stop - start)`.

    Raises:
        ValueError: There are fewer than `stop` channels.

    Source: the channel split of Ma et al. 2018, figure 3c.
    """

    def __init__(self, start, stop, **kwargs):
        super().__init__(**kwargs)
        self.start, self.stop = int(start), int(stop)

    def build(self, input_shape):
        if not 0 <= self.start < self.stop <= input_shape[-1]:
            raise ValueError(f"{self.name}: there are no channels {self.start} to {self.stop} in {input_shape[-1]}")

    def call(self, x):
        return x[..., self.start : self.stop]

    def compute_output_shape(self, input_shape):
        return *input_shape[:-1], self.stop - self.start

    def get_config(self):
        return {**super().get_config(), "start": self.start, "stop": self.stop}


@register
class DropPath(keras.layers.Layer):
    """Stochastic depth: in training, all of a sample's values become 0 with probability `rate`; the others grow by `1 / (1 - rate)`.

    Args:
        rate: From 0 to less than 1.
        seed: Integer, or None for a random one.

    Input and output `(batch, ...)`; the identity outside training.

    Raises:
        ValueError: `rate` is out of range.

    Source: Huang et al. 2016, "Deep networks with stochastic depth", section 3, scaled in training instead of at inference.
    """

    def __init__(self, rate, seed=None, **kwargs):
        super().__init__(**kwargs)
        if not 0 <= rate < 1:
            raise ValueError(f"rate must be at least 0 and less than 1, not {rate}")
        self.rate, self.seed = rate, seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, x, training=False):
        if not training or self.rate == 0:
            return x
        shape = (ops.shape(x)[0],) + (1,) * (len(x.shape) - 1)
        keep = keras.random.uniform(shape, dtype="float32", seed=self.seed_generator) >= self.rate
        return x * ops.cast(keep, x.dtype) / ops.cast(1 - self.rate, x.dtype)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "rate": self.rate, "seed": self.seed}


@register
class SamePadding2D(keras.layers.Layer):
    """The zeros that "same" padding puts around an image for a 3x3 window at stride 2, as a layer for poolings.

    One row above and one below where the height is odd, only one below where it is even; columns likewise. Keras' own "same" poolings leave the
    border out instead of padding with zeros, and `ZeroPadding2D` cannot depend on a size that is open until the model is called.

    Input `(batch, height, width, channels)`, output `(batch, h, w, channels)` with `h = 2 * ceil(height / 2) + 1` and `w` likewise.
    """

    def call(self, x):
        _, height, width, _ = ops.shape(x)
        return ops.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))[:, 1 - height % 2 :, 1 - width % 2 :]

    def compute_output_shape(self, input_shape):
        batch, height, width, channels = input_shape
        return batch, height and height + 1 + height % 2, width and width + 1 + width % 2, channels


@register
class LRN(keras.layers.Layer):
    """Local response normalisation across maps: `b_i = a_i / (k + alpha * sum_j a_j^2)^beta`, j over the `n` maps around i.

    Args:
        n: Number of neighbouring maps, odd; those beyond the first and last map count as 0.
        k: Added constant, above 0.
        alpha: Weight of the sum. Caffe and PyTorch divide theirs by `n`: give `alpha / n` for their nets.
        beta: Exponent.

    Input and output `(batch, height, width, maps)`, computed in at least float32: squares of activations overflow float16.

    Source: Krizhevsky et al. 2012, section 3.3, whose constants are the defaults.
    """

    def __init__(self, n=5, k=2.0, alpha=1e-4, beta=0.75, **kwargs):
        super().__init__(**kwargs)
        if n < 1 or n % 2 == 0:
            raise ValueError(f"{self.name}: n must be odd, so that map i is in the middle, not {n}")
        self.n, self.k, self.alpha, self.beta = int(n), float(k), float(alpha), float(beta)

    def call(self, x):
        a = ops.cast(x, keras.backend.result_type(x.dtype, "float32"))
        squares = ops.pad(ops.square(a), [[0, 0]] * (a.ndim - 1) + [[self.n // 2, self.n // 2]])
        total = sum(squares[..., i : i + a.shape[-1]] for i in range(self.n))
        return ops.cast(a * ops.power(self.k + self.alpha * total, -self.beta), x.dtype)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "n": self.n, "k": self.k, "alpha": self.alpha, "beta": self.beta}
