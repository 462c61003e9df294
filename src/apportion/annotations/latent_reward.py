"""Latent rewards: what single decisions are like, by a few criteria that a judge or a user put into a function.

Suffix legend: N tokens, T decisions, d factors.
"""

from __future__ import annotations

import hashlib
import inspect
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from apportion import registry
from apportion.annotations.annotator import Annotator
from apportion.annotations.evaluation_authors import AUTHORS, Brief, write_function
from apportion.annotations.judging import build_judge
from apportion.annotations.latent_inputs import READINGS, texts_of
from apportion.annotations.running_sum_factors import evaluation_func
from apportion.annotations.sandbox import Function, Inputs
from apportion.errors import InputError
from apportion.rollouts import Rollouts, steps

FUNCTIONS: Mapping[str, Callable[..., Any]] = {"running_sum": evaluation_func}
"""Evaluation functions by name. They are not called here: their module's source goes to the sandbox."""

_Source = Callable[[Inputs, Inputs], Function]


def latent_reward(
    function: str | None = None,
    file: str | None = None,
    judge: str | None = None,
    task: str | None = None,
    inputs: str = "running_sum",
    level: str = "step",
    each_token: bool = False,
    candidates: int = 5,
    repairs: int = 5,
    seconds: float = 10.0,
    megabytes: int = 2048,
) -> Annotator:
    """Factors of every decision, from a function ``evaluation_func(observation, action)`` of a whole batch.

    The function runs in a process that may neither open files nor reach a network, see
    :mod:`apportion.annotations.sandbox`. It comes from ``function`` or from ``file``; with neither and no judge it is
    the quickstart's. With a judge and a ``file`` that does not exist yet, the judge writes it from the first batch, and
    what passes is kept in that file: a resumed run reads it there and asks nobody.

    Args:
        function: a registered one, or ``package.module:name``, whose module must need numpy alone.
        file: of Python that defines ``evaluation_func``; what a judge wrote is put here.
        judge: who writes it, a scripted author by name or ``package.module:name``; see
            :mod:`apportion.annotations.evaluation_authors`.
        task: what the agent is to do, for the judge.
        inputs: what observation and action are: ``text``, what was written before a decision and in it;
            ``running_sum``, numbers of the quickstart; or ``package.module:name`` of a
            :class:`~apportion.annotations.latent_inputs.Reading` builder.
        level: what the decisions are: a kind of span, or ``response``.
        each_token: make every trained token a span of that kind first.
        candidates: replies the judge gives before it merges them into one; 1: no merge.
        repairs: how often a reply that fails goes back to the judge.
        seconds: the function may take for a batch.
        megabytes: of memory it may take.

    Makes ``<level>:latent`` ``[T, d]``.

    Raises:
        InputError: settings that do not go together; when run, a function that fails, or none that a judge could write.

    Source: arXiv 2412.11120; thu-rllab/LaRe.
    """
    if sum(setting is not None for setting in (function, file)) > 1 or (judge and function):
        raise InputError(
            f"function={function!r}, file={file!r}, judge={judge!r}: expected a function, a file, or a judge and the "
            "file to put its function into."
        )
    if judge is not None and (file is None or task is None):
        raise InputError(
            "a judge needs file=..., where its function is kept, and task=..., what it is told: give both."
        )
    if judge is None and task is not None:
        raise InputError("task is given and no judge reads it: leave it out, or name a judge.")
    if min(candidates, repairs + 1) < 1:
        raise InputError(f"candidates={candidates}, repairs={repairs}: expected at least 1 and at least 0.")
    if each_token and level == "response":
        raise InputError("each_token makes spans and level is 'response': name a kind of span, such as 'step'.")
    reading = registry.build(inputs, READINGS, "inputs of an evaluation function")
    limits = Function("", seconds=seconds, megabytes=megabytes)
    if judge is not None and file is not None and task is not None:
        asked, brief = build_judge(judge, AUTHORS), Brief(task, reading.layout)

        def write(observation: Inputs, action: Inputs) -> str:
            few = [0, len(observation) - 1]  # as far apart as the batch has them
            tried = (_rows(observation, few), _rows(action, few))
            return write_function(asked, brief, lambda s: replace(limits, source=s), *tried, candidates, repairs)

        source_of = _written(Path(file), limits, write)
    else:
        source_of = _given(function, file, limits)

    def apply(rollouts: Rollouts, policy: Any) -> Rollouts:
        if each_token:
            tokens = rollouts.trained.nonzero().squeeze(1)
            rollouts = rollouts.with_spans(level, tokens, tokens + 1)
        table = steps(rollouts, level)
        if not len(table):
            return rollouts.with_column(
                f"{level}:latent", torch.zeros((0, 0), dtype=torch.float64), maker="latent_reward"
            )
        observation, action = reading.read(*texts_of(rollouts, policy, table))
        evaluate = source_of(observation, action)
        factors = torch.from_numpy(evaluate(observation, action)).contiguous().to(rollouts.device)
        made_by = hashlib.sha256(evaluate.source.encode()).hexdigest()[:16]
        return rollouts.with_column(f"{level}:latent", factors, maker="latent_reward", function=made_by)

    return Annotator(apply, (f"{level}:latent",))


def _rows(given: Inputs, rows: list[int]) -> Inputs:
    return [given[row] for row in rows] if isinstance(given, list) else given[rows]  # type: ignore[call-overload]


def _given(function: str | None, file: str | None, limits: Function) -> _Source:
    """A function that is there before the run begins."""
    if file is not None:
        if not Path(file).is_file():
            raise InputError(f"{file} is no file, expected Python that defines evaluation_func, or name a judge.")
        made = replace(limits, source=Path(file).read_text(encoding="utf-8"))
    else:
        target = registry.lookup(function or "running_sum", FUNCTIONS, "evaluation function")
        if not inspect.isfunction(target):
            raise InputError(
                f"{function!r} is a {type(target).__name__}, expected a function of (observation, action)."
            )
        made = replace(limits, source=inspect.getsource(sys.modules[target.__module__]), name=target.__name__)
    return lambda observation, action: made


def _written(file: Path, limits: Function, write: Callable[[Inputs, Inputs], str]) -> _Source:
    """A function that a judge writes when it is first needed, unless it did so before."""

    def source_of(observation: Inputs, action: Inputs) -> Function:
        if not file.is_file():
            source, aside = write(observation, action), file.with_name(f".{file.name}.writing")
            aside.write_text(source, encoding="utf-8")
            os.replace(aside, file)
        return replace(limits, source=file.read_text(encoding="utf-8"))

    return source_of
