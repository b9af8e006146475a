"""Networks: small pytrees that run on device and host arrays alike."""

from segue.networks.actor import Actor
from segue.networks.categorical import CategoricalActor
from segue.networks.critic import Critic, DiscreteCritic
from segue.networks.distributions import best, pick
from segue.networks.functions import ACTIVATIONS
from segue.networks.gaussian_actor import GaussianActor
from segue.networks.mlp import MLP, NormPlace
from segue.networks.vae import VAE

__all__ = [
    "ACTIVATIONS",
    "MLP",
    "VAE",
    "Actor",
    "CategoricalActor",
    "Critic",
    "DiscreteCritic",
    "GaussianActor",
    "NormPlace",
    "best",
    "pick",
]
