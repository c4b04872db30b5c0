"""`together`: what makes of the optimizer of one device that of several ones under TensorFlow's strategies."""

import keras
from keras import ops

from cnn_zoo.optimizers import LayerWise


def together(optimizer):
    """The same optimizer, with the same variables, for all devices of a `tf.distribute` strategy: it takes the step that one device would take.

    Keras' own ones (3.15) clip the gradients that each device has found by itself, and sum them later; they ask the first device alone whether its
    gradients are finite; and they cannot accumulate under `MirroredStrategy`, where no device may wait for another one within a branch. Here
    gradients are summed first of all; after that each device does the same by itself.

    Args:
        optimizer: A `LayerWise`, or a Keras optimizer with one rule for all variables, which clips by the global norm if at all; or a
            `LossScaleOptimizer` around it. Not built yet; it is copied.
    """
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        settings = optimizer.initial_scale, optimizer.dynamic_growth_steps, optimizer.name
        return _ScaledTogether(together(optimizer.inner_optimizer), *settings)
    kind = type(optimizer)
    return type(kind.__name__, (_Together, kind), {}).from_config(optimizer.get_config())


class _Together:
    """Over the class of an optimizer: see `together`."""

    def build(self, variables):
        """Make averages and sums here, in the place where Keras would make them: a run can be resumed on another number of devices."""
        if self.built:
            return
        use_ema, every = self.use_ema, self.gradient_accumulation_steps
        self.averages = [self.add_variable_from_reference(v, "average") for v in variables if use_ema]
        self.sums = [self.add_variable_from_reference(v, "gradient_accumulator") for v in variables if every]
        self.use_ema, self.gradient_accumulation_steps = False, None
        self.batches = self.iterations  # a variable, and from here on the iterations are a part of it
        super().build(variables)
        self.use_ema, self.gradient_accumulation_steps = use_ema, every

    def apply(self, grads, trainable_variables=None):
        """One step, in a replica of the strategy."""
        self.step(_summed(grads), trainable_variables)
        self.count(1)

    def step(self, grads, variables):
        """What each device does by itself, of gradients that all have in common; it may stand in a branch."""
        if not self.sums:
            self._update(grads, variables)
        else:
            steps = self.gradient_accumulation_steps
            totals = [s if g is None else s + g for s, g in zip(self.sums, grads, strict=True)]

            def update():
                self._update([None if g is None else t / steps for t, g in zip(totals, grads)], variables)
                for s in self.sums:
                    s.assign(ops.zeros_like(s))

            def keep():
                for s, total in zip(self.sums, totals):
                    s.assign(total)

            ops.cond(ops.equal((self.batches + 1) % steps, 0), update, keep)
        momentum = ops.where(ops.equal(self.iterations, 0), 0.0, self.ema_momentum)
        for average, v in zip(self.averages, variables):
            average.assign(momentum * average + (1 - momentum) * v)

    def _update(self, grads, variables):
        found = [(g, v) for g, v in zip(grads, variables) if g is not None]
        rate, factor = self.learning_rate, 1.0
        if self.global_clipnorm:
            norm = ops.sqrt(sum(ops.sum(ops.square(g)) for g, _ in found))
            factor = self.global_clipnorm / ops.maximum(norm, self.global_clipnorm)
        for g, v in found:
            if self.weight_decay:
                v.assign(v - v * self.weight_decay * rate)
            self.update_step(g * factor, v, rate)
            if v.constraint is not None:
                v.assign(v.constraint(v))

    def count(self, number):
        """Count batches; not in a branch, since the devices do it together."""
        self.batches.assign_add(number)
        if isinstance(self, LayerWise):
            self.inner.iterations.assign(self.iterations)

    def finalize_variable_values(self, var_list):
        """Give the variables their averages, where there are any."""
        for average, v in zip(self.averages, var_list):
            v.assign(average)


class _ScaledTogether(keras.optimizers.LossScaleOptimizer):
    """With loss scaling: see `together`."""

    def apply(self, grads, trainable_variables=None):
        """One step, which is left out where the sum of the gradients is not finite."""
        grads = _summed(grads)
        finite = ops.all(ops.stack([ops.all(ops.isfinite(g)) for g in grads if g is not None]))
        grads = [None if g is None else g / self.dynamic_scale for g in grads]
        ops.cond(finite, lambda: self.inner_optimizer.step(grads, trainable_variables), lambda: None)
        self.inner_optimizer.count(ops.cast(finite, self.inner_optimizer.batches.dtype))
        grows = ops.logical_and(finite, ops.equal(self.step_counter + 1, self.dynamic_growth_steps))
        self.dynamic_scale.assign(self.dynamic_scale * ops.where(grows, 2.0, ops.where(finite, 1.0, 0.5)))
        on = ops.logical_and(finite, ops.logical_not(grows))
        self.step_counter.assign(ops.where(on, self.step_counter + 1, 0))


def _summed(grads):
    """Over all devices: Keras has divided the loss of each by their number."""
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    sums = iter(context.all_reduce(tf.distribute.ReduceOp.SUM, [g for g in grads if g is not None]))
    return [None if g is None else next(sums) for g in grads]
