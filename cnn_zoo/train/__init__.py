"""Training of any Keras classifier or segmenter: a recipe says how, a run folder keeps everything, and a stopped run goes on where it was."""

from cnn_zoo.freezing import freeze, stages
from cnn_zoo.optimizers import LayerWise
from cnn_zoo.train.curves import read_curves
from cnn_zoo.train.distill import SoftTargets, TwoTasks, distill, learn_without_forgetting
from cnn_zoo.train.evaluate import Evaluation, MaskEvaluation, evaluate
from cnn_zoo.train.fit import fit
from cnn_zoo.train.lr_find import LrFind, lr_find
from cnn_zoo.train.prune import Pruned, PruningReport, prune
from cnn_zoo.train.recipe import RECIPES, Recipe, recipe
from cnn_zoo.train.run import Run, load_model
from cnn_zoo.train.sanity import Sanity, check
from cnn_zoo.train.search import Search, Trial, search
from cnn_zoo.train.transfer import fine_tune

__all__ = [
    "RECIPES",
    "Evaluation",
    "LayerWise",
    "LrFind",
    "MaskEvaluation",
    "Pruned",
    "PruningReport",
    "Recipe",
    "Run",
    "Sanity",
    "Search",
    "SoftTargets",
    "Trial",
    "TwoTasks",
    "check",
    "distill",
    "evaluate",
    "fine_tune",
    "fit",
    "freeze",
    "learn_without_forgetting",
    "load_model",
    "lr_find",
    "prune",
    "read_curves",
    "recipe",
    "search",
    "stages",
]
