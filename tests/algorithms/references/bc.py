"""Behaviour cloning."""

from references.nets import deterministic, is_discrete, log_prob

VARIANTS = {"mse": {}, "nll": {"loss": "nll"}, "squashed": {"loss": "nll", "distribution": "squashed"}}
CONSERVATIVE = True
PROBE: dict[str, object] = {}


def actor_loss(h, actor, nets, batch, key):
    """mean_d (π(s) − a)², or −log π(a|s), which is the only one for discrete actions."""
    if h.loss == "nll" or is_discrete(batch.action):
        return -log_prob(actor, batch.observation, batch.action)
    return ((deterministic(actor, batch.observation) - batch.action) ** 2).mean(-1)
