"""Environments: Gymnasium's, in the shape the learners expect."""

from segue.envs.episodes import USUAL, Episodes, Patience
from segue.envs.make import environment_spaces, make, spaces_of
from segue.envs.spec import Environment

__all__ = ["USUAL", "Environment", "Episodes", "Patience", "environment_spaces", "make", "spaces_of"]
