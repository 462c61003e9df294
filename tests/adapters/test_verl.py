"""Our methods through verl's own functions: the registry, and the path on which the installed release calls it."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, Optional

import numpy as np
import pytest
import torch
from torch import Tensor

from apportion import credit
from apportion.credit import METHODS
from apportion.errors import InputError
from apportion.rollouts import Rollouts, from_padded

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(importlib.util.find_spec("verl") is None, reason="verl is not installed"),
]

DOCUMENT = Path(__file__).parents[2] / "docs/borrow.md"
HAVE_WHAT_IT_TAKES = ["dr_grpo", "grpo", "loop", "none", "nsr", "reinforce_pp", "reinforce_pp_baseline", "rloo"]


def source(*path: str) -> ast.Module:
    spec = importlib.util.find_spec("verl")
    assert spec is not None
    assert spec.submodule_search_locations
    return ast.parse(Path(spec.submodule_search_locations[0], *path).read_text())


def defined(tree: ast.AST, name: str) -> ast.FunctionDef:
    return next(node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == name)


def calls(function: ast.FunctionDef) -> set[str]:
    """What a function calls, by the last part of the name."""
    called = [node.func for node in ast.walk(function) if isinstance(node, ast.Call)]
    return {f.attr if isinstance(f, ast.Attribute) else f.id for f in called if isinstance(f, ast.Attribute | ast.Name)}


def of_release(name: str, *path: str, **globals_: Any) -> Any:
    """A function out of the installed source, as it is written there.

    Its module imports the engines of a cluster, which a CPU does not have; the function uses none of them.
    """
    from verl import DataProto
    from verl.trainer.config import AlgoConfig
    from verl.trainer.ppo import core_algos

    names: dict[str, Any] = {
        "Any": Any,
        "Optional": Optional,
        "np": np,
        "torch": torch,
        "DataProto": DataProto,
        "AlgoConfig": AlgoConfig,
        "core_algos": core_algos,
        "AdvantageEstimator": core_algos.AdvantageEstimator,
    } | globals_
    function = defined(source(*path), name)
    function.decorator_list = []
    exec(compile(ast.Module([function], []), str(Path(*path)), "exec"), names)
    return names[name]


RAY_TRAINER = ("trainer", "ppo", "ray_trainer.py")
V1 = ("trainer", "ppo", "v1")


@pytest.fixture(scope="module")
def compute_advantage() -> Any:
    """verl's function, with our estimators registered."""
    import apportion.adapters.verl  # noqa: F401

    return of_release("compute_advantage", *RAY_TRAINER)


class Batch:
    """Two groups with holes and different lengths, two of them sharing their first tokens, and a reward behind the
    last trained token."""

    ids = torch.tensor([[5, 6, 7, 0], [5, 8, 7, 9], [3, 4, 0, 0], [3, 4, 6, 1], [5, 6, 1, 0], [3, 3, 3, 3]])
    mask = torch.tensor([[1, 1, 1, 0], [1, 0, 1, 1], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 0], [1, 1, 1, 1]])
    lengths = (3, 4, 2, 4, 3, 4)
    uid = np.array(["a", "a", "b", "b", "a", "b"], dtype=object)
    rewards = torch.zeros(6, 4)
    rewards[0, 2] = rewards[3, 3] = rewards[5, 3] = 1.0

    @classmethod
    def proto(cls, rewards: Tensor | None = None) -> Any:
        from verl import DataProto

        return DataProto.from_dict(
            tensors={
                "token_level_rewards": cls.rewards if rewards is None else rewards,
                "response_mask": cls.mask,
                "responses": cls.ids,
            },
            non_tensors={"uid": cls.uid},
        )

    @classmethod
    def rollouts(cls) -> Rollouts:
        """The same, built another way: a reward an episode."""
        groups = torch.tensor([0, 0, 1, 1, 0, 1])
        return from_padded(cls.ids, cls.mask, cls.rewards.sum(1), groups, lengths=torch.tensor(cls.lengths))


def run(compute_advantage: Any, name: str, data: Any) -> tuple[Tensor, Tensor]:
    from verl.trainer.config import AlgoConfig

    done = compute_advantage(data, name, config=AlgoConfig()).batch
    return done["advantages"], done["returns"]


