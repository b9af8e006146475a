"""Critic re-fit: the policy stays, the critic is new, and rates no action near the policy's above it."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from handovers import attach, handover, log

from helpers import KINDS, changed_roles, clone, random_learner, same_bits, small, transitions
from segue.bridges import CriticRefit, JumpStart, PolicyExpansion
from segue.bridges.critic_refit import align
from segue.core import Transition
from segue.errors import RecipeError
from segue.rng import named

MEMBERS = [("sac", "continuous"), ("td3", "continuous"), ("iql", "continuous"), ("awac", "discrete")]
every_member = pytest.mark.parametrize(
    ("name", "kind"), [pytest.param(*m, marks=pytest.mark.slow if m[0] in ("sac", "td3") else ()) for m in MEMBERS]
)
KEY = jax.random.key(0)


def fitted(learner, algorithm, kind="continuous", **options):
    """The learner after the refit; the one given is spared."""
    bridge = CriticRefit(**{"evaluate_steps": 3, "align_steps": 3, **options})
    return bridge.attach(clone(learner), handover(algorithm, kind), KEY)[0]


@every_member
def test_only_the_values_are_refitted_and_the_policy_stays_to_the_bit(name, kind):
    algorithm = small(name)
    learner = random_learner(algorithm, kind=kind)
    after = fitted(learner, algorithm, kind)
    assert changed_roles(learner, after) == {"critic", "target_critic", "value"} & set(learner.nets.roles())
    assert same_bits(after.optimisers["actor"], learner.optimisers["actor"])
    assert after.optimisers.keys() == learner.optimisers.keys()
    assert jax.tree.structure(after) == jax.tree.structure(learner)


def test_before_its_first_step_a_fresh_critic_is_just_that_and_the_given_one_is_as_given():
    algorithm = small("iql")
    learner = random_learner(algorithm)
    learner = dataclasses.replace(learner, optimisers=jax.tree.map(lambda leaf: leaf + 1, learner.optimisers))
    idle = dataclasses.replace(handover(algorithm), fit_critic=lambda learner, steps: learner)
    fresh, _ = CriticRefit(align_steps=0).attach(clone(learner), idle, KEY)
    initial = algorithm.init(named(KEY, "init"), KINDS["continuous"])
    for role in ("critic", "target_critic", "value"):
        assert same_bits(getattr(fresh.nets, role), getattr(initial, role))
    assert same_bits(fresh.nets.target_critic, fresh.nets.critic)
    for role in ("critic", "value"):
        assert same_bits(fresh.optimisers[role], algorithm.optimisers()[role].init(getattr(initial, role)))
    kept = fitted(learner, algorithm, evaluate_steps=0, align_steps=0, fresh=False)
    assert same_bits(kept.nets, learner.nets)
    assert same_bits(kept.optimisers, learner.optimisers)


def test_the_evaluation_is_the_algorithms_own_on_the_dataset():
    """The handover's `fit_critic`, of which a run makes the offline loop: asked once, for that many steps."""
    algorithm, asked = small("sac"), []

    def fit(learner, steps):
        asked.append(steps)
        return learner

    given = dataclasses.replace(handover(algorithm), fit_critic=fit)
    CriticRefit(evaluate_steps=123, align_steps=0).attach(random_learner(algorithm), given, KEY)
    assert asked == [123]


def test_the_alignment_tells_how_far_it_is():
    algorithm, told = small("sac"), []
    given = dataclasses.replace(handover(algorithm), tell=lambda step, total: told.append((step, total)))
    CriticRefit(evaluate_steps=0, align_steps=250, fresh=False).attach(random_learner(algorithm), given, KEY)
    assert told == [(100, 250), (200, 250), (250, 250)]


def min_q(critic, observation, action) -> np.ndarray:
    return np.asarray(critic(jnp.asarray(observation), jnp.asarray(action)).min(0), np.float64)


def excess(learner, kind: str) -> tuple[float, float]:
    """On the dataset's states: by how much the best action near the policy's (or the best of all) is rated above it, in
    the mean, and the spread of values.
    """
    observation = log(kind).observations
    own = np.asarray(learner.nets.actor.mode(observation))
    q_own = min_q(learner.nets.critic, observation, own)
    if kind == "discrete":
        rivals = np.asarray(learner.nets.critic.all(jnp.asarray(observation)).min(0))
        return float((rivals.max(1) - q_own).mean()), float(q_own.std())
    rng = np.random.default_rng(0)
    rivals = []
    for _ in range(50):
        near = np.clip(own + np.clip(0.2 * rng.normal(size=own.shape), -0.5, 0.5), -1, 1).astype(np.float32)
        rivals.append(min_q(learner.nets.critic, observation, near))
    return float(np.maximum(np.max(rivals, 0) - q_own, 0).mean()), float(q_own.std())


@pytest.mark.parametrize(
    ("name", "kind"), [("sac", "continuous"), pytest.param("discrete-sac", "discrete", marks=pytest.mark.slow)]
)
def test_after_the_alignment_no_action_near_the_policys_is_rated_above_it(name, kind):
    """In the mean over states the best rival's lead falls to a tenth, and the policy's values stay where they were."""
    algorithm = small(name, critic_learning_rate=3e-3, batch_size=64, hidden_sizes=(64, 64))
    learner = random_learner(algorithm, seed=2, kind=kind)
    learner = dataclasses.replace(learner, nets=learner.nets.replace(target_critic=clone(learner.nets.critic)))
    after = fitted(learner, algorithm, kind, fresh=False, evaluate_steps=0, align_steps=1500)
    lead_before, spread = excess(learner, kind)
    lead_after, _ = excess(after, kind)
    assert lead_before > 0.05 * spread
    assert lead_after < 0.1 * lead_before
    observation = log(kind).observations
    own = np.asarray(learner.nets.actor.mode(observation))
    drift = min_q(after.nets.critic, observation, own) - min_q(learner.nets.critic, observation, own)
    assert np.abs(drift).mean() < 0.2 * spread
    assert same_bits(after.nets.actor, learner.nets.actor)


