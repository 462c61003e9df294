"""What another trainer hands to credit, and the refusal of methods that need more."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from apportion import credit as credits
from apportion.credit import Credit, Stage
from apportion.errors import InputError
from apportion.rollouts import Rollouts
from apportion.rollouts.columns import qualify


@dataclass(frozen=True)
class Offer:
    """What a trainer can give a credit method.

    Attributes:
        trainer: who, as the subject of a sentence.
        columns: by their names, as methods need them.
        ids: which tokens were sampled.
        clock: where training stands.
        state: what a method keeps from one call to the next.
        branches: responses that fork.
    """

    trainer: str
    columns: Sequence[str]
    ids: bool
    clock: bool
    state: bool
    branches: bool = False


def check_offered(spec: str, method: Stage, offer: Offer) -> None:
    """Refuse a method that needs what a trainer does not hand over.

    Args:
        spec: what the user calls it.
        method: the method.
        offer: of the trainer.

    Raises:
        InputError: it needs something else; the sentence says what.

    Example:
        >>> from apportion import credit
        >>> bare = Offer("the hook", columns=("reward/outcome",), ids=False, clock=False, state=False)
        >>> check_offered("rloo", credit.METHODS["rloo"](), bare)
        >>> check_offered("tempo", credit.METHODS["tempo"](), bare)
        Traceback (most recent call last):
        ...
        apportion.errors.InputError: tempo looks at which tokens were sampled, and the hook hands no token ids: ...
    """
    offered = {_plain(name) for name in offer.columns}
    lacking = [name for name in method.needs if _plain(name) not in offered]
    if lacking:
        raise InputError(
            f"{spec} needs {', '.join(map(repr, lacking))}, and {offer.trainer} hands over only "
            f"{', '.join(map(repr, offer.columns))}: choose a method of these, or train with apportion."
        )
    if method.reads_ids and not offer.ids:
        raise InputError(
            f"{spec} looks at which tokens were sampled, and {offer.trainer} hands no token ids: choose another "
            "method, or hand them over as docs/borrow.md shows."
        )
    if method.compares_branches and not offer.branches:
        raise InputError(
            f"{spec} compares branches, and {offer.trainer} draws none, so that it would be leave-one-out: choose "
            "rloo, or train with apportion and --sampling branching."
        )
    if method.reads_clock and not offer.clock:
        raise InputError(
            f"{spec} anneals over training, and {offer.trainer} does not say at which step it is: choose another "
            "method."
        )
    if keeps_state(method.init()) and not offer.state:
        raise InputError(
            f"{spec} keeps a state from one batch to the next, and {offer.trainer} has no place for it: choose another "
            "method."
        )


def borrow(spec: str, offer: Offer) -> Callable[[Rollouts], Credit]:
    """A credit method for another trainer, which makes its loss and normaliser of a mask of its own.

    Args:
        spec: a method: ``tempo``, ``rloo(singleton='raw')`` or ``package.module:name``.
        offer: of the trainer.

    Returns:
        the method on rollouts of that trainer. It refuses rollouts of which it takes tokens out of the normaliser.

    Raises:
        InputError: no such method, or it needs what the trainer does not hand over.

    Example:
        >>> tempo = borrow("tempo", Offer("mine", ("reward/outcome",), ids=True, clock=False, state=False))
        >>> group = Rollouts.from_lists([[1, 2], [1, 3]], groups=[0, 0], rewards=[1.0, 0.0])
        >>> [round(a, 2) for a in tempo(group).advantages.tolist()]
        [0.71, 1.41, -0.71, -1.41]
    """
    method = credits.build(spec)
    check_offered(spec, method, offer)

    def credited(rollouts: Rollouts) -> Credit:
        given: Credit = method(rollouts)
        dropped = int((given.rollouts.trained & ~given.counted).sum())
        if dropped:
            raise InputError(
                f"{spec} takes {dropped} tokens out of the normaliser, which {offer.trainer} makes of its own mask: "
                "choose settings that keep them."
            )
        return given

    return credited


def keeps_state(state: Any) -> bool:
    """Whether a method's first state holds anything.

    Example:
        >>> keeps_state((None, (None, None))), keeps_state((None, {"mean": 0.0}))
        (False, True)
    """
    if isinstance(state, tuple | list):
        return any(keeps_state(part) for part in state)
    if isinstance(state, Mapping):
        return bool(state)
    return state is not None


def _plain(name: str) -> str:
    """Rewards are named without their level, everything else with it."""
    return name if name.startswith("reward/") else qualify(name)
