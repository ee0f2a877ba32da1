"""The generated messages that a driver host speaks.

One process can register a .proto file once, and packages written for upstream's driver API import upstream's generated
modules. A host for those puts a module with the same names in place of this one before anything imports it
(see ``upstream_host``); nothing else in this package imports generated code.
"""

from lablease.wire.jumpstarter.v1 import jumpstarter_pb2, jumpstarter_pb2_grpc

__all__ = ["jumpstarter_pb2", "jumpstarter_pb2_grpc"]
