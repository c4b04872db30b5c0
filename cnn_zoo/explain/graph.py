"""The graph of a Keras model as a plain list of calls, nested models opened, every shape known.

Nothing is computed and no weight is made: shapes go through each layer's `compute_output_spec`. The user's layers stay as they are, since a stand-in
takes the place of each in the copy of the graph that is walked.
"""

import itertools
from dataclasses import dataclass

import keras

from cnn_zoo.errors import InputError


@dataclass(frozen=True)
class Call:
    """One use of a layer or operation; a layer that is shared has several.

    Attributes:
        op: The layer, or the `keras.ops` operation.
        name: Its name, after the names of the nested models around it: `"encoder/conv1"`.
        inputs: Numbers of the tensors it gets.
        outputs: Numbers of the tensors it makes.
        input_shapes: Their shapes, the batch being the first axis.
        output_shapes: Likewise.
        args: Its arguments as they were given, such as the subscripts of an einsum.
    """

    op: object
    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    input_shapes: tuple[tuple, ...]
    output_shapes: tuple[tuple, ...]
    args: tuple


@dataclass(frozen=True)
class Graph:
    """Calls in an order in which they can be computed; tensors are numbers.

    Attributes:
        inputs: The tensors that the model takes.
        outputs: The tensors that it gives.
        input_shapes: Shapes of the former, the batch being the first axis.
        calls: What lies between.
    """

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    input_shapes: tuple[tuple, ...]
    calls: tuple[Call, ...]


def graph_of(model, input_size=None, *, open_sizes: bool = False) -> Graph:
    """The graph of a Functional or Sequential model, or of a mixture of them.

    Args:
        model: Built model whose layers Keras knows; a subclassed one wrapped as `keras.Model(x, model(x))` counts as one layer.
        input_size: Height and width (one integer, a pair, or as many numbers as the input has spatial axes). Default: the model's own.
        open_sizes: Whether sides that are open in the model may stay so.

    Raises:
        InputError: The layers cannot be seen, a side is open, or the model cannot take this size.
    """
    check(model)
    numbers, calls, kept = _Numbers(), [], []

    def walk(model, inputs, prefix):
        """The output tensors of `model` on symbolic tensors; what is called on the way is noted down."""

        def call(op, *args, **kwargs):
            tensors = _tensors((args, kwargs))
            name = f"{prefix}{op.name}"
            if is_model(op):
                fresh = [keras.Input(batch_shape=t.shape, dtype=t.dtype, name=f"input{next(serial)}") for t in tensors]
                for new, old in zip(fresh, tensors):
                    numbers.same(new, old)
                results = walk(op, fresh, f"{name}/")
                outputs = stand_in(op, args, kwargs)
                for new, old in zip(_tensors(outputs), results):
                    numbers.same(new, old)
                kept.extend([fresh, results, outputs])
                return outputs
            _check_input(op, tensors)
            outputs = stand_in(op, args, kwargs)
            results = _tensors(outputs)
            kept.append([tensors, outputs])  # a tensor is told by its identity, so none may be freed meanwhile
            calls.append(
                Call(
                    op,
                    name,
                    *(tuple(map(numbers.of, group)) for group in (tensors, results)),
                    *(tuple(tuple(t.shape) for t in group) for group in (tensors, results)),
                    args,
                )
            )
            return outputs

        # From tensors, so that Sequential models and subclasses of keras.Model become plain, uncompiled ones.
        plain = keras.Model(model.inputs, model.outputs, name="graph")
        copy = keras.models.clone_model(plain, inputs, clone_function=lambda op: op, call_function=call)
        kept.append(copy)
        return copy.outputs

    serial = itertools.count()

    def stand_in(op, args, kwargs):
        return _StandIn(op, f"call{next(serial)}")(*args, **kwargs)

    inputs = [
        keras.Input(batch_shape=(1, *shape), dtype=x.dtype, name=f"input{next(serial)}")
        for x, shape in zip(model.inputs, _shapes(model, input_size, open_sizes))
    ]
    outputs = walk(model, inputs, "")
    return Graph(
        tuple(map(numbers.of, inputs)),
        tuple(map(numbers.of, outputs)),
        tuple(tuple(x.shape) for x in inputs),
        tuple(calls),
    )


def check(model) -> None:
    """Raise InputError unless the layers of `model`, and how they are joined, can be seen."""
    if not isinstance(model, keras.Model):
        raise InputError(f"a keras.Model is expected, not {type(model).__name__}; build() makes one")
    if not is_model(model):
        raise InputError(
            f"{type(model).__name__} {model.name!r} does not say how its layers are joined: build a Sequential with an input shape "
            "(model.build((None, height, width, channels))), and write a subclassed model in the functional way, keras.Model(inputs, outputs)"
        )


def is_model(op) -> bool:
    """Whether `op` is a model whose graph can be seen."""
    return isinstance(op, keras.Model) and bool(getattr(op, "inputs", None))


def channels_first(op) -> bool:
    """Whether channels come before height and width in the tensors of a layer."""
    return getattr(op, "data_format", None) == "channels_first"


class _StandIn(keras.Operation):
    """An operation of the shapes of another, so that the graph can be walked without touching the other."""

    def __init__(self, op, name):
        super().__init__(name=name)
        self.op = op

    def compute_output_spec(self, *args, **kwargs):
        return self.op.compute_output_spec(*args, **kwargs)


class _Numbers:
    """Numbers of tensors; the ends of a nested model have those of the tensors that it is joined to."""

    def __init__(self):
        self.known = {}

    def of(self, tensor):
        return self.known.setdefault(id(tensor), len(self.known))

    def same(self, new, old):
        self.known[id(new)] = self.of(old)


def _tensors(structure):
    return [x for x in keras.tree.flatten(structure) if isinstance(x, keras.KerasTensor)]


def _shapes(model, input_size, open_sizes):
    """For each input the shape without the batch, its open sides filled with `input_size`."""
    for x in model.inputs:
        shape = list(x.shape[1:])
        first = keras.config.image_data_format() == "channels_first"
        spatial = [i for i in range(len(shape)) if i != (0 if first else len(shape) - 1)]
        if input_size is not None and spatial:
            sides = (input_size,) * len(spatial) if hasattr(input_size, "__index__") else tuple(input_size)
            if len(sides) != len(spatial) or not all(hasattr(s, "__index__") and s >= 1 for s in sides):
                raise InputError(
                    f"input_size is {len(spatial)} whole numbers for the input {tuple(x.shape[1:])}, not {input_size!r}"
                )
            for axis, side in zip(spatial, sides):
                shape[axis] = int(side)
        elif None in shape and not open_sizes:
            raise InputError(
                f"{model.name!r} takes any size {tuple(x.shape[1:])}: say which, such as input_size=(224, 224)"
            )
        yield shape


def _check_input(op, tensors):
    """What Keras checks only when a layer is really called: that it was built for as many features."""
    specs = keras.tree.flatten(getattr(op, "input_spec", None))
    for spec, tensor in zip(specs, tensors):
        for axis, size in (getattr(spec, "axes", None) or {}).items():
            found = tensor.shape[axis]
            if None not in (size, found) and size != found:
                raise InputError(
                    f"the layer {op.name!r} was built for {size} values and would get {found} at this input size: "
                    "leave input_size out, or build the model for this size"
                )
