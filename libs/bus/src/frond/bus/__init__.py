"""Kafka by contract: topics, a CloudEvents producer, a consumer that never commits past what is
done, dead letters."""

from frond.bus.admin import ensure_topics
from frond.bus.consumer import consume
from frond.bus.deadletter import DeadLetter
from frond.bus.handling import Handler, Handling
from frond.bus.producer import EventProducer, Outgoing
from frond.bus.records import read_on

__all__ = [
    "DeadLetter",
    "EventProducer",
    "Handler",
    "Handling",
    "Outgoing",
    "consume",
    "ensure_topics",
]

read_on()