@pytest.mark.parametrize("method", HAVE_WHAT_IT_TAKES)
def test_methods_of_rewards_mask_and_uid_run(compute_advantage: Any, method: str) -> None:
    advantages, returns = run(compute_advantage, f"apportion_{method}", Batch.proto())
    given = METHODS[method]()(Batch.rollouts())
    expected = given.to_padded(4).float()
    assert advantages.dtype == torch.float32
    assert torch.allclose(advantages, expected, rtol=0, atol=1e-6)
    assert bool(advantages.any()) == (method != "none")
    assert not advantages[Batch.mask == 0].any()
    assert returns.shape == advantages.shape
    if "credit/returns" not in METHODS[method]().makes:
        assert torch.equal(returns, advantages)


def test_ours_equal_verls_own_where_both_have_a_method(compute_advantage: Any) -> None:
    """On rows without holes; verl's rloo gives untrained tokens none, as ours."""
    ours, _ = run(compute_advantage, "apportion_rloo", Batch.proto())
    theirs, _ = run(compute_advantage, "rloo", Batch.proto())
    assert torch.allclose(ours, theirs, rtol=0, atol=1e-6)
    ours, _ = run(compute_advantage, "apportion_grpo", Batch.proto())
    theirs, _ = run(compute_advantage, "grpo", Batch.proto())
    assert torch.allclose(ours, theirs, rtol=0, atol=1e-5)


def test_methods_that_need_more_refuse_by_name(compute_advantage: Any) -> None:
    refused = {}
    for method in METHODS:
        try:
            run(compute_advantage, f"apportion_{method}", Batch.proto(Batch.rewards))
        except InputError as error:
            refused[method] = str(error)
    assert "apportion_tempo looks at which tokens were sampled, and verl's hook hands no token ids" in refused["tempo"]
    assert "apportion_gae needs 'values/critic'" in refused["gae"]
    assert "apportion_gigpo needs 'reward/step', 'steps:state_key'" in refused["gigpo"]
    assert "apportion_constrained_rlhf needs" in refused["constrained_rlhf"]
    assert not set(HAVE_WHAT_IT_TAKES) & set(refused)
    for method, stage in ((name, METHODS[name]()) for name in METHODS):
        if stage.reads_ids or stage.compares_branches or set(stage.needs) - {"reward/outcome"}:
            assert method in refused or method == "pure"


def test_tokens_out_of_the_normaliser_are_refused(compute_advantage: Any) -> None:
    equal = Batch.rewards.clone()
    equal[0, 2] = 0.0  # all of group a are wrong
    with pytest.raises(InputError, match=r"apportion_dapo takes \d+ tokens out of the normaliser"):
        run(compute_advantage, "apportion_dapo", Batch.proto(equal))


def test_an_unknown_reward_or_a_missing_uid_is_an_error(compute_advantage: Any) -> None:
    with pytest.raises(InputError, match="unknown reward"):
        run(
            compute_advantage,
            "apportion_rloo",
            Batch.proto(Batch.rewards.clone().index_fill_(0, torch.tensor(1), torch.nan)),
        )
    data = Batch.proto()
    del data.non_tensor_batch["uid"]
    with pytest.raises(InputError, match="apportion_rloo compares the responses to a prompt, and the batch has no uid"):
        run(compute_advantage, "apportion_rloo", data)


def test_pure_reads_scores_of_steps(compute_advantage: Any) -> None:
    scores = torch.tensor(
        [
            [0, 0.5, -0.25, 0],
            [0.75, 0, 0, 0.5],
            [0, 1.0, 0, 0],
            [-0.5, 0, 0.25, 0],
            [0, 0, 0.75, 0],
            [0.5, 0.25, 0, 1.0],
        ]
    )
    advantages, _ = run(compute_advantage, "apportion_pure", Batch.proto(scores))
    lengths, groups = torch.tensor([3, 4, 2, 3, 3, 4]), torch.tensor([0, 0, 1, 1, 0, 1])
    plain = from_padded(Batch.ids, Batch.mask, torch.zeros(6), groups, lengths=lengths)
    starts, ends, of_step = [], [], []
    for row, start in zip(scores.tolist(), plain.token_offsets.tolist(), strict=False):
        begun = 0
        for place, score in enumerate(row):
            if score:
                starts.append(start + begun)
                ends.append(start + place + 1)
                of_step.append(score)
                begun = place + 1
    stepped = plain.with_spans("step", torch.tensor(starts), torch.tensor(ends))
    stepped = stepped.with_reward("prm", torch.tensor(of_step), level="step")
    expected = METHODS["pure"](verifiable=None)(stepped).to_padded(4).float()
    assert expected.any()
    assert torch.allclose(advantages, expected, rtol=0, atol=1e-5)


