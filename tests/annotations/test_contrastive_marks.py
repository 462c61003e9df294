"""Marks of tokens from two prompts about the same answer, against passes over the rows by themselves."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from apportion.annotations import ANNOTATORS
from apportion.annotations.contrastive_marks import marks, with_prompts
from apportion.errors import InputError, MissingColumn
from apportion.models.digits import digit_llama
from apportion.models.tabular import TabularPolicy
from apportion.rollouts import Rollouts

BETTER, WORSE = "{answer}={prompt}", "{prompt}{answer}={prompt}"


def policy() -> Any:
    """Digits with weights large enough to have opinions."""
    made = digit_llama(hidden=16, layers=1, heads=2, seed=3, dtype="float64")
    with torch.no_grad():
        for parameter in made.model.parameters():
            if parameter.dim() == 2:
                parameter.mul_(4)
    return made


def answered(prompts: list[str], answers: list[str], **given: Any) -> Rollouts:
    """Responses with their texts, as sampling stores them."""
    tokenizer = policy().tokenizer
    rollouts = Rollouts.from_lists(
        [tokenizer(answer).input_ids for answer in answers],
        groups=[0] * len(answers),
        prompts=[tokenizer(prompt).input_ids for prompt in prompts],
        **given,
    )
    rollouts = rollouts.with_column("response:text", answers)
    return rollouts.with_column("response:prompt_text", prompts)


def log_probs(model: Any, prompt: str, answer: str, temperature: float = 1.0) -> torch.Tensor:
    ids = torch.tensor(model.tokenizer(prompt).input_ids), torch.tensor(model.tokenizer(answer).input_ids)
    with torch.no_grad():
        logits = model.model(torch.cat(ids)[None]).logits[0, len(ids[0]) - 1 : -1] / temperature
    return logits.log_softmax(-1).gather(1, ids[1][:, None]).squeeze(1)


def test_every_answer_is_scored_behind_both_prompts() -> None:
    model, rollouts = policy(), answered(["12=3", "4=5", "4=5"], ["57.", "9.", ""])
    marked = ANNOTATORS["contrastive_marks"](better=BETTER, worse=WORSE, micro_batch_tokens=20).apply(rollouts, model)
    expected = []
    for prompt, answer in (("12=3", "57."), ("4=5", "9.")):
        better = log_probs(model, f"{answer}={prompt}", answer)
        worse = log_probs(model, f"{prompt}{answer}={prompt}", answer)
        expected.append(torch.sigmoid(better - worse) - 0.5)
    found = marked.column("mark/contrastive")
    torch.testing.assert_close(found, torch.cat(expected))
    assert found.abs().max() > 0.05
    # The tokens, their own prompts and everything else are as they were.
    assert torch.equal(marked.ids, rollouts.ids)
    assert torch.equal(marked.prompt_ids, rollouts.prompt_ids)
    assert set(marked.columns) == {*rollouts.columns, "token:mark/contrastive"}


def test_equal_templates_mark_nothing() -> None:
    rollouts = answered(["12=3"], ["57."])
    marked = ANNOTATORS["contrastive_marks"](better=BETTER, worse=BETTER).apply(rollouts, policy())
    assert marked.column("mark/contrastive").tolist() == [0.0] * 3


def test_marks_saturate_and_turn_their_sign() -> None:
    better, worse = torch.tensor([-1.0, -1000.0, -1.0]), torch.tensor([-1000.0, -1.0, -1.5])
    assert marks(better, worse)[:2].tolist() == [0.5, -0.5]
    torch.testing.assert_close(marks(better, worse), -marks(worse, better))


def test_tokens_that_do_not_train_are_not_marked() -> None:
    rollouts = answered(["12=3", "4=5"], ["57.", "9."], trained=[[1, 0, 1], [1, 1]])
    marked = ANNOTATORS["contrastive_marks"](better=BETTER, worse=WORSE).apply(rollouts, policy())
    present = marked.columns["token:mark/contrastive"].present
    assert present is not None
    assert present.tolist() == [True, False, True, True, True]


def test_scores_are_taken_at_the_temperature_of_the_response() -> None:
    model, rollouts = policy(), answered(["12=3"], ["57."])
    warm = rollouts.with_column("response:temperature", torch.tensor([2.0]))
    marked = ANNOTATORS["contrastive_marks"](better=BETTER, worse=WORSE).apply(warm, model)
    both = (log_probs(model, text.format(prompt="12=3", answer="57."), "57.", 2.0) for text in (BETTER, WORSE))
    torch.testing.assert_close(marked.column("mark/contrastive"), marks(*both))


@pytest.mark.parametrize("hostile", ["{prompt}", "{answer}", "{0}{}", "{prompt!r}", "}{", "%s \\1 \x00"])
def test_texts_are_never_read_as_templates(hostile: str) -> None:
    class Reads:
        context = 1 << 20
        asked: list[str] = []  # noqa: RUF012

        def codec(self, instruction: str, chat: bool | None) -> Reads:
            return self

        def encode(self, task: Any) -> list[int]:
            self.asked.append(task.prompt)
            return [1]

    rollouts = Rollouts.from_lists([[1]], groups=[0], prompts=[[2]])
    rollouts = rollouts.with_column("response:text", [f"a{hostile}"])
    rollouts = rollouts.with_column("response:prompt_text", [f"p{hostile}"])
    reader = Reads()
    with_prompts(rollouts, reader, "<{prompt}|{answer}|{prompt}|{other}>")
    assert reader.asked.pop() == f"<p{hostile}|a{hostile}|p{hostile}|{{other}}>"


def test_an_annotator_says_whose_opinion_it_wants() -> None:
    made = {name: ANNOTATORS["contrastive_marks"](evaluator=name) for name in ("old", "reference")}
    assert {name: annotator.evaluator for name, annotator in made.items()} == {"old": "old", "reference": "reference"}
    assert made["old"].makes == ("mark/contrastive",)
    assert ANNOTATORS["partial_sums"]().evaluator == "old"


def test_bad_input() -> None:
    build = ANNOTATORS["contrastive_marks"]
    with pytest.raises(InputError, match=r"the template 'worse' does not show the answer: write \{answer\}"):
        build(better=BETTER, worse="{prompt}")
    with pytest.raises(InputError, match="unknown evaluator 'policy'"):
        build(evaluator="policy")
    bare = Rollouts.from_lists([[1]], groups=[0], prompts=[[2]])
    annotator = build(better=BETTER, worse=WORSE)
    with pytest.raises(MissingColumn, match="'response:text'"):
        annotator.apply(bare, policy())
    with pytest.raises(InputError, match="a response has no text, expected prompt_text and text of every response"):
        annotator.apply(answered(["1=2"], ["3."]).with_column("response:prompt_text", [None]), policy())
    with pytest.raises(InputError, match=r"have \d+ tokens, expected at most 64, the model's context"):
        build().apply(answered(["1=2"], ["3."]), policy())
    with pytest.raises(InputError, match="none of the policy's 1"):
        annotator.apply(answered(["1=2"], ["3."]), TabularPolicy(vocabulary=13, depth=3))
