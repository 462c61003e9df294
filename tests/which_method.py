"""docs/which_method.md: which method to use, with every figure taken from what was measured.

Figures are filled into the text, and what the text says of them is checked: where measurements no longer bear a
sentence out, the page cannot be made, and the sentence must be rewritten.

python tests/test_docs.py --write      writes the page
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from apportion.recipes.tree_study import FIRST, controls, difference, on_trees

DOCS = Path(__file__).parents[1] / "docs"
PAGE = DOCS / "which_method.md"
TEMPO, CRITIC = "tempo(norm_by_std=False)", "gae(whiten=False)"
TD, FRESH = "gae(lam=0.0, whiten=False)", "gae(lam=0.0, whiten=False, head='fresh')"
CALM = "calm(gamma=1.0, potential=True)"
ZERO_ONE = "clearer with rewards of 0 and 1"
NONCE = ("unique_nonce", 8, "correlation")


class Changed(AssertionError):
    """What was measured no longer bears a sentence out."""


class Figures:
    """What was measured: of methods against exact values, of papers' claims, and in the study of trees."""

    def __init__(self, folder: Path = DOCS) -> None:
        self.calibration = json.loads((folder / "calibration.json").read_text(encoding="utf-8"))
        self.claims = json.loads((folder / "claims.json").read_text(encoding="utf-8"))["claims"]
        self.study = json.loads((folder / "studies/trees.json").read_text(encoding="utf-8"))

    def method(self, spec: str, noise: float | None = None) -> dict[str, Any]:
        """A row of the leaderboard; noise: of its annotations."""
        (row,) = (r for r in self.calibration["methods"] if (r["spec"], r["noise"]) == (spec, noise))
        return dict(row)

    def cell(self, spec: str, world: str, size: int, name: str) -> float:
        """A figure without an interval of a method in one world."""
        columns = self.calibration["columns"]
        wanted = {"spec": spec, "noise": None, "world": world, "size": size}
        (row,) = (c for c in self.calibration["cells"] if all(c[columns.index(k)] == v for k, v in wanted.items()))
        return float(row[columns.index(name)])

    def claim(self, method: str, title: str, verdict: str = "reproduced") -> float:
        """The effect of a claim, whose verdict must be this one."""
        (found,) = (c for c in self.claims if (c["method"], c["title"]) == (method, title))
        if found["verdict"] != verdict:
            raise Changed(f"{PAGE.name}: the claim {method}: {title} is {found['verdict']}, not {verdict}.")
        return float(found["effect"])

    def with_verdict(self, verdict: str) -> str:
        """The claims of a verdict, in a row."""
        return ", ".join(f"`{c['method']}` ({c['title']})" for c in self.claims if c["verdict"] == verdict)

    def in_runs(self, arm: str) -> dict[str, dict[str, float]]:
        """Accuracy of an arm of the study less that of GRPO, with its interval, in every task that was looked at."""
        return {task: difference(report, arm, FIRST) for task, report in self.study["looked_at"].items()}


