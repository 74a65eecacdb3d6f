"""The stack on one machine: Docker Compose or native Kafka and MinIO, and the five services."""

from frond.stack.choose import choose_stack
from frond.stack.endpoints import Endpoints, Stack
from frond.stack.errors import StackError
from frond.stack.native import NativeStack

__all__ = ["Endpoints", "NativeStack", "Stack", "StackError", "choose_stack"]
