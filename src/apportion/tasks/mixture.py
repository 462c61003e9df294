"""Several task sources, drawn from by weight."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np

from apportion.errors import InputError
from apportion.tasks.splitting import normalise
from apportion.tasks.task import Task, TaskSource


@dataclass(frozen=True)
class Part:
    """One source of a mixture, as a curriculum draws from it.

    Attributes:
        name: of the source.
        train: its tasks to learn from, without what any source of the mixture holds out.
        weight: the share of draws it gets; weights of a mixture sum to 1.
        verifier: spec of the verifier its tasks are meant for.
    """

    name: str
    train: tuple[Task, ...]
    weight: float
    verifier: str


@dataclass
class Mixture:
    """A task source made of others. Tasks keep the name of the source they came from.

    A text that any source holds out is trained in none. A curriculum that shuffles draws a part by weight and goes
    through that part's ``train`` in its own order; ``train`` is all parts end to end, whatever their weights.

    Attributes:
        name: the names of the sources joined with ``+``.
        parts: sources and weights.
        train: all tasks to learn from.
        held_out: what the sources hold out, one task a text.
        verifier: the verifier of the sources; ``by_source(verifiers={source: spec, ...})`` where they differ.
    """

    name: str
    parts: tuple[Part, ...]
    train: tuple[Task, ...]
    held_out: tuple[Task, ...]
    verifier: str

    def sample(self, n: int, rng: np.random.Generator) -> list[Task]:
        """``n`` tasks: each from a part drawn by weight, uniform within the part, with replacement."""
        chosen = rng.choice(len(self.parts), size=n, p=[part.weight for part in self.parts])
        places = rng.random(n)
        trains = [self.parts[index].train for index in chosen]
        return [train[int(place * len(train))] for train, place in zip(trains, places, strict=True)]


def mixture(weighted: Sequence[tuple[TaskSource, float]]) -> Mixture:
    """Mix sources by weight.

    A source may be a mixture itself: its parts join with their shares of its weight.

    Args:
        weighted: sources with positive weights, which are scaled to sum to 1.

    Raises:
        InputError: no sources, a weight that is not positive, two sources of one name, or a source whose tasks are
            all held out by others.

    Example:
        >>> from apportion.tasks.running_sum import running_sum
        >>> short = running_sum(digits=4, train=10, held_out=5, name="short")
        >>> long = running_sum(digits=8, train=10, held_out=5, name="long")
        >>> mixed = mixture([(short, 3), (long, 1)])
        >>> mixed.name, [part.weight for part in mixed.parts], len(mixed.held_out)
        ('short+long', [0.75, 0.25], 10)
    """
    if not weighted:
        raise InputError("a mixture was given no sources: expected at least one, with its weight.")
    for source, weight in weighted:
        if not (np.isfinite(weight) and weight > 0):
            raise InputError(f"{source.name} has the weight {weight} in a mixture: expected a positive number.")
    held_out: dict[str, Task] = {}
    for source, _ in weighted:
        for task in source.held_out:
            held_out.setdefault(normalise(task.text), task)
    total = sum(weight for _, weight in weighted)
    parts = tuple(
        replace(part, train=_without(part, held_out), weight=part.weight * weight / total)
        for source, weight in weighted
        for part in parts_of(source)
    )
    names = [part.name for part in parts]
    for name in names:
        if names.count(name) > 1:
            raise InputError(
                f"two sources of a mixture are called {name!r}: tell them apart with name=, as in "
                f"{name}(name='{name}_2')."
            )
    return Mixture(
        name="+".join(names),
        parts=parts,
        train=tuple(task for part in parts for task in part.train),
        held_out=tuple(held_out.values()),
        verifier=_verifier(parts),
    )


def parts_of(source: TaskSource) -> tuple[Part, ...]:
    """What a curriculum draws from: the parts of a mixture, or any other source as the only part."""
    return source.parts if isinstance(source, Mixture) else (Part(source.name, source.train, 1.0, source.verifier),)


def _without(part: Part, held_out: Collection[str]) -> tuple[Task, ...]:
    train = tuple(task for task in part.train if normalise(task.text) not in held_out)
    if not train:
        raise InputError(
            f"nothing of {part.name} is left to train on: all its prompts are held out in this mixture; hold out "
            "fewer, or give it more."
        )
    return train


def _verifier(parts: Sequence[Part]) -> str:
    by_source = {part.name: part.verifier for part in parts}
    specs = set(by_source.values())
    return specs.pop() if len(specs) == 1 else f"by_source(verifiers={by_source!r})"
