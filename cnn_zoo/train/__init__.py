"""Training of any Keras classifier or segmenter: a recipe says how, a run folder keeps everything, and a stopped run goes on where it was."""

from cnn_zoo.train.evaluate import Evaluation, MaskEvaluation, evaluate
from cnn_zoo.train.fit import fit
from cnn_zoo.train.recipe import RECIPES, Recipe, recipe
from cnn_zoo.train.run import Run, load_model

__all__ = ["RECIPES", "Evaluation", "MaskEvaluation", "Recipe", "Run", "evaluate", "fit", "load_model", "recipe"]
