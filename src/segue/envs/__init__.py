"""Environments: Gymnasium's, in the shape the learners expect."""

from segue.envs.make import Episodes, make, spaces_of

__all__ = ["Episodes", "make", "spaces_of"]
