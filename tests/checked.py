"""How annotations are checked while testing: pytest's --jaxtyping-packages names this module."""

from beartype import BeartypeConf, beartype

#: An int is a float, as PEP 484 has it.
annotations = beartype(conf=BeartypeConf(is_pep484_tower=True))
