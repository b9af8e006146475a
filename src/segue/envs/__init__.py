"""Environments: Gymnasium's, in the shape the learners expect."""

from segue.envs.make import Episodes, environment_spaces, make, spaces_of

__all__ = ["Episodes", "environment_spaces", "make", "spaces_of"]
