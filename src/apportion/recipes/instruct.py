"""An instruction model on your own questions."""

from __future__ import annotations

from apportion.training.config import TrainConfig


def instruct() -> TrainConfig:
    """SmolLM2-135M-Instruct, or any chat model, on any tasks; by default one-digit sums.

    Weights stay in float32; sampling and the training forward pass run in bfloat16.
    """
    return TrainConfig(
        model="smollm2",
        tasks=("chain_sum(min_terms=2, max_terms=2, min_digits=1, max_digits=1)",),
        verifier="integer",
        credit="grpo",
        objective=("clip(low=0.2, high=0.28)",),
        prompts_per_step=4,
        group_size=8,
        max_new_tokens=16,
        steps=20,
        learning_rate=1e-5,
        autocast="bfloat16",
        sampling_dtype="bfloat16",
        mismatch_tolerance=0.1,
        eval_prompts=40,
        save_every=10,
    )
