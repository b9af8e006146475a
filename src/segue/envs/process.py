"""An environment in a process of its own, so that several slow ones step at the same time.

`main` is what runs in that process: it does what it is asked over a pipe.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from typing import Any, Literal

from segue.compiled import visible_cores
from segue.envs.make import make
from segue.envs.spec import Environment
from segue.envs.watch import WATCH, Hangs, in_words
from segue.errors import RecipeError, SegueError
from segue.plugins import search_path

Choice = Literal["auto", "yes", "no", "ray"]
#: What that process runs, with the descriptor of the pipe and the environment as arguments.
MAIN = "from segue.envs.process import main; main()"
#: Seconds from which a step is slow: several times what it costs to ask another process.
SLOW_STEP = 1e-3
#: Steps that are timed, and seconds that this may take.
TIMED_STEPS, TIMED_SECONDS = 20, 1.0
#: Seconds that a process may take to start and to make its environment.
START_SECONDS = 120.0
#: Seconds that it may take to end.
CLOSE_SECONDS = 1.0


class Apart:
    """An environment elsewhere, with Gymnasium's `reset`, `step` and `close`.

    Of an info only some entries come over; the others stay there.

    Attributes:
        limit: seconds that the running call may take.
        until: when they are over, by the monotonic clock.
    """

    limit: float
    until: float

    def ask(self, what: str, argument: Any) -> None:
        """Begin a call of `reset` or `step`."""
        raise NotImplementedError

    def answer(self) -> Any:
        """What the call returns.

        Raises:
            Hangs: if that takes too long.
            SegueError: if the environment raised, or is gone.
        """
        raise NotImplementedError

    @staticmethod
    def answered(asked: Sequence[Any], seconds: float) -> list[Any]:
        """Those of these environments of one kind that have an answer; waits so long for the first."""
        raise NotImplementedError

    def close(self) -> None:
        """End it, also one that hangs."""
        raise NotImplementedError

    def ready(self) -> Apart:
        """This environment, once it is made."""
        self.answer()
        return self

    def reset(self, *, seed: int) -> Any:
        """First observation, and what is wanted of the info."""
        self.ask("reset", seed)
        return self.answer()

    def step(self, action: Any) -> Any:
        """Observation, reward, terminated, truncated, and what is wanted of the info."""
        self.ask("step", action)
        return self.answer()

    def _allow(self, seconds: float) -> None:
        self.limit, self.until = seconds, time.monotonic() + seconds

    def _left(self) -> float:
        return max(self.until - time.monotonic(), 0.0)


#: Makes an environment elsewhere, of what it is, the seconds that a call may take, and what is wanted of an info.
Maker = Callable[[Environment, float, Sequence[str]], Apart]


class Remote(Apart):
    """An environment in a process."""

    def __init__(self, environment: Environment, timeout: float, keys: Sequence[str] = ()) -> None:
        self.timeout = timeout
        self.connection, theirs = Pipe()
        self.process = subprocess.Popen(
            [sys.executable, "-c", MAIN, str(theirs.fileno()), json.dumps(environment.plain()), json.dumps(keys)],
            stdin=subprocess.DEVNULL,
            pass_fds=(theirs.fileno(),),
            env={**os.environ, "PYTHONPATH": search_path()},
            start_new_session=True,  # a Ctrl-C reaches this process alone, which then closes that one
        )
        theirs.close()
        self._allow(START_SECONDS)

    def ask(self, what: str, argument: Any) -> None:
        """Begin a call of `reset` or `step`."""
        self._allow(self.timeout)
        with contextlib.suppress(OSError):  # that process has ended, which `answer` says
            self.connection.send((what, argument))

    def answer(self) -> Any:
        """What the call returns; raises as `Apart.answer` does."""
        try:
            if not self.connection.poll(self._left()):
                self.process.kill()
                raise Hangs(f"it did not come back for {self.limit:g} seconds")
            fine, value = self.connection.recv()
        except (EOFError, OSError):
            raise SegueError(f"its process ended (exit code {self.process.wait()})") from None
        if not fine:
            raise SegueError(value)
        return value

    @staticmethod
    def answered(asked: Sequence[Remote], seconds: float) -> list[Remote]:
        """Those of these that have an answer, or have ended; waits so long for the first."""
        found = set(wait([one.connection for one in asked], seconds))
        return [one for one in asked if one.connection in found]

    def close(self) -> None:
        """End the process, also one that hangs."""
        self.connection.close()
        try:
            self.process.wait(CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def elsewhere(environment: Environment, count: int, choice: Choice, tell: Callable[[str], None]) -> Maker | None:
    """What makes `count` environments that step together elsewhere, None to have them in this process.

    Results are the same either way.

    Raises:
        RecipeError: if they should be elsewhere, and cannot.
        SegueError: if they should be on a Ray cluster, and Ray is not installed.
    """
    if choice == "ray":
        from segue.envs.on_ray import Nodes

        environment.portable()
        return Nodes()
    return Remote if _in_processes(environment, count, choice, tell) else None


def _in_processes(environment: Environment, count: int, choice: Choice, tell: Callable[[str], None]) -> bool:
    if choice == "no" or count == 1:
        return False
    if choice == "yes":
        environment.portable()
        if os.name != "posix":
            raise RecipeError(
                "environments in processes of their own need Linux or macOS; expected environment_processes no, or auto"
                " without max_lag"
            )
        return True
    if os.name != "posix" or len(visible_cores()) == 1:
        return False
    try:
        environment.portable()
    except RecipeError:  # it is defined in the script itself
        return False
    seconds = _step_time(environment)
    if seconds < SLOW_STEP:
        return False
    tell(
        f"a step of {environment} takes {1000 * seconds:.1f} ms, so the {count} environments step in processes of "
        "their own (--environment-processes no keeps them in this one)"
    )
    return True


def _step_time(environment: Environment) -> float:
    """Median seconds of a step with a random action; 0 if the environment misbehaves, which is dealt with elsewhere."""
    times: list[float] = []
    env = make(environment)
    WATCH.open(TIMED_SECONDS)
    try:
        env.action_space.seed(0)
        WATCH.since = began = time.monotonic()
        env.reset(seed=0)
        while len(times) < TIMED_STEPS and time.monotonic() - began < TIMED_SECONDS:
            action = env.action_space.sample()
            WATCH.since = before = time.monotonic()
            _, _, terminated, truncated, _ = env.step(action)
            times.append(time.monotonic() - before)
            if terminated or truncated:
                env.reset(seed=0)
    except (Exception, Hangs):
        return 0.0
    finally:
        WATCH.since = 0.0
        WATCH.close()
        env.close()
    return statistics.median(times)


class Held:
    """An environment in the process that steps it. An error is returned as a sentence, not raised."""

    env: Any = None

    def make(self, plain: Any, keys: Sequence[str]) -> tuple[bool, Any]:
        """Make it: True and nothing, or False and what went wrong."""
        self.keys = keys

        def made() -> None:
            self.env = make(Environment.read(plain))

        return _said(made)

    def act(self, what: str, argument: Any) -> tuple[bool, Any]:
        """True and what `reset` or `step` returned, or False and what went wrong."""

        def acted() -> Any:
            *rest, info = self.env.reset(seed=argument) if what == "reset" else self.env.step(argument)
            return *rest, {key: info[key] for key in self.keys if key in info}

        return _said(acted)


def _said(do: Callable[[], Any]) -> tuple[bool, Any]:
    try:
        return True, do()
    except Exception as error:
        return False, in_words(error)


def main() -> None:
    """Make the environment and do what is asked, until nobody can ask any more."""
    connection, held = Connection(int(sys.argv[1])), Held()
    os.dup2(2, 1)  # standard output belongs to the results of the run
    with contextlib.suppress(EOFError, OSError):
        connection.send(held.make(*map(json.loads, sys.argv[2:4])))
        while held.env is not None:
            connection.send(held.act(*connection.recv()))
    if held.env is not None:
        held.env.close()
