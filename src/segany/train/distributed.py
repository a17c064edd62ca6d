"""Data-parallel training: several processes that each train on a share of every batch."""

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
from segany.hub.torch_model import usable_device

T = TypeVar("T")

TIMEOUT = timedelta(hours=12)
"""Timeout of collective operations. It is long because the other processes wait while the main process validates.

When one process fails, `torchrun` ends the others, so that none of them waits for the timeout.
"""


@dataclass(frozen=True)
class DistributedContext:
    """The rank of this process in the process group, and the collective operations of training.

    Attributes:
        rank: rank of this process, from 0.
        world_size: number of processes.
        local_rank: rank of this process on its machine.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0

    @property
    def is_main(self) -> bool:
        """Whether this process validates, writes files and calls the observer."""
        return self.rank == 0

    def gather(self, value: T) -> list[T]:
        """The values of all processes, in the order of their ranks."""
        if self.world_size == 1:
            return [value]
        values: list[T | None] = [None] * self.world_size
        dist.all_gather_object(values, value)
        return values  # type: ignore[return-value]

    def on_main(self, act: Callable[[], T]) -> T:
        """Run `act` in the main process only, and return its value in every process. Its errors are raised in all."""
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
        """Sum the gradients over all processes. A parameter that has no gradient in any process keeps none."""
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
        """Copy parameters and buffers of the main process to all others."""
        if self.world_size == 1:
            return
        tensors: list[Tensor] = [*module.parameters(), *module.buffers()]
        with torch.no_grad():
            for tensor in tensors:
                dist.broadcast(tensor, src=0)


@contextlib.contextmanager
def init_distributed(device: str | None = None) -> Iterator[tuple[DistributedContext, torch.device]]:
    """Join the process group that `torchrun` started, if any, and yield its context and the device of this process.

    Args:
        device: "cpu", "cuda" or "mps". By default, CUDA if it is available, with one GPU for each process.

    Raises:
        ConfigError: the device is not available, or the process group could not be joined.
    """
    rank, world, local = (_variable(name) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    name = device or ("cuda" if torch.cuda.is_available() else "cpu")
    target = usable_device(f"cuda:{local}" if name == "cuda" else name)
    if world == 1:
        yield DistributedContext(), target
        return
    if target.type == "cuda":
        torch.cuda.set_device(target)
    # Optimizers import PyTorch's compiler, which keeps a reference to a process group that exists at its import. The
    # threads of that group would then outlive it, and sometimes abort the process at exit.
    import_module("torch._dynamo")
    try:
        dist.init_process_group("nccl" if target.type == "cuda" else "gloo", timeout=TIMEOUT)
    except (RuntimeError, ValueError) as error:
        raise ConfigError(f"The process group of {world} processes could not be joined: {error}") from error
    try:
        yield DistributedContext(rank, world, local), target
        dist.barrier()  # no process exits while another still communicates with it
    finally:
        dist.destroy_process_group()


def _variable(name: str) -> int:
    """The number in an environment variable that `torchrun` sets; without it there is one process of rank 0."""
    text = os.environ.get(name, "1" if name == "WORLD_SIZE" else "0")
    try:
        return int(text)
    except ValueError as error:
        raise ConfigError(f"The environment variable {name} must be a whole number, got {text!r}. Unset it.") from error
