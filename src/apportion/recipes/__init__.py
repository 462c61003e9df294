"""Named configurations, one function each."""

from __future__ import annotations

from collections.abc import Callable

from apportion.recipes.instruct import instruct
from apportion.recipes.quickstart import quickstart
from apportion.recipes.tabular import tabular
from apportion.recipes.trees import RECIPES_OF_TREES
from apportion.training.config import TrainConfig

RECIPES: dict[str, Callable[[], TrainConfig]] = {
    "quickstart": quickstart,
    "instruct": instruct,
    "tabular": tabular,
    **RECIPES_OF_TREES,
}
