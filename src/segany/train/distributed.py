"""Data-parallel training in several processes, each with its share of every batch."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from importlib import import_module
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from segany.core.errors import ConfigError, SeganyError

T = TypeVar("T")

TIMEOUT = timedelta(hours=12)
"""How long processes wait for each other: the main process alone validates, which may take long.

`torchrun` ends all of them when one fails, so that nobody waits this long for nothing.
"""


@dataclass(frozen=True)
class DistributedContext:
    """The place of this process among those that train together, and what they exchange.

    Attributes:
        rank: of this one, from 0.
        world_size: how many there are.
        local_rank: of this one among those of its machine.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0

    @property
    def is_main(self) -> bool:
        """Whether this is the process that validates, writes files and reports."""
        return self.rank == 0

    def gather(self, value: T) -> list[T]:
        """The values of all processes, by rank."""
        if self.world_size == 1:
            return [value]
        values: list[T | None] = [None] * self.world_size
        dist.all_gather_object(values, value)
        return values  # type: ignore[return-value]

    def on_main(self, act: Callable[[], T]) -> T:
        """Run `act` in the main process alone, and return its value in all. An error there is raised in all."""
        if self.world_size == 1:
            return act()
        outcome: list[tuple[T | None, Exception | None]] = [(None, None)]
        if self.is_main:
            try:
                outcome = [(act(), None)]
            except SeganyError as error:
                outcome = [(None, error)]
        dist.broadcast_object_list(outcome, src=0)
        value, problem = outcome[0]
        if problem is not None:
            raise problem
        return value  # type: ignore[return-value]

    def all_reduce_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Sum the gradients over all processes. A parameter without a gradient in any process keeps none."""
        if self.world_size == 1:
            return
        there = torch.tensor([float(parameter.grad is not None) for parameter in parameters])
        there = there.to(parameters[0].device)
        dist.all_reduce(there)
        wanted = [parameter for parameter, count in zip(parameters, there.tolist(), strict=True) if count]
        for parameter in wanted:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        for parameter in wanted:
            dist.all_reduce(parameter.grad)

    def broadcast_parameters(self, module: nn.Module) -> None:
        """Copy the weights of the main process to all others."""
        if self.world_size == 1:
            return
        tensors: list[Tensor] = [*module.parameters(), *module.buffers()]
        with torch.no_grad():
            for tensor in tensors:
                dist.broadcast(tensor, src=0)


@contextlib.contextmanager
def init_distributed(device: str | None = None) -> Iterator[tuple[DistributedContext, torch.device]]:
    """Join the processes that `torchrun` started, if there are any. Gives their context, and the device of this one.

    Args:
        device: "cpu", "cuda", "mps"; by default CUDA where there is any, each process on a card of its own.

    Raises:
        ConfigError: the device is not there, or the processes could not be joined.
    """
    rank, world, local = (int(os.environ.get(name, default)) for name, default in _VARIABLES.items())
    target = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if target.type == "cuda" and target.index is None:
        target = torch.device("cuda", local)
    try:
        torch.empty(0, device=target)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"The device {str(target)!r} cannot be used here: {reason}") from error
    if world == 1:
        yield DistributedContext(), target
        return
    if target.type == "cuda":
        torch.cuda.set_device(target)
    # PyTorch's compiler, which optimizers import, keeps a process group that is there when it is imported. Its threads
    # would outlive it then, and now and then abort the process at its end.
    import_module("torch._dynamo")
    try:
        dist.init_process_group("nccl" if target.type == "cuda" else "gloo", timeout=TIMEOUT)
    except (RuntimeError, ValueError) as error:
        raise ConfigError(f"The {world} processes could not be joined: {error}") from error
    try:
        yield DistributedContext(rank, world, local), target
        dist.barrier()  # none leaves while another still talks to it
    finally:
        dist.destroy_process_group()


_VARIABLES = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}
"""What `torchrun` sets."""
