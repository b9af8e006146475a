"""Networks: small pytrees that run on device and host arrays alike."""

from segue.networks.actor import Actor
from segue.networks.critic import Critic
from segue.networks.mlp import ACTIVATIONS, MLP

__all__ = ["ACTIVATIONS", "MLP", "Actor", "Critic"]