TEXT = """\
# Which method should I use?

Every sentence here rests on a figure: of the [leaderboard](leaderboard.md) ({worlds} small worlds whose exact gradient
is known; it explains *noise*, *angle* and agreement), of the [claims](claims.md) (each paper's claim as an experiment,
with its interval; only what two ranges of seeds reproduced counts as reproduced), or of
[a study of whole runs](tree_study.md). None of them says what happens with large models. The page is made from these
figures, and cannot be made when one of them turns.

## You have a verifier and nothing else

- Begin with `rloo`: its angle to the exact gradient is 0 in every world, and it needs nothing but the group. Against
  the mean of a whole batch as baseline it spares {rloo_spares} of the samples where prompts pay differently, and needs
  {rloo_needs} more where rewards are 0 and 1.
- `dr_grpo` is as good up to a factor.
- `grpo` divides by the group's deviation: no matter where rewards are right or wrong, {grpo_worst} degrees off at worst
  where they are graded.
- With one response a prompt, `reinforce_pp` takes the batch's mean for a baseline: its gradient spares {single} of the
  samples against groups of four.

## Whole groups are right, or whole groups are wrong

- Drawing again until groups are mixed (`dapo` with `--resample`) took {resample} times the responses that GRPO took
  with as many groups a step: the ones thrown away are paid for all the same.
- Where nothing is ever right, imitating a few imperfect demonstrations first raised success by {imitation}. Hints where
  a whole group fails (`--sampling ghpo`) did not teach sooner than hints given regardless ({hints} of the responses
  saved).
- Where everything is right, `tp_grpo` still learns from a judge's labels: it saved {mistakes} of the updates against
  GRPO on the share of steps that the judge calls sound.
- Leaving attempts that were cut off out of the loss (`cad_rl`) made answers right more often ({overlong}); a soft
  penalty before the limit did not ({soft}).

## Responses share long beginnings

- `tempo(norm_by_std=False)` agrees with the exact advantage at {tempo_agrees} on average where `rloo` has
  {rloo_agrees}, at a noise of {tempo_noise} of `rloo`'s and {tempo_angle} degrees of bias.
- Where every prefix is unique it agrees less than `dr_grpo` does ({tempo_unique} against {dr_grpo_unique}, in groups of
  8).
- That it needs fewer updates was not reproduced (it saved {tempo_saves}), and in whole runs of small models no interval
  of its accuracy less GRPO's was free of 0; the largest difference was {tempo_runs}.

## You can afford further continuations

- `gae(lam=0.0)` on values from fresh continuations is exact and has {fresh_noise} of `rloo`'s noise, at {fresh_cost}
  rollouts for each that is credited; the same rollouts spent on more responses lower noise {fresh_cost} times.
- `vine` did not pay for its continuations: {vine_noise} times the noise for the same tokens. Whether it knows better
  which token earned the reward than `rloo` with as many tokens is open (agreement {vine_agrees}; a tenth was asked
  for).
- Branching is exact too: `tree` and `tree_shrunk` on forks have noises of {tree_noise} and {shrunk_noise}. Shrinking
  makes credit {shrunk_closer} times closer to the exact advantage.
- In the study of whole runs no arm on trees was above GRPO, and above GRPO at twice the rate, on fresh seeds.
- Whether branching at critical tokens (`--sampling cure`) keeps more entropy than at random places is open ({cure}
  nats).

## Episodes of several turns

- `gigpo`, which compares decisions taken in the same state, saved {gigpo_saves} of the updates, and {gigpo_long} where
  episodes are long; it is biased by {gigpo_angle} degrees, at most {gigpo_worst}.
- The mean of a task's other attempts (`loop`) had {loop_variance} less noise than that of all attempts as a baseline,
  not the half that was asked for; ratios of tokens learned less from a batch than those of trajectories
  ({loop_ratios} in expected reward).
- Actions of several tokens (`ma_rlhf`) saved {macro} of the updates once either has its own lambda, which is 1: less
  than the fifth that was asked for.

## You have a critic you trust

- With right values `gae(whiten=False)` is exact at {critic_noise} of `rloo`'s noise, and at {critic_off_noise} with
  values half a deviation off.
- `gae(lam=0.0, whiten=False)` has {td_noise} and no bias with right values, and with those {td_angle} degrees of bias.
  A lambda between the two did not learn more than the better of them ({between}).

## A judge or a process reward looks at steps

- Potential-based shaping (`calm(gamma=1.0, potential=True)`) stays exact whatever the judge says, and gains no noise
  either ({calm_noise}). Methods that pay for steps are off by what the judge gets wrong: see their angles with noise 0
  and 0.5.
- Paying is faster where rewards are late: with `calm` a policy took {calm_sooner} times fewer attempts, {calm_errs}
  times with one verdict in twenty turned round.
- Summed process rewards are hacked by ever more steps; under their minimum (`pure`) responses were {pure_steps} steps
  shorter, of 8, and a good solution within the budget {pure_solves} likelier.
- `tp_grpo` saved {thoughts} of GRPO's updates. Where the outcome says nothing of a step, `capo` made it right in {capo}
  fewer updates than wrong steps taken off the outcome; whether answers are right sooner is open.
- A process reward learned from outcomes (`oprl`) found the turn that decides, but adding it took {oprl} times the
  updates.
- A model trained to prefer successful trajectories (`implicit_prm`) scored steps no better than prefix values of the
  same trajectories ({implicit}).
- Step labels from a search with tool verdicts (`grounded_prm`) were more accurate than labels of the same steps from
  the success of rollouts ({labels}), not more so than the tool where it agrees with the outcome ({over_tool}).

## Right answers must stay different

- `rover` kept {rover} more of four right answers alive than GRPO at equal success; `pacs` kept fewer ({pacs}).
- A bonus for entropy raised the reward in the end by {bonus}.
- A higher clip (`clip(high=0.28)`) left a rare good answer less likely, each at its best rate ({rare}). Rehearsing what
  the initial policy solves (`dph_rl`) kept no more of its ways than imitating the same answers ({modes}).
- Penalising wrong answers alone (`nsr`) kept no more diversity than rewarding right ones alone ({nsr}), and took
  {nsr_updates} times the updates.
- Where the reward can be gamed, a penalty on the divergence from the reference (`kl`) left the good answer {gamed}
  likelier; `kl` with k3 does not penalise the divergence that its value estimates.

## You have pairs, not rewards

- Training on the quarter of the pairs with the lowest CHES left preferred answers {ches} nats likelier than training on
  a random quarter.
- A policy tuned on whole responses knows the tokens: its log-ratios agreed with the soft-optimal advantage at
  {token_dpo} (`token_dpo`). With noisy marks of tokens (`t_reg`) {marks} more of the held-out pairs were in the right
  order.

## What these experiments do not bear out

Not reproduced: {not_reproduced}.

Inconclusive: {inconclusive}.
"""


