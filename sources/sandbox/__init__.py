"""The CRMs' APIs as a server on loopback, with state, made-up people, switches and faults on demand.

It follows the vendors' pages, never a client: nothing of `sources.core` is used here.
"""

from sources.sandbox.server import Sandbox

__all__ = ["Sandbox"]
