"""Environments: Gymnasium's, in the shape the learners expect."""

from segue.envs.episodes import Episodes
from segue.envs.make import environment_spaces, make, spaces_of

__all__ = ["Episodes", "environment_spaces", "make", "spaces_of"]