def page(figures: Figures | None = None) -> str:
    """The text of the page.

    Raises:
        Changed: a sentence is no longer borne out.
    """
    f = Figures() if figures is None else figures
    for sentence, holds in rests_on(f).items():
        if not holds:
            raise Changed(f"{PAGE.name} says what is no longer measured, rewrite it: {sentence}")
    return TEXT.format_map(filled_in(f))


def rests_on(f: Figures) -> dict[str, bool]:
    """What the text says of its figures, and whether it holds."""
    rloo, dr_grpo, grpo, tempo = map(f.method, ("rloo", "dr_grpo", "grpo", TEMPO))
    calm = [f.method(CALM, noise) for noise in (0.0, 0.5)]
    forks = [f.method(f"{name} on forks") for name in ("tree", "tree_shrunk")]
    runs = f.in_runs("tempo")
    confirmed = [
        (task, arm["name"])
        for task, report in f.study["confirmed"].items()
        for arm in report["arms"]
        if on_trees(arm["name"])
    ]
    return {
        "rloo is exact in every world": rloo["angle"] == rloo["largest_angle"] == 0,
        "dr_grpo is as good up to a factor": dr_grpo["angle"] == dr_grpo["largest_angle"] == 0,
        "grpo is far off where rewards are graded": grpo["largest_angle"] > 10
        and grpo["largest_angle_in"] == "graded_outcome",
        "tempo agrees more, at no more noise": tempo["correlation"] > rloo["correlation"]
        and tempo["noise_against_baseline"] < 1,
        "tempo agrees less where prefixes are unique": f.cell(TEMPO, *NONCE) < f.cell("dr_grpo", *NONCE),
        "no interval of tempo in whole runs is free of 0": all(run["low"] < 0 < run["high"] for run in runs.values()),
        "fresh values are exact": f.method(FRESH)["angle"] == 0,
        "rloo needs more samples where rewards are 0 and 1": f.claim("rloo", ZERO_ONE, "not reproduced") < 0,
        "dapo takes more responses": f.claim("dapo", "dynamic sampling", "not reproduced") < 0,
        "hints by need are no sooner": f.claim("ghpo", "hints", "not reproduced") < 0,
        "loop has less noise, far from half": 0 < f.claim("loop", "variance", "not reproduced") < 0.25,
        "a higher clip is worse for the rare": f.claim("clip", "higher for the rare", "not reproduced") < 0,
        "nsr takes more updates": f.claim("nsr", "accuracy", "not reproduced") < 0,
        "vine does not pay for its tokens": f.claim("vine", "pays for its tokens", "not reproduced") < 0,
        "forks are exact and noisier": all(row["angle"] == 0 and row["noise_against_baseline"] > 1 for row in forks),
        "an arm on trees was taken to fresh seeds": bool(confirmed),
        "no arm on trees was above both controls there": not any(
            all(difference(f.study["confirmed"][task], arm, control)["low"] > 0 for control in controls(arm))
            for task, arm in confirmed
        ),
        "ratios of tokens learn less": f.claim("loop", "ratios of tokens", "not reproduced") < 0,
        "a right critic is exact": f.method(CRITIC, 0.0)["angle"] == 0 == f.method(TD, 0.0)["angle"],
        "a wrong one is not, at lambda 0": f.method(TD, 0.5)["angle"] > 5,
        "potential-based shaping stays exact": all(row["angle"] == 0 for row in calm),
        "and gains no noise": max(row["noise_against_baseline"] for row in calm) < 1.05,
        "whether capo is sooner is open": math.isfinite(f.claim("capo", "fewer updates", "inconclusive")),
        "oprl finds the turn that decides": f.claim("oprl", "the deciding turn") > 0,
        "oprl takes more updates": f.claim("oprl", "fewer updates", "not reproduced") < 0,
        "pacs keeps fewer right answers": f.claim("pacs", "more right answers than GRPO", "not reproduced") < 0,
        "k3 does not penalise the divergence": f.claim("kl", "k3 is the divergence", "not reproduced") < 0,
    }


