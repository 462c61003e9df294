"""Measure a policy on held-out tasks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

from apportion.cli.arguments import parse
from apportion.cli.source import open_policy
from apportion.errors import InputError
from apportion.evals.accuracy import evaluate
from apportion.training.seeds import torch_generator


@dataclass(frozen=True)
class Arguments:
    """Measure: apportion eval MODEL_OR_RUN [--tasks SPEC] [--samples N] [--k 1 4 16]."""

    tasks: tuple[str, ...] = ()
    """Task sources, whose held-out part is asked; default: those of the run."""
    verifier: str | None = None
    """What checks answers; default: the run's, or each source's own."""
    prompts: int = 512
    """How many held-out prompts."""
    samples: int = 1
    """Samples a prompt."""
    k: tuple[int, ...] = ()
    """Which pass@k; default: 1, 4, 16, 64 as far as the samples go."""
    max_new_tokens: int | None = None
    """Longest response, in tokens; default: the run's, or 64."""
    temperature: float = 1.0
    """Sampling temperature."""
    seed: int = 0
    """Everything random follows from it."""
    json: bool = False
    """Print JSON."""


def main(argv: Sequence[str]) -> int:
    """``apportion eval``"""
    if not argv or argv[0].startswith("-"):
        if argv and argv[0] in ("-h", "--help"):
            parse(Arguments, argv, "apportion eval")
        raise InputError("eval needs a model or a run: apportion eval MODEL_OR_RUN.")
    arguments = parse(Arguments, argv[1:], "apportion eval")
    ks = arguments.k or tuple(k for k in (1, 4, 16, 64) if k <= arguments.samples)
    if arguments.samples < 1 or any(not 1 <= k <= arguments.samples for k in ks):
        raise InputError(f"got --samples {arguments.samples} and --k {ks}, expected 1 <= k <= samples.")
    if arguments.prompts < 1:
        raise InputError(f"got --prompts {arguments.prompts}, expected at least 1.")
    opened = open_policy(argv[0], arguments.tasks, arguments.verifier, arguments.max_new_tokens)
    tasks = opened.held_out[: arguments.prompts]
    if not tasks:
        raise InputError("these tasks hold nothing out, so there is nothing to measure on: set held_out in --tasks.")
    settings = replace(opened.sampling, temperature=arguments.temperature)
    generator = torch_generator(opened.device, arguments.seed, "evaluation")
    result = evaluate(opened.collect, tasks, settings, generator, samples=arguments.samples, ks=ks)
    if arguments.json:
        print(json.dumps({"prompts": len(tasks), "samples": arguments.samples, **result.as_dict()}))
        return 0
    print(f"{len(tasks)} held-out prompts, {arguments.samples} samples each, 95 % intervals over prompts")
    for k, estimate in result.sampled.items():
        print(f"  pass@{k:<4} {estimate}")
    print(f"  greedy    {result.greedy}")
    unknown = next(iter(result.sampled.values())).unknown
    if unknown:
        print(f"  {unknown} responses have no verdict and were left out")
    return 0