@pytest.mark.parametrize("kind", KINDS)
def test_one_step_goes_down_the_loss_of_the_paper(kind):
    """Adam's first step is −lr · sign(gradient); the gradient by differences of the loss in float64 NumPy, for one
    state and the noise that this key draws. Only the last layer is compared: Q is linear in it.
    """
    name = "sac" if kind == "continuous" else "discrete-sac"
    algorithm = small(name, critic_learning_rate=1e-3, batch_size=1, polyak=0.25)
    refit = CriticRefit(noise=0.4, decline=3.0)
    learner = random_learner(algorithm, seed=3, kind=kind)
    rows = Transition(*(None if c is None else c[:1] for c in transitions(kind=kind)))
    key = jax.random.key(11)
    after = align(refit, algorithm, clone(learner), jax.tree.map(jnp.asarray, rows), key[None])

    s = np.asarray(rows.observation, np.float64)
    own = np.asarray(learner.nets.actor.mode(rows.observation))

    def q(critic, action=None, last=None):
        """[members, 1] of an action, or [members, 1, actions] of all; `last` in place of the last layer."""
        layers = [(np.asarray(x.weight, np.float64), np.asarray(x.bias, np.float64)) for x in critic.members.layers]
        layers[-1] = last or layers[-1]
        h = np.broadcast_to(s if kind == "discrete" else np.concatenate([s, action], 1), (3, 1, layers[0][0].shape[1]))
        for i, (w, b) in enumerate(layers):
            h = h @ w + b
            h = np.maximum(h, 0) if i < len(layers) - 1 else h
        if kind == "continuous":
            return h[..., 0]
        return h if action is None else h[..., action[0]]

    q_own = q(learner.nets.target_critic, own).min(0)
    noise = np.clip(0.4 * np.asarray(jax.random.normal(named(key, "noise"), own.shape)), -0.5, 0.5)

    def loss(last):
        keep = ((q(learner.nets.critic, own, last) - q_own) ** 2).sum()
        if kind == "discrete":
            return keep + (np.maximum(q(learner.nets.critic, None, last) - q_own, 0) ** 2).mean(2).sum()
        near = np.clip(own + noise, -1, 1)
        d = min(float(np.sqrt(((own - near) ** 2).mean())), 0.2)
        decline = 1 + 3.0 * d**2
        ceiling = q_own / decline if q_own >= 0 else q_own * decline
        target = np.minimum(q(learner.nets.target_critic, near), ceiling)
        return keep + ((q(learner.nets.critic, near, last) - target) ** 2).sum()

    old, new = learner.nets.critic.members.layers[-1], after.nets.critic.members.layers[-1]
    old, new = ([np.asarray(x.weight, np.float64), np.asarray(x.bias, np.float64)] for x in (old, new))
    compared = 0
    for part in range(2):
        for place in np.ndindex(old[part].shape):
            up, down = ([x.copy() for x in old] for _ in range(2))
            up[part][place] += 1e-5
            down[part][place] -= 1e-5
            slope = (loss(tuple(up)) - loss(tuple(down))) / 2e-5
            if abs(slope) > 1e-3:
                assert new[part][place] - old[part][place] == pytest.approx(-1e-3 * np.sign(slope), rel=0.02)
                compared += 1
            elif slope == 0:
                assert new[part][place] == old[part][place]
    assert compared > 8
    for target, critic, was in zip(
        *(jax.tree.leaves(x) for x in (after.nets.target_critic, after.nets.critic, learner.nets.target_critic)),
        strict=True,
    ):
        assert np.allclose(target, 0.25 * np.asarray(critic) + 0.75 * np.asarray(was), atol=1e-6)


def test_the_refit_comes_before_the_guide_is_copied_and_before_the_policy_is_exchanged():
    """So its critic fits the offline policy, and the guide acts (where it acts by values) with the refitted ones."""
    algorithm = small("sac")
    given = random_learner(algorithm)
    bridges = (PolicyExpansion(), JumpStart(longest=3), CriticRefit(evaluate_steps=3, align_steps=3))
    learner = attach(bridges, algorithm, learner=clone(given))
    frozen, jump, _ = learner.bridges
    assert same_bits(frozen, given.nets.actor)
    assert same_bits(jump.guide.actor, given.nets.actor)
    assert same_bits(jump.guide.critic, learner.nets.critic)
    assert not same_bits(learner.nets.critic, given.nets.critic)
    alone = attach((bridges[2],), algorithm, learner=clone(given))
    assert same_bits(learner.nets.critic, alone.nets.critic)


def test_a_fresh_critic_that_learns_nothing_is_refused():
    with pytest.raises(RecipeError, match=r"evaluate_steps is 0; expected at least 1, or 0 if not fresh$"):
        CriticRefit(evaluate_steps=0)


@pytest.mark.parametrize("field", ["align_steps", "noise", "decline"])
def test_a_hyper_parameter_out_of_range_names_the_range(field):
    value = -1 if field.endswith("steps") else -1.0
    with pytest.raises(RecipeError, match=f"critic-refit: {field} is {value!r}; expected at least 0$"):
        CriticRefit(**{field: value})
