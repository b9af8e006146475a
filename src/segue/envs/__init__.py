"""Environments: Gymnasium's, in the shape the learners expect."""

from segue.envs.episodes import USUAL, Episodes, Patience
from segue.envs.make import environment_spaces, make, spaces_of

__all__ = ["USUAL", "Episodes", "Patience", "environment_spaces", "make", "spaces_of"]
