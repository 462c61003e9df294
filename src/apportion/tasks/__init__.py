"""What to solve: prompts with checkable answers, divided into train and held-out by prompt text."""

from __future__ import annotations

from apportion.tasks.building import TASKS, build_tasks
from apportion.tasks.files import from_file
from apportion.tasks.gym import reasoning_gym
from apportion.tasks.mixture import Mixture, Part, mixture, parts_of
from apportion.tasks.running_sum import demonstrate, running_sum, solve
from apportion.tasks.source import Source
from apportion.tasks.splitting import normalise, split
from apportion.tasks.task import Message, Task, TaskSource

__all__ = [
    "TASKS",
    "Message",
    "Mixture",
    "Part",
    "Source",
    "Task",
    "TaskSource",
    "build_tasks",
    "demonstrate",
    "from_file",
    "mixture",
    "normalise",
    "parts_of",
    "reasoning_gym",
    "running_sum",
    "solve",
    "split",
]
