"""Random rollouts for property tests, and what it means that two rollouts are the same."""

from __future__ import annotations

import string
from typing import Any

import torch
from hypothesis import strategies as st

from apportion.rollouts import Column, Pairs, Rollouts, Spans

FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
DTYPES = (*FLOATS, torch.int64, torch.int32, torch.int8, torch.uint8, torch.bool)
RESERVED = ("trained", "weight", "ranges", "preferred", "other")
NAMES = st.text(string.ascii_lowercase + "_ äπ", min_size=1, max_size=6).filter(lambda name: name not in RESERVED)
TEXTS = st.one_of(st.text(max_size=8), st.sampled_from(["", "null", '"\n\u2028', "日本"]))
SETTINGS = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=2) | st.tuples(inner, inner) | st.dictionaries(NAMES, inner, max_size=2),
    max_leaves=3,
)


@st.composite
def rollouts(draw: st.DrawFn, max_episodes: int = 4, contiguous: bool = False) -> Rollouts:
    """Rollouts with several responses an episode, shared prompts, spans, pairs, and columns of every sort.

    Args:
        draw: given by hypothesis.
        max_episodes: E is at most this.
        contiguous: whether the episodes of a group stand together.
    """
    responses = draw(st.lists(st.integers(1, 3), max_size=max_episodes))
    lengths = [draw(st.integers(0, 4)) for _ in range(sum(responses))]
    groups = draw(st.lists(st.integers(-3, 3), min_size=len(responses), max_size=len(responses)))
    if contiguous:
        groups.sort()
    prompt_lengths = draw(st.lists(st.integers(0, 3), min_size=1, max_size=3))
    prompts = draw(st.lists(st.integers(0, len(prompt_lengths) - 1), min_size=len(lengths), max_size=len(lengths)))
    used = sorted(set(prompts))
    seed = draw(st.integers(0, 2**16))
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, 2**40, (sum(lengths),), generator=generator)
    result = Rollouts(
        ids=ids,
        token_offsets=_offsets(lengths),
        response_offsets=_offsets(responses),
        group_ids=torch.tensor(groups, dtype=torch.int64),
        prompt_ids=torch.randint(0, 9, (sum(prompt_lengths[p] for p in used),), generator=generator),
        prompt_offsets=_offsets([prompt_lengths[p] for p in used]),
        prompts=torch.tensor([used.index(p) for p in prompts], dtype=torch.int64),
        spans=draw(span_tables(lengths)),
        pairs=draw(st.none() | pair_tables(len(responses))),
    )
    for level in ("token", "response", "episode", "pair", *result.spans):
        for name in draw(st.lists(NAMES, max_size=2, unique=True)):
            column = draw(columns(result.rows(level), generator))
            result = result.with_column(
                f"{level}:{name}", column.values, column.present, column.maker, **column.parameters
            )
    for component in draw(st.lists(NAMES, max_size=2, unique=True)):
        level = draw(st.sampled_from(["token", "response", "episode", *result.spans]))
        result = draw(rewarded(result, component, level, generator))
    if draw(st.booleans()):
        trained = torch.rand(result.n_tokens, generator=generator) < 0.6
        result = result.with_column("trained", trained)
        log_probs = -torch.rand(result.n_tokens, generator=generator)
        result = result.with_statistic("log_probs/old", log_probs, "trainer", temperature=0.7)
    return result


def _offsets(lengths: list[int]) -> torch.Tensor:
    return torch.tensor([0, *torch.tensor(lengths, dtype=torch.int64).cumsum(0).tolist()], dtype=torch.int64)


