"""Who can make a column that is missing."""

from __future__ import annotations

from apportion.rollouts.columns import split_name

MAKERS = {
    "log_probs/behaviour": "sampling records it; stored rollouts must bring it",
    "log_probs/old": "the trainer makes it before the first update on a batch; stored rollouts must bring it",
    "log_probs/reference": "the trainer makes it when an objective or credit asks for a reference policy",
    "entropy/": "the trainer makes it when an objective or credit asks for it",
    "vocab_mean/": "the trainer makes it when an objective or credit asks for it",
    "max_log_prob/": "the trainer makes it when an objective or credit asks for it",
    "greedy/": "the trainer makes it when an objective asks for log-probs of those tokens",
    "log_probs/prm": "a process reward model makes it, in a run --learners implicit_prm",
    "reward/step": "an environment makes it, in a run --environment; stored rollouts may bring it",
    "reward/prm": "a process reward makes it, in a run of the quickstart --annotators partial_sums, or a search, in a "
    "run --sampling search(...)",
    "node": "a search records it, in a run --sampling search(...)",
    "reward/critique": "a judge makes it, in a run --annotators steps critiques (or partial_sums critiques)",
    "reward/thinking": "a judge makes it, in a run --annotators thinking_scores",
    "label": "a judge makes it, in a run --annotators steps thought_labels (or partial_sums thought_labels)",
    "reward/subgoals": "a judge makes it, in a run --annotators subgoals(judge=..., subgoals=...)",
    "reward/attribution/": "a judge makes it, in a run --annotators attribution(judge=..., dimensions=...)",
    "reward/key/": "a judge makes it, in a run --annotators attribution(judge=..., dimensions=...)",
    "reward/rm": "a reward model makes it, in a run --learners reward_model with --rollouts that bring pairs",
    "reward/proxy": "a decoder of returns makes it, in a run --annotators latent_reward --learners return_decoder",
    "latent": "an annotator makes it, in a run --annotators latent_reward",
    "drawn": "the learner return_decoder makes it for its own updates",
    "reward/utterance_rm": "a reward model makes it, in a run --learners utterance_reward_model",
    "target/utterance": "a judge's attributions make it, in a run --learners utterance_reward_model",
    "reward/": "a verifier or a process reward makes it, or a judge of several in a run --annotators "
    "dimensions(judge=..., dimensions=...), or the rollouts file brings it",
    "values/pretrained": "a critic of the checkpoint makes it, in a run --learners pretrained_value",
    "values/critic": "a critic makes it, in a run --learners critic",
    "values/": "a critic of that head makes it, as \"critic(head='kl', returns='returns/kl')\" in a run --learners",
    "waad": "the attention annotator makes it, in a run --annotators attention_rhythm",
    "fai": "the attention annotator makes it, in a run --annotators attention_rhythm",
    "score/": "a process reward model makes it",
    "state_key": "an environment records it, in a run --environment; stored rollouts may bring it",
    "mark/": "an annotator makes it, in a run --annotators contrastive_marks",
    "margin": "a pairing by reward makes it, as apportion rollout --pairs does; stored pairs may bring it",
    "hidden_sum/": "an annotator makes it, in a run --annotators hidden_states",
    "ches": "an annotator makes it, in a run --annotators hidden_states ches",
    "precision_weight": "an annotator makes it, in a run --annotators precision_tokens",
    "truncated": "sampling records it; stored rollouts may bring it",
    "credit/returns/": "a credit method with several critics makes it, such as constrained_rlhf",
    "size": "the annotator of macro actions makes it, in a run --annotators macro_actions",
    "planning/grams": "the annotator of planning phrases makes it, in a run --annotators planning_grams(...)",
    "prompt_text": "sampling records it; stored rollouts may bring it",
    "text": "sampling records it for responses, and the annotators steps and thoughts make it for their spans",
    "credit/": "a credit method makes it, such as gae for credit/returns",
}


def maker_of(name: str) -> str:
    """Who can make a column, as the end of a sentence."""
    _, column = split_name(name)
    for beginning, maker in MAKERS.items():
        if column.startswith(beginning):
            return maker
    return "no part of this library makes it, so the rollouts must bring it"
