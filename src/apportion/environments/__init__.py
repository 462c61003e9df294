"""What to act in: multi-turn worlds."""

from __future__ import annotations

from collections.abc import Callable

from apportion.environments.corridor import Corridor as Corridor
from apportion.environments.environment import Environment as Environment
from apportion.environments.environment import Observation as Observation
from apportion.environments.environment import Outcome as Outcome
from apportion.environments.environment import World as World

ENVIRONMENTS: dict[str, Callable[..., Environment]] = {"corridor": Corridor}
