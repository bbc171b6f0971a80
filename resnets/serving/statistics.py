"""What a model has computed since it was loaded, as Triton's statistics extension counts it."""

import time
from dataclasses import dataclass, field

from resnets.serving.events import Answered, Computed, Event


@dataclass
class Duration:
    """How often something was done, and how long it took in all.

    Attributes:
        count: how often.
        seconds: in all.
    """

    count: int = 0
    seconds: float = 0.0

    def add(self, seconds: float, count: int = 1) -> None:
        """Count what took some time in all."""
        self.count += count
        self.seconds += seconds


@dataclass
class Statistics:
    """Numbers and durations of requests, images and batches of one model.

    Attributes:
        images: that were computed.
        last: when a batch was computed last, in seconds since 1970; 0: none was.
        success: requests that were answered.
        failure: requests that were not, as their deadline passed or the client had gone.
        decoding: images, with the time that they waited for a thread.
        waiting: images that waited for their batch.
        computing: images, each with the time of its batch.
        batches: of each size.
    """

    images: int = 0
    last: float = 0.0
    success: Duration = field(default_factory=Duration)
    failure: Duration = field(default_factory=Duration)
    decoding: Duration = field(default_factory=Duration)
    waiting: Duration = field(default_factory=Duration)
    computing: Duration = field(default_factory=Duration)
    batches: dict[int, Duration] = field(default_factory=dict)

    def observe(self, event: Event) -> None:
        """Count what happened."""
        match event:
            case Computed():
                self.images += event.size
                self.last = time.time()
                self.waiting.add(sum(event.waits), event.size)
                self.computing.add(event.seconds * event.size, event.size)
                self.batches.setdefault(event.size, Duration()).add(event.seconds)
            case Answered():
                self.decoding.add(sum(event.decoding), len(event.decoding))
                (self.success if event.answers else self.failure).add(event.seconds)