def test_a_response_without_a_score_is_one_step_of_score_0(compute_advantage: Any) -> None:
    scores = torch.tensor([[0, 0.5, -0.25, 0], [0, 0, 0, 0], [0, 1.0, 0, 0], [-0.5, 0, 0.25, 0], [0.0] * 4, [0.5] * 4])
    advantages, _ = run(compute_advantage, "apportion_pure", Batch.proto(scores))
    assert advantages.isfinite().all()
    assert all(len(set(advantages[b][Batch.mask[b] != 0].tolist())) == 1 for b in (1, 4))
    assert not advantages[Batch.mask == 0].any()


@pytest.mark.parametrize(("setting", "value"), [("norm_adv_by_std_in_grpo", False), ("gamma", 0.5), ("lam", 0.9)])
def test_settings_that_nothing_would_read_are_refused(compute_advantage: Any, setting: str, value: Any) -> None:
    from verl.trainer.config import AlgoConfig

    with pytest.raises(InputError, match=f"algorithm.{setting} is {value}, and nothing would read it"):
        compute_advantage(Batch.proto(), "apportion_grpo", config=AlgoConfig(**{setting: value}))


def test_settings_are_registered_under_a_name_of_ones_own(compute_advantage: Any) -> None:
    from apportion.adapters.verl import register

    register("half_of_rloo", f"{__name__}:half")
    ours, _ = run(compute_advantage, "half_of_rloo", Batch.proto())
    whole, _ = run(compute_advantage, "apportion_rloo", Batch.proto())
    assert ours.any()
    assert torch.allclose(2 * ours, whole)
    with pytest.raises(InputError, match="did you mean 'rloo'"):
        register("wrong", "rlo")


def half() -> credit.Stage:
    """RLOO, halved."""
    return credit.chain(METHODS["rloo"](), credit.scale(0.5))


# Token ids


@contextmanager
def wrapped(name: str, **modules: ModuleType) -> Iterator[None]:
    """The file of that name in the document, run where these modules stand for verl's."""
    text = re.search(rf"^```py {re.escape(name)}\n(.*?)^```$", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)
    assert text is not None
    with pytest.MonkeyPatch.context() as patch:
        for module, stands in modules.items():
            path = module.replace("__", ".")
            patch.setitem(sys.modules, path, stands)
            package, _, last = path.rpartition(".")
            if package in sys.modules:
                patch.setattr(sys.modules[package], last, stands, raising=False)
        exec(compile(text[1], name, "exec"), {})
        yield


def stand_in(name: str, **content: Any) -> ModuleType:
    module = ModuleType(name)
    module.__dict__.update(content)
    return module


def tempo_of_batch() -> Tensor:
    return METHODS["tempo"]()(Batch.rollouts()).to_padded(4).float()


def test_tempo_runs_in_the_documents_wrapper_of_compute_advantage(compute_advantage: Any) -> None:
    ray_trainer = stand_in("ray_trainer", compute_advantage=compute_advantage)
    with wrapped("ids_for_verl_v0.py", verl__trainer__ppo__ray_trainer=ray_trainer):
        advantages, _ = run(ray_trainer.compute_advantage, "apportion_tempo", Batch.proto())
    assert torch.allclose(advantages, tempo_of_batch(), rtol=0, atol=1e-6)
    rloo = METHODS["grpo"]()(Batch.rollouts()).to_padded(4).float()
    assert not torch.allclose(advantages, rloo, atol=0.1)
    with pytest.raises(InputError, match="no token ids"):  # ids do not outlive the call
        run(compute_advantage, "apportion_tempo", Batch.proto())


class Meta:
    """The rows of a batch in the queue."""

    keys = tuple(f"{uid}_{i}_0" for i, uid in enumerate("aabbab"))
    partition_id = "train"

    def __len__(self) -> int:
        return len(self.keys)