def filled_in(f: Figures) -> dict[str, str]:
    """Every figure of the text."""
    tempo, gigpo, fresh = f.method(TEMPO), f.method("gigpo"), f.method(FRESH)
    runs = f.in_runs("tempo")
    widest = max(runs, key=lambda task: abs(runs[task]["value"]))
    low, high = (f"{runs[widest][end]:+.3f}" for end in ("low", "high"))
    calm = f.method(CALM, 0.5)
    return {
        "worlds": str(len(f.calibration["worlds"])),
        "rloo_spares": share(f.claim("rloo", "clearer than a batch's baseline")),
        "rloo_needs": share(-f.claim("rloo", ZERO_ONE, "not reproduced")),
        "grpo_worst": f"{f.method('grpo')['largest_angle']:.0f}",
        "single": share(f.claim("reinforce_pp", "without groups")),
        "resample": f"{1 - f.claim('dapo', 'dynamic sampling', 'not reproduced'):.1f}",
        "hints": share(f.claim("ghpo", "hints", "not reproduced")),
        "imitation": f"{f.claim('imitation', 'a warm start'):.2f}",
        "mistakes": share(f.claim("tp_grpo", "solved prompts")),
        "overlong": f"{f.claim('cad_rl', 'overlong filter'):+.3f}",
        "soft": f"{f.claim('dapo', 'a soft limit', 'not reproduced'):+.3f}",
        "tempo_agrees": f"{tempo['correlation']:.2f}",
        "rloo_agrees": f"{f.method('rloo')['correlation']:.2f}",
        "tempo_noise": f"{tempo['noise_against_baseline']:.2f}",
        "tempo_angle": f"{tempo['angle']:.1f}",
        "tempo_unique": f"{f.cell(TEMPO, *NONCE):.2f}",
        "dr_grpo_unique": f"{f.cell('dr_grpo', *NONCE):.2f}",
        "tempo_saves": share(f.claim("tempo", "fewer updates", "not reproduced")),
        "tempo_runs": f"{runs[widest]['value']:+.3f} [{low}, {high}] in `{widest}`",
        "fresh_noise": f"{fresh['noise_against_baseline']:.2f}",
        "fresh_cost": f"{fresh['cost']:.0f}",
        "vine_agrees": f"{f.claim('vine', 'agreement', 'inconclusive'):+.2f}",
        "vine_noise": f"{math.exp(-f.claim('vine', 'pays for its tokens', 'not reproduced')):.1f}",
        "tree_noise": f"{f.method('tree on forks')['noise_against_baseline']:.2f}",
        "shrunk_noise": f"{f.method('tree_shrunk on forks')['noise_against_baseline']:.2f}",
        "shrunk_closer": f"{math.exp(f.claim('tree_shrunk', 'closer than siblings')):.1f}",
        "cure": f"{f.claim('cure', 'entropy kept', 'inconclusive'):+.2f}",
        "gigpo_saves": share(f.claim("gigpo", "fewer updates")),
        "gigpo_long": share(f.claim("gigpo", "longer episodes")),
        "gigpo_angle": f"{gigpo['angle']:.1f}",
        "gigpo_worst": f"{gigpo['largest_angle']:.1f}",
        "loop_variance": share(f.claim("loop", "variance", "not reproduced")),
        "loop_ratios": f"{f.claim('loop', 'ratios of tokens', 'not reproduced'):+.2f}",
        "macro": share(f.claim("ma_rlhf", "fewer updates", "not reproduced")),
        "critic_noise": f"{f.method(CRITIC, 0.0)['noise_against_baseline']:.2f}",
        "critic_off_noise": f"{f.method(CRITIC, 0.5)['noise_against_baseline']:.2f}",
        "td_noise": f"{f.method(TD, 0.0)['noise_against_baseline']:.2f}",
        "td_angle": f"{f.method(TD, 0.5)['angle']:.0f}",
        "between": f"{f.claim('gae', 'between critic and rewards', 'not reproduced'):+.3f}",
        "calm_noise": f"{calm['noise_against_baseline']:.2f}",
        "calm_sooner": f"{math.exp(f.claim('calm', 'sooner')):.1f}",
        "calm_errs": f"{math.exp(f.claim('calm', 'sooner despite errors')):.1f}",
        "pure_steps": f"{f.claim('pure', 'no padding'):.1f}",
        "pure_solves": f"{f.claim('pure', 'solving'):.2f}",
        "thoughts": share(f.claim("tp_grpo", "fewer updates")),
        "capo": share(f.claim("capo", "right steps")),
        "oprl": f"{1 - f.claim('oprl', 'fewer updates', 'not reproduced'):.1f}",
        "labels": f"{f.claim('grounded_prm', 'over rollouts'):+.2f}",
        "implicit": f"{f.claim('implicit_prm', 'steps out of trajectories', 'not reproduced'):+.2f}",
        "over_tool": f"{f.claim('grounded_prm', 'over the tool', 'not reproduced'):+.3f}",
        "modes": f"{f.claim('dph_rl', 'modes kept', 'not reproduced'):+.2f}",
        "rare": f"{f.claim('clip', 'higher for the rare', 'not reproduced'):+.2f}",
        "bonus": f"{f.claim('entropy_bonus', 'longer search'):.2f}",
        "nsr": f"{f.claim('nsr', 'diversity', 'not reproduced'):+.2f}",
        "nsr_updates": f"{1 - f.claim('nsr', 'accuracy', 'not reproduced'):.1f}",
        "pacs": f"{f.claim('pacs', 'more right answers than GRPO', 'not reproduced'):+.2f}",
        "rover": f"{f.claim('rover', 'more solutions than GRPO'):.1f}",
        "gamed": f"{f.claim('kl', 'a reward that is gamed'):.2f}",
        "ches": f"{f.claim('ches', 'the filter'):.1f}",
        "token_dpo": f"{f.claim('token_dpo', 'credit out of preferences'):.2f}",
        "marks": f"{100 * f.claim('t_reg', 'held-out pairs'):.1f} %",
        "not_reproduced": f.with_verdict("not reproduced"),
        "inconclusive": f.with_verdict("inconclusive"),
    }


def share(effect: float) -> str:
    return f"{100 * effect:.0f} %"
