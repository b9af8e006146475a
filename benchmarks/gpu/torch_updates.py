"""The same updates in PyTorch, as fast as it goes: compiled, and on a GPU replayed as CUDA graphs.

    python -m benchmarks.gpu.torch_updates NAME UPDATES    # alone, on this processor if there is no GPU

Sampling is inside, data and optimisers are on the device, the critics are one batched product; two critic updates of
TD3+BC and its policy's are one graph.
"""

from __future__ import annotations

import itertools
import math
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.shapes import ACTION, BATCH, HIDDEN, OBSERVATION, columns

DISCOUNT, POLYAK = 0.99, 0.005
BATCHED = ("observations", "actions", "rewards", "next_observations")
NAMES = ("sac", "td3-bc", "iql")


class Linear(nn.Module):
    """`members` layers side by side."""

    def __init__(self, members: int, inputs: int, outputs: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(inputs)
        self.weight = nn.Parameter(torch.empty(members, inputs, outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(members, 1, outputs))

    def forward(self, x: Tensor) -> Tensor:
        return torch.baddbmm(self.bias, x, self.weight)


def mlp(inputs: int, outputs: int, members: int = 1) -> nn.Sequential:
    """Two hidden layers; [members, batch, inputs] to [members, batch, outputs]."""
    sizes = (inputs, HIDDEN, HIDDEN)
    hidden = [layer for a, b in itertools.pairwise(sizes) for layer in (Linear(members, a, b), nn.ReLU())]
    return nn.Sequential(*hidden, Linear(members, HIDDEN, outputs))


class Learner:
    """What the three have in common."""

    per_block = 1

    def __init__(self, rows: int, device: torch.device) -> None:
        torch.manual_seed(0)
        self.device = device
        self.data = {name: torch.as_tensor(column, device=device) for name, column in columns(rows).items()}
        self.critic, self.target = (mlp(OBSERVATION + ACTION, 1, 2).to(device) for _ in range(2))
        self.target.load_state_dict(self.critic.state_dict())
        self.critic_adam = self.adam(self.critic.parameters(), 1e-3)

    def adam(self, parameters: Any, rate: float) -> torch.optim.Optimizer:
        return torch.optim.Adam(parameters, rate, capturable=self.device.type == "cuda", fused=True)

    def batch(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        rows = torch.randint(0, len(self.data["rewards"]), (BATCH,), device=self.device)
        observations, actions, rewards, following = (self.data[name][rows] for name in BATCHED)
        return observations, actions, rewards, following

    def q(self, critic: nn.Module, observation: Tensor, action: Tensor) -> Tensor:
        both = torch.cat([observation, action], -1)
        return critic(both.expand(2, *both.shape))[..., 0]

    def descend(self, adam: torch.optim.Optimizer, loss: Tensor, network: nn.Module | Tensor) -> None:
        parameters = [network] if isinstance(network, Tensor) else list(network.parameters())
        for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
            parameter.grad = gradient
        adam.step()

    def follow(self, target: nn.Module, network: nn.Module) -> None:
        with torch.no_grad():
            torch._foreach_lerp_(list(target.parameters()), list(network.parameters()), POLYAK)

    def block(self) -> None:
        """`per_block` updates."""
        raise NotImplementedError


class SAC(Learner):
    """As `segue.SAC()`."""

    def __init__(self, rows: int, device: torch.device) -> None:
        super().__init__(rows, device)
        self.actor = mlp(OBSERVATION, 2 * ACTION).to(device)
        self.actor_adam = self.adam(self.actor.parameters(), 3e-4)
        self.log_alpha = torch.zeros((), device=device, requires_grad=True)
        self.alpha_adam = self.adam([self.log_alpha], 3e-4)

    def act(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_std = self.actor(observation[None])[0].chunk(2, -1)
        log_std = log_std.clamp(-5, 2)
        noise = torch.randn_like(mean)
        raw = mean + log_std.exp() * noise
        log_prob = -0.5 * noise**2 - log_std - 0.5 * math.log(2 * math.pi)
        return raw.tanh(), (log_prob - 2 * (math.log(2) - raw - F.softplus(-2 * raw))).sum(-1)

    def block(self) -> None:
        observation, action, reward, following = self.batch()
        alpha = self.log_alpha.exp().detach()
        with torch.no_grad():
            next_action, log_prob = self.act(following)
            value = self.q(self.target, following, next_action).amin(0) - alpha * log_prob
            target = reward + DISCOUNT * value
        loss = ((self.q(self.critic, observation, action) - target) ** 2).mean(-1).sum()
        self.descend(self.critic_adam, loss, self.critic)
        self.follow(self.target, self.critic)
        own, log_prob = self.act(observation)
        loss = (alpha * log_prob - self.q(self.critic, observation, own).amin(0)).mean()
        self.descend(self.actor_adam, loss, self.actor)
        loss = self.log_alpha.exp() * (-log_prob.detach() + ACTION).mean()
        self.descend(self.alpha_adam, loss, self.log_alpha)


class TD3BC(Learner):
    """As `segue.TD3BC()`."""

    per_block = 2

    def __init__(self, rows: int, device: torch.device) -> None:
        super().__init__(rows, device)
        self.actor, self.target_actor = (mlp(OBSERVATION, ACTION).to(device) for _ in range(2))
        self.target_actor.load_state_dict(self.actor.state_dict())
        self.actor_adam = self.adam(self.actor.parameters(), 3e-4)

    def step_critic(self) -> tuple[Tensor, Tensor]:
        observation, action, reward, following = self.batch()
        with torch.no_grad():
            noise = (0.2 * torch.randn_like(action)).clamp(-0.5, 0.5)
            next_action = (self.target_actor(following[None])[0].tanh() + noise).clamp(-1, 1)
            target = reward + DISCOUNT * self.q(self.target, following, next_action).amin(0)
        loss = ((self.q(self.critic, observation, action) - target) ** 2).mean(-1).sum()
        self.descend(self.critic_adam, loss, self.critic)
        return observation, action

    def block(self) -> None:
        self.step_critic()
        observation, action = self.step_critic()
        own = self.actor(observation[None])[0].tanh()
        q = self.q(self.critic, observation, own)[0]
        loss = ((own - action) ** 2).mean() - 2.5 * q.mean() / q.abs().mean().detach()
        self.descend(self.actor_adam, loss, self.actor)
        self.follow(self.target_actor, self.actor)
        self.follow(self.target, self.critic)


class IQL(Learner):
    """As `segue.IQL()`."""

    def __init__(self, rows: int, device: torch.device) -> None:
        super().__init__(rows, device)
        self.actor, self.value = mlp(OBSERVATION, ACTION).to(device), mlp(OBSERVATION, 1).to(device)
        self.log_std = nn.Parameter(torch.zeros(ACTION, device=device))
        self.policy = nn.ModuleList([self.actor, nn.ParameterList([self.log_std])])
        self.actor_adam = self.adam(self.policy.parameters(), 3e-4)
        self.value_adam = self.adam(self.value.parameters(), 3e-4)

    def block(self) -> None:
        observation, action, reward, following = self.batch()
        with torch.no_grad():
            q = self.q(self.target, observation, action).amin(0)
        difference = q - self.value(observation[None])[0, :, 0]
        loss = (torch.where(difference < 0, 0.3, 0.7) * difference**2).mean()
        self.descend(self.value_adam, loss, self.value)
        with torch.no_grad():
            target = reward + DISCOUNT * self.value(following[None])[0, :, 0]
        loss = ((self.q(self.critic, observation, action) - target) ** 2).mean(-1).sum()
        self.descend(self.critic_adam, loss, self.critic)
        self.follow(self.target, self.critic)
        with torch.no_grad():
            q = self.q(self.target, observation, action).amin(0)
            weight = (3 * (q - self.value(observation[None])[0, :, 0])).exp().clamp(max=100)
        mean, log_std = self.actor(observation[None])[0].tanh(), self.log_std.clamp(-5, 2)
        log_prob = (-0.5 * ((action - mean) / log_std.exp()) ** 2 - log_std).sum(-1)
        self.descend(self.actor_adam, -(weight * log_prob).mean(), self.policy)


LEARNERS: dict[str, type[Learner]] = {"sac": SAC, "td3-bc": TD3BC, "iql": IQL}


def ready(learner: Learner) -> tuple[Callable[[], object], str]:
    """A block of updates, compiled and captured as far as the device allows, and how."""
    if learner.device.type != "cuda":
        return learner.block, "eager"
    block = torch.compile(learner.block)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            block()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        block()
    return graph.replay, "torch.compile, CUDA graph"


class Updates:
    """One learner that is ready."""

    def __init__(self, name: str, rows: int) -> None:
        self.learner = LEARNERS[name](rows, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
        self.block, self.how = ready(self.learner)

    def run(self, updates: int) -> int:
        """So many updates, to the end; returns how many it were."""
        blocks = max(updates // self.learner.per_block, 1)
        for _ in range(blocks):
            self.block()
        if self.learner.device.type == "cuda":
            torch.cuda.synchronize()
        return blocks * self.learner.per_block

    def finite(self) -> bool:
        """Whether what was learnt are numbers."""
        return all(bool(torch.isfinite(parameter).all()) for parameter in self.learner.critic.parameters())


def main() -> None:
    updates = Updates(sys.argv[1], 10_000)
    start = time.perf_counter()
    done = updates.run(int(sys.argv[2]))
    print(f"{done / (time.perf_counter() - start):.0f} updates/s ({updates.how}), finite: {updates.finite()}")


if __name__ == "__main__":
    main()