class Queue:
    """Columns as the transfer queue gives them, and what is put back."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.put: Any = None

    def kv_batch_get(self, keys: Any, partition_id: Any, select_fields: list[str]) -> Any:
        from tensordict import NonTensorStack, TensorDict

        self.asked.append(select_fields)
        rows = {
            "responses": Batch.ids,
            "response_mask": Batch.mask,
            "rm_scores": Batch.rewards,
            "rollout_log_probs": torch.zeros(6, 4),
            "old_log_probs": torch.zeros(6, 4),
        }
        found: dict[str, Any] = {
            name: torch.nested.as_nested_tensor(
                [row[:n] for row, n in zip(rows[name], Batch.lengths, strict=True)], layout=torch.jagged
            )
            for name in select_fields
            if name in rows
        }
        if "uid" in select_fields:
            found["uid"] = NonTensorStack(*Batch.uid)
        return TensorDict(found, batch_size=6)

    def kv_batch_put(self, keys: Any, partition_id: Any, fields: Any) -> Any:
        self.put = fields
        return "batch"


def test_tempo_runs_in_the_documents_wrapper_of_the_current_trainer(compute_advantage: Any) -> None:
    from tensordict import TensorDict
    from verl.trainer.config import AlgoConfig

    queue = Queue()
    several = of_release(
        "compute_advantage_for_multi_trajectories", *V1, "utils.py", compute_advantage=compute_advantage
    )
    to_nested = of_release("response_to_nested", "workers", "utils", "padding.py")
    inner = of_release(
        "_compute_advantage",
        *V1,
        "trainer_base.py",
        KVBatchMeta=object,
        tq=queue,
        TensorDict=TensorDict,
        response_to_nested=to_nested,
        compute_advantage_for_multi_trajectories=several,
    )

    class PPOTrainer:
        _compute_advantage = inner
        config = SimpleNamespace(
            algorithm=AlgoConfig(adv_estimator="apportion_tempo"),
            actor_rollout_ref=SimpleNamespace(rollout=SimpleNamespace(n=3)),
        )

    trainer_base = stand_in("trainer_base", PPOTrainer=PPOTrainer)
    v1 = stand_in("v1", trainer_base=trainer_base)
    with wrapped(
        "ids_for_verl.py",
        transfer_queue=stand_in("transfer_queue", kv_batch_get=queue.kv_batch_get),
        verl__trainer__ppo__v1=v1,
        verl__trainer__ppo__v1__trainer_base=trainer_base,
    ):
        PPOTrainer()._compute_advantage(Meta(), {})
    given = queue.put["advantages"].to_padded_tensor(0)
    assert ["responses"] in queue.asked
    assert torch.allclose(given, tempo_of_batch(), rtol=0, atol=1e-6)


# Which path the installed release takes


def test_the_release_calls_estimators_by_name_through_compute_advantage() -> None:
    assert "get_adv_estimator_fn" in calls(defined(source(*RAY_TRAINER), "compute_advantage"))
    assert "compute_advantage" in calls(defined(source(*RAY_TRAINER), "fit"))
    assert "compute_advantage" in calls(defined(source(*V1, "utils.py"), "compute_advantage_for_multi_trajectories"))
    step = defined(source(*V1, "trainer_base.py"), "_compute_advantage")
    assert "compute_advantage_for_multi_trajectories" in calls(step)
    classes = [n for n in ast.walk(source(*V1, "trainer_base.py")) if isinstance(n, ast.ClassDef)]
    assert [c.name for c in classes if step.name in {f.name for f in c.body if isinstance(f, ast.FunctionDef)}] == [
        "PPOTrainer"
    ]


def test_verl_loads_the_module_that_its_variable_names() -> None:
    code = (
        "import verl; from verl.trainer.ppo.core_algos import get_adv_estimator_fn as find; "
        "print(find('apportion_rloo').__module__, find('rloo').__module__)"
    )
    variables = os.environ | {"VERL_USE_EXTERNAL_MODULES": "apportion.adapters.verl"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=variables, check=True)
    assert done.stdout.split() == ["apportion.adapters.verl", "verl.trainer.ppo.core_algos"]
