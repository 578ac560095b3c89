"""AWS for rehearsals: moto's server with what it lacks."""

from cloudrun.sim.aws.app import Call
from cloudrun.sim.aws.double import AwsDouble
from cloudrun.sim.aws.world import Delays

__all__ = ["AwsDouble", "Call", "Delays"]
