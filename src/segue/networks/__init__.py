"""Networks: small pytrees that run on device and host arrays alike."""

from segue.forward import ACTIVATIONS
from segue.networks.actor import Actor
from segue.networks.categorical import CategoricalActor, best, pick
from segue.networks.critic import Critic, DiscreteCritic
from segue.networks.mlp import MLP
from segue.networks.vae import VAE

__all__ = ["ACTIVATIONS", "MLP", "VAE", "Actor", "CategoricalActor", "Critic", "DiscreteCritic", "best", "pick"]
