"""What both programs share around their agent loop: arguments in, one JSON line out."""

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

MAX_ROUNDS = 20


@dataclass
class Job:
    """One run: what to ask of which model, and how many answers came so far."""

    model: str
    prompt: str
    turns: int
    stream: bool
    pause: bool
    headers: dict[str, str]
    rounds: int = 0

    def prompts(self) -> Iterator[str]:
        """What the user says, turn by turn. With `pause`, each turn is announced and waits for a line."""
        for turn in range(1, self.turns + 1):
            if self.pause:
                print(json.dumps({"awaiting_turn": turn}), flush=True)
                sys.stdin.readline()
            yield self.prompt

    def answered(self) -> None:
        self.rounds += 1

    def may_ask(self) -> bool:
        return self.rounds < MAX_ROUNDS


class NoFinalAnswer(Exception):
    """The model still called tools after MAX_ROUNDS answers."""

    def __init__(self, rounds: int) -> None:
        super().__init__(f"still calling tools after {rounds} answers")


def main(description: str, converse: Callable[[Job], str]) -> int:
    """Runs `converse`, prints `{ok, final_text, rounds, error?}` and returns the exit code."""
    parser = argparse.ArgumentParser(
        description=description,
        epilog="The endpoint and the key are read from OPENAI_BASE_URL and OPENAI_API_KEY.",
    )
    parser.add_argument("--model", required=True)
    parser.add_argument("--json", action="store_true", help="ask for whole JSON responses instead of streams")
    parser.add_argument("--turns", type=int, default=1, help="say the prompt so often, in one conversation")
    parser.add_argument("--pause", action="store_true", help="wait for a line on standard input before each turn")
    parser.add_argument("--agent", help="the harness to be taken for, sent as x-farrier-agent")
    parser.add_argument("prompt")
    arguments = parser.parse_args()
    job = Job(
        model=arguments.model,
        prompt=arguments.prompt,
        turns=arguments.turns,
        stream=not arguments.json,
        pause=arguments.pause,
        headers={"x-farrier-agent": arguments.agent} if arguments.agent else {},
    )
    try:
        final_text = converse(job)
        outcome = {"ok": True, "final_text": final_text, "rounds": job.rounds}
    except Exception as error:  # whatever ends the run belongs in the report
        text = f"{type(error).__name__}: {error}"
        outcome = {"ok": False, "final_text": "", "rounds": job.rounds, "error": text}
    print(json.dumps(outcome))
    return 0 if outcome["ok"] else 1