@st.composite
def span_tables(draw: st.DrawFn, lengths: list[int]) -> dict[str, Spans]:
    """Up to two kinds of span in responses of these lengths, with gaps; a kind may have no spans."""
    result = {}
    for kind in draw(st.lists(st.sampled_from(["turn", "step", "a kind", "π"]), max_size=2, unique=True)):
        starts, ends, first = [], [], 0
        for length in lengths:
            cuts = draw(st.lists(st.integers(0, length), unique=True, max_size=4))
            bounds = sorted(cuts)[: len(cuts) // 2 * 2]
            touching = draw(st.booleans()) and len(bounds) > 2
            if touching:
                bounds[2] = bounds[1]
            starts += [first + cut for cut in bounds[::2]]
            ends += [first + cut for cut in bounds[1::2]]
            first += length
        result[kind] = Spans(torch.tensor(starts, dtype=torch.int64), torch.tensor(ends, dtype=torch.int64))
    return result


@st.composite
def pair_tables(draw: st.DrawFn, episodes: int) -> Pairs:
    """Up to four pairs, in no order."""
    episode = st.integers(0, max(episodes - 1, 0))
    rows = draw(st.lists(st.tuples(episode, episode), max_size=4 if episodes else 0))
    table = torch.tensor(rows, dtype=torch.int64).reshape(-1, 2)
    return Pairs(table[:, 0].clone(), table[:, 1].clone())


@st.composite
def columns(draw: st.DrawFn, rows: int, generator: torch.Generator) -> Column:
    """A column of any dtype, ``[n]`` or ``[n, k]``, or text, with or without missing entries."""
    present = draw(st.none() | st.just(torch.rand(rows, generator=generator) < 0.6))
    maker = draw(st.sampled_from(["given", "waad", "π"]))
    parameters = draw(st.dictionaries(st.sampled_from(["window", "head"]), SETTINGS, max_size=2))
    if draw(st.integers(0, 3)) == 0:
        texts = draw(st.lists(st.none() | TEXTS, min_size=rows, max_size=rows))
        return Column(tuple(texts), present, maker, parameters)
    shape = (rows, *draw(st.sampled_from([(), (), (0,), (1,), (3,)])))
    return Column(numbers(draw(st.sampled_from(DTYPES)), shape, generator), present, maker, parameters)


def numbers(dtype: torch.dtype, shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    """Numbers of very different sizes, all finite."""
    if dtype == torch.bool:
        return torch.rand(shape, generator=generator) < 0.5
    if not dtype.is_floating_point:
        bounds = torch.iinfo(dtype)
        return torch.randint(bounds.min, bounds.max, shape, generator=generator, dtype=dtype)
    powers = torch.randint(-7 if dtype == torch.float16 else -40, 5, shape, generator=generator)
    return (torch.randn(shape, generator=generator, dtype=torch.float64) * 10.0**powers).to(dtype)


@st.composite
def rewarded(draw: st.DrawFn, rollouts: Rollouts, component: str, level: str, generator: torch.Generator) -> Rollouts:
    """With a reward whose entries may be scored, unknown (sometimes NaN) or absent."""
    rows = rollouts.rows(level)
    shape = (rows, *draw(st.sampled_from([(), (), (2,)])))
    values = numbers(draw(st.sampled_from(FLOATS)), shape, generator)
    scored = torch.rand(shape, generator=generator) < draw(st.sampled_from([0.0, 0.6, 1.0]))
    if draw(st.booleans()):
        values[~scored] = torch.nan
    present = draw(st.none() | st.just(torch.rand(rows, generator=generator) < 0.6))
    if present is not None and draw(st.booleans()):
        values[~present] = torch.inf
    return rollouts.with_reward(component, values, scored, present, level, draw(st.sampled_from(["given", "judge"])))


def assert_same(given: Rollouts, wanted: Rollouts) -> None:
    """Equal in everything that can be read from them.

    Which table row holds a prompt that nobody has, or a number where the entry is missing or unknown, cannot.
    A text that is None and a statistic that is not finite are missing.
    """
    for name in ("ids", "token_offsets", "response_offsets", "group_ids", "prompt_ids", "prompt_offsets", "prompts"):
        _assert_equal(getattr(given, name), getattr(wanted, name), name)
    assert set(given.spans) == set(wanted.spans)
    for kind, table in wanted.spans.items():
        _assert_equal(given.spans[kind].starts, table.starts, kind)
        _assert_equal(given.spans[kind].ends, table.ends, kind)
    assert (given.pairs is None) == (wanted.pairs is None)
    if given.pairs is not None and wanted.pairs is not None:
        _assert_equal(given.pairs.preferred, wanted.pairs.preferred, "preferred")
        _assert_equal(given.pairs.other, wanted.pairs.other, "other")
    assert set(given.columns) == set(wanted.columns)
    for name, column in wanted.columns.items():
        other = given.columns[name]
        assert _same(other.maker, column.maker), name
        assert _same(dict(other.parameters), dict(column.parameters)), name
        present = _present(wanted, name)
        _assert_equal(_present(given, name), present, f"presence of {name}")
        if not isinstance(column.values, torch.Tensor):
            assert [t for t, p in zip(other.text, present, strict=True) if p] == [
                t for t, p in zip(column.text, present, strict=True) if p
            ], name
            continue
        assert other.tensor.dtype == column.tensor.dtype, name
        assert other.tensor.shape == column.tensor.shape, name
        used = present.reshape(-1, *[1] * (column.tensor.dim() - 1)).expand(column.tensor.shape)
        scored = wanted.columns.get(name.replace(":reward/", ":scored/")) if ":reward/" in name else None
        if scored is not None:
            used = used & scored.tensor.bool()
        _assert_equal(other.tensor[used], column.tensor[used], name)


def _present(rollouts: Rollouts, name: str) -> torch.Tensor:
    column = rollouts.columns[name]
    present = torch.ones(len(column), dtype=torch.bool) if column.present is None else column.present.clone()
    if not isinstance(column.values, torch.Tensor):
        return present & torch.tensor([text is not None for text in column.values], dtype=torch.bool)
    if "log_probs/" in name:
        present &= torch.isfinite(column.values)
    return present


def _assert_equal(given: torch.Tensor, wanted: torch.Tensor, name: str) -> None:
    assert given.dtype == wanted.dtype, name
    assert torch.equal(given, wanted), f"{name}: {given} is not {wanted}"


def _same(given: Any, wanted: Any) -> bool:
    """Equal in type too, so that a tuple is no list and 1 is not 1.0."""
    if type(given) is not type(wanted):
        return False
    if isinstance(given, dict):
        return given.keys() == wanted.keys() and all(_same(given[key], wanted[key]) for key in given)
    if isinstance(given, (list, tuple)):
        return len(given) == len(wanted) and all(map(_same, given, wanted))
    return bool(given == wanted)
