"""What the training data of a model covered: the record in its card, made from the frames."""

from phicalc.domain.environments import Environments, environments_of
from phicalc.domain.record import Domain
from phicalc.domain.words import describe_domain

__all__ = ["Domain", "Environments", "describe_domain", "environments_of"]
